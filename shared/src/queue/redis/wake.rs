//! Waiting for work: a blocking read that takes nothing, on a connection that does nothing else.
//!
//! A read that blocks and takes loses what it took when its answer is lost. So the wait only looks: for entries
//! behind the last ids that the consumer's latest claim saw, so that no job that came since goes unnoticed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::RedisError;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::address::{Address, REPLY_TIMEOUT};
use super::channel::{Channel, unavailable};
use super::keys::Keys;
use crate::queue::{ConsumerId, Unavailable};

/// One blocking read lasts no shorter and no longer than this. A BLOCK of 0 would be for ever.
const BLOCK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// The waits of this process' consumers, each on a connection of its own.
pub(super) struct Wake {
    address: Arc<Address>,
    keys: Keys,
    waiters: Mutex<HashMap<ConsumerId, Arc<Waiter>>>,
}

#[derive(Default)]
struct Waiter {
    /// What the latest claim saw. None: it got all that it asked for, or there was none, so that there may be more.
    seen: Mutex<Option<Seen>>,
    line: tokio::sync::Mutex<Line>,
}

/// The connection, or the read that is under way on it.
#[derive(Default)]
struct Line {
    connection: Option<MultiplexedConnection>,
    /// Goes on when the wait that began it is dropped, for the next one: it began at older ids, so that it ends for
    /// whatever came since.
    reading: Option<JoinHandle<Result<(MultiplexedConnection, bool), RedisError>>>,
    /// Of the scripts' connection, when this one was opened.
    generation: u64,
}

#[derive(Clone)]
struct Seen {
    /// Of the streams of [`Keys::waited_at`].
    last: [String; 4],
    /// When a delayed job becomes ready.
    due: Option<Instant>,
    paused: bool,
}

impl Wake {
    pub(super) fn new(address: &Arc<Address>, keys: Keys) -> Self {
        Self { address: Arc::clone(address), keys, waiters: Mutex::default() }
    }

    /// Remembers what a claim saw.
    pub(super) fn claimed(
        &self,
        me: &ConsumerId,
        last: Option<[String; 4]>,
        due: Option<Duration>,
        paused: bool,
    ) {
        let due = due.map(|after| Instant::now() + after);
        let seen = last.map(|last| Seen { last, due, paused });
        *self.waiter(me).seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    /// Closes a consumer's connection.
    pub(super) fn forget(&self, me: &ConsumerId) {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner).remove(me);
    }

    /// See [`crate::queue::Consumer::ready`]. The connection is opened anew when the scripts' one was: then the
    /// server that it waits at may be no master any more.
    pub(super) async fn wait(
        &self,
        me: &ConsumerId,
        at_most: Duration,
        scripts: &Channel,
    ) -> Result<(), Unavailable> {
        let waiter = self.waiter(me);
        let until = Instant::now() + at_most;
        loop {
            let seen = waiter.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let Some(seen) = seen else { return Ok(()) };
            let end = seen.due.map_or(until, |due| due.min(until));
            let found = self.look(&waiter, &seen, end, scripts.generation().await).await;
            if found.map_err(|e| unavailable("wait", &e))? || end <= Instant::now() {
                return Ok(());
            }
        }
    }

    /// One blocking read, until `end` at the latest: whether there is something to claim.
    async fn look(
        &self,
        waiter: &Waiter,
        seen: &Seen,
        end: Instant,
        generation: u64,
    ) -> Result<bool, RedisError> {
        let mut line = waiter.line.lock().await;
        if line.generation != generation {
            *line = Line { generation, ..Line::default() };
        }
        if line.reading.is_none() {
            let connection = match line.connection.take() {
                Some(connection) => connection,
                None => self.address.connect(None).await?,
            };
            let left = end.saturating_duration_since(Instant::now());
            let (read, block) = self.read_of(seen, left);
            line.reading = Some(tokio::spawn(run(connection, read, block)));
        }
        let Some(reading) = line.reading.as_mut() else {
            return Ok(false);
        };
        // BLOCK has a shortest time: the answer of a read that ends with the wait is awaited.
        let Ok(ended) = tokio::time::timeout_at(end + BLOCK.0, reading).await else {
            return Ok(false);
        };
        line.reading = None;
        let (connection, found) = ended.unwrap_or_else(|_| Err(timed_out()))?;
        line.connection = Some(connection);
        Ok(found)
    }

    fn read_of(&self, seen: &Seen, left: Duration) -> (redis::Cmd, Duration) {
        let block = left.clamp(BLOCK.0, BLOCK.1);
        let keys = self.keys.waited_at();
        // While the queue is paused, only its restart is worth waking up for.
        let from = if seen.paused { 3 } else { 0 };
        let mut read = redis::cmd("XREAD");
        let ms = u64::try_from(block.as_millis()).unwrap_or(1_000);
        read.arg("COUNT").arg(1).arg("BLOCK").arg(ms);
        read.arg("STREAMS").arg(&keys[from..]).arg(&seen.last[from..]);
        (read, block)
    }

    fn waiter(&self, me: &ConsumerId) -> Arc<Waiter> {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(waiters.entry(me.clone()).or_default())
    }
}

/// Runs a blocking read. The connection has no limit of its own for replies; this is the one.
async fn run(
    mut connection: MultiplexedConnection,
    read: redis::Cmd,
    block: Duration,
) -> Result<(MultiplexedConnection, bool), RedisError> {
    let reply = tokio::time::timeout(block + REPLY_TIMEOUT, connection.req_packed_command(&read))
        .await
        .unwrap_or_else(|_| Err(timed_out()))
        .and_then(redis::Value::extract_error)?;
    Ok((connection, reply != redis::Value::Nil))
}

fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}
