//! What the service manager is told: that the program is ready, that it lives, that it stops (`sd_notify(3)`).
//!
//! systemd, and whoever speaks as it does, names a datagram socket in `NOTIFY_SOCKET`, and in `WATCHDOG_USEC` the time
//! within which it wants to hear that all is well. Without them nothing is told to anybody. A manager that does not listen
//! keeps no program from its work.

use std::io;
use std::net::SocketAddr as Place;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::health;
use crate::shutdown::Shutdown;

/// How long a manager may take for a datagram.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a program needs after its drain to end: last settlements, last answers.
const AFTER_DRAIN: Duration = Duration::from_secs(15);

/// The service manager, or nobody. Clones speak to the same one.
#[derive(Debug, Clone, Default)]
pub struct Supervisor {
    socket: Option<SocketAddr>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The one that these environment variables name; what cannot be used is logged.
    #[must_use]
    pub fn named_by(environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let (mut socket, mut within, mut meant) = (None, None, true);
        for (name, value) in environment {
            match name.as_str() {
                "NOTIFY_SOCKET" => match parse(&value) {
                    Ok(address) => socket = Some(address),
                    Err(error) => {
                        tracing::warn!(NOTIFY_SOCKET = value, %error, "the service manager is told nothing");
                    }
                },
                "WATCHDOG_USEC" => {
                    within = value.parse().ok().filter(|&time| time > 0).map(Duration::from_micros);
                }
                // A program that started this one passed its own environment on.
                "WATCHDOG_PID" => meant = value == std::process::id().to_string(),
                _ => {}
            }
        }
        Self { socket, watchdog: within.filter(|_| meant) }
    }

    /// Tells that the program does its work from now on.
    pub async fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}")).await;
    }

    /// Tells that the program stops, and how long it may take whatever the manager's own limit is.
    pub async fn stopping(&self, drain: Duration, status: &str) {
        let limit = drain.saturating_add(AFTER_DRAIN).as_micros();
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={limit}\nSTATUS={status}")).await;
    }

    /// Keeps the watchdog quiet while the program's server answers at its address. From the beginning of the stop on it
    /// is enough that this runtime runs: the server ends before the program.
    pub async fn attend(self, server: Place, shutdown: Shutdown) {
        let is_well = || async { shutdown.is_stopping() || health::ask(server).await.is_ok() };
        self.watch(is_well).await;
    }

    /// Tells that all is well, twice within the time that the manager waits, while `is_well` says so; tries again soon
    /// when it does not. Runs until it is dropped, and tells nothing while its runtime is stuck.
    pub async fn watch<F: Future<Output = bool>>(&self, is_well: impl Fn() -> F) {
        let Some(within) = self.watchdog else { return };
        loop {
            if timeout(within / 12, is_well()).await == Ok(true) {
                self.tell("WATCHDOG=1").await;
                sleep(within / 2).await;
            } else {
                tracing::warn!(watchdog.ms = within.as_millis(), "the program does not answer itself");
                sleep(within / 60).await;
            }
        }
    }

    async fn tell(&self, state: &str) {
        let Some(socket) = &self.socket else { return };
        match timeout(PATIENCE, send(socket, state)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, state, "the service manager was not told"),
            Err(_) => tracing::warn!(state, "the service manager does not listen"),
        }
    }
}

async fn send(to: &SocketAddr, state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(to)?;
    socket.set_nonblocking(true)?;
    // A datagram goes whole or not at all.
    tokio::net::UnixDatagram::from_std(socket)?.send(state.as_bytes()).await.map(drop)
}

/// A path, or with `@` in front a name in the abstract namespace (`unix(7)`).
fn parse(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None if name.starts_with('/') => SocketAddr::from_pathname(name),
        None => Err(io::Error::new(io::ErrorKind::Unsupported, "a path or @name is expected")),
    }
}
