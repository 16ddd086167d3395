//! A service manager for tests: the socket that `NOTIFY_SOCKET` names, and what programs tell it.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// What a program that lives tells again and again.
const BEAT: &str = "WATCHDOG=1";

/// A socket that programs tell their state to.
#[derive(Debug)]
pub struct Manager {
    socket: tokio::net::UnixDatagram,
    name: String,
}

impl Manager {
    /// Listens at a path.
    ///
    /// # Errors
    /// When nobody can listen there.
    pub fn listen(path: &Path) -> io::Result<Self> {
        Self::at(&SocketAddr::from_pathname(path)?, path.display().to_string())
    }

    /// Listens at a name in the abstract namespace.
    ///
    /// # Errors
    /// When somebody listens there.
    pub fn listen_abstract(name: &str) -> io::Result<Self> {
        Self::at(&SocketAddr::from_abstract_name(name)?, format!("@{name}"))
    }

    fn at(address: &SocketAddr, name: String) -> io::Result<Self> {
        let socket = UnixDatagram::bind_addr(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: tokio::net::UnixDatagram::from_std(socket)?, name })
    }

    /// What a program finds in its environment, when it shall be heard of within this time.
    #[must_use]
    pub fn environment(&self, watchdog: Duration) -> [(String, String); 2] {
        [
            ("NOTIFY_SOCKET".into(), self.name.clone()),
            ("WATCHDOG_USEC".into(), watchdog.as_micros().to_string()),
        ]
    }

    /// The lines of the next datagram; none where none comes in time.
    pub async fn next(&self, within: Duration) -> Option<Vec<String>> {
        let mut datagram = [0; 4096];
        let length = timeout(within, self.socket.recv(&mut datagram)).await.ok()?.ok()?;
        let text = String::from_utf8_lossy(&datagram[..length]);
        Some(text.lines().map(ToOwned::to_owned).collect())
    }

    /// The pauses before each of the next datagrams, all of which must be a watchdog's beat; none where another comes, or
    /// none does in time.
    pub async fn beats(&self, count: usize, within: Duration) -> Option<Vec<Duration>> {
        let mut pauses = Vec::with_capacity(count);
        for _ in 0..count {
            let before = Instant::now();
            if self.next(within).await? != [BEAT] {
                return None;
            }
            pauses.push(before.elapsed());
        }
        Some(pauses)
    }

    /// The lines of the next datagram that is no beat of the watchdog.
    pub async fn next_but_beats(&self, within: Duration) -> Option<Vec<String>> {
        loop {
            let told = self.next(within).await?;
            if told != [BEAT] {
                return Some(told);
            }
        }
    }

    /// Forgets what has been told so far.
    pub fn forget(&self) {
        let mut datagram = [0; 4096];
        while self.socket.try_recv(&mut datagram).is_ok() {}
    }
}
