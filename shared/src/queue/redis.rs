//! The queue in Redis 7 or Valkey: any number of APIs and workers on one queue.
//!
//! ```text
//!                       send_at in the future                     due (maintain)
//!            enqueue ──────────────────────────► :delayed ─────────────────────────┐
//!               │                                    ▲                             ▼
//!               └──────────────────────────────────► │ ─────────► :ready:high, :ready:normal, :ready:bulk
//!                                              retry │                      │ ▲           streams, group `workers`
//!                                                    │                claim │ │ release
//!                                                    │                      ▼ │
//!    :ended  ◄── sent, cancelled, suppressed         └───── in flight = the group's pending lists ──► reclaim
//!    :failed ◄── failed ──┐                                                 │
//!    :held   ◄── held ──┐ └────────── requeue ──► ready                     │
//!                       └──────────── requeue ──► ready      settle ◄───────┘
//! ```
//!
//! | key | type | holds |
//! |---|---|---|
//! | `:ready:<priority>` | stream, group `workers` | ready jobs: one field, the id. Never trimmed |
//! | `:delayed` | sorted set | retries and scheduled jobs by due time, ms of the server's clock |
//! | `:urgent` | sorted set | those of them with high priority: they need not wait behind thousands that are due too |
//! | `:expiring` | sorted set | those of them that will expire before they are due, by that time |
//! | `:job:<id>` | hash | state, place, owner, counts, short texts; small enough to stay a listpack. Of a batch of one job also what is in `:batch:<id>` of others |
//! | `:detail:<id>` | hash | a job's texts over 64 bytes, where it has some |
//! | `:timeline:<id>` | list | its newest 50 events, but for `accepted` and what the hash tells of the last attempt |
//! | `:batch:<id>` | hash | what the jobs of a batch of several share, and how many need its content. Of one that is gone: that it was there, for a minute |
//! | `:labels:<batch>` | hash | its tags and metadata where they are over 64 bytes |
//! | `:content:<batch>` | string | what is sent; freed with the last job that needs it |
//! | `:template:<hash>`, `:templates` | string, hash | template sources, and how many contents need each |
//! | `:batches`, `:several` | stream, hash | batch ids by acceptance, for listing: up to eight of a call in an entry; how many of an entry's several batches are left |
//! | `:ended` `:failed` `:held` | sorted set | ended jobs by the time of their end |
//! | `:idem:<hash>` | string, expires | what was answered to an idempotency key |
//! | `:relay:<name>` | hash | why a relay is paused, and who probes it |
//! | `:outbox`, `:outbox:<job>` | sorted set, hash | messages that were kept instead of sent |
//! | `:workers` | sorted set | consumers by last heartbeat |
//! | `:counters` `:meta` `:wake` | hash, hash, stream | the ledger; paused, schema version; written when a pause ends |
//!
//! What always holds: every change is one script ([`scripts`]), or a transaction of one and the contents that it takes
//! in, so that no crash falls between two halves of one; the counters move in the same script as the jobs. All names
//! carry the hash tag `{<queue.name>}` ([`keys`]), so that a queue is on one server of a Cluster.
//!
//! Connections: a pool for people's requests, one connection for accepting, one for the worker's scripts, one for
//! large values, and for each consumer one that only waits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::queue::{Limits, Unavailable};
use crate::settings;

pub mod access;
mod address;
mod channel;
mod consumer;
mod content;
mod control;
mod durability;
mod gathering;
mod intake;
mod keys;
mod record;
mod relays;
mod scripts;
mod stored;
mod wake;

pub use address::InvalidUrl;

/// Whether a URL is one that [`RedisQueue::connect`] understands.
///
/// # Errors
/// [`InvalidUrl`], which does not show what it holds.
pub fn check_url(url: &SecretString) -> Result<(), InvalidUrl> {
    address::Address::parse(url.expose_secret(), "{}").map(drop)
}

#[cfg(feature = "conformance")]
pub use scripts::testing;

use channel::Channel;
use keys::Keys;

/// How the keys are laid out. A program refuses a queue of another layout.
const SCHEMA: u32 = 3;

/// A server that takes longer to answer has stood still, however short the lease is.
const SLOW: Duration = Duration::from_secs(1);

/// The queue in Redis.
pub struct RedisQueue {
    keys: Keys,
    limits: Limits,
    gathering: Arc<gathering::Gathering>,
    /// Scripts of the worker.
    worker: Channel,
    /// Values that would hold up others.
    bulk: Channel,
    /// People's questions and orders.
    api: Channel,
    wake: wake::Wake,
    contents: content::Contents,
    /// How many jobs were asked for so far: where in the round of priorities the next claim begins.
    picked: AtomicUsize,
}

/// Why a queue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// `REDIS_URL`.
    #[error("queue.redis.url (REDIS_URL): {0}")]
    Url(#[from] InvalidUrl),
    /// `QUEUE_NAME`.
    #[error("queue.name (QUEUE_NAME): `{0}`: allowed are letters, digits, `-`, `_` and `.`")]
    Name(String),
    /// No answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Too old.
    #[error("Redis {0} is too old: 7.0 or newer is needed, or Valkey")]
    Version(String),
    /// It may throw jobs away.
    #[error(
        "Redis may evict jobs: its maxmemory-policy is `{0}`, allowed is `noeviction`; queue.redis.allow_unsafe \
         (REDIS_ALLOW_UNSAFE) runs on it all the same"
    )]
    Evicts(String),
    /// Written by a release that laid the keys out in another way.
    #[error("the queue's keys are of layout {0}, this program knows layout {SCHEMA}")]
    Schema(u32),
}

impl RedisQueue {
    /// Connects to a queue, which need not exist yet.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(
        settings: &settings::Redis,
        name: &str,
        limits: Limits,
    ) -> Result<Self, ConnectError> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            return Err(ConnectError::Name(name.to_owned()));
        }
        let keys = Keys::new(name);
        let address = Arc::new(address::Address::parse(settings.url.expose_secret(), keys.prefix())?);
        let queue = Self {
            gathering: Arc::new(gathering::Gathering::new(
                Channel::dedicated(&address),
                keys.clone(),
                limits.clone(),
            )),
            worker: Channel::watched(&address, (limits.lease / 2).max(SLOW)),
            bulk: Channel::dedicated(&address),
            api: Channel::pooled(&address),
            wake: wake::Wake::new(&address, keys.clone()),
            contents: content::Contents::default(),
            picked: AtomicUsize::new(rand::random_range(0..12)),
            keys,
            limits,
        };
        queue.check(settings.allow_unsafe).await?;
        Ok(queue)
    }

    async fn check(&self, allow_unsafe: bool) -> Result<(), ConnectError> {
        let facts = durability::Facts::read(&self.api).await?;
        if facts.major_version().is_some_and(|major| major < 7) {
            return Err(ConnectError::Version(facts.version().to_owned()));
        }
        if let (true, false, Some(policy)) = (facts.evicts(), allow_unsafe, &facts.eviction) {
            return Err(ConnectError::Evicts(policy.clone()));
        }
        // Opened now, so that its age begins to count: see `Consumer::reclaim`.
        self.worker.command::<redis::Value>(&redis::cmd("TIME")).await?;
        let mut read = redis::cmd("HGET");
        read.arg(self.keys.meta()).arg("v");
        match self.api.command::<Option<u32>>(&read).await? {
            Some(SCHEMA) => Ok(()),
            Some(other) => Err(ConnectError::Schema(other)),
            // Written once. A Redis that is full takes no write, and would else keep those out who drain it.
            None => {
                let mut write = redis::cmd("HSETNX");
                write.arg(self.keys.meta()).arg("v").arg(SCHEMA);
                Ok(self.api.command::<i64>(&write).await.map(drop)?)
            }
        }
    }

    fn lease_ms(&self) -> u64 {
        millis(self.limits.lease)
    }
}

impl fmt::Debug for RedisQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisQueue").field("keys", &self.keys).finish_non_exhaustive()
    }
}

fn millis(duration: Duration) -> u64 {
    // Scripts compute with doubles: beyond 2^53 a number is not exact any more.
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(1 << 53)
}

/// Something stored or answered that cannot be what this program wrote.
fn unreadable(what: impl fmt::Display) -> Unavailable {
    Unavailable { message: format!("not readable: {what}") }
}
