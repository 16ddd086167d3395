//! The jobs in this process' hands, and until when they are its own.
//!
//! What always holds: no content goes out under a lease that may have run out ([`Leases::confirm`]); a lease is renewed
//! until its settlement has reached the queue; a job that is let go of without a settlement (a task that panicked) is
//! not renewed, so that it is reclaimed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::job::JobId;
use shared::queue::{ConsumerId, Delivery, Queue};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many leases one call renews, at most.
const RENEWED_AT_ONCE: usize = 1_000;

/// How long to wait before asking a queue again that did not answer.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// The leases of one consumer.
pub(crate) struct Leases {
    me: ConsumerId,
    queue: Arc<dyn Queue>,
    lease: Duration,
    // A plain mutex: a few map operations per message, never held across an await.
    held: Mutex<HashMap<JobId, Lease>>,
    emptied: Notify,
}

struct Lease {
    until: Instant,
    lost: CancellationToken,
}

/// A job in hand. Let go of without [`Held::settled`], its lease is not renewed any more.
pub(crate) struct Held {
    /// The job, and what to send.
    pub(crate) delivery: Delivery,
    /// Cancelled when the queue says that the job is not ours any more.
    pub(crate) lost: CancellationToken,
    leases: Arc<Leases>,
    is_settled: bool,
    _permit: OwnedSemaphorePermit,
}

impl Held {
    /// Gives the permit back; the lease goes on until the queue has taken the settlement.
    pub(crate) fn settled(mut self) {
        self.is_settled = true;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_settled {
            self.leases.end(self.delivery.job);
        }
    }
}

impl Leases {
    pub(crate) fn new(me: ConsumerId, queue: Arc<dyn Queue>, lease: Duration) -> Self {
        Self { me, queue, lease, held: Mutex::default(), emptied: Notify::new() }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<JobId, Lease>> {
        // The map is whole after each of its operations, so that a panic elsewhere does not spoil it.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a delivery in hand. `asked_at` is when it was asked for: its lease began no earlier. None: it is in hand
    /// already.
    pub(crate) fn take(
        self: &Arc<Self>,
        delivery: Delivery,
        asked_at: Instant,
        permit: OwnedSemaphorePermit,
    ) -> Option<Held> {
        let lost = CancellationToken::new();
        let mut held = self.held();
        if held.contains_key(&delivery.job) {
            return None;
        }
        held.insert(delivery.job, Lease { until: asked_at + self.lease, lost: lost.clone() });
        Some(Held { delivery, lost, leases: Arc::clone(self), is_settled: false, _permit: permit })
    }

    /// How many jobs are in hand.
    pub(crate) fn len(&self) -> usize {
        self.held().len()
    }

    /// The jobs in hand.
    pub(crate) fn jobs(&self) -> Vec<JobId> {
        self.held().keys().copied().collect()
    }

    /// Stops renewing a lease.
    pub(crate) fn end(&self, job: JobId) {
        self.end_all(&[job]);
    }

    /// Stops renewing leases.
    pub(crate) fn end_all(&self, jobs: &[JobId]) {
        let mut held = self.held();
        for job in jobs {
            held.remove(job);
        }
        if held.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Ends when no job is in hand.
    pub(crate) async fn all_settled(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.held().is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Whether the job is ours now, asking the queue where the lease is old: after an outage, or when this process was
    /// stopped and continued. Waits for the queue's answer as long as it takes.
    pub(crate) async fn confirm(&self, job: JobId) -> bool {
        loop {
            let until = match self.held().get(&job) {
                Some(lease) if !lease.lost.is_cancelled() => lease.until,
                _ => return false,
            };
            // A tenth of the lease in hand: time for the content to begin to go out.
            if until > Instant::now() + self.lease / 10 {
                return true;
            }
            if self.extend(&[job]).await.is_err() {
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }

    /// Renews leases, and notes those that are lost.
    async fn extend(&self, jobs: &[JobId]) -> Result<(), shared::queue::Unavailable> {
        let asked_at = Instant::now();
        let lost = self.queue.extend(&self.me, jobs).await?;
        let mut held = self.held();
        for job in jobs {
            if let Some(lease) = held.get_mut(job) {
                lease.until = asked_at + self.lease;
            }
        }
        lose(&mut held, &lost);
        Ok(())
    }

    /// Notes, before content goes out, that it does. Returns whether the job is still ours.
    pub(crate) async fn mark(&self, job: JobId) -> Result<bool, shared::queue::Unavailable> {
        let lost = self.queue.mark(&self.me, &[job]).await?;
        lose(&mut self.held(), &lost);
        Ok(lost.is_empty())
    }

    async fn renew_all(&self) -> Result<(), shared::queue::Unavailable> {
        let jobs: Vec<JobId> =
            self.held().iter().filter(|(_, lease)| !lease.lost.is_cancelled()).map(|(job, _)| *job).collect();
        for jobs in jobs.chunks(RENEWED_AT_ONCE) {
            self.extend(jobs).await?;
        }
        self.queue.heartbeat(&self.me).await
    }
}

fn lose(held: &mut HashMap<JobId, Lease>, lost: &[JobId]) {
    for job in lost {
        if let Some(lease) = held.get_mut(job) {
            // Ours to end, not to renew: a send that is past its final dot still brings its 250.
            lease.until = Instant::now();
            if !lease.lost.is_cancelled() {
                tracing::warn!(%job, "lost the lease of a job");
                lease.lost.cancel();
            }
        }
    }
}

/// Renews all leases, each third of one, until the worker is done.
pub(crate) async fn renew(leases: Arc<Leases>, done: CancellationToken) {
    loop {
        let pause = match leases.renew_all().await {
            Ok(()) => leases.lease / 3,
            Err(error) => {
                tracing::warn!(%error, "leases are not renewed");
                ASK_AGAIN
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = done.cancelled() => return,
        }
    }
}
