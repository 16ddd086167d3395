//! A TCP proxy that makes the way between two programs long, narrow or broken. It stands in for the kernel's netem,
//! which needs root and is often not there.
//!
//! A round trip through it takes [`Plan::round_trip`] and up to 2 ms more, the timer's grain; any number of bytes may
//! be under way meanwhile, as on a real line. The server hears of a connection when a real handshake would be over,
//! so a greeting comes two round trips after `connect`; what a client says before that waits for it. It changes no
//! byte and loses none: TCP does not either.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use futures::future::try_join;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::control;

/// What one read takes at most.
const READ: usize = 16 * 1024;

/// Chunks under way in one direction of a connection, at most; the sender is held back beyond that.
const UNDER_WAY: usize = 256;

/// How the way is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plan {
    /// The time there and back.
    pub round_trip: Duration,
    /// How much passes, in each direction of each connection. None: as much as comes.
    pub bytes_per_second: Option<u64>,
}

/// What happens now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Everything passes.
    Flow,
    /// Nothing passes; connections stay open, and what was said is passed on when things flow again.
    BlackHole,
    /// New connections are reset. Open ones go on; [`Wire::cut`] ends them.
    Refuse,
}

#[derive(Debug, Clone, Copy)]
struct Switch {
    mode: Mode,
    cuts: u64,
}

/// What passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// What happens now.
    pub mode: Mode,
    /// Connections that were opened.
    pub connections: u64,
    /// Connections that are open.
    pub open: u64,
    /// Bytes passed on to the server.
    pub bytes_there: u64,
    /// Bytes passed back.
    pub bytes_back: u64,
}

struct State {
    switch: watch::Sender<Switch>,
    connections: AtomicU64,
    open: AtomicU64,
    bytes_there: AtomicU64,
    bytes_back: AtomicU64,
}

/// A running wire. Dropping it takes no more connections; [`Wire::cut`] ends those that are open.
pub struct Wire {
    addr: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

impl Wire {
    /// Listens at `addr` (port 0 takes a free one) and passes on to `to`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(addr: SocketAddr, to: SocketAddr, plan: Plan) -> std::io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let state = Arc::new(State {
            switch: watch::Sender::new(Switch { mode: Mode::Flow, cuts: 0 }),
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
            bytes_there: AtomicU64::new(0),
            bytes_back: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, to, plan, Arc::clone(&state)));
        Ok(Self { addr, state, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes what happens from now on.
    pub fn set(&self, mode: Mode) {
        self.state.set(mode);
    }

    /// Resets all open connections, on both sides.
    pub fn cut(&self) {
        self.state.cut();
    }

    /// What passed so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state.counts()
    }

    /// Answers on a control port, until it is dropped: `GET /` the counts as JSON, `POST /flow`, `/black-hole`,
    /// `/refuse` and `/cut`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn serve_control(&self, addr: SocketAddr) -> std::io::Result<()> {
        let listener = TcpListener::bind(addr).await?;
        let state = Arc::clone(&self.state);
        control::serve(listener, move |asked| {
            match asked {
                "GET /" => {}
                "POST /flow" => state.set(Mode::Flow),
                "POST /black-hole" => state.set(Mode::BlackHole),
                "POST /refuse" => state.set(Mode::Refuse),
                "POST /cut" => state.cut(),
                _ => return None,
            }
            serde_json::to_string(&state.counts()).ok()
        })
        .await;
        Ok(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    fn set(&self, mode: Mode) {
        self.switch.send_modify(|switch| switch.mode = mode);
    }

    fn cut(&self) {
        self.switch.send_modify(|switch| switch.cuts += 1);
    }

    fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            mode: self.switch.borrow().mode,
            connections: read(&self.connections),
            open: read(&self.open),
            bytes_there: read(&self.bytes_there),
            bytes_back: read(&self.bytes_back),
        }
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, plan: Plan, state: Arc<State>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            state.connections.fetch_add(1, Ordering::Relaxed);
            state.open.fetch_add(1, Ordering::Relaxed);
            carry(client, to, plan, &state).await;
            state.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// One connection, until both sides have ended it, one breaks it, or it is cut.
async fn carry(mut client: TcpStream, to: SocketAddr, plan: Plan, state: &State) {
    let mut switch = state.switch.subscribe();
    let Switch { mode, cuts } = *switch.borrow_and_update();
    let whole = async {
        if mode == Mode::Refuse {
            return Err(std::io::ErrorKind::ConnectionRefused.into());
        }
        tokio::time::sleep(plan.round_trip * 3 / 2).await;
        let mut server = TcpStream::connect(to).await?;
        server.set_nodelay(true)?;
        client.set_nodelay(true)?;
        let passed = {
            let ((client_in, client_out), (server_in, server_out)) = (client.split(), server.split());
            try_join(
                pass(client_in, server_out, plan, state, &state.bytes_there),
                pass(server_in, client_out, plan, state, &state.bytes_back),
            )
            .await
        };
        if passed.is_err() {
            server.set_zero_linger()?;
        }
        passed.map(drop)
    };
    let ended = tokio::select! {
        ended = whole => ended,
        _ = switch.wait_for(|now| now.cuts != cuts) => Err(std::io::ErrorKind::ConnectionReset.into()),
    };
    if ended.is_err() {
        // A break of one side is a break for the other. Where it has gone already there is nothing to set.
        client.set_zero_linger().ok();
    }
}

/// One direction.
async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    plan: Plan,
    state: &State,
    passed: &AtomicU64,
) -> std::io::Result<()> {
    // Fifty portions a second, so that a narrow wire trickles instead of bursting.
    let portion =
        plan.bytes_per_second.map_or(READ, |rate| usize::try_from(rate / 50).unwrap_or(READ).clamp(1, READ));
    let (sender, mut under_way) = mpsc::channel::<(Instant, BytesMut)>(UNDER_WAY);
    let read = async move {
        loop {
            let mut chunk = BytesMut::with_capacity(portion);
            let size = from.read_buf(&mut chunk).await?;
            let arrives = Instant::now() + plan.round_trip / 2;
            // The end travels too, as an empty chunk.
            if sender.send((arrives, chunk)).await.is_err() || size == 0 {
                return Ok(());
            }
        }
    };
    let write = async {
        let mut switch = state.switch.subscribe();
        let mut free = Instant::now();
        while let Some((arrives, chunk)) = under_way.recv().await {
            sleep_until(arrives.max(free)).await;
            // The sender lives as long as the state does: this ends only when the mode fits.
            switch.wait_for(|now| now.mode != Mode::BlackHole).await.ok();
            if chunk.is_empty() {
                return to.shutdown().await;
            }
            to.write_all(&chunk).await?;
            let size = chunk.len() as u64;
            passed.fetch_add(size, Ordering::Relaxed);
            if let Some(rate) = plan.bytes_per_second {
                free = free.max(arrives) + Duration::from_nanos(size * 1_000_000_000 / rate.max(1));
            }
        }
        Ok(())
    };
    try_join(read, write).await.map(drop)
}
