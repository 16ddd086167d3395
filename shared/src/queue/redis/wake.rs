//! Waiting for work: a blocking read that takes nothing, on a connection that does nothing else.
//!
//! A read that blocks and takes loses what it took when its answer is lost. So the wait only looks: for entries
//! behind the last ids that the consumer's latest claim saw, so that no job that came since goes unnoticed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::RedisError;
use redis::aio::{ConnectionLike, MultiplexedConnection};
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
    connection: tokio::sync::Mutex<Option<(MultiplexedConnection, u64)>>,
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
        Self {
            address: Arc::clone(address),
            keys,
            waiters: Mutex::default(),
        }
    }

    /// Remembers what a claim saw.
    pub(super) fn claimed(
        &self,
        me: &ConsumerId,
        last: [String; 4],
        due: Option<Duration>,
        paused: bool,
        satisfied: bool,
    ) {
        let due = due.map(|after| Instant::now() + after);
        let seen = (!satisfied).then_some(Seen { last, due, paused });
        *self
            .waiter(me)
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = seen;
    }

    /// Closes a consumer's connection.
    pub(super) fn forget(&self, me: &ConsumerId) {
        self.waiters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(me);
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
            let block = end
                .saturating_duration_since(Instant::now())
                .clamp(BLOCK.0, BLOCK.1);
            let found = self.look(&waiter, &seen, block, scripts.generation().await).await;
            if found.map_err(|e| unavailable("wait", &e))? || end <= Instant::now() {
                return Ok(());
            }
        }
    }

    /// One blocking read: whether there is something to claim.
    async fn look(
        &self,
        waiter: &Waiter,
        seen: &Seen,
        block: Duration,
        generation: u64,
    ) -> Result<bool, RedisError> {
        let mut held = waiter.connection.lock().await;
        let mut connection = match held.take() {
            Some((connection, opened_at)) if opened_at == generation => connection,
            _ => self.address.connect(None).await?,
        };
        let keys = self.keys.waited_at();
        // While the queue is paused, only its restart is worth waking up for.
        let from = if seen.paused { 3 } else { 0 };
        let mut read = redis::cmd("XREAD");
        let ms = u64::try_from(block.as_millis()).unwrap_or(1_000);
        read.arg("COUNT").arg(1).arg("BLOCK").arg(ms);
        read.arg("STREAMS").arg(&keys[from..]).arg(&seen.last[from..]);
        // If this is dropped half-way, so is the connection: a read left on it would delay the next.
        let reply = tokio::time::timeout(block + REPLY_TIMEOUT, connection.req_packed_command(&read))
            .await
            .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
            .and_then(redis::Value::extract_error)?;
        *held = Some((connection, generation));
        Ok(reply != redis::Value::Nil)
    }

    fn waiter(&self, me: &ConsumerId) -> Arc<Waiter> {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(waiters.entry(me.clone()).or_default())
    }
}
