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
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

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
    patience: Patience,
    /// Bytes that the socket has taken of the last command. A protected socket may still hold some of them back, so
    /// that what was not counted has not gone out for certain.
    written: usize,
    broken: Option<Broken>,
}

/// How long the server may take.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// To take in the next piece of what we write.
    piece: Duration,
    /// When all of it must have been taken in, however fast the pieces go.
    end: Instant,
    /// To answer, once it has everything.
    answer: Duration,
}

impl Patience {
    fn both(patience: Duration) -> Self {
        Self { piece: patience, end: Instant::now() + patience, answer: patience }
    }
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
        patience: Patience::both(patience),
        written: 0,
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

    /// Whether a reply has been read that nobody has taken yet.
    pub(super) fn has_heard(&self) -> bool {
        !lock(&self.0).heard.is_empty()
    }

    /// Why the stream can be used no more.
    pub(super) fn broken(&self) -> Option<Broken> {
        lock(&self.0).broken.clone()
    }

    /// A command is next: how long it may take to go out, and its answer to come.
    pub(super) fn be_patient(&self, patience: Duration) {
        lock(&self.0).begin(Patience::both(patience));
    }

    /// Content is next: how long the server may stop reading, and how long all of it may take; then its answer may
    /// take as long again.
    pub(super) fn be_patient_with_content(&self, piece: Duration, answer: Duration) {
        let end = Instant::now() + answer;
        lock(&self.0).begin(Patience { piece, end, answer });
    }

    /// How much of what was written since the last call to be patient the socket has taken, in bytes.
    pub(super) fn written(&self) -> usize {
        lock(&self.0).written
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

    /// Whether the server has closed, or said something, while nothing was asked. Costs no round trip.
    pub(super) fn stirred(&self) -> bool {
        let mut inner = lock(&self.0);
        let mut cx = Context::from_waker(Waker::noop());
        // Reading rather than peeking: what TLS itself has to say is no stir.
        while inner.is_quiet() && inner.poll_take_in(&mut cx).is_ready() {}
        !inner.is_quiet()
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
    fn begin(&mut self, patience: Patience) {
        self.patience = patience;
        self.written = 0;
        let until = Instant::now() + patience.piece;
        self.deadline.as_mut().reset(until);
    }

    fn is_quiet(&self) -> bool {
        self.broken.is_none() && self.heard.is_empty() && !self.replies.has_partial()
    }

    fn check_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(broken) = &self.broken {
            return Err(io::Error::other(broken.detail.clone()));
        }
        if self.deadline.as_mut().poll(cx).is_ready() {
            return Err(self.breaks(Cause::TimedOut, "the server did not answer in time".into()));
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

    /// Reads once.
    fn poll_take_in(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; 4096];
        let mut buffer = ReadBuf::new(&mut bytes);
        match ready!(self.poll_read_socket(cx, &mut buffer)) {
            Ok(()) if buffer.filled().is_empty() => {
                let error = self.breaks(Cause::Closed, "the server closed the connection".into());
                return Poll::Ready(Err(error));
            }
            Ok(()) => {}
            Err(error) => return Poll::Ready(Err(self.breaks(Cause::Closed, lost(&error)))),
        }
        let read = self.replies.read(buffer.filled(), &mut self.heard, &mut self.pending);
        Poll::Ready(read.map_err(|Garbled(what)| self.breaks(Cause::Garbled, what)))
    }

    /// Reads until there is something for lettre, or the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.pending.is_empty() {
            self.check_deadline(cx)?;
            ready!(self.poll_take_in(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for the socket to take more; a server that answers or closes instead is heard at once.
    fn poll_blocked<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        while self.heard.is_empty() {
            ready!(self.poll_take_in(cx))?;
        }
        Poll::Ready(Err(io::Error::other("the server answered before it had everything")))
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
        let written = match &mut inner.socket {
            Some(Socket::Plain(tcp)) => Pin::new(tcp).poll_write(cx, bytes),
            Some(Socket::Tls(tls)) => Pin::new(tls).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        };
        match written {
            Poll::Ready(Ok(len)) => {
                inner.written += len;
                let until = (Instant::now() + inner.patience.piece).min(inner.patience.end);
                inner.deadline.as_mut().reset(until);
                Poll::Ready(Ok(len))
            }
            // A server may answer and close before it has read everything: its answer is looked for before the break
            // counts, so that a failed write does not break the stream for reading.
            Poll::Ready(Err(error)) => Poll::Ready(Err(io::Error::other(lost(&error)))),
            Poll::Pending => inner.poll_blocked(cx),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        inner.check_deadline(cx)?;
        let flushed = match &mut inner.socket {
            Some(Socket::Plain(tcp)) => Pin::new(tcp).poll_flush(cx),
            Some(Socket::Tls(tls)) => Pin::new(tls).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        };
        match flushed {
            Poll::Ready(Ok(())) => {
                let until = Instant::now() + inner.patience.answer;
                inner.deadline.as_mut().reset(until);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(io::Error::other(lost(&error)))),
            Poll::Pending => inner.poll_blocked(cx),
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
