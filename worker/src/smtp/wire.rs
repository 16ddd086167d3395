//! The stream under lettre's connection: deadlines, replies made regular, and what was really said.
//!
//! lettre reads from a [`Wire`], we look through a [`Handle`] on the same socket. Replies reach lettre as RFC 5321
//! §4.2 wants them, whatever the server's line ends, length and character set; the [`Reply`] itself is taken from the
//! handle, so that what lettre makes of it decides nothing.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use lettre::transport::smtp::client::AsyncTokioStream;
use shared::classify::Cause;
use shared::reply::Reply;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::client::TlsStream;

use super::replies::{Garbled, Replies};

/// The socket, protected or not.
pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

/// Why the stream can be used no more.
#[derive(Debug, Clone)]
pub(super) struct Broken {
    pub(super) cause: Cause,
    pub(super) detail: String,
}

struct Inner {
    /// None: taken out, for a TLS handshake.
    socket: Option<Socket>,
    replies: Replies,
    heard: VecDeque<Reply>,
    /// Regular reply lines that lettre has not read yet.
    pending: VecDeque<u8>,
    deadline: Pin<Box<Sleep>>,
    /// How long an exchange may take: each write sets the deadline anew.
    patience: Duration,
    broken: Option<Broken>,
}

/// lettre's side of the stream.
pub(super) struct Wire(Arc<Mutex<Inner>>);

/// Our side of the stream.
#[derive(Clone)]
pub(super) struct Handle(Arc<Mutex<Inner>>);

/// Both sides of a stream over a socket. `greeted`: the server's greeting has been read on it before TLS, and lettre
/// is given one in its place.
pub(super) fn over(socket: Socket, patience: Duration, greeted: bool) -> (Wire, Handle) {
    let pending = if greeted { VecDeque::from(*b"220 \r\n") } else { VecDeque::new() };
    let inner = Arc::new(Mutex::new(Inner {
        socket: Some(socket),
        replies: Replies::default(),
        heard: VecDeque::new(),
        pending,
        deadline: Box::pin(tokio::time::sleep(patience)),
        patience,
        broken: None,
    }));
    (Wire(Arc::clone(&inner)), Handle(inner))
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    // Both sides are used by one task in turn: the mutex is there for the types.
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handle {
    /// The next reply that has been read.
    pub(super) fn heard(&self) -> Option<Reply> {
        lock(&self.0).heard.pop_front()
    }

    /// Why the stream can be used no more.
    pub(super) fn broken(&self) -> Option<Broken> {
        lock(&self.0).broken.clone()
    }

    /// Sets how long each exchange may take from now on.
    pub(super) fn be_patient(&self, patience: Duration) {
        let mut inner = lock(&self.0);
        inner.patience = patience;
        inner.deadline.as_mut().reset(Instant::now() + patience);
    }

    /// Asks for acknowledgements without delay: a server that answers a group in several small segments waits for
    /// them. The kernel forgets this by itself.
    pub(super) fn acknowledge_at_once(&self) {
        #[cfg(target_os = "linux")]
        if let Some(socket) = &lock(&self.0).socket {
            // Only a wish: without it the group takes longer.
            drop(socket2::SockRef::from(socket.tcp()).set_tcp_quickack(true));
        }
    }

    /// Whether something has arrived, or the server has closed, while nothing was asked.
    pub(super) fn stirred(&self) -> bool {
        let inner = lock(&self.0);
        if inner.broken.is_some() || !inner.heard.is_empty() || inner.replies.has_partial() {
            return true;
        }
        let mut byte = [0];
        inner.socket.as_ref().is_none_or(|socket| socket.tcp().peek(&mut byte).now_or_never().is_some())
    }

    /// Takes the socket out, for a TLS handshake. None when the server has sent more than was asked for: an injected
    /// answer must not survive STARTTLS (CVE-2011-0411).
    pub(super) fn take_plain(&self) -> Option<TcpStream> {
        let mut inner = lock(&self.0);
        let clean = inner.heard.is_empty() && inner.pending.is_empty() && !inner.replies.has_partial();
        match inner.socket.take() {
            Some(Socket::Plain(tcp)) if clean => Some(tcp),
            _ => None,
        }
    }
}

impl Inner {
    fn check_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(broken) = &self.broken {
            return Err(io::Error::other(broken.detail.clone()));
        }
        if self.deadline.as_mut().poll(cx).is_ready() {
            let detail = format!("no answer within {} s", self.patience.as_secs_f64());
            return Err(self.breaks(Cause::TimedOut, detail));
        }
        Ok(())
    }

    fn breaks(&mut self, cause: Cause, detail: String) -> io::Error {
        let error = io::Error::other(detail.clone());
        self.broken.get_or_insert(Broken { cause, detail });
        error
    }

    fn poll_read_socket(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Some(Socket::Plain(tcp)) => Pin::new(tcp).poll_read(cx, buffer),
            Some(Socket::Tls(tls)) => Pin::new(tls).poll_read(cx, buffer),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Reads until there is something for lettre, or the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; 4096];
        while self.pending.is_empty() {
            self.check_deadline(cx)?;
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(self.poll_read_socket(cx, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => {
                    return Poll::Ready(Err(
                        self.breaks(Cause::Closed, "the server closed the connection".into())
                    ));
                }
                Ok(()) => {}
                Err(error) => return Poll::Ready(Err(self.breaks(Cause::Closed, lost(&error)))),
            }
            if let Err(Garbled(what)) = self.replies.read(buffer.filled(), &mut self.heard, &mut self.pending)
            {
                return Poll::Ready(Err(self.breaks(Cause::Garbled, what)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn lost(error: &io::Error) -> String {
    format!("the connection broke: {error}")
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(inner.poll_fill(cx))?;
        let (front, _) = inner.pending.as_slices();
        let len = front.len().min(buffer.remaining());
        buffer.put_slice(&front[..len]);
        inner.pending.drain(..len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = lock(&self.0);
        inner.check_deadline(cx)?;
        let written = ready!(match &mut inner.socket {
            Some(Socket::Plain(tcp)) => Pin::new(tcp).poll_write(cx, bytes),
            Some(Socket::Tls(tls)) => Pin::new(tls).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        });
        let until = Instant::now() + inner.patience;
        inner.deadline.as_mut().reset(until);
        // A server may answer and close before it has read everything: its answer is looked for before the break
        // counts, so that a failed write does not break the stream for reading.
        Poll::Ready(written.map_err(|error| io::Error::other(lost(&error))))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut lock(&self.0).socket {
            Some(Socket::Plain(tcp)) => Pin::new(tcp).poll_flush(cx),
            Some(Socket::Tls(tls)) => Pin::new(tls).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut lock(&self.0).socket {
            Some(Socket::Plain(tcp)) => Pin::new(tcp).poll_shutdown(cx),
            Some(Socket::Tls(tls)) => Pin::new(tls).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncTokioStream for Wire {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &lock(&self.0).socket {
            Some(socket) => socket.tcp().peer_addr(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wire")
    }
}
