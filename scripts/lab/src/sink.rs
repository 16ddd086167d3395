//! A fast SMTP sink: it takes every message, counts it, and remembers when its final dot arrived and for whom.
//!
//! It announces PIPELINING and answers all commands of one read in one write, so that what is measured is the
//! client. It keeps no message; it refuses nothing but a broken sequence. No TLS, no AUTH: the scripted
//! [`crate::relay`] has those. Its [`Faults`] make it slow and cut connections behind a final dot.

mod protocol;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::clock::now_ns;
use crate::control;
use protocol::{Protocol, Taken};

/// What one read takes at most: several pipelined messages of the usual size.
const READ: usize = 64 * 1024;

/// What came so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Messages taken.
    pub messages: u64,
    /// Their content's size, dots and line ends included.
    pub bytes: u64,
    /// Arrivals for a recipient that had been served before.
    pub duplicates: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// Connections that are open.
    pub open: u64,
    /// The most connections that were open at once.
    pub peak: u64,
    /// When the first message's final dot came, in nanoseconds since 1970; 0 before it.
    pub first_ns: u64,
    /// When the last one's came.
    pub last_ns: u64,
}

/// A message that came for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The address, as it stood in RCPT.
    pub recipient: String,
    /// When the final dot came, in nanoseconds since 1970.
    pub at_ns: u64,
    /// The Message-ID, without brackets; empty where there is none.
    pub message_id: String,
}

/// What it does wrong on purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// The wait before the answer to a final dot.
    pub delay: Duration,
    /// So many of the next messages are taken, and the connection ends without the answer.
    pub cut_taken: u32,
    /// So many after them are not taken, and the connection ends all the same.
    pub cut_untaken: u32,
}

/// What becomes of a message.
enum Fate {
    Answer(Duration),
    Cut,
}

#[derive(Default)]
struct Tally {
    counts: Counts,
    seen: HashSet<String>,
    arrivals: Vec<Arrival>,
    faults: Faults,
}

impl Tally {
    fn record(&mut self, taken: Taken) {
        let at_ns = now_ns();
        let counts = &mut self.counts;
        if counts.messages == 0 {
            counts.first_ns = at_ns;
        }
        counts.last_ns = at_ns;
        counts.messages += 1;
        counts.bytes += taken.size;
        for recipient in taken.recipients {
            if !self.seen.insert(recipient.clone()) {
                counts.duplicates += 1;
            }
            self.arrivals.push(Arrival { recipient, at_ns, message_id: taken.message_id.clone() });
        }
    }

    /// Takes a message, or does not, as the faults will have it.
    fn receive(&mut self, taken: Taken) -> Fate {
        if self.faults.cut_taken > 0 {
            self.faults.cut_taken -= 1;
        } else if self.faults.cut_untaken > 0 {
            self.faults.cut_untaken -= 1;
            return Fate::Cut;
        } else {
            self.record(taken);
            return Fate::Answer(self.faults.delay);
        }
        self.record(taken);
        Fate::Cut
    }

    fn reset(&mut self) {
        let open = self.counts.open;
        *self = Self { faults: self.faults.clone(), ..Self::default() };
        self.counts.open = open;
        self.counts.peak = open;
    }
}

/// Short, and never held over an await. On the binary's one thread it is never contended.
type Shared = Arc<Mutex<Tally>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Tally> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running sink. Dropping it stops taking connections.
pub struct Sink {
    addr: SocketAddr,
    shared: Shared,
    accepting: JoinHandle<()>,
}

impl Sink {
    /// Listens; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(addr: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let shared = Shared::default();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { addr, shared, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What came so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        lock(&self.shared).counts.clone()
    }

    /// What came for whom, in the order of arrival.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        lock(&self.shared).arrivals.clone()
    }

    /// Changes what it does wrong.
    pub fn change(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut lock(&self.shared).faults);
    }

    /// Forgets what came.
    pub fn reset(&self) {
        lock(&self.shared).reset();
    }

    /// Answers on a control port, until it is dropped: `GET /` the counts as JSON, `GET /log` the arrivals, one
    /// `recipient at_ns message_id` a line, `POST /reset`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn serve_control(&self, addr: SocketAddr) -> std::io::Result<()> {
        let listener = TcpListener::bind(addr).await?;
        let shared = Arc::clone(&self.shared);
        control::serve(listener, move |asked| match asked {
            "GET /" => serde_json::to_string(&lock(&shared).counts).ok(),
            "GET /log" => Some(log(&lock(&shared).arrivals)),
            "POST /reset" => {
                lock(&shared).reset();
                Some("{}".into())
            }
            _ => None,
        })
        .await;
        Ok(())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn log(arrivals: &[Arrival]) -> String {
    let mut log = String::with_capacity(arrivals.len() * 96);
    for arrival in arrivals {
        // Writing to a string cannot fail.
        writeln!(log, "{} {} {}", arrival.recipient, arrival.at_ns, arrival.message_id).ok();
    }
    log
}

async fn accept(listener: TcpListener, shared: Shared) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: others may end meanwhile.
            tokio::task::yield_now().await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            {
                let counts = &mut lock(&shared).counts;
                counts.connections += 1;
                counts.open += 1;
                counts.peak = counts.peak.max(counts.open);
            }
            // A client that goes without QUIT is as good as any.
            session(socket, &shared).await.ok();
            lock(&shared).counts.open -= 1;
        });
    }
}

async fn session(mut socket: TcpStream, shared: &Shared) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut protocol = Protocol::default();
    let mut input = BytesMut::with_capacity(READ);
    let mut replies = Vec::with_capacity(512);
    socket.write_all(protocol::GREETING).await?;
    loop {
        input.reserve(READ / 2);
        if socket.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        let (mut delay, mut is_cut) = (Duration::ZERO, false);
        protocol.advance(&mut input, &mut replies, |taken| match lock(shared).receive(taken) {
            Fate::Answer(after) => delay = delay.max(after),
            Fate::Cut => is_cut = true,
        });
        if is_cut {
            return Ok(());
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        socket.write_all(&replies).await?;
        replies.clear();
        if protocol.is_over() {
            return socket.shutdown().await;
        }
    }
}
