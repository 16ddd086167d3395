//! An SMTP server that does what it is told: for tests, in their own process.
//!
//! A recipient's local part says what becomes of its message, so that one relay serves many cases at once:
//!
//! | local part | what happens |
//! |---|---|
//! | anything else | 250 |
//! | `rcpt-450-2-x`, `data-451-1-x`, `dot-554-x` | this code in answer to RCPT, DATA or the dot; with a number so many times, then 250 |
//! | `text-<name>-x` | the reply of this name in [`Script::texts`], in answer to RCPT |
//! | `cut-rcpt`, `cut-data` | the connection ends instead of the answer |
//! | `cut-go` | the connection ends behind the 354 |
//! | `cut-content` | the connection ends when some content has come |
//! | `cut-dot`, `cut-taken` | the connection ends after the dot: the message is not kept, or it is |
//! | `early-552` | this code when some content has come, then the connection ends |
//! | `stall`, `mute` | it reads no more; it reads, and never answers |
//! | `slow-200` | the answer to the dot comes after so many milliseconds |
//! | `garble` | the answer to the dot is no reply |
//!
//! What is so for every message is a switch of the [`Script`], which may be changed while the relay runs.
//! It keeps a journal, counts, and tells when something has happened. It is no yardstick for speed.

mod journal;
mod line;
mod script;
mod session;
mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use journal::{Counts, Message};
pub use script::{Afterwards, Form, Login, Script, Tls};

use session::Session;
use tls::Identity;

/// How long [`Relay::wait_until`] waits: long enough for a busy machine, short enough for a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running relay. Dropping it cuts every connection.
pub struct Relay {
    addr: SocketAddr,
    shared: Arc<Shared>,
    root: Option<tempfile::NamedTempFile>,
    /// None once it is stopped.
    accepting: Option<JoinHandle<()>>,
}

struct State {
    script: Script,
    counts: Counts,
    journal: Vec<Message>,
    /// How often each recipient has been refused.
    refused: HashMap<String, u32>,
}

/// What the relay's handle and its sessions have in common.
struct Shared {
    /// Never held across an await.
    state: Mutex<State>,
    /// Goes up with everything that is counted.
    changes: watch::Sender<u64>,
    stopping: watch::Sender<bool>,
    tls: Option<Arc<ServerConfig>>,
}

impl Relay {
    /// Starts a relay on a free port of the loopback interface.
    ///
    /// # Errors
    /// When no port can be had, or no certificate be made.
    pub async fn start(script: Script) -> anyhow::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), script).await
    }

    /// Starts a relay at an address: where one was before, for instance.
    ///
    /// # Errors
    /// When the address cannot be had, or no certificate be made.
    pub async fn start_at(addr: SocketAddr, script: Script) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let identity = match script.tls {
            Tls::None => None,
            _ => Some(Identity::issue(&script.certified_for)?),
        };
        let (config, root) = identity.map(|made| (made.config, made.root)).unzip();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                script,
                counts: Counts::default(),
                journal: Vec::new(),
                refused: HashMap::new(),
            }),
            changes: watch::Sender::new(0),
            stopping: watch::Sender::new(false),
            tls: config,
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { addr, shared, root, accepting: Some(accepting) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The root that its certificate stands on, in PEM. None: it was started without TLS.
    #[must_use]
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.root.as_ref().map(|file| Path::to_owned(file.path()))
    }

    /// Changes its switches.
    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        self.shared.with(|state| change(&mut state.script));
    }

    /// Every message that it has taken, in this order.
    #[must_use]
    pub fn journal(&self) -> Vec<Message> {
        self.shared.with(|state| state.journal.clone())
    }

    /// What it has counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.with(|state| state.counts.clone())
    }

    /// Waits until it has taken as many messages; gives what it has after twenty seconds at the latest.
    pub async fn wait_for_messages(&self, n: usize) -> Vec<Message> {
        self.wait_until(|counts| counts.messages >= n).await;
        self.journal()
    }

    /// Waits until its counts are as wanted, or twenty seconds. Returns whether they are.
    pub async fn wait_until(&self, mut is_so: impl FnMut(&Counts) -> bool) -> bool {
        let mut changes = self.shared.changes.subscribe();
        let shared = &self.shared;
        let so = changes.wait_for(|_| is_so(&shared.with(|state| state.counts.clone())));
        tokio::time::timeout(PATIENCE, so).await.is_ok()
    }

    /// Takes no more connections, and ends those that wait for a command with 421. Its address is free afterwards.
    pub async fn stop(mut self) {
        self.shared.stopping.send_replace(true);
        if let Some(accepting) = self.accepting.take() {
            // It ends by itself; if it panicked, the test that sees no answers says so.
            drop(accepting.await);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Shared {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn script(&self) -> Script {
        self.with(|state| state.script.clone())
    }

    fn count(&self, f: impl FnOnce(&mut Counts)) {
        self.with(|state| f(&mut state.counts));
        self.changes.send_modify(|n| *n += 1);
    }

    fn take(&self, message: Message) {
        self.with(|state| {
            state.journal.push(message);
            state.counts.messages += 1;
        });
        self.changes.send_modify(|n| *n += 1);
    }

    /// Ends when the relay stops.
    async fn stopped(&self) {
        // The sender lives in `self`: the wait cannot fail.
        drop(self.stopping.subscribe().wait_for(|is_stopping| *is_stopping).await);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = sessions.join_next(), if !sessions.is_empty() => continue,
            () = shared.stopped() => break,
        };
        let Ok((tcp, _)) = accepted else { continue };
        sessions.spawn(serve(tcp, Arc::clone(&shared)));
    }
    drop(listener);
    let ended = async { while sessions.join_next().await.is_some() {} };
    // A client that holds on in the middle of a message is cut off, with `sessions`.
    drop(tokio::time::timeout(Duration::from_secs(2), ended).await);
}

async fn serve(tcp: TcpStream, shared: Arc<Shared>) {
    let mut id = 0;
    shared.count(|counts| {
        counts.connections += 1;
        counts.open += 1;
        counts.peak = counts.peak.max(counts.open);
        id = counts.connections;
    });
    let open = Open(Arc::clone(&shared));
    // A client that breaks off is nothing to report: its test looks at its own side.
    if tcp.set_nodelay(true).is_ok() {
        drop(Session::serve(Box::new(tcp), shared, id).await);
    }
    drop(open);
}

/// Counts a connection as open, however its task ends.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.count(|counts| counts.open -= 1);
    }
}
