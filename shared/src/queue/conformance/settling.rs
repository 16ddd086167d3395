//! How deliveries end, and what one that is lost can still do: nothing but succeed.

use super::Harness;
use super::bench::{Bench, consumer, end, must};
use crate::job::{BatchId, JobId, Reason, Status};
use crate::queue::{ConsumerId, Delivery, Ordered, Settled, Verdict};

impl Bench<'_> {
    /// All that a holder can say.
    pub(super) fn verdicts(&self) -> [Verdict; 6] {
        let delay = self.units(1_000);
        let permanent = Verdict::Fail(Reason::Permanent);
        let render = Verdict::Fail(Reason::Render);
        [Verdict::Sent, Verdict::Retry { delay }, Verdict::Release, permanent, render, Verdict::Hold]
    }

    /// A job whose holder `lost` went away, now held by `me`: both deliveries.
    async fn lost_and_held(&self, lost: &ConsumerId) -> (Delivery, Delivery) {
        self.put_one().await;
        let theirs = self.claim_one_as(lost).await;
        (theirs, self.take_over_one().await)
    }
}

/// What the relay has taken is over.
pub async fn sent_job_is_final(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_one().await;
    let delivery = bench.claim_one().await;
    bench.done(&delivery, Verdict::Sent).await;
    let record = bench.record(job).await;
    assert_eq!((record.status, record.reason, record.attempts), (Status::Sent, None, 1));
    assert_eq!(record.relay.as_deref(), Some("default"));
    assert_eq!(record.last_reply, end(&delivery, Verdict::Sent).reply);
    assert_eq!(must(bench.queue.cancel(job).await), Ordered::Conflict(Status::Sent));
    assert_eq!(must(bench.queue.requeue(job).await), Ordered::Conflict(Status::Sent));
    bench.pass(6).await;
    assert!(bench.claim(1).await.is_empty());
    assert!(bench.take_over(1).await.deliveries.is_empty());
    assert_eq!(bench.counts().await, [(Status::Sent, 1)]);
}

/// The delay of a retry counts from its settlement, and the attempt counts.
pub async fn retry_waits_at_least_its_delay(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_one().await;
    let delivery = bench.claim_one().await;
    let asked = harness.now();
    bench.done(&delivery, Verdict::Retry { delay: bench.units(4) }).await;
    let record = bench.record(job).await;
    assert_eq!((record.status, record.attempts), (Status::Retrying, 1));
    let due = record.next_attempt_at.map(|at| at.since(asked));
    assert!(due.is_some_and(|due| due >= bench.units(4) && due < bench.units(6)), "{due:?}");
    bench.pass(2).await;
    assert!(bench.claim(1).await.is_empty());
    bench.pass(3).await;
    assert_eq!(bench.counts().await, [(Status::Retrying, 1)]);
    assert_eq!(bench.record(job).await.next_attempt_at, None);
    let delivery = bench.claim_one().await;
    assert_eq!((delivery.job, delivery.attempt, delivery.max_attempts), (job, 2, 4));
    assert!(harness.now().since(asked) >= bench.units(4));
}

/// What a worker hands back is as if it had never been taken.
pub async fn released_job_is_ready_at_once_and_costs_nothing(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_one().await;
    let delivery = bench.claim_one().await;
    assert!(must(bench.queue.mark(&bench.me, &[job]).await).is_empty());
    bench.done(&delivery, Verdict::Release).await;
    assert_eq!(bench.counts().await, [(Status::Queued, 1)]);
    let again = bench.claim_one().await;
    assert_eq!((again.job, again.attempt, again.reclaims, again.marked), (job, 1, 0, false));
}

/// A job that is given up says why.
pub async fn failed_job_tells_its_reason(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    for reason in [Reason::Permanent, Reason::RetriesExhausted] {
        let job = bench.put_one().await;
        let delivery = bench.claim_one().await;
        bench.done(&delivery, Verdict::Fail(reason)).await;
        let record = bench.record(job).await;
        assert_eq!((record.status, record.reason, record.attempts), (Status::Failed, Some(reason), 1));
        assert_eq!(record.last_reply, end(&delivery, Verdict::Sent).reply);
    }
    assert_eq!(bench.counts().await, [(Status::Failed, 2)]);
}

/// Nothing was tried, so nothing counts.
pub async fn message_that_cannot_be_built_costs_no_attempt(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    for reason in [Reason::Render, Reason::Encryption] {
        let job = bench.put_one().await;
        let delivery = bench.claim_one().await;
        bench.done(&delivery, Verdict::Fail(reason)).await;
        let record = bench.record(job).await;
        assert_eq!((record.status, record.reason, record.attempts), (Status::Failed, Some(reason), 0));
    }
}

/// An address that is never to be sent to ends its job for good, without an attempt.
pub async fn suppressed_job_is_final(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_one().await;
    let delivery = bench.claim_one().await;
    bench.done(&delivery, Verdict::Fail(Reason::Suppressed)).await;
    let record = bench.record(job).await;
    let expected = (Status::Suppressed, Some(Reason::Suppressed), 0);
    assert_eq!((record.status, record.reason, record.attempts), expected);
    assert_eq!(must(bench.queue.requeue(job).await), Ordered::Conflict(Status::Suppressed));
    assert_eq!(bench.counts().await, [(Status::Suppressed, 1)]);
}

/// One that must not be sent a second time waits as long as it takes.
pub async fn held_job_waits_for_a_person(harness: &dyn Harness) {
    let bench = Bench::with(harness, |limits| limits.retention = harness.unit() * 8).await;
    let job = bench.put_one().await;
    let delivery = bench.claim_one().await;
    bench.done(&delivery, Verdict::Hold).await;
    bench.pass(20).await;
    assert!(bench.claim(1).await.is_empty());
    let record = bench.record(job).await;
    assert_eq!((record.status, record.reason, record.attempts), (Status::Held, None, 1));
    assert_eq!(bench.counts().await, [(Status::Held, 1)]);
}

/// A settlement whose answer was lost is repeated without harm.
pub async fn exact_replay_of_a_settlement_changes_nothing(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    for verdict in bench.verdicts() {
        let job = bench.put_one().await;
        let delivery = bench.claim_one().await;
        bench.done(&delivery, verdict).await;
        let before = (bench.record(job).await, bench.ledger().await);
        assert_eq!(bench.settle(&delivery, verdict).await, Settled::Lost, "{verdict:?}");
        assert_eq!((bench.record(job).await, bench.ledger().await), before, "{verdict:?}");
        // Nothing is left for the next verdict's claim to find.
        must(bench.queue.cancel(job).await);
    }
}

/// A replay that comes late does not end what came after it, though the consumer is the same.
pub async fn replay_of_an_earlier_end_does_not_end_the_next_attempt(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let retry = Verdict::Retry { delay: std::time::Duration::ZERO };
    for first_end in [Verdict::Release, retry] {
        let job = bench.put_one().await;
        let first = bench.claim_one().await;
        bench.done(&first, first_end).await;
        bench.pass(1).await;
        let second = bench.claim_one().await;
        assert_eq!(second.job, job);
        for verdict in [Verdict::Release, retry, Verdict::Fail(Reason::Permanent), Verdict::Hold] {
            assert_eq!(bench.settle(&first, verdict).await, Settled::Lost, "{first_end:?}, {verdict:?}");
            assert_eq!(bench.record(job).await.status, Status::Sending);
        }
        bench.done(&second, Verdict::Sent).await;
    }
}

/// What the queue does not know it does not end.
pub async fn unknown_job_is_lost(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    bench.put_one().await;
    let known = bench.claim_one().await;
    let unknown = Delivery { job: JobId { batch: BatchId::generate(), index: 0 }, ..known.clone() };
    for verdict in bench.verdicts() {
        assert_eq!(bench.settle(&unknown, verdict).await, Settled::Lost);
    }
    assert_eq!(bench.counts().await, [(Status::Sending, 1)]);
}

/// One answer for each settlement, in order.
pub async fn answers_come_in_order(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    bench.put(bench.batch(3)).await;
    let held = bench.claim(3).await;
    let unknown = Delivery { job: JobId { batch: BatchId::generate(), index: 0 }, ..held[0].clone() };
    let retry = Verdict::Retry { delay: bench.units(100) };
    let ends = [
        end(&held[0], Verdict::Sent),
        end(&unknown, Verdict::Sent),
        end(&held[1], retry),
        end(&held[0], Verdict::Sent),
        end(&held[2], Verdict::Hold),
    ];
    let settled = must(bench.queue.settle(&bench.me, &ends).await);
    assert_eq!(settled, [Settled::Done, Settled::Lost, Settled::Done, Settled::Lost, Settled::Done]);
    assert_eq!(must(bench.queue.settle(&bench.me, &[]).await), []);
    assert_eq!(bench.counts().await, [(Status::Retrying, 1), (Status::Sent, 1), (Status::Held, 1)]);
}

/// A consumer that lost its lease can neither retry nor fail the job; its 250 is taken.
pub async fn zombie_can_do_nothing_but_succeed(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let zombie = consumer("zombie");
    let (lost, held) = bench.lost_and_held(&zombie).await;
    for verdict in bench.verdicts().into_iter().filter(|verdict| *verdict != Verdict::Sent) {
        let before = bench.record(held.job).await;
        assert_eq!(bench.settle_as(&zombie, &lost, verdict).await, Settled::Lost, "{verdict:?}");
        assert_eq!(bench.record(held.job).await, before, "{verdict:?}");
    }
    assert_eq!(must(bench.queue.extend(&zombie, &[lost.job]).await), [lost.job]);
    assert_eq!(must(bench.queue.mark(&zombie, &[lost.job]).await), [lost.job]);
    assert!(must(bench.queue.extend(&bench.me, &[lost.job]).await).is_empty());

    assert_eq!(bench.settle_as(&zombie, &lost, Verdict::Sent).await, Settled::Late);
    assert_eq!(bench.record(held.job).await.status, Status::Sent);
    for verdict in bench.verdicts() {
        assert_eq!(bench.settle(&held, verdict).await, Settled::Lost, "{verdict:?}");
    }
    assert_eq!(bench.counts().await, [(Status::Sent, 1)]);
}

/// The mail went out: that is true wherever the job has gone since.
pub async fn late_success_is_taken_wherever_the_job_is(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let delay = bench.units(1_000);
    let permanent = Verdict::Fail(Reason::Permanent);
    let now = [Verdict::Release, Verdict::Retry { delay }, permanent, Verdict::Hold];
    for (n, verdict) in now.into_iter().enumerate() {
        let zombie = consumer(&format!("zombie{n}"));
        let (lost, held) = bench.lost_and_held(&zombie).await;
        bench.done(&held, verdict).await;
        assert_eq!(bench.settle_as(&zombie, &lost, Verdict::Sent).await, Settled::Late, "{verdict:?}");
        let record = bench.record(held.job).await;
        assert_eq!((record.status, record.reason), (Status::Sent, None), "{verdict:?}");
        assert_eq!(bench.settle_as(&zombie, &lost, Verdict::Sent).await, Settled::Lost);
        bench.pass(1).await;
        assert!(bench.claim(1).await.is_empty(), "it is handed out after {verdict:?}");
    }
    assert_eq!(bench.counts().await, [(Status::Sent, 4)]);
}

/// A person's word stands.
pub async fn late_success_leaves_a_cancelled_job_cancelled(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let zombie = consumer("zombie");
    let (lost, held) = bench.lost_and_held(&zombie).await;
    bench.done(&held, Verdict::Release).await;
    must(bench.queue.cancel(held.job).await);
    assert_eq!(bench.settle_as(&zombie, &lost, Verdict::Sent).await, Settled::Lost);
    assert_eq!(bench.counts().await, [(Status::Cancelled, 1)]);
    // That it went out all the same is told.
    let timeline = bench.record(held.job).await.timeline;
    assert_eq!(timeline.last().map(|entry| entry.event.as_str()), Some("late_success"));
}
