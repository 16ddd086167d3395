//! A way to Redis that mends itself: a connection, or a pool of them, thrown away and opened anew when the server is
//! gone, is no master any more, or has twice in a row not answered in time.
//!
//! A channel repeats a step only where the caller says that this is harmless. It never sends a blocking command.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deadpool_redis::{Manager, Pool, PoolConfig, Runtime, Timeouts};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::sync::Mutex;

use super::address::{Address, CONNECT_TIMEOUT, REPLY_TIMEOUT, settings};
use super::scripts::Call;
use crate::queue::Unavailable;

/// Pauses between attempts to open: the first, the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Replies in a row that may fail to come before the connection is given up.
const TIMEOUTS: u32 = 2;

/// How many connections a pool has.
const POOL_SIZE: usize = 8;

/// Whether a step may be sent again when the connection broke under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Once: an exact replay changes nothing.
    Once,
    /// Never: the answer names jobs that a second one would not.
    Never,
}

/// See the module.
pub(super) struct Channel {
    address: Arc<Address>,
    pooled: bool,
    /// A reply that takes longer shows that the server stood still.
    slow: Duration,
    /// The generation whose server was told the script of [`Self::try_both`].
    told: AtomicU64,
    state: Mutex<State>,
}

struct State {
    open: Option<Open>,
    /// Counts what was opened, so that a fault of an old connection does not close a new one.
    generation: u64,
    timeouts: u32,
    failures: u32,
    /// When opening failed last, and how: told to everybody until the next attempt, so that nobody queues for it.
    failed: Option<(Instant, RedisError)>,
    /// Since when every reply has come in time.
    unbroken_since: Option<Instant>,
}

enum Open {
    Connection(MultiplexedConnection),
    Pool(Pool),
}

/// What one step sends.
#[derive(Clone, Copy)]
enum Request<'a> {
    One(&'a Cmd),
    /// Two commands, both or neither; the second's answer counts.
    Both(&'a Pipeline),
    /// Nothing, both or neither: fails where the user may not do that.
    NeitherOfBoth,
}

impl Request<'_> {
    async fn send(self, connection: &mut impl ConnectionLike) -> Result<Value, RedisError> {
        match self {
            Request::One(cmd) => connection.req_packed_command(cmd).await?.extract_error(),
            Request::Both(both) => {
                // What EXEC answers comes behind an answer to MULTI and to each command.
                let answers = connection.req_packed_commands(both, both.len() + 1, 1).await;
                match answers.map_err(first_of_all)?.pop().map(Value::extract_error).transpose()? {
                    Some(Value::Array(mut answers)) => Ok(answers.pop().unwrap_or(Value::Nil)),
                    _ => Err((ErrorKind::UnexpectedReturnType, "not an answer of EXEC").into()),
                }
            }
            Request::NeitherOfBoth => {
                let mut empty = redis::pipe();
                empty.cmd("MULTI").cmd("EXEC");
                for answer in connection.req_packed_commands(&empty, 0, 2).await? {
                    answer.extract_error()?;
                }
                Ok(Value::Okay)
            }
        }
    }
}

/// Whether the user may not do it. What EXEC is refused for is in its detail; the transaction is over then.
fn is_denied(e: &RedisError) -> bool {
    match e.kind() {
        ErrorKind::Server(ServerErrorKind::NoPerm) => true,
        ErrorKind::Server(ServerErrorKind::ExecAbort) => e.detail().is_some_and(|why| why.contains("NOPERM")),
        _ => false,
    }
}

/// Of the errors that kept a transaction from running, the first: it says why.
fn first_of_all(e: RedisError) -> RedisError {
    let first =
        e.clone().into_server_errors().and_then(|errors| errors.first().map(|(_, error)| error.clone()));
    first.map_or(e, RedisError::from)
}

/// A connection for one step.
enum Lent {
    Connection(MultiplexedConnection),
    Pooled(deadpool_redis::Connection),
}

impl Channel {
    /// One connection, shared by its users; opened when it is first needed.
    pub(super) fn dedicated(address: &Arc<Address>) -> Self {
        Self::new(address, false, REPLY_TIMEOUT)
    }

    /// The same, watched: see [`Self::unbroken_for`].
    pub(super) fn watched(address: &Arc<Address>, slow: Duration) -> Self {
        Self::new(address, false, slow)
    }

    /// A pool of connections.
    pub(super) fn pooled(address: &Arc<Address>) -> Self {
        Self::new(address, true, REPLY_TIMEOUT)
    }

    fn new(address: &Arc<Address>, pooled: bool, slow: Duration) -> Self {
        Self {
            address: Arc::clone(address),
            pooled,
            slow,
            told: AtomicU64::new(u64::MAX),
            state: Mutex::new(State {
                open: None,
                generation: 0,
                timeouts: 0,
                failures: 0,
                failed: None,
                unbroken_since: None,
            }),
        }
    }

    /// Runs an operation.
    pub(super) async fn call<T: FromRedisValue>(
        &self,
        call: &Call,
        repeat: Repeat,
    ) -> Result<T, Unavailable> {
        self.try_call(call, repeat).await.map_err(|e| unavailable(call.name(), &e))
    }

    /// Runs an operation; for a caller that tells errors apart.
    pub(super) async fn try_call<T: FromRedisValue>(
        &self,
        call: &Call,
        repeat: Repeat,
    ) -> Result<T, RedisError> {
        match self.send(call.by_sha(), repeat).await {
            Err(e) if e.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.send(&call.by_text(), repeat).await
            }
            other => other,
        }
    }

    /// Runs a command and an operation behind it, both or neither; the answer is the operation's. A connection that was
    /// lost is the caller's to notice.
    ///
    /// Where the server does not know the script, only the command has run. So a new connection is told its text. Where
    /// the user may not run transactions, the server would run both and refuse only what holds them together: so that is
    /// asked first on each connection.
    pub(super) async fn try_both<T: FromRedisValue>(
        &self,
        first: &Cmd,
        call: &Call,
    ) -> Result<T, RedisError> {
        let generation = self.generation().await;
        let both = |second: Cmd| {
            let mut both = redis::pipe();
            both.atomic().add_command(first.clone()).add_command(second);
            both
        };
        if self.told.load(Ordering::Relaxed) == generation {
            match self.send_once(Request::Both(&both(call.by_sha().clone()))).await {
                Err(e) if e.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {}
                other => {
                    if other.as_ref().is_err_and(is_denied) {
                        self.told.store(u64::MAX, Ordering::Relaxed);
                    }
                    return other;
                }
            }
        }
        self.send_once::<Value>(Request::NeitherOfBoth).await.map_err(|e| {
            if !is_denied(&e) {
                return e;
            }
            let needed = "its user needs `+multi` and `+exec`".to_owned();
            (ErrorKind::Client, "transactions are not allowed", needed).into()
        })?;
        let answer = self.send_once(Request::Both(&both(call.by_text()))).await;
        if answer.is_ok() {
            self.told.store(self.generation().await, Ordering::Relaxed);
        }
        answer
    }

    /// Runs a command that is no script.
    pub(super) async fn command<T: FromRedisValue>(&self, cmd: &Cmd) -> Result<T, Unavailable> {
        self.send(cmd, Repeat::Once).await.map_err(|e| unavailable("command", &e))
    }

    /// How long every reply has come within `slow`. None: there is no connection.
    pub(super) async fn unbroken_for(&self) -> Option<Duration> {
        self.state.lock().await.unbroken_since.map(|since| since.elapsed())
    }

    /// Changes whenever the connection is opened anew.
    pub(super) async fn generation(&self) -> u64 {
        self.state.lock().await.generation
    }

    async fn send<T: FromRedisValue>(&self, cmd: &Cmd, repeat: Repeat) -> Result<T, RedisError> {
        match self.send_once(Request::One(cmd)).await {
            // A connection that died while it was idle is noticed by the next command only.
            Err(e) if repeat == Repeat::Once && is_lost(&e) => self.send_once(Request::One(cmd)).await,
            other => other,
        }
    }

    async fn send_once<T: FromRedisValue>(&self, request: Request<'_>) -> Result<T, RedisError> {
        let (mut connection, generation) = self.lend().await?;
        let sent = Instant::now();
        let reply = match &mut connection {
            Lent::Connection(c) => request.send(c).await,
            Lent::Pooled(c) => request.send(&mut **c).await,
        };
        self.note(generation, sent.elapsed(), reply.as_ref().err()).await;
        Ok(T::from_redis_value(reply?)?)
    }

    async fn lend(&self) -> Result<(Lent, u64), RedisError> {
        let mut state = self.state.lock().await;
        if state.open.is_none() {
            let pause = BACK_OFF.0 * 2_u32.saturating_pow(state.failures.saturating_sub(1).min(10));
            if let Some((at, e)) = &state.failed
                && at.elapsed() < pause.min(BACK_OFF.1)
            {
                return Err(e.clone());
            }
            match self.open().await {
                Ok(open) => {
                    state.open = Some(open);
                    state.generation += 1;
                    (state.timeouts, state.failures, state.failed) = (0, 0, None);
                    state.unbroken_since = Some(Instant::now());
                }
                Err(e) => {
                    state.failures += 1;
                    state.failed = Some((Instant::now(), e.clone()));
                    return Err(e);
                }
            }
        }
        let generation = state.generation;
        let pool = match &state.open {
            Some(Open::Connection(connection)) => {
                return Ok((Lent::Connection(connection.clone()), generation));
            }
            Some(Open::Pool(pool)) => pool.clone(),
            None => return Err((ErrorKind::Client, "not connected").into()),
        };
        drop(state);
        match pool.get().await {
            Ok(connection) => Ok((Lent::Pooled(connection), generation)),
            Err(e) => {
                let e = match e {
                    deadpool_redis::PoolError::Backend(e) => e,
                    _ => std::io::Error::from(std::io::ErrorKind::TimedOut).into(),
                };
                self.note(generation, Duration::ZERO, Some(&e)).await;
                Err(e)
            }
        }
    }

    async fn open(&self) -> Result<Open, RedisError> {
        if !self.pooled {
            return self.address.connect(Some(REPLY_TIMEOUT)).await.map(Open::Connection);
        }
        let manager = Manager::new_with_config(self.address.master().await?, settings(Some(REPLY_TIMEOUT)))?;
        let mut config = PoolConfig::new(POOL_SIZE);
        config.timeouts = Timeouts {
            wait: Some(REPLY_TIMEOUT),
            create: Some(CONNECT_TIMEOUT),
            recycle: Some(REPLY_TIMEOUT),
        };
        let pool =
            Pool::builder(manager).config(config).runtime(Runtime::Tokio1).build().map_err(|_| {
                RedisError::from((ErrorKind::InvalidClientConfig, "the pool cannot be built"))
            })?;
        Ok(Open::Pool(pool))
    }

    async fn note(&self, generation: u64, took: Duration, fault: Option<&RedisError>) {
        let mut state = self.state.lock().await;
        if state.generation != generation {
            return;
        }
        if took >= self.slow {
            state.unbroken_since = Some(Instant::now());
        }
        let Some(fault) = fault else {
            state.timeouts = 0;
            return;
        };
        if fault.is_timeout() {
            state.timeouts += 1;
        }
        if is_lost(fault) || state.timeouts >= TIMEOUTS {
            self.address.distrust();
            state.open = None;
            state.unbroken_since = None;
        }
    }
}

/// Whether an error means that this connection is of no more use: it is closed, or its server is not the one that
/// takes writes for the queue.
pub(super) fn is_lost(e: &RedisError) -> bool {
    e.is_connection_dropped()
        || e.is_connection_refusal()
        || matches!(
            e.kind(),
            ErrorKind::Server(
                ServerErrorKind::ReadOnly
                    | ServerErrorKind::Moved
                    | ServerErrorKind::Ask
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::MasterDown
            )
        )
        || e.code() == Some("UNBLOCKED")
}

/// As it is told to the caller: what was asked and what Redis said, without a key's or a user's name in it.
pub(super) fn unavailable(what: &str, e: &RedisError) -> Unavailable {
    let mut message = format!("{what}: {}", e.category());
    if let Some(code) = e.code() {
        message = format!("{message} {code}");
    }
    if let Some(detail) = e.detail() {
        message = format!("{message} ({detail})");
    } else if e.is_io_error() {
        message = format!("{message} ({e})");
    }
    Unavailable { message }
}
