//! Leases: who keeps them keeps the job, and what becomes of the jobs of those who do not.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;

use super::Harness;
use super::bench::{Bench, consumer, must};
use crate::job::{BatchId, JobId, OnAmbiguous, POISON_RECLAIMS, Reason, Status};
use crate::queue::{NewBatch, Verdict};

impl Bench<'_> {
    /// Takes a job over from one dead consumer after the other, `times` times.
    async fn take_over_again_and_again(&self, job: JobId, times: u32) {
        for n in 1..=times {
            let delivery = self.take_over_one().await;
            assert_eq!((delivery.job, delivery.reclaims, delivery.attempt), (job, n, 1));
        }
    }
}

/// A worker that lives keeps its jobs, however long they take.
pub async fn renewed_lease_is_not_reclaimed(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_one().await;
    let delivery = bench.claim_one().await;
    for _ in 0..4 {
        bench.pass(3).await;
        assert!(must(bench.queue.extend(&bench.me, &[job]).await).is_empty());
        let reclaimed = must(bench.queue.reclaim(&consumer("other"), 10).await);
        assert!(reclaimed.deliveries.is_empty());
    }
    bench.done(&delivery, Verdict::Sent).await;
}

/// A dead worker's job goes on with the next, and costs no attempt for it.
pub async fn lapsed_lease_is_reclaimed_without_costing_an_attempt(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_one().await;
    let dead = consumer("dead");
    let lost = bench.claim_one_as(&dead).await;
    let held = bench.take_over_one().await;
    assert_eq!((held.job, held.attempt, held.reclaims, held.marked), (job, 1, 1, false));
    assert_eq!(held.recipient, lost.recipient);
    assert_eq!(held.content.subject, lost.content.subject);
    assert_ne!(held.receipt, lost.receipt);
    assert!(must(bench.queue.held_by(&dead).await).is_empty());
    assert_eq!(must(bench.queue.held_by(&bench.me).await).len(), 1);
    assert_eq!(bench.counts().await, [(Status::Sending, 1)]);
    assert_eq!(bench.record(job).await.attempts, 0);
    // The new holder has a whole lease.
    bench.pass(2).await;
    assert!(must(bench.queue.reclaim(&consumer("third"), 1).await).deliveries.is_empty());
}

/// Of all that look for dead workers' jobs, one gets each.
pub async fn job_is_reclaimed_by_one_consumer_only(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let jobs: BTreeSet<_> = bench.put(bench.batch(50)).await.into_iter().collect();
    must(bench.queue.claim(&consumer("dead"), 50).await);
    bench.lapse().await;
    let heirs: Vec<_> = (0..6).map(|n| consumer(&format!("heir{n}"))).collect();
    let mut seen = BTreeSet::new();
    // Some of the handles may not trust the leases yet.
    for _ in 0..100 {
        let calls = heirs.iter().zip(bench.handles.iter().cycle()).map(|(me, queue)| queue.reclaim(me, 4));
        for reclaimed in join_all(calls).await.into_iter().map(must) {
            for delivery in reclaimed.deliveries {
                assert!(seen.insert(delivery.job), "reclaimed twice");
                assert_eq!(delivery.reclaims, 1);
            }
        }
        if seen.len() == jobs.len() {
            break;
        }
    }
    assert_eq!(seen, jobs);
}

/// A worker takes no more than it has hands for.
pub async fn reclaim_takes_no_more_than_asked(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    bench.put(bench.batch(10)).await;
    must(bench.queue.claim(&consumer("dead"), 10).await);
    assert_eq!(bench.take_over(3).await.deliveries.len(), 3);
    assert!(must(bench.queue.reclaim(&bench.me, 0).await).deliveries.is_empty());
    assert_eq!(must(bench.queue.reclaim(&bench.me, 100).await).deliveries.len(), 7);
}

/// Content may have gone out: whoever is next knows.
pub async fn mark_is_seen_by_the_next_holder(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_one().await;
    let dead = consumer("dead");
    bench.claim_one_as(&dead).await;
    assert!(must(bench.queue.mark(&dead, &[job]).await).is_empty());
    for _ in 0..2 {
        let delivery = bench.take_over_one().await;
        assert!(delivery.marked);
    }
}

/// An outcome tells what became of the content.
pub async fn mark_ends_with_the_delivery(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_one().await;
    let delivery = bench.claim_one().await;
    assert!(must(bench.queue.mark(&bench.me, &[job]).await).is_empty());
    bench.done(&delivery, Verdict::Retry { delay: Duration::ZERO }).await;
    bench.pass(1).await;
    assert!(!bench.claim_one().await.marked);
    assert!(!bench.take_over_one().await.marked);
}

/// A call whose answer was lost is repeated.
pub async fn repeated_mark_changes_nothing(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_one().await;
    let delivery = bench.claim_one().await;
    for _ in 0..2 {
        assert!(must(bench.queue.mark(&bench.me, &[job]).await).is_empty());
    }
    assert_eq!(bench.counts().await, [(Status::Sending, 1)]);
    bench.done(&delivery, Verdict::Sent).await;
}

/// A worker learns which of its jobs are not its any more, before it sends them.
pub async fn mark_and_extend_name_what_is_not_held(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let jobs = bench.put(bench.batch(4)).await;
    let mine = bench.claim(2).await;
    let theirs = bench.claim_one_as(&consumer("other")).await;
    let settled = &mine[0];
    bench.done(settled, Verdict::Sent).await;
    let unknown = JobId { batch: BatchId::generate(), index: 0 };
    let ready = jobs.iter().find(|job| ![mine[0].job, mine[1].job, theirs.job].contains(job));
    let asked: Vec<_> =
        [mine[1].job, settled.job, theirs.job, unknown].into_iter().chain(ready.copied()).collect();
    let expected: BTreeSet<_> = asked[1..].iter().copied().collect();
    for lost in [bench.queue.mark(&bench.me, &asked).await, bench.queue.extend(&bench.me, &asked).await] {
        assert_eq!(must(lost).into_iter().collect::<BTreeSet<_>>(), expected);
    }
}

/// What kills each worker that takes it is taken no more.
pub async fn fifth_reclaim_is_poison(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_one().await;
    bench.claim_one().await;
    bench.take_over_again_and_again(job, POISON_RECLAIMS - 1).await;
    let last = bench.take_over(10).await;
    assert!(last.deliveries.is_empty());
    assert_eq!(last.poisoned, [job]);
    let record = bench.record(job).await;
    assert_eq!((record.status, record.reason, record.attempts), (Status::Failed, Some(Reason::Poison), 0));
    assert_eq!(bench.counts().await, [(Status::Failed, 1)]);
}

/// What must not be sent twice, and may have been sent, is a person's to decide.
pub async fn fifth_reclaim_of_a_marked_hold_job_holds_it(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let hold = NewBatch { on_ambiguous: OnAmbiguous::Hold, ..bench.batch(1) };
    let job = bench.put(hold).await[0];
    bench.claim_one().await;
    assert!(must(bench.queue.mark(&bench.me, &[job]).await).is_empty());
    bench.take_over_again_and_again(job, POISON_RECLAIMS - 1).await;
    assert_eq!(bench.take_over(10).await.poisoned, [job]);
    assert_eq!(bench.record(job).await.status, Status::Held);
    assert_eq!(bench.counts().await, [(Status::Held, 1)]);
}

/// Only deaths in a row are poison.
pub async fn outcome_resets_the_reclaims(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    bench.put_one().await;
    let mut delivery = bench.claim_one().await;
    for verdict in [Verdict::Release, Verdict::Retry { delay: Duration::ZERO }] {
        for _ in 0..POISON_RECLAIMS - 1 {
            delivery = bench.take_over_one().await;
        }
        assert_eq!(delivery.reclaims, POISON_RECLAIMS - 1);
        bench.done(&delivery, verdict).await;
        bench.pass(1).await;
        assert_eq!(bench.claim_one().await.reclaims, 0);
    }
}

/// Pausing the queue holds back the jobs of dead workers, too.
pub async fn nothing_is_reclaimed_into_hands_while_paused(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_one().await;
    let dead = consumer("dead");
    bench.claim_one_as(&dead).await;
    assert!(must(bench.queue.mark(&dead, &[job]).await).is_empty());
    must(bench.queue.set_paused(true).await);
    assert!(bench.take_over(10).await.deliveries.is_empty());
    assert_eq!(bench.counts().await, [(Status::Queued, 1)]);
    must(bench.queue.set_paused(false).await);
    // What its worker left behind is still known.
    let delivery = bench.claim_one().await;
    assert_eq!((delivery.job, delivery.attempt, delivery.reclaims, delivery.marked), (job, 1, 1, true));
}

/// The number of workers is of those that live.
pub async fn workers_are_those_heard_of_within_a_lease(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let workers = async || must(bench.queue.stats().await).workers;
    assert_eq!(workers().await, 0);
    let (a, b) = (consumer("a"), consumer("b"));
    must(bench.queue.heartbeat(&a).await);
    must(bench.queue.heartbeat(&b).await);
    assert_eq!(workers().await, 2);
    for _ in 0..3 {
        bench.pass(2).await;
        must(bench.queue.heartbeat(&a).await);
    }
    assert_eq!(workers().await, 1);
    must(bench.queue.leave(&a).await);
    assert_eq!(workers().await, 0);
}

/// Leaving loses nothing.
pub async fn consumer_that_leaves_keeps_what_it_holds(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_one().await;
    let leaving = consumer("leaving");
    bench.claim_one_as(&leaving).await;
    must(bench.queue.leave(&leaving).await);
    assert_eq!(must(bench.queue.held_by(&leaving).await).len(), 1);
    assert_eq!(bench.take_over_one().await.job, job);
    must(bench.queue.leave(&leaving).await);
    assert_eq!(bench.counts().await, [(Status::Sending, 1)]);
}
