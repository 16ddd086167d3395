//! The control port of the lab's servers: HTTP/1.1, one request a connection, answered from memory. Enough for
//! `curl` and for the scripts; it takes no bodies.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The longest request head that is read.
const HEAD_MAX: usize = 8 * 1024;

/// Answers `"METHOD /path"` with a body, or 404 where `answer` has none. Runs until it is dropped.
pub(crate) async fn serve<F>(listener: TcpListener, answer: F)
where
    F: Fn(&str) -> Option<String> + Clone + Send + 'static,
{
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            // Whoever asked has gone: nothing to do about it.
            one(socket, answer).await.ok();
        });
    }
}

async fn one(mut socket: TcpStream, answer: impl Fn(&str) -> Option<String>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while memchr::memmem::find(&head, b"\r\n\r\n").is_none() && head.len() < HEAD_MAX {
        if socket.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let line = String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap_or_default());
    let asked = line.rsplit_once(' ').map_or("", |(asked, _version)| asked);
    let (status, body) = match answer(asked) {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", String::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(body.as_bytes()).await?;
    socket.shutdown().await
}
