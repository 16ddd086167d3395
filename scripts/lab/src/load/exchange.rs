//! One HTTP/1.1 connection: a request that is written as it is, and as much of the answer as it takes to know its
//! status and where it ends.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection that is opened when it is needed.
pub(super) struct Connection {
    server: SocketAddr,
    socket: Option<TcpStream>,
    input: BytesMut,
}

impl Connection {
    pub(super) fn new(server: SocketAddr) -> Self {
        Self { server, socket: None, input: BytesMut::with_capacity(8 * 1024) }
    }

    /// Sends a request; the answer's status. After an error the next one is sent on a new connection.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> io::Result<u16> {
        let mut socket = if let Some(socket) = self.socket.take() {
            socket
        } else {
            let socket = TcpStream::connect(self.server).await?;
            socket.set_nodelay(true)?;
            socket
        };
        socket.write_all(request).await?;
        self.input.clear();
        loop {
            if socket.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(answer) = Answer::read(&self.input)? {
                if answer.keep {
                    self.socket = Some(socket);
                }
                return Ok(answer.status);
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    keep: bool,
}

impl Answer {
    /// None: it is not complete.
    fn read(input: &[u8]) -> io::Result<Option<Self>> {
        let Some(end) = memmem::find(input, b"\r\n\r\n") else {
            return Ok(None);
        };
        let (head, body) = (&input[..end], &input[end + 4..]);
        let status = head
            .get(9..12)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse().ok())
            .ok_or(io::ErrorKind::InvalidData)?;
        let complete = match field(head, b"content-length") {
            Some(value) => {
                let length: usize = std::str::from_utf8(value)
                    .ok()
                    .and_then(|value| value.parse().ok())
                    .ok_or(io::ErrorKind::InvalidData)?;
                body.len() >= length
            }
            // Chunked: nothing that we ask answers with trailers.
            None => body.ends_with(b"0\r\n\r\n"),
        };
        let keep = field(head, b"connection").is_none_or(|value| !value.eq_ignore_ascii_case(b"close"));
        Ok(complete.then_some(Self { status, keep }))
    }
}

fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (start, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_the_last_byte_of_its_body() {
        let whole = b"HTTP/1.1 202 Accepted\r\nContent-Length: 4\r\nContent-Type: x\r\n\r\nbody";
        for cut in 0..whole.len() {
            assert_eq!(Answer::read(&whole[..cut]).unwrap(), None, "{cut} bytes");
        }
        let answer = Answer { status: 202, keep: true };
        assert_eq!(Answer::read(whole).unwrap(), Some(answer));
    }

    #[test]
    fn a_chunked_answer_ends_with_the_empty_chunk() {
        let head = "HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\nConnection: Close\r\n\r\n";
        assert_eq!(Answer::read(format!("{head}4\r\nbody\r\n").as_bytes()).unwrap(), None);
        let answer = Answer { status: 503, keep: false };
        assert_eq!(Answer::read(format!("{head}4\r\nbody\r\n0\r\n\r\n").as_bytes()).unwrap(), Some(answer));
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        assert!(Answer::read(b"220 sink ESMTP\r\n\r\n").is_err());
    }
}
