//! The memory queue: everything in one process, gone when it ends.
//!
//! One mutex over one [`State`]; each method locks it once, so that each is one atomic step, and awaits nothing while
//! it holds it. Nothing under the lock scans: indexes are ordered sets, the ledger is kept and not counted. Promotion
//! is done by whoever asks for jobs, too, so that a due job waits for no one.

mod board;
mod finish;
mod intake;
mod outbox;
mod records;
mod state;
mod supply;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use self::state::State;
use super::{
    Accepted, Consumer, ConsumerId, Control, Delivery, Durability, EnqueueError, Idempotency, Intake,
    JobFilter, JobPage, KeptMessage, Limits, Maintenance, NewBatch, Ordered, Outbox, PauseCause, Reclaimed,
    RelayBoard, RelayPause, Settled, Settlement, Stats, Unavailable,
};
use crate::clock::{Clock, Timestamp};
use crate::job::{BatchId, BatchRecord, JobId, JobRecord};
use crate::reply::LastReply;

/// The longest sleep before looking at the clock again: it may be set while we sleep.
const LOOK: Duration = Duration::from_secs(1);

/// The queue inside the API's process.
#[derive(Debug)]
pub struct MemoryQueue {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    board: Mutex<board::Board>,
    outbox: Mutex<outbox::Kept>,
    /// Told when a claim may find something that it could not find before.
    more: Notify,
}

impl MemoryQueue {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            state: Mutex::new(State::new(limits)),
            board: Mutex::default(),
            outbox: Mutex::default(),
            more: Notify::new(),
        }
    }

    /// One atomic step at one moment.
    fn step<T>(&self, step: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        // A step that panicked would have left the state half changed: there is none that can.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let result = step(&mut state, now);
        if std::mem::take(&mut state.has_more) {
            self.more.notify_waiters();
        }
        result
    }

    fn board(&self) -> MutexGuard<'_, board::Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outbox(&self) -> MutexGuard<'_, outbox::Kept> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Intake for MemoryQueue {
    async fn enqueue(&self, batch: NewBatch) -> Result<Accepted, EnqueueError> {
        self.step(|state, now| state.enqueue(batch, now))
    }

    async fn replay(&self, idempotency: &Idempotency) -> Result<Option<Accepted>, EnqueueError> {
        self.step(|state, now| state.replay(idempotency, now))
    }
}

#[async_trait]
impl Consumer for MemoryQueue {
    async fn claim(&self, me: &ConsumerId, max: usize) -> Result<Vec<Delivery>, Unavailable> {
        Ok(self.step(|state, now| state.claim(me, max, now)))
    }

    async fn ready(&self, _me: &ConsumerId, at_most: Duration) -> Result<(), Unavailable> {
        let deadline = tokio::time::Instant::now() + at_most;
        loop {
            let more = self.more.notified();
            tokio::pin!(more);
            // Listens before it looks, so that nothing is missed in between.
            more.as_mut().enable();
            let (is_ready, next_due) = self.step(|state, now| {
                state.promote(now);
                (state.can_claim(), state.next_due(now))
            });
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if is_ready || left.is_zero() {
                return Ok(());
            }
            let nap = next_due.map_or(LOOK, |due| due.clamp(Duration::from_millis(1), LOOK)).min(left);
            tokio::select! {
                () = more => {}
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    async fn extend(&self, me: &ConsumerId, jobs: &[JobId]) -> Result<Vec<JobId>, Unavailable> {
        Ok(self.step(|state, now| state.extend(me, jobs, now)))
    }

    async fn mark(&self, me: &ConsumerId, jobs: &[JobId]) -> Result<Vec<JobId>, Unavailable> {
        Ok(self.step(|state, _| state.mark(me, jobs)))
    }

    async fn settle(&self, me: &ConsumerId, settlements: &[Settlement]) -> Result<Vec<Settled>, Unavailable> {
        Ok(self.step(|state, now| settlements.iter().map(|end| state.settle(me, end, now)).collect()))
    }

    async fn reclaim(&self, me: &ConsumerId, max: usize) -> Result<Reclaimed, Unavailable> {
        Ok(self.step(|state, now| state.reclaim(me, max, now)))
    }

    async fn held_by(&self, me: &ConsumerId) -> Result<Vec<Delivery>, Unavailable> {
        Ok(self.step(|state, _| state.held_by(me)))
    }

    async fn heartbeat(&self, me: &ConsumerId) -> Result<(), Unavailable> {
        self.step(|state, now| state.heard_of(me, now));
        Ok(())
    }

    async fn leave(&self, me: &ConsumerId) -> Result<(), Unavailable> {
        self.step(|state, _| state.leave(me));
        Ok(())
    }

    async fn maintain(&self) -> Result<Maintenance, Unavailable> {
        Ok(self.step(State::maintain))
    }
}

#[async_trait]
impl Control for MemoryQueue {
    async fn job(&self, id: JobId) -> Result<Option<JobRecord>, Unavailable> {
        Ok(self.step(|state, _| state.record(id)))
    }

    async fn jobs(
        &self,
        filter: &JobFilter,
        limit: usize,
        after: Option<JobId>,
    ) -> Result<JobPage, Unavailable> {
        Ok(self.step(|state, _| state.list(filter, limit, after)))
    }

    async fn batch(&self, id: BatchId) -> Result<Option<BatchRecord>, Unavailable> {
        Ok(self.step(|state, _| state.batch_record(id)))
    }

    async fn cancel(&self, id: JobId) -> Result<Ordered, Unavailable> {
        Ok(self.step(|state, now| state.cancel(id, now)))
    }

    async fn cancel_batch(&self, id: BatchId) -> Result<Option<u64>, Unavailable> {
        Ok(self.step(|state, now| state.cancel_batch(id, now)))
    }

    async fn reschedule(&self, id: JobId, send_at: Timestamp) -> Result<Ordered, Unavailable> {
        Ok(self.step(|state, now| state.reschedule(id, send_at, now)))
    }

    async fn requeue(&self, id: JobId) -> Result<Ordered, Unavailable> {
        Ok(self.step(|state, now| state.requeue(id, now)))
    }

    async fn stats(&self) -> Result<Stats, Unavailable> {
        Ok(self.step(|state, now| state.stats(now)))
    }

    async fn set_paused(&self, paused: bool) -> Result<(), Unavailable> {
        self.step(|state, now| state.set_paused(paused, now));
        Ok(())
    }

    async fn durability(&self) -> Result<Durability, Unavailable> {
        Ok(Durability {
            backend: "memory",
            survives_crash: false,
            details: vec!["jobs live in this process and are lost when it ends".into()],
        })
    }
}

#[async_trait]
impl RelayBoard for MemoryQueue {
    async fn relay_pause(&self, relay: &str) -> Result<Option<RelayPause>, Unavailable> {
        Ok(self.board().pause_of(relay))
    }

    async fn pause_relay(
        &self,
        relay: &str,
        cause: PauseCause,
        for_how_long: Duration,
        probes: u32,
        reply: LastReply,
    ) -> Result<RelayPause, Unavailable> {
        let now = self.clock.now();
        Ok(self
            .board()
            .pause(relay, RelayPause { since: now, until: now + for_how_long, probes, cause, reply }))
    }

    async fn resume_relay(&self, relay: &str) -> Result<(), Unavailable> {
        self.board().resume(relay);
        Ok(())
    }

    async fn take_probe(&self, relay: &str, me: &ConsumerId, lease: Duration) -> Result<bool, Unavailable> {
        Ok(self.board().take_probe(relay, me, lease, self.clock.now()))
    }
}

#[async_trait]
impl Outbox for MemoryQueue {
    async fn keep(&self, message: KeptMessage) -> Result<(), Unavailable> {
        self.outbox().keep(message);
        Ok(())
    }

    async fn kept(&self, limit: usize) -> Result<Vec<KeptMessage>, Unavailable> {
        Ok(self.outbox().newest(limit))
    }

    async fn kept_message(&self, job: JobId) -> Result<Option<KeptMessage>, Unavailable> {
        Ok(self.outbox().of(job))
    }
}
