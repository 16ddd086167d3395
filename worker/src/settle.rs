//! The ends of deliveries on their way to the queue: collected, told in batches, never dropped.
//!
//! A settlement stays here until the queue has answered; a queue that does not answer is asked for ever. How many wait
//! is told to the consumer, which claims nothing while they are too many.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::queue::{ConsumerId, Queue, Settled, Settlement, Verdict};
use tokio::sync::Notify;

use crate::lease::{Held, Leases};
use crate::metrics::Meters;

/// How many settlements one call carries, at most.
const AT_ONCE: usize = 100;

/// How long a settlement waits for company.
const COMPANY: Duration = Duration::from_millis(4);

/// The longest pause before a queue that did not answer is asked again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Collects settlements and tells them to the queue.
pub(crate) struct Settler {
    me: ConsumerId,
    queue: Arc<dyn Queue>,
    leases: Arc<Leases>,
    meters: Arc<Meters>,
    /// How many make a flush at once.
    full: usize,
    buffer: Mutex<VecDeque<Settlement>>,
    /// In the buffer and on the way.
    waiting: AtomicUsize,
    arrived: Notify,
    filled: Notify,
    flushed: Notify,
    closed: AtomicBool,
    healthy: AtomicBool,
}

impl Settler {
    pub(crate) fn new(
        me: ConsumerId,
        queue: Arc<dyn Queue>,
        leases: Arc<Leases>,
        meters: Arc<Meters>,
        full: usize,
    ) -> Self {
        Self {
            me,
            queue,
            leases,
            meters,
            full: full.clamp(1, AT_ONCE),
            buffer: Mutex::default(),
            waiting: AtomicUsize::new(0),
            arrived: Notify::new(),
            filled: Notify::new(),
            flushed: Notify::new(),
            closed: AtomicBool::new(false),
            healthy: AtomicBool::new(true),
        }
    }

    fn buffer(&self) -> MutexGuard<'_, VecDeque<Settlement>> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a delivery. Its permit is free at once, its lease goes on until the queue has taken this.
    pub(crate) fn settle(&self, held: Held, settlement: Settlement) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let len = {
            let mut buffer = self.buffer();
            buffer.push_back(settlement);
            buffer.len()
        };
        held.settled();
        self.arrived.notify_one();
        if len >= self.full {
            self.filled.notify_one();
        }
    }

    /// How many settlements the queue has not taken yet.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Ends when at most `limit` settlements wait.
    pub(crate) async fn at_most(&self, limit: usize) {
        loop {
            let flushed = self.flushed.notified();
            if self.waiting() <= limit {
                return;
            }
            flushed.await;
        }
    }

    /// Whether the queue takes settlements.
    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// No more will come: [`Settler::run`] ends when all are told.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.arrived.notify_one();
        self.filled.notify_one();
    }

    /// Tells settlements to the queue until [`Settler::close`].
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            while self.buffer().is_empty() {
                if self.closed.load(Ordering::Acquire) {
                    return;
                }
                self.arrived.notified().await;
            }
            if self.buffer().len() < self.full && !self.closed.load(Ordering::Acquire) {
                tokio::select! {
                    () = tokio::time::sleep(COMPANY) => {}
                    () = self.filled.notified() => {}
                }
            }
            let batch: Vec<Settlement> = {
                let mut buffer = self.buffer();
                let len = buffer.len().min(AT_ONCE);
                buffer.drain(..len).collect()
            };
            self.tell(&batch).await;
        }
    }

    async fn tell(&self, batch: &[Settlement]) {
        let mut pause = Duration::from_millis(50);
        let mut is_repeated = false;
        let results = loop {
            match self.queue.settle(&self.me, batch).await {
                Ok(results) => break results,
                Err(error) => {
                    self.healthy.store(false, Ordering::Relaxed);
                    if self.closed.load(Ordering::Acquire) {
                        tracing::error!(%error, settlements = batch.len(), "stopped before the queue took the last settlements");
                        return;
                    }
                    tracing::warn!(%error, settlements = batch.len(), "the queue does not take settlements; they are kept");
                    is_repeated = true;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        };
        self.healthy.store(true, Ordering::Relaxed);
        let jobs: Vec<_> = batch.iter().map(|settlement| settlement.job).collect();
        self.leases.end_all(&jobs);
        for (settlement, settled) in batch.iter().zip(results) {
            self.note(settlement, settled, is_repeated);
        }
        self.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
        self.flushed.notify_waiters();
    }

    fn note(&self, settlement: &Settlement, settled: Settled, is_repeated: bool) {
        match settled {
            Settled::Done => self.meters.settled(&settlement.verdict),
            Settled::Late => {
                tracing::warn!(job = %settlement.job, "sent by a worker that had lost the job; it is sent all the same");
                self.meters.settled(&Verdict::Sent);
            }
            Settled::Lost if is_repeated => {
                tracing::debug!(job = %settlement.job, "the queue had taken a settlement whose answer was lost");
                self.meters.settled(&settlement.verdict);
            }
            Settled::Lost => {
                tracing::warn!(job = %settlement.job, "a settlement came too late: the job is not this worker's any more");
            }
        }
    }
}
