//! Claims what fits and hands it to the sessions.
//!
//! What always holds: a permit is taken before a job is claimed; nothing is claimed while no relay can take mail or
//! while too many settlements wait for the queue; after a claim without an answer the consumer first asks what it
//! holds by the queue's account.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use shared::job::{Reason, Status};
use shared::queue::{ConsumerId, Delivery, Unavailable};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::dispatch::Dispatch;
use crate::lease::{Held, Leases};
use crate::relay::Relay;
use crate::settle::Settler;
use crate::{Deps, metrics};

/// How many jobs one call claims, at most.
const AT_ONCE: usize = 100;

/// How long permits are collected for a larger claim, at most.
const COLLECT: Duration = Duration::from_millis(5);

/// How long to wait for a ready job before looking around: for a stop, for dead workers.
const LOOK: Duration = Duration::from_secs(1);

/// The longest pause before a queue that did not answer is asked again.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The claiming loop of a worker.
pub(crate) struct Consumer {
    pub(crate) me: ConsumerId,
    pub(crate) deps: Deps,
    pub(crate) relay: Arc<Relay>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) settler: Arc<Settler>,
    /// For the jobs in hand.
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) permits_in_all: usize,
    pub(crate) connections: usize,
    pub(crate) jobs: Arc<Dispatch<Held>>,
}

/// What one round found.
enum Round {
    Claimed,
    Nothing,
}

impl Consumer {
    /// Claims until the worker stops; the sessions then end with what they have.
    pub(crate) async fn run(self) {
        let lease = self.deps.settings.queue.limits.lease;
        let mut pause = Duration::from_millis(50);
        // Idle times in a queue count what it was away: nothing is reclaimed before a whole lease of answers.
        let mut answering_since = Instant::now();
        let mut next_reclaim = Instant::now() + lease;
        let mut must_reconcile = false;
        while let Some(mut permits) = self.permits().await {
            let round = async {
                if must_reconcile {
                    self.reconcile(&mut permits).await?;
                    must_reconcile = false;
                    if permits.is_empty() {
                        return Ok(Round::Claimed);
                    }
                }
                if next_reclaim <= Instant::now() && answering_since.elapsed() >= lease {
                    next_reclaim = Instant::now() + lease.mul_f64(0.25 * (0.8 + 0.4 * rand::random::<f64>()));
                    let (reclaimed, is_full) = self.reclaim(permits).await?;
                    if is_full {
                        // There may be more than there are hands for: at the next chance.
                        next_reclaim = Instant::now();
                    }
                    return Ok(reclaimed);
                }
                self.claim(permits).await
            };
            match round.await {
                Ok(Round::Claimed) => pause = Duration::from_millis(50),
                Ok(Round::Nothing) if self.is_done() => break,
                Ok(Round::Nothing) => {
                    tokio::select! {
                        ready = self.deps.queue.ready(&self.me, LOOK) => {
                            if let Err(error) = ready {
                                tracing::debug!(%error, "waiting for jobs failed");
                                tokio::time::sleep(pause).await;
                            }
                        }
                        () = self.deps.shutdown.stopping(), if !self.deps.shutdown.is_stopping() => {}
                        () = self.leases.all_settled(), if self.deps.shutdown.is_stopping() => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "no jobs are claimed");
                    must_reconcile = true;
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.deps.shutdown.over() => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    answering_since = Instant::now();
                }
            }
        }
        self.jobs.close();
    }

    /// Permits for the next claim. None: the worker stops.
    async fn permits(&self) -> Option<Vec<OwnedSemaphorePermit>> {
        let wait = async {
            self.relay.usable().await;
            self.settler.at_most(2 * self.permits_in_all).await;
            let mut permits = Vec::with_capacity(AT_ONCE);
            permits.push(Arc::clone(&self.permits).acquire_owned().await.ok()?);
            // While jobs lie ready for the sessions there is a little time to collect permits for a larger claim.
            let enough = if self.jobs.waiting() == 0 { 1 } else { self.connections };
            let end = Instant::now() + COLLECT;
            while permits.len() < enough.min(AT_ONCE)
                && let Ok(permit) = timeout_at(end, Arc::clone(&self.permits).acquire_owned()).await
            {
                permits.push(permit.ok()?);
            }
            while permits.len() < AT_ONCE
                && let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned()
            {
                permits.push(permit);
            }
            Some(permits)
        };
        tokio::select! {
            biased;
            () = self.deps.handing_back() => None,
            permits = wait => permits,
        }
    }

    /// Whether a worker that sends on while it stops has nothing left to do.
    fn is_done(&self) -> bool {
        self.deps.shutdown.is_stopping() && self.leases.len() == 0
    }

    async fn claim(&self, permits: Vec<OwnedSemaphorePermit>) -> Result<Round, Unavailable> {
        let asked_at = Instant::now();
        let deliveries = self.deps.queue.claim(&self.me, permits.len()).await?;
        Ok(self.hand_over(deliveries, asked_at, permits))
    }

    /// Takes over what dead workers held. Returns whether there may be more of it.
    async fn reclaim(&self, permits: Vec<OwnedSemaphorePermit>) -> Result<(Round, bool), Unavailable> {
        let asked_at = Instant::now();
        let reclaimed = self.deps.queue.reclaim(&self.me, permits.len()).await?;
        for job in &reclaimed.poisoned {
            tracing::error!(%job, "failed: its worker died again and again");
            metrics::finished(Status::Failed, Some(Reason::Poison)).increment(1);
        }
        if !reclaimed.deliveries.is_empty() {
            tracing::warn!(jobs = reclaimed.deliveries.len(), "took over jobs of dead workers");
        }
        // There may be jobs to claim even where there was nothing to reclaim.
        let is_full = reclaimed.deliveries.len() == permits.len();
        self.hand_over(reclaimed.deliveries, asked_at, permits);
        Ok((Round::Claimed, is_full))
    }

    /// Runs what the queue says is ours and we do not know of: claims whose answer was lost. It takes from the permits of
    /// the round first: nobody else can give those back.
    async fn reconcile(&self, permits: &mut Vec<OwnedSemaphorePermit>) -> Result<(), Unavailable> {
        // What is in hand before the question may be settled before the answer; what comes in hand after it is not
        // lost either.
        let before: HashSet<_> = self.leases.jobs().into_iter().collect();
        let held = self.deps.queue.held_by(&self.me).await?;
        let unknown: Vec<Delivery> =
            held.into_iter().filter(|delivery| !before.contains(&delivery.job)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        tracing::warn!(jobs = unknown.len(), "found jobs of claims whose answer was lost");
        // Their leases began when they were claimed, whenever that was.
        let jobs: Vec<_> = unknown.iter().map(|delivery| delivery.job).collect();
        let asked_at = Instant::now();
        let lost = self.deps.queue.extend(&self.me, &jobs).await?;
        for delivery in unknown.into_iter().filter(|delivery| !lost.contains(&delivery.job)) {
            let permit = match permits.pop() {
                Some(permit) => permit,
                // The others are with jobs in hand, and come back with their ends.
                None => match Arc::clone(&self.permits).acquire_owned().await {
                    Ok(permit) => permit,
                    Err(_) => break,
                },
            };
            self.hand_over(vec![delivery], asked_at, vec![permit]);
        }
        Ok(())
    }

    fn hand_over(
        &self,
        deliveries: Vec<Delivery>,
        asked_at: Instant,
        permits: Vec<OwnedSemaphorePermit>,
    ) -> Round {
        if deliveries.is_empty() {
            return Round::Nothing;
        }
        for (delivery, permit) in deliveries.into_iter().zip(permits) {
            if let Some(held) = self.leases.take(delivery, asked_at, permit) {
                self.jobs.send(held.delivery.priority, held);
            }
        }
        Round::Claimed
    }
}
