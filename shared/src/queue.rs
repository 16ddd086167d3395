//! The queue: one interface, three backends, one suite of contract tests (`conformance`) that all pass.
//!
//! A [`Queue`] is five small traits that stand on one store: [`Intake`] accepts batches, [`Consumer`] hands
//! jobs out and takes their ends, [`Control`] is what people ask and order, [`RelayBoard`] is what the fleet
//! knows of its relays, [`Outbox`] keeps messages to look at. To add a backend, implement the five, register it
//! where the programs are wired, and stamp the suite for it.
//!
//! What always holds, in each backend, at every moment and across a crash of any process:
//! 1. accepted = the sum of all nine states, from one atomic read ([`Control::stats`]).
//! 2. An accepted job ends in exactly one final status; only a requeue and a late 250 lead out of one.
//! 3. A job is held by one consumer. One that has lost it can neither retry nor fail it; its 250 is taken.
//! 4. No retry before its delay, no attempt before `send_at`.
//! 5. Leaving one state and entering the next is one step. An exact replay of a step changes nothing.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod memory;
mod open;
pub mod redis;

pub use open::{OpenError, open};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::job::{BatchId, BatchRecord, JobId, JobRecord, OnAmbiguous, Priority, Reason, Recipient, Status};
use crate::message::Content;
use crate::reply::LastReply;
use crate::template::Bundle;

/// Everything that a backend does.
pub trait Queue: Intake + Consumer + Control + RelayBoard + Outbox {}

impl<T: Intake + Consumer + Control + RelayBoard + Outbox> Queue for T {}

/// How a queue is bounded. The same for every process that uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Jobs queued, retrying, sending or held, at most.
    pub max_queue_size: u64,
    /// Scheduled jobs, at most.
    pub max_scheduled: u64,
    /// How long a consumer holds a job without [`Consumer::extend`] before others may reclaim it.
    pub lease: Duration,
    /// How long records of sent, cancelled and suppressed jobs are kept.
    pub retention: Duration,
    /// How long records of failed jobs are kept, with their content.
    pub failed_retention: Duration,
    /// How many ended jobs' records are kept, at most; held ones are not counted.
    pub retain: u64,
}

/// The queue cannot be reached or did not answer. The step may or may not have happened; every step can be repeated.
#[derive(Debug, thiserror::Error)]
#[error("the queue cannot be reached: {message}")]
pub struct Unavailable {
    /// What the backend said; no address, no secret.
    pub message: String,
}

// ---------------------------------------------------------------------------------------------- intake

/// A batch to be accepted.
#[derive(Debug, Clone)]
pub struct NewBatch {
    /// Made by the caller, so that a repeated call is recognised.
    pub id: BatchId,
    /// How urgent.
    pub priority: Priority,
    /// Not before; a time that is not in the future is as none.
    pub send_at: Option<Timestamp>,
    /// What to do when the relay may have the message.
    pub on_ambiguous: OnAmbiguous,
    /// Attempts at most, per job.
    pub max_attempts: u32,
    /// A job not sent this long after acceptance or `send_at` fails as `expired`; time that the queue is paused
    /// does not count.
    pub expire_after: Duration,
    /// Names, given back in records.
    pub tags: Vec<String>,
    /// Data, given back in records.
    pub metadata: Option<Map<String, Value>>,
    /// What the recipients share.
    pub content: Arc<Content>,
    /// The sources that [`crate::message::Body::Template`] names.
    pub bundle: Option<Arc<Bundle>>,
    /// One job each, in this order. Never empty.
    pub recipients: Vec<Recipient>,
    /// Makes a repetition of the request harmless.
    pub idempotency: Option<Idempotency>,
}

/// An idempotency key as the queue sees it: recorded in the step that queues the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// A digest of the API key's name and the `Idempotency-Key`, in hex.
    pub key: String,
    /// A digest of the request's body, in hex.
    pub fingerprint: String,
    /// How long after acceptance or `send_at` it is remembered.
    pub keep: Duration,
}

/// How a batch was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The batch; an earlier one when this is a replay.
    pub batch: BatchId,
    /// How many jobs it made.
    pub count: u32,
    /// Whether they were scheduled rather than queued.
    pub scheduled: bool,
    /// Whether the answer is one that was given before to the same key and fingerprint.
    pub replayed: bool,
}

/// Why a batch was not accepted. Nothing of it was written, but for [`EnqueueError::Unavailable`].
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// It would pass `max_queue_size`.
    #[error("the queue is full: {used} of {max} jobs")]
    Full {
        /// Jobs counted now.
        used: u64,
        /// The limit.
        max: u64,
    },
    /// It would pass `jobs.max_scheduled`.
    #[error("the schedule is full: {used} of {max} jobs")]
    ScheduleFull {
        /// Scheduled jobs now.
        used: u64,
        /// The limit.
        max: u64,
    },
    /// It is larger than the limit that it counts against, so that it can never be accepted.
    #[error("a batch of {count} jobs is larger than the limit of {max}")]
    TooLarge {
        /// Jobs in the batch.
        count: u64,
        /// The limit.
        max: u64,
    },
    /// The key was used with another body.
    #[error("the idempotency key was used with another body")]
    KeyReuse,
    /// No answer: the batch may have been queued.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Accepts batches.
#[async_trait]
pub trait Intake: Send + Sync {
    /// Queues a batch whole or not at all. When it returns `Ok`, the backend has confirmed all of it. Repeating the
    /// call with the same batch id changes nothing and answers the same.
    async fn enqueue(&self, batch: NewBatch) -> Result<Accepted, EnqueueError>;

    /// What was answered to an idempotency key with this fingerprint, if it is still remembered.
    async fn replay(&self, idempotency: &Idempotency) -> Result<Option<Accepted>, EnqueueError>;
}

// -------------------------------------------------------------------------------------------- consumer

/// Names a consumer: unique per start of a process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerId(pub Arc<str>);

impl ConsumerId {
    /// `<host>-<pid>-<random>`.
    #[must_use]
    pub fn generate() -> Self {
        let host = hostname::get().ok().and_then(|h| h.into_string().ok()).unwrap_or_else(|| "host".into());
        Self(format!("{host}-{}-{:08x}", std::process::id(), rand::random::<u32>()).into())
    }
}

impl fmt::Display for ConsumerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Tells one hand-out of a job from every other one. What the two numbers are is the backend's matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt(pub u64, pub u64);

/// One hand-out of a job to a consumer, under a lease.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The job.
    pub job: JobId,
    /// Names this hand-out; a settlement gives it back.
    pub receipt: Receipt,
    /// Its recipient.
    pub recipient: Recipient,
    /// How urgent it is.
    pub priority: Priority,
    /// The ordinal of the attempt that this delivery is, from 1: the attempts that counted, plus one.
    pub attempt: u32,
    /// Attempts at most.
    pub max_attempts: u32,
    /// How often it has been reclaimed from dead consumers since its last outcome.
    pub reclaims: u32,
    /// Whether an earlier holder marked it ([`Consumer::mark`]) and left no outcome: the relay may have the message.
    pub marked: bool,
    /// What to do then.
    pub on_ambiguous: OnAmbiguous,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it was to be sent, if a time was asked for.
    pub send_at: Option<Timestamp>,
    /// What to send.
    pub content: Arc<Content>,
    /// The template's sources, where the content names some.
    pub bundle: Option<Arc<Bundle>>,
}

impl Delivery {
    /// The message's `Date`: the later of acceptance and `send_at`, the same in every attempt.
    #[must_use]
    pub fn date(&self) -> Timestamp {
        self.send_at.map_or(self.accepted_at, |at| at.max(self.accepted_at))
    }
}

/// How a delivery ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// The job.
    pub job: JobId,
    /// The hand-out that ends ([`Delivery::receipt`]): a replay, or one that was lost, is recognised by it.
    pub receipt: Receipt,
    /// The ordinal of the attempt that ends ([`Delivery::attempt`]).
    pub attempt: u32,
    /// What becomes of the job.
    pub verdict: Verdict,
    /// The relay that was tried, by name.
    pub relay: Option<String>,
    /// What it said.
    pub reply: Option<LastReply>,
    /// For the timeline, for a person. Never an address or a secret.
    pub detail: String,
}

impl Settlement {
    /// What a job's timeline says of it: the attempt, what the relay said, and what the worker adds.
    #[must_use]
    pub fn in_words(&self) -> String {
        attempt_in_words(self.attempt, self.reply.as_ref(), &self.detail)
    }
}

/// See [`Settlement::in_words`].
pub(crate) fn attempt_in_words(attempt: u32, reply: Option<&LastReply>, detail: &str) -> String {
    let mut words = format!("attempt {attempt}");
    for part in [reply.map(ToString::to_string).as_deref().unwrap_or_default(), detail] {
        if !part.is_empty() {
            words.push_str(": ");
            words.push_str(part);
        }
    }
    words
}

/// What becomes of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The relay has it. Accepted from a consumer that has lost the job too, wherever the job now is, but for a
    /// cancelled one's status, which was a person's word.
    Sent,
    /// The attempt counts; the next is due after the delay.
    Retry {
        /// Counted from now, by the queue's clock.
        delay: Duration,
    },
    /// Back to the queue, ready now; nothing counts and a mark is taken off. Only while no content has gone out.
    Release,
    /// Given up. The attempt counts unless the message could not be built. For [`Reason::Suppressed`], which no attempt
    /// gives, the job is `suppressed` and not `failed`.
    Fail(Reason),
    /// The relay may have it; a person decides. The attempt counts.
    Hold,
}

/// What settling did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// What was asked.
    Done,
    /// A 250 of a consumer that had lost the job: it is `sent` now.
    Late,
    /// Nothing: the consumer does not hold the job, or it has been settled, or its record is gone.
    Lost,
}

/// What [`Consumer::maintain`] did, and when it is worth calling again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Jobs that became ready.
    pub promoted: u64,
    /// Jobs that failed as `expired`.
    pub expired: Vec<JobId>,
    /// Records that were removed.
    pub removed: u64,
    /// How long until the next job is due. None: none waits.
    pub next_due: Option<Duration>,
}

/// What a reclaim found.
#[derive(Debug, Clone, Default)]
pub struct Reclaimed {
    /// Now held by the caller, to run at once.
    pub deliveries: Vec<Delivery>,
    /// Reclaimed too often: failed as `poison`, or held where they were marked and asked for that.
    pub poisoned: Vec<JobId>,
}

/// Hands jobs out and takes their ends. Every method may be repeated when its answer was lost.
#[async_trait]
pub trait Consumer: Send + Sync {
    /// At most `max` jobs that are ready now, under the lease; none while the queue is paused. Never waits.
    /// Expired jobs that it meets are failed, not handed out.
    async fn claim(&self, me: &ConsumerId, max: usize) -> Result<Vec<Delivery>, Unavailable>;

    /// Returns when a claim may find something, or after `at_most`. Takes nothing; may return for nothing. A job that
    /// became ready after the caller's last claim began never goes unnoticed.
    async fn ready(&self, me: &ConsumerId, at_most: Duration) -> Result<(), Unavailable>;

    /// Renews leases. Returns the jobs that the caller does not hold any more.
    async fn extend(&self, me: &ConsumerId, jobs: &[JobId]) -> Result<Vec<JobId>, Unavailable>;

    /// Notes that content is about to go out. Returns the jobs that the caller does not hold any more: theirs must
    /// not go out.
    async fn mark(&self, me: &ConsumerId, jobs: &[JobId]) -> Result<Vec<JobId>, Unavailable>;

    /// Ends deliveries; one result for each, in order.
    async fn settle(&self, me: &ConsumerId, settlements: &[Settlement]) -> Result<Vec<Settled>, Unavailable>;

    /// Takes over at most `max` jobs whose lease has run out.
    async fn reclaim(&self, me: &ConsumerId, max: usize) -> Result<Reclaimed, Unavailable>;

    /// All that the caller holds by the queue's account: after a reconnect, what it does not know of is a claim
    /// whose answer was lost.
    async fn held_by(&self, me: &ConsumerId) -> Result<Vec<Delivery>, Unavailable>;

    /// Tells that the consumer is alive; [`Stats::workers`] counts those heard of within a lease.
    async fn heartbeat(&self, me: &ConsumerId) -> Result<(), Unavailable>;

    /// Forgets a consumer that holds nothing. One that holds something stays until it is reclaimed.
    async fn leave(&self, me: &ConsumerId) -> Result<(), Unavailable>;

    /// Makes due jobs ready, fails expired ones, removes old records. A bounded piece of work a call: call again at
    /// once while it did something.
    async fn maintain(&self) -> Result<Maintenance, Unavailable>;
}

// --------------------------------------------------------------------------------------------- control

/// The ledger: accepted = the sum of the other nine, always. Ended jobs stay counted after their records are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each counts the jobs in the status of its name")]
pub struct Ledger {
    pub accepted: u64,
    pub queued: u64,
    pub scheduled: u64,
    pub retrying: u64,
    pub sending: u64,
    pub sent: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub held: u64,
    pub suppressed: u64,
}

impl Ledger {
    /// The number of jobs in a status.
    #[must_use]
    pub const fn of(&self, status: Status) -> u64 {
        match status {
            Status::Queued => self.queued,
            Status::Scheduled => self.scheduled,
            Status::Sending => self.sending,
            Status::Retrying => self.retrying,
            Status::Sent => self.sent,
            Status::Failed => self.failed,
            Status::Cancelled => self.cancelled,
            Status::Held => self.held,
            Status::Suppressed => self.suppressed,
        }
    }

    /// The number of jobs in a status, to be changed.
    pub const fn of_mut(&mut self, status: Status) -> &mut u64 {
        match status {
            Status::Queued => &mut self.queued,
            Status::Scheduled => &mut self.scheduled,
            Status::Sending => &mut self.sending,
            Status::Retrying => &mut self.retrying,
            Status::Sent => &mut self.sent,
            Status::Failed => &mut self.failed,
            Status::Cancelled => &mut self.cancelled,
            Status::Held => &mut self.held,
            Status::Suppressed => &mut self.suppressed,
        }
    }

    /// Whether it balances.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.accepted == Status::ALL.iter().map(|s| self.of(*s)).sum::<u64>()
    }

    /// What counts against `max_queue_size`.
    #[must_use]
    pub const fn used(&self) -> u64 {
        self.queued + self.retrying + self.sending + self.held
    }
}

/// One value for each priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the value for the priority of its name")]
pub struct ByPriority<T> {
    pub high: T,
    pub normal: T,
    pub bulk: T,
}

impl<T> ByPriority<T> {
    /// The value for a priority.
    pub const fn of(&self, priority: Priority) -> &T {
        match priority {
            Priority::High => &self.high,
            Priority::Normal => &self.normal,
            Priority::Bulk => &self.bulk,
        }
    }

    /// The value for a priority, to be changed.
    pub const fn of_mut(&mut self, priority: Priority) -> &mut T {
        match priority {
            Priority::High => &mut self.high,
            Priority::Normal => &mut self.normal,
            Priority::Bulk => &mut self.bulk,
        }
    }
}

/// What a 202 is worth when the backend crashes, as the backend itself is set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Durability {
    /// `memory`, `redis` or `nats`.
    pub backend: &'static str,
    /// Whether everything that was answered survives a crash of the backend.
    pub survives_crash: bool,
    /// What that rests on, or what is missing, in words.
    pub details: Vec<String>,
}

/// The queue at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Whether a person has paused it.
    pub paused: bool,
    /// Jobs by status.
    pub ledger: Ledger,
    /// Jobs by status (`queued`, `scheduled`, `retrying`, `sending`) and priority; other statuses are zero.
    pub states: ByPriority<Ledger>,
    /// Jobs that a claim can take now.
    pub ready: ByPriority<u64>,
    /// How long ago the oldest ready job was accepted; zero where none is ready.
    pub oldest: ByPriority<Duration>,
    /// The limit that [`Ledger::used`] counts against.
    pub max_queue_size: u64,
    /// Consumers heard of within a lease.
    pub workers: u64,
}

/// Which jobs a listing shows; all that are given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// In this status.
    pub status: Option<Status>,
    /// To this recipient, by [`crate::address::Address::key`].
    pub recipient: Option<String>,
    /// With this tag.
    pub tag: Option<String>,
    /// Of this batch.
    pub batch: Option<BatchId>,
}

/// A page of a listing, newest first.
#[derive(Debug, Clone, Default)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<JobRecord>,
    /// Where the next page starts; none: this is the last one.
    pub next: Option<JobId>,
}

/// How many records one page of a listing looks at, at most.
pub const LISTING_LOOKS_AT: usize = 5_000;

/// What an order to a job did.
#[derive(Debug, Clone, PartialEq)]
pub enum Ordered {
    /// Done; the job as it is now.
    Done(Box<JobRecord>),
    /// Not in a state in which that can be done.
    Conflict(Status),
    /// The queue has no place for it ([`Control::requeue`], [`Control::reschedule`]).
    Full,
    /// No such job.
    Unknown,
}

/// What people ask and order.
#[async_trait]
pub trait Control: Send + Sync {
    /// One job.
    async fn job(&self, id: JobId) -> Result<Option<JobRecord>, Unavailable>;

    /// At most `limit` jobs, newest first, older than `after`. Looks at no more than [`LISTING_LOOKS_AT`] records, so
    /// that a page may be short, or empty with a `next`.
    async fn jobs(
        &self,
        filter: &JobFilter,
        limit: usize,
        after: Option<JobId>,
    ) -> Result<JobPage, Unavailable>;

    /// One batch. Known as long as a record of one of its jobs is.
    async fn batch(&self, id: BatchId) -> Result<Option<BatchRecord>, Unavailable>;

    /// queued, scheduled, retrying → cancelled. A cancelled job is never handed out.
    async fn cancel(&self, id: JobId) -> Result<Ordered, Unavailable>;

    /// Cancels all jobs of a batch that can be; returns how many. None: no such batch.
    async fn cancel_batch(&self, id: BatchId) -> Result<Option<u64>, Unavailable>;

    /// Moves a scheduled job to another time; one that is not in the future makes it ready now.
    async fn reschedule(&self, id: JobId, send_at: Timestamp) -> Result<Ordered, Unavailable>;

    /// failed, held → queued again, with all attempts before it and a new time to expire.
    async fn requeue(&self, id: JobId) -> Result<Ordered, Unavailable>;

    /// The queue at one moment, from one atomic read.
    async fn stats(&self) -> Result<Stats, Unavailable>;

    /// Stops or restarts the handing out of jobs, for the whole fleet.
    async fn set_paused(&self, paused: bool) -> Result<(), Unavailable>;

    /// Whether the backend answers, and what a 202 is worth.
    async fn durability(&self) -> Result<Durability, Unavailable>;
}

// -------------------------------------------------------------------------------------------- relays

/// Why a relay is not used now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayPause {
    /// Since when.
    pub since: Timestamp,
    /// Not before this is it probed or used again.
    pub until: Timestamp,
    /// Probes that failed since.
    pub probes: u32,
    /// Why.
    pub cause: PauseCause,
    /// What it said last.
    pub reply: LastReply,
}

/// Why a relay is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseCause {
    /// It cannot be reached, or refuses us: it is probed, without a job, until a probe succeeds.
    Down,
    /// It asked us to slow down: it is used again when the time is over, without a probe.
    Throttled,
}

/// What the fleet knows of its relays, by name.
#[async_trait]
pub trait RelayBoard: Send + Sync {
    /// The relay's pause. None: it is in use.
    async fn relay_pause(&self, relay: &str) -> Result<Option<RelayPause>, Unavailable>;

    /// Pauses a relay until `for_how_long` from now. One that is paused as [`PauseCause::Down`] keeps its `since`, and
    /// is not turned into a throttled one. Returns the pause as it is now.
    async fn pause_relay(
        &self,
        relay: &str,
        cause: PauseCause,
        for_how_long: Duration,
        probes: u32,
        reply: LastReply,
    ) -> Result<RelayPause, Unavailable>;

    /// Uses the relay again.
    async fn resume_relay(&self, relay: &str) -> Result<(), Unavailable>;

    /// Whether the caller is the one of the fleet that probes the relay now: true when its pause is over and
    /// nobody else has taken the probe within `lease`.
    async fn take_probe(&self, relay: &str, me: &ConsumerId, lease: Duration) -> Result<bool, Unavailable>;
}

// -------------------------------------------------------------------------------------------- outbox

/// A message that the outbox transport kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptMessage {
    /// The job that it is of.
    pub job: JobId,
    /// When it was kept.
    pub at: Timestamp,
    /// The envelope's sender.
    pub from: String,
    /// The envelope's recipients.
    pub to: Vec<String>,
    /// The message as it would have gone out (RFC 5322), CRLF line ends. ASCII, so that JSON can hold it.
    pub source: String,
}

/// How many messages the outbox keeps, at most.
pub const OUTBOX_MESSAGES: usize = 500;

/// How many bytes of messages the outbox keeps, at most.
pub const OUTBOX_BYTES: usize = 64 * 1024 * 1024;

/// Keeps messages instead of sending them: the newest [`OUTBOX_MESSAGES`], at most [`OUTBOX_BYTES`].
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Keeps a message; a second one of the same job takes the first one's place.
    async fn keep(&self, message: KeptMessage) -> Result<(), Unavailable>;

    /// At most `limit` messages, newest first.
    async fn kept(&self, limit: usize) -> Result<Vec<KeptMessage>, Unavailable>;

    /// The message of a job.
    async fn kept_message(&self, job: JobId) -> Result<Option<KeptMessage>, Unavailable>;
}
