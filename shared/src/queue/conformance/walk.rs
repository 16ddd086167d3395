//! A random walk through all that a queue does, beside a model that knows what each step must answer.
//!
//! The model is told nothing by the queue but the answers to its steps and the queue's records; it never looks inside.
//! Where a backend's clock runs on while it works, the model takes the earlier bound, so that a slow machine fails no
//! case.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::Harness;
use super::bench::{Bench, consumer, end, must};
use crate::clock::Timestamp;
use crate::job::{JobId, OnAmbiguous, POISON_RECLAIMS, Priority, Reason, Status};
use crate::queue::{
    ConsumerId, Delivery, EnqueueError, Maintenance, NewBatch, Ordered, Receipt, Settled, Verdict,
};

/// Small, so that they are met.
const MAX_QUEUED: u64 = 20;
const MAX_SCHEDULED: u64 = 10;

/// What the model knows of a job.
#[derive(Debug, Clone)]
struct Known {
    at: At,
    attempts: u32,
    reclaims: u32,
    marked: bool,
    on_ambiguous: OnAmbiguous,
    /// It expires no sooner: from the latest of acceptance, its time to send and requeue.
    counts_from: Timestamp,
    expire_after: Duration,
}

#[derive(Debug, Clone, PartialEq)]
enum At {
    /// To be handed out, not before `due`.
    Waiting { due: Timestamp },
    /// In hand, since the last renewal at the latest.
    Held { by: ConsumerId, receipt: Receipt, since: Timestamp },
    /// Over.
    Ended(Status),
}

impl Known {
    fn reset(&mut self) {
        (self.reclaims, self.marked) = (0, false);
    }

    fn is_held_as(&self, who: &ConsumerId, what: Receipt) -> bool {
        matches!(&self.at, At::Held { by, receipt, .. } if by == who && *receipt == what)
    }

    fn is_held_by(&self, who: &ConsumerId) -> bool {
        matches!(&self.at, At::Held { by, .. } if by == who)
    }

    /// What is to come of a settlement.
    fn settled(&self, who: &ConsumerId, delivery: &Delivery, verdict: Verdict) -> Settled {
        if self.is_held_as(who, delivery.receipt) {
            return Settled::Done;
        }
        match (verdict, &self.at) {
            (Verdict::Sent, At::Ended(Status::Sent | Status::Cancelled)) => Settled::Lost,
            (Verdict::Sent, _) => Settled::Late,
            _ => Settled::Lost,
        }
    }
}

/// Every promise that can be asked about, after each step, and at the end that nothing is left behind.
pub async fn random_walk_keeps_every_promise(harness: &dyn Harness) {
    for seed in (0..harness.walks()).map(|n| harness.seed() + n) {
        let unit = harness.unit();
        let bench = Bench::with(harness, |limits| {
            limits.max_queue_size = MAX_QUEUED;
            limits.max_scheduled = MAX_SCHEDULED;
            limits.lease = unit * 5;
        })
        .await;
        let mut walk = Walk {
            lease: unit * 5,
            consumers: ["a", "b", "c"].map(consumer),
            chance: StdRng::seed_from_u64(seed),
            known: BTreeMap::new(),
            deliveries: Vec::new(),
            seen: BTreeSet::new(),
            bench,
        };
        for step in 0..harness.walk_steps() {
            let did = walk.step().await;
            walk.seen.insert(did);
            walk.look(&format!("seed {seed}, step {step}, after {did}")).await;
        }
        assert!(
            harness.walk_steps() < 300 || walk.seen.len() >= 14,
            "seed {seed}: not everything was done: {:?}",
            walk.seen
        );
        walk.finish(&format!("seed {seed}, at the end")).await;
    }
}

struct Walk<'a> {
    bench: Bench<'a>,
    lease: Duration,
    consumers: [ConsumerId; 3],
    chance: StdRng,
    known: BTreeMap<JobId, Known>,
    /// All that were ever handed out, and to whom, so that zombies and replays come up.
    deliveries: Vec<(ConsumerId, Delivery)>,
    seen: BTreeSet<&'static str>,
}

impl Walk<'_> {
    fn now(&self) -> Timestamp {
        self.bench.harness.now()
    }

    /// One of the newer jobs.
    fn some_job(&mut self) -> Option<JobId> {
        let newer: Vec<JobId> = self.known.keys().rev().take(40).copied().collect();
        newer.choose(&mut self.chance).copied()
    }

    fn some_consumer(&mut self) -> ConsumerId {
        self.consumers[self.chance.random_range(0..3)].clone()
    }

    async fn step(&mut self) -> &'static str {
        let me = self.some_consumer();
        let Some(job) = self.some_job() else { return self.enqueue().await };
        match self.chance.random_range(0..100) {
            0..18 => self.enqueue().await,
            18..38 => self.claim(&me).await,
            38..40 => self.reconcile(&me).await,
            40..62 => self.settle().await,
            62..66 => self.extend(&me, job).await,
            66..71 => self.mark(&me, job).await,
            71..76 => self.reclaim(&me).await,
            76..82 => {
                let units = self.chance.random_range(0..3);
                self.bench.harness.pass(self.bench.units(units)).await;
                "pass"
            }
            82..87 => {
                let Maintenance { expired, .. } = must(self.bench.queue.maintain().await);
                for job in expired {
                    self.synchronise(job).await;
                    assert!(matches!(self.known[&job].at, At::Ended(_)), "{job} did not expire");
                }
                "maintain"
            }
            87..90 => self.cancel(job).await,
            90..91 => self.cancel_batch(job).await,
            91..94 => self.requeue(job).await,
            94..97 => self.reschedule(job).await,
            97..98 => {
                must(self.bench.queue.set_paused(true).await);
                "pause"
            }
            _ => {
                must(self.bench.queue.set_paused(false).await);
                "resume"
            }
        }
    }

    async fn enqueue(&mut self) -> &'static str {
        // Most batches are of one job, and most jobs are sent, as it is in life.
        let count = if self.chance.random() { 1 } else { self.chance.random_range(1..5) };
        let on_ambiguous = if self.chance.random() { OnAmbiguous::Hold } else { OnAmbiguous::Resend };
        let later = self.bench.in_units(self.chance.random_range(1..6));
        let batch = NewBatch {
            priority: Priority::ALL[self.chance.random_range(0..3)],
            on_ambiguous,
            send_at: self.chance.random_bool(0.3).then_some(later),
            expire_after: self.bench.units(self.chance.random_range(4..60)),
            ..self.bench.batch(count)
        };
        let (now, expire_after, send_at) = (self.now(), batch.expire_after, batch.send_at);
        let before = must(self.bench.queue.stats().await).ledger;
        let repeated = self.chance.random_bool(0.2).then(|| batch.clone());
        let accepted = match self.bench.enqueue(batch).await {
            Ok(accepted) => accepted,
            Err(EnqueueError::Full { used, max } | EnqueueError::ScheduleFull { used, max }) => {
                assert!(used + u64::from(count) > max);
                return "refuse";
            }
            Err(other) => panic!("{other}"),
        };
        assert_eq!((accepted.count, accepted.replayed), (count, false));
        let (taken, max) =
            if accepted.scheduled { (before.scheduled, MAX_SCHEDULED) } else { (before.used(), MAX_QUEUED) };
        assert!(taken + u64::from(count) <= max, "{count} more were accepted with {taken} of {max}");
        if let Some(batch) = repeated {
            assert_eq!(must(self.bench.enqueue(batch).await), accepted);
        }
        let due = if accepted.scheduled { later } else { now };
        assert!(!accepted.scheduled || send_at.is_some());
        for index in 0..count {
            let known = Known {
                at: At::Waiting { due },
                attempts: 0,
                reclaims: 0,
                marked: false,
                on_ambiguous,
                counts_from: due,
                expire_after,
            };
            self.known.insert(JobId { batch: accepted.batch, index }, known);
        }
        if accepted.scheduled { "schedule" } else { "enqueue" }
    }

    async fn claim(&mut self, me: &ConsumerId) -> &'static str {
        let max = self.chance.random_range(1..6);
        let since = self.now();
        let claimed = must(self.bench.queue.claim(me, max).await);
        assert!(claimed.len() <= max);
        for delivery in claimed {
            let known = &self.known[&delivery.job];
            let At::Waiting { due } = known.at else {
                panic!("{} was handed out while {known:?}", delivery.job)
            };
            assert!(self.now() >= due, "{} was handed out before {due}", delivery.job);
            self.handed_out(me, delivery, since);
        }
        "claim"
    }

    /// What a consumer learns after an answer was lost is what it holds.
    async fn reconcile(&mut self, me: &ConsumerId) -> &'static str {
        let told = must(self.bench.queue.held_by(me).await);
        let told: BTreeMap<JobId, Receipt> = told.into_iter().map(|held| (held.job, held.receipt)).collect();
        let known = self.known.iter().filter_map(|(job, known)| match &known.at {
            At::Held { by, receipt, .. } if by == me => Some((*job, *receipt)),
            _ => None,
        });
        assert_eq!(told, known.collect(), "what {me} holds");
        "reconcile"
    }

    /// A job is in hand now.
    fn handed_out(&mut self, by: &ConsumerId, delivery: Delivery, since: Timestamp) {
        let Some(known) = self.known.get_mut(&delivery.job) else { panic!("{} is unknown", delivery.job) };
        let expected = (known.attempts + 1, known.reclaims, known.marked, known.on_ambiguous);
        let told = (delivery.attempt, delivery.reclaims, delivery.marked, delivery.on_ambiguous);
        assert_eq!(told, expected, "{}: attempt, reclaims, marked, on_ambiguous", delivery.job);
        known.at = At::Held { by: by.clone(), receipt: delivery.receipt, since };
        assert!(
            self.deliveries
                .iter()
                .all(|(_, other)| other.job != delivery.job || other.receipt != delivery.receipt)
        );
        self.deliveries.push((by.clone(), delivery));
    }

    async fn settle(&mut self) -> &'static str {
        let recent: Vec<_> = self.deliveries.iter().rev().take(25).cloned().collect();
        let Some((holder, delivery)) = recent.choose(&mut self.chance).cloned() else { return "settle" };
        let who = if self.chance.random_bool(0.9) { holder } else { self.some_consumer() };
        let delay = self.bench.units(self.chance.random_range(0..8));
        let permanent = Verdict::Fail(Reason::Permanent);
        let render = Verdict::Fail(Reason::Render);
        let all =
            [Verdict::Sent, Verdict::Retry { delay }, Verdict::Release, permanent, render, Verdict::Hold];
        let verdict = all[self.chance.random_range(0..2 * all.len()).saturating_sub(all.len())];
        let asked = self.now();
        let settled = must(self.bench.queue.settle(&who, &[end(&delivery, verdict)]).await);
        let Some(known) = self.known.get_mut(&delivery.job) else { panic!("{} is unknown", delivery.job) };
        assert_eq!(settled, [known.settled(&who, &delivery, verdict)], "{verdict:?} of {who} for {known:?}");
        match (settled[0], verdict) {
            (Settled::Lost, _) => return "lose",
            (_, Verdict::Sent) => known.at = At::Ended(Status::Sent),
            (_, Verdict::Retry { delay }) => known.at = At::Waiting { due: asked + delay },
            (_, Verdict::Release) => known.at = At::Waiting { due: asked },
            (_, Verdict::Fail(_)) => known.at = At::Ended(Status::Failed),
            (_, Verdict::Hold) => known.at = At::Ended(Status::Held),
        }
        if !matches!(verdict, Verdict::Release | Verdict::Fail(Reason::Render)) {
            known.attempts = known.attempts.max(delivery.attempt);
        }
        known.reset();
        if settled[0] == Settled::Late { "succeed late" } else { "settle" }
    }

    async fn extend(&mut self, me: &ConsumerId, job: JobId) -> &'static str {
        let now = self.now();
        let lost = must(self.bench.queue.extend(me, &[job]).await);
        let Some(known) = self.known.get_mut(&job) else { panic!("{job} is unknown") };
        assert_eq!(lost.is_empty(), known.is_held_by(me), "{me} extends {job}: {known:?}");
        if let At::Held { by, since, .. } = &mut known.at
            && by == me
        {
            *since = now;
        }
        "extend"
    }

    async fn mark(&mut self, me: &ConsumerId, job: JobId) -> &'static str {
        let lost = must(self.bench.queue.mark(me, &[job]).await);
        let Some(known) = self.known.get_mut(&job) else { panic!("{job} is unknown") };
        assert_eq!(lost.is_empty(), known.is_held_by(me), "{me} marks {job}: {known:?}");
        known.marked |= known.is_held_by(me);
        "mark"
    }

    async fn reclaim(&mut self, me: &ConsumerId) -> &'static str {
        if self.chance.random() {
            self.bench.lapse().await;
        }
        let before = self.now();
        let reclaimed = must(self.bench.queue.reclaim(me, 3).await);
        let now = self.now();
        let lapsed = |known: &Known| match known.at {
            At::Held { since, .. } => now.since(since) >= self.lease,
            _ => false,
        };
        let may_be_taken: BTreeSet<JobId> =
            self.known.iter().filter(|(_, known)| lapsed(known)).map(|(job, _)| *job).collect();
        for job in &reclaimed.poisoned {
            assert!(may_be_taken.contains(job), "{job} was taken from a live consumer");
            let Some(known) = self.known.get_mut(job) else { panic!("{job} is unknown") };
            assert_eq!(known.reclaims + 1, POISON_RECLAIMS);
            let is_held = known.marked && known.on_ambiguous == OnAmbiguous::Hold;
            known.at = At::Ended(if is_held { Status::Held } else { Status::Failed });
            known.reset();
        }
        let taken: BTreeSet<JobId> = reclaimed.deliveries.iter().map(|delivery| delivery.job).collect();
        for delivery in reclaimed.deliveries {
            assert!(may_be_taken.contains(&delivery.job), "{} was taken from a live consumer", delivery.job);
            if let Some(known) = self.known.get_mut(&delivery.job) {
                known.reclaims += 1;
            }
            self.handed_out(me, delivery, before);
        }
        // While the queue is paused, or when its time is over, a job goes back instead.
        for job in may_be_taken.difference(&taken) {
            let status = self.bench.record(*job).await.status;
            let Some(known) = self.known.get_mut(job) else { continue };
            if matches!(known.at, At::Held { .. }) && status != Status::Sending {
                known.reclaims += 1;
                known.at = At::Waiting { due: before };
            }
        }
        if taken.is_empty() { "reclaim" } else { "take over" }
    }

    async fn cancel(&mut self, job: JobId) -> &'static str {
        self.synchronise(job).await;
        let answer = must(self.bench.queue.cancel(job).await);
        let Some(known) = self.known.get_mut(&job) else { panic!("{job} is unknown") };
        let is_waiting = matches!(known.at, At::Waiting { .. });
        assert_eq!(matches!(answer, Ordered::Done(_)), is_waiting, "{answer:?} for {known:?}");
        if is_waiting {
            known.at = At::Ended(Status::Cancelled);
            known.reset();
        }
        "cancel"
    }

    async fn cancel_batch(&mut self, of: JobId) -> &'static str {
        let jobs: Vec<JobId> = self.known.keys().filter(|job| job.batch == of.batch).copied().collect();
        let mut waiting = Vec::new();
        for job in jobs {
            self.synchronise(job).await;
            if matches!(self.known[&job].at, At::Waiting { .. }) {
                waiting.push(job);
            }
        }
        let cancelled = must(self.bench.queue.cancel_batch(of.batch).await);
        assert_eq!(cancelled, Some(waiting.len() as u64));
        for job in waiting {
            if let Some(known) = self.known.get_mut(&job) {
                known.at = At::Ended(Status::Cancelled);
                known.reset();
            }
        }
        "cancel batch"
    }

    async fn requeue(&mut self, job: JobId) -> &'static str {
        self.synchronise(job).await;
        let now = self.now();
        let answer = must(self.bench.queue.requeue(job).await);
        let Some(known) = self.known.get_mut(&job) else { panic!("{job} is unknown") };
        match (&known.at, answer) {
            (At::Ended(Status::Failed | Status::Held), Ordered::Done(record)) => {
                assert_eq!((record.status, record.attempts), (Status::Queued, 0), "{job} was requeued");
                known.at = At::Waiting { due: now };
                known.attempts = 0;
                known.counts_from = now;
                known.reset();
                return "requeue";
            }
            (At::Ended(Status::Failed), Ordered::Full) => {}
            (At::Ended(Status::Failed | Status::Held), answer) => panic!("{answer:?} for {known:?}"),
            (_, Ordered::Conflict(_)) => {}
            (_, answer) => panic!("{answer:?} for {known:?}"),
        }
        "refuse"
    }

    async fn reschedule(&mut self, job: JobId) -> &'static str {
        self.synchronise(job).await;
        let is_scheduled = self.bench.record(job).await.status == Status::Scheduled;
        let at = self.bench.in_units(self.chance.random_range(0..6));
        let now = self.now();
        match must(self.bench.queue.reschedule(job, at).await) {
            Ordered::Done(record) => {
                assert!(is_scheduled);
                let due = record.send_at.unwrap_or(now);
                if let Some(known) = self.known.get_mut(&job) {
                    known.at = At::Waiting { due };
                    known.counts_from = due;
                }
                "reschedule"
            }
            Ordered::Full => {
                assert!(is_scheduled);
                "refuse"
            }
            answer => {
                assert!(!is_scheduled, "{answer:?}");
                "refuse"
            }
        }
    }

    /// Takes in what time alone has done to a job, and tests that it was time.
    async fn synchronise(&mut self, job: JobId) {
        let record = self.bench.record(job).await;
        let now = self.now();
        let Some(known) = self.known.get_mut(&job) else { panic!("{job} is unknown") };
        assert_eq!(record.attempts, known.attempts, "attempts of {job}: {known:?}");
        match (&known.at, record.status) {
            (At::Waiting { due }, Status::Scheduled) => {
                assert_eq!(record.next_attempt_at, Some(*due));
                assert_eq!(known.attempts, 0);
            }
            (At::Waiting { .. }, Status::Queued) => assert_eq!(known.attempts, 0),
            (At::Waiting { .. }, Status::Retrying) => assert!(known.attempts > 0),
            (At::Waiting { .. }, status @ (Status::Failed | Status::Held)) => {
                assert!(now.since(known.counts_from) >= known.expire_after, "{job} expired early: {known:?}");
                let is_held = known.marked && known.on_ambiguous == OnAmbiguous::Hold;
                assert_eq!(status, if is_held { Status::Held } else { Status::Failed });
                assert_eq!(record.reason, (!is_held).then_some(Reason::Expired));
                known.at = At::Ended(status);
                known.reset();
            }
            (At::Held { .. }, status) => assert_eq!(status, Status::Sending, "{job}"),
            (At::Ended(ended), status) => assert_eq!(status, *ended, "{job}"),
            (At::Waiting { .. }, status) => panic!("{job} is {status}: {known:?}"),
        }
    }

    /// The ledger balances and says what the model says, as far as time has no part in it.
    async fn look(&mut self, when: &str) {
        let ledger = must(self.bench.queue.stats().await).ledger;
        assert!(ledger.balances(), "{when}: {ledger:?}");
        let count = |is: fn(&At) -> bool| self.known.values().filter(|known| is(&known.at)).count() as u64;
        let counted = (
            self.known.len() as u64,
            count(|at| matches!(at, At::Held { .. })),
            count(|at| *at == At::Ended(Status::Sent)),
            count(|at| *at == At::Ended(Status::Cancelled)),
        );
        let told = (ledger.accepted, ledger.sending, ledger.sent, ledger.cancelled);
        assert_eq!(told, counted, "{when}: accepted, sending, sent, cancelled");
        // All records are asked now and then: there are many.
        if self.chance.random_ratio(1, 25) {
            let jobs: Vec<JobId> = self.known.keys().copied().collect();
            for job in jobs.iter().rev().take(100) {
                self.synchronise(*job).await;
            }
        }
    }

    /// Lets everything that waits be sent: nothing is lost on the way.
    async fn finish(&mut self, when: &str) {
        must(self.bench.queue.set_paused(false).await);
        let me = consumer("last");
        for _ in 0..100 {
            let delivered = [
                must(self.bench.queue.claim(&me, 100).await),
                must(self.bench.queue.reclaim(&me, 100).await).deliveries,
            ];
            for delivery in delivered.concat() {
                assert_eq!(
                    must(self.bench.queue.settle(&me, &[end(&delivery, Verdict::Sent)]).await),
                    [Settled::Done]
                );
            }
            self.bench.pass(2).await;
            let ledger = self.bench.ledger().await;
            if ledger.accepted == ledger.sent + ledger.failed + ledger.cancelled + ledger.held {
                break;
            }
        }
        let mut ends: BTreeMap<Status, u64> = BTreeMap::new();
        for job in self.known.keys() {
            let record = self.bench.record(*job).await;
            assert!(record.status.is_final(), "{when}: {job} is {}", record.status);
            *ends.entry(record.status).or_default() += 1;
        }
        assert_eq!(self.bench.counts().await, ends.into_iter().collect::<Vec<_>>(), "{when}");
        assert!(must(self.bench.queue.held_by(&me).await).is_empty());
    }
}
