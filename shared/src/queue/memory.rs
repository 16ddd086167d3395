//! The queue in one process' memory: the same behaviour as the others, lost when the process ends.
//!
//! One lock guards the whole state, so that every step is atomic; nothing is awaited and nothing is searched under it:
//! each operation costs O(log n) for each job that it touches, whatever the queue holds. Counters are kept, not
//! computed. The lock's holder cannot be left half-way by a panic that matters: a poisoned lock is taken as it is,
//! since the process that has it is the only one there is.
//!
//! Time is the clock that the caller gives. A step of it backwards makes jobs wait longer, never shorter.

mod consume;
mod control;
mod delayed;
mod idempotency;
mod index;
mod intake;
mod leases;
mod outbox;
mod ready;
mod records;
mod relays;
mod state;
mod upkeep;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::{Clock, Timestamp};
use crate::job::{BatchId, BatchRecord, JobId, JobRecord};
use crate::reply::LastReply;

use super::{
    Accepted, Consumer, ConsumerId, Control, Delivery, Durability, EnqueueError, Idempotency, Intake,
    JobFilter, JobPage, KeptMessage, Limits, Maintenance, NewBatch, Ordered, Outbox, PauseCause, Reclaimed,
    RelayBoard, RelayPause, Settled, Settlement, Stats, Unavailable,
};
use outbox::Kept;
use records::Batch;
use relays::Relays;
use state::State;

/// The longest that [`Consumer::ready`] sleeps before it looks at the clock again: the wall clock may step.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// A queue in memory.
pub struct MemoryQueue {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Relays and outbox are no part of a job's steps: they do not hold up the queue.
    relays: Mutex<Relays>,
    outbox: Mutex<Kept>,
    /// Wakes one consumer that waits. Notified after each step that gives it something to look at.
    wake: Notify,
}

impl fmt::Debug for MemoryQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryQueue").finish_non_exhaustive()
    }
}

impl MemoryQueue {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            state: Mutex::new(State::new(limits)),
            relays: Mutex::default(),
            outbox: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Does one step, at one time, and wakes a consumer where that is worth it.
    fn step<T>(&self, step: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        let (result, wake) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            // The clock is read under the lock, so that later steps never have earlier times.
            let result = step(&mut state, self.clock.now());
            (result, std::mem::take(&mut state.index.wake))
        };
        if wake {
            self.wake.notify_one();
        }
        result
    }

    fn relays<T>(&self, step: impl FnOnce(&mut Relays, Timestamp) -> T) -> T {
        let mut relays = self.relays.lock().unwrap_or_else(PoisonError::into_inner);
        step(&mut relays, self.clock.now())
    }

    fn outbox<T>(&self, step: impl FnOnce(&mut Kept) -> T) -> T {
        step(&mut self.outbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How long a claim would find nothing, as far as one can know now.
    fn idle_for(&self) -> Duration {
        self.step(|state, now| {
            if state.is_claimable(now) {
                return Duration::ZERO;
            }
            let next_due = state.index.delayed.next_due();
            match next_due.filter(|_| state.index.paused.is_none()) {
                Some(due) => due.since(now).min(LONGEST_SLEEP),
                None => LONGEST_SLEEP,
            }
        })
    }
}

#[async_trait]
impl Intake for MemoryQueue {
    async fn enqueue(&self, mut batch: NewBatch) -> Result<Accepted, EnqueueError> {
        let idempotency = batch.idempotency.take();
        // Built before the lock is taken.
        let mut batch = Box::new(Batch::new(batch, self.clock.now()));
        self.step(|state, now| {
            batch.accepted_at = now;
            state.enqueue(batch, idempotency)
        })
    }

    async fn replay(&self, idempotency: &Idempotency) -> Result<Option<Accepted>, EnqueueError> {
        let found = self.step(|state, now| state.keys.find(idempotency, now))?;
        Ok(found.map(|first| Accepted {
            replayed: true,
            ..first
        }))
    }
}

#[async_trait]
impl Consumer for MemoryQueue {
    async fn claim(&self, me: &ConsumerId, max: usize) -> Result<Vec<Delivery>, Unavailable> {
        Ok(self.step(|state, now| state.claim(me, max, now)))
    }

    async fn ready(&self, _me: &ConsumerId, at_most: Duration) -> Result<(), Unavailable> {
        let end = Instant::now() + at_most;
        loop {
            // Registered before the look, so that a change between the look and the wait is not missed.
            let woken = self.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let idle = self.idle_for();
            if idle.is_zero() || Instant::now() >= end {
                return Ok(());
            }
            let until = end.min(Instant::now() + idle);
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep_until(until) => {}
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
        Ok(self.step(|state, now| {
            let settled = settlements.iter().map(|end| state.settle(me, end, now)).collect();
            // As many as were added, and one more: what is over the limit goes without a pile of work later.
            state.remove_surplus(settlements.len() + 1);
            settled
        }))
    }

    async fn reclaim(&self, me: &ConsumerId, max: usize) -> Result<Reclaimed, Unavailable> {
        Ok(self.step(|state, now| state.reclaim(me, max, now)))
    }

    async fn held_by(&self, me: &ConsumerId) -> Result<Vec<Delivery>, Unavailable> {
        Ok(self.step(|state, _| state.held_by(me)))
    }

    async fn heartbeat(&self, me: &ConsumerId) -> Result<(), Unavailable> {
        self.step(|state, now| state.index.heard.insert(me.clone(), now));
        Ok(())
    }

    async fn leave(&self, me: &ConsumerId) -> Result<(), Unavailable> {
        self.step(|state, _| {
            if state.index.leases.held_by(me).next().is_none() {
                state.index.heard.remove(me);
            }
        });
        Ok(())
    }

    async fn maintain(&self) -> Result<Maintenance, Unavailable> {
        Ok(self.step(State::maintain))
    }
}

#[async_trait]
impl Control for MemoryQueue {
    async fn job(&self, id: JobId) -> Result<Option<JobRecord>, Unavailable> {
        Ok(self.step(|state, _| state.batches.get(&id.batch)?.job_record(id.index)))
    }

    async fn jobs(
        &self,
        filter: &JobFilter,
        limit: usize,
        after: Option<JobId>,
    ) -> Result<JobPage, Unavailable> {
        Ok(self.step(|state, _| state.jobs(filter, limit, after)))
    }

    async fn batch(&self, id: BatchId) -> Result<Option<BatchRecord>, Unavailable> {
        Ok(self.step(|state, _| state.batches.get(&id).map(|batch| batch.record())))
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
        self.step(|state, now| state.index.set_paused(paused, now));
        Ok(())
    }

    async fn durability(&self) -> Result<Durability, Unavailable> {
        Ok(Durability {
            backend: "memory",
            survives_crash: false,
            details: vec!["jobs are kept in this process only, and are lost when it ends".to_owned()],
        })
    }
}

#[async_trait]
impl RelayBoard for MemoryQueue {
    async fn relay_pause(&self, relay: &str) -> Result<Option<RelayPause>, Unavailable> {
        Ok(self.relays(|relays, now| relays.pause_of(relay, now)))
    }

    async fn pause_relay(
        &self,
        relay: &str,
        cause: PauseCause,
        for_how_long: Duration,
        probes: u32,
        reply: LastReply,
    ) -> Result<RelayPause, Unavailable> {
        Ok(self.relays(|relays, now| {
            let pause = RelayPause {
                since: now,
                until: now + for_how_long,
                probes,
                cause,
                reply,
            };
            relays.pause(relay, pause, now)
        }))
    }

    async fn resume_relay(&self, relay: &str) -> Result<(), Unavailable> {
        self.relays(|relays, _| relays.resume(relay));
        Ok(())
    }

    async fn take_probe(&self, relay: &str, me: &ConsumerId, lease: Duration) -> Result<bool, Unavailable> {
        Ok(self.relays(|relays, now| relays.take_probe(relay, me, lease, now)))
    }
}

#[async_trait]
impl Outbox for MemoryQueue {
    async fn keep(&self, message: KeptMessage) -> Result<(), Unavailable> {
        self.outbox(|kept| kept.keep(message));
        Ok(())
    }

    async fn kept(&self, limit: usize) -> Result<Vec<KeptMessage>, Unavailable> {
        // Copied outside the lock: messages can be large.
        let newest = self.outbox(|kept| kept.newest(limit));
        Ok(newest.iter().map(|message| (**message).clone()).collect())
    }

    async fn kept_message(&self, job: JobId) -> Result<Option<KeptMessage>, Unavailable> {
        let message = self.outbox(|kept| kept.of(job));
        Ok(message.map(|message| (*message).clone()))
    }
}
