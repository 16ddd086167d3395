//! Time: nothing before its hour, and nothing for ever.

use std::time::Duration;

use super::Harness;
use super::bench::{Bench, must, some};
use crate::job::{JobId, Reason, Status};
use crate::queue::{NewBatch, Ordered, Verdict};

impl Bench<'_> {
    async fn put_scheduled(&self, units: u32) -> JobId {
        let batch = NewBatch { send_at: Some(self.in_units(units)), ..self.batch(1) };
        self.put(batch).await[0]
    }

    /// A job that expires after so many units.
    async fn put_mortal(&self, units: u32) -> JobId {
        let batch = NewBatch { expire_after: self.units(units), ..self.batch(1) };
        self.put(batch).await[0]
    }

    async fn is_expired(&self, job: JobId) -> bool {
        let record = self.record(job).await;
        (record.status, record.reason) == (Status::Failed, Some(Reason::Expired))
    }
}

/// No attempt before `send_at`.
pub async fn scheduled_job_is_not_handed_out_before_its_time(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let at = bench.in_units(4);
    let job = bench.put_scheduled(4).await;
    let record = bench.record(job).await;
    assert_eq!(record.status, Status::Scheduled);
    let asked = some(record.send_at, "time to send");
    assert!(asked >= at && asked == some(record.next_attempt_at, "next attempt"));
    bench.pass(2).await;
    assert!(bench.claim(1).await.is_empty());
    bench.pass(3).await;
    assert_eq!(bench.counts().await, [(Status::Queued, 1)]);
    let delivery = bench.claim_one().await;
    assert!(harness.now() >= asked);
    assert_eq!((delivery.job, delivery.attempt, delivery.send_at), (job, 1, Some(asked)));
    assert_eq!(delivery.date(), asked);
}

/// A person may move a scheduled mail.
pub async fn scheduled_job_can_be_moved(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let (later, sooner) = (bench.put_scheduled(3).await, bench.put_scheduled(1_000).await);
    let (far, near) = (bench.in_units(1_000), bench.in_units(3));
    for (job, at) in [(later, far), (sooner, near)] {
        let Ordered::Done(record) = must(bench.queue.reschedule(job, at).await) else {
            panic!("it was not moved");
        };
        assert_eq!((record.id, record.status), (job, Status::Scheduled));
        assert_eq!((record.send_at, record.next_attempt_at), (Some(at), Some(at)));
    }
    bench.pass(4).await;
    let delivery = bench.claim_one().await;
    assert_eq!((delivery.job, delivery.send_at), (sooner, Some(near)));
    assert!(bench.claim(1).await.is_empty());
    assert_eq!(bench.record(later).await.status, Status::Scheduled);
}

/// A time that is not in the future is now.
pub async fn scheduled_job_can_be_moved_to_now(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_scheduled(1_000).await;
    let Ordered::Done(record) = must(bench.queue.reschedule(job, harness.now()).await) else {
        panic!("it was not moved");
    };
    assert_eq!((record.status, record.send_at, record.next_attempt_at), (Status::Queued, None, None));
    assert_eq!(bench.counts().await, [(Status::Queued, 1)]);
    let delivery = bench.claim_one().await;
    assert_eq!((delivery.job, delivery.send_at), (job, None));
}

/// Moving a job into the queue is not a way around its limit.
pub async fn move_to_now_needs_a_place(harness: &dyn Harness) {
    let bench = Bench::with(harness, |limits| limits.max_queue_size = 1).await;
    let job = bench.put_scheduled(1_000).await;
    bench.put_one().await;
    assert_eq!(must(bench.queue.reschedule(job, harness.now()).await), Ordered::Full);
    assert_eq!(bench.counts().await, [(Status::Queued, 1), (Status::Scheduled, 1)]);
    let at = bench.in_units(2_000);
    assert!(matches!(must(bench.queue.reschedule(job, at).await), Ordered::Done(_)));
}

/// Only what has not begun can be moved.
pub async fn only_a_scheduled_job_can_be_moved(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_one().await;
    let move_it = async || must(bench.queue.reschedule(job, bench.in_units(100)).await);
    assert_eq!(move_it().await, Ordered::Conflict(Status::Queued));
    let delivery = bench.claim_one().await;
    assert_eq!(move_it().await, Ordered::Conflict(Status::Sending));
    bench.done(&delivery, Verdict::Retry { delay: bench.units(3) }).await;
    assert_eq!(move_it().await, Ordered::Conflict(Status::Retrying));
}

/// A mail that could not be sent in time is not sent late.
pub async fn old_job_expires(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let (old, young) = (bench.put_mortal(4).await, bench.put_mortal(100).await);
    bench.pass(2).await;
    assert_eq!(bench.counts().await, [(Status::Queued, 2)]);
    bench.pass(3).await;
    // A job that is ready may be left to the claim that meets it.
    assert_eq!(bench.claim_one().await.job, young);
    assert!(bench.claim(1).await.is_empty());
    assert!(bench.is_expired(old).await);
    assert_eq!(bench.record(old).await.attempts, 0);
    assert_eq!(bench.counts().await, [(Status::Sending, 1), (Status::Failed, 1)]);
}

/// A job in hand is not taken away.
pub async fn job_in_hand_does_not_expire(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_mortal(3).await;
    let delivery = bench.claim_one().await;
    bench.pass(4).await;
    assert_eq!(bench.record(job).await.status, Status::Sending);
    bench.done(&delivery, Verdict::Sent).await;
}

/// A retry does not outlive its job, nor does it wait for its hour to say so.
pub async fn retrying_job_expires(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_mortal(6).await;
    let delivery = bench.claim_one().await;
    bench.done(&delivery, Verdict::Retry { delay: bench.units(1_000) }).await;
    bench.pass(3).await;
    assert_eq!(bench.record(job).await.status, Status::Retrying);
    bench.pass(4).await;
    assert!(bench.is_expired(job).await);
    assert_eq!(bench.record(job).await.attempts, 1);
    assert_eq!(bench.counts().await, [(Status::Failed, 1)]);
}

/// A scheduled job's time begins with `send_at`.
pub async fn scheduled_job_expires_from_its_time(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let scheduled =
        || NewBatch { send_at: Some(bench.in_units(6)), expire_after: bench.units(5), ..bench.batch(1) };
    let [job, other] = [bench.put(scheduled()).await[0], bench.put(scheduled()).await[0]];
    bench.pass(8).await;
    let first = bench.claim_one().await.job;
    bench.pass(5).await;
    assert!(bench.claim(1).await.is_empty());
    assert!(bench.is_expired(if first == job { other } else { job }).await);
}

/// What a person holds back does not grow old meanwhile.
pub async fn paused_time_does_not_count_for_expiry(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_mortal(6).await;
    must(bench.queue.set_paused(true).await);
    bench.pass(10).await;
    assert_eq!(bench.record(job).await.status, Status::Queued);
    // Pausing what is paused, and resuming what runs, changes nothing.
    must(bench.queue.set_paused(true).await);
    bench.pass(1).await;
    for _ in 0..2 {
        must(bench.queue.set_paused(false).await);
    }
    bench.pass(3).await;
    assert_eq!(bench.record(job).await.status, Status::Queued);
    bench.pass(4).await;
    assert!(bench.claim(1).await.is_empty());
    assert!(bench.is_expired(job).await);
}

/// Records are kept for their time; the ledger counts their jobs for ever.
pub async fn ended_records_are_removed_by_time(harness: &dyn Harness) {
    let bench = Bench::with(harness, |limits| {
        limits.retention = harness.unit() * 4;
        limits.failed_retention = harness.unit() * 9;
    })
    .await;
    let jobs = bench.put(bench.batch(4)).await;
    let held = bench.claim(4).await;
    let permanent = Verdict::Fail(Reason::Permanent);
    for (delivery, verdict) in held.iter().zip([Verdict::Sent, Verdict::Sent, permanent, Verdict::Hold]) {
        bench.done(delivery, verdict).await;
    }
    let counts = bench.counts().await;
    bench.pass(2).await;
    for job in &jobs {
        bench.record(*job).await;
    }
    bench.pass(4).await;
    let batch = some(must(bench.queue.batch(jobs[0].batch).await), "batch");
    assert_eq!(batch.count, 4);
    assert_eq!(batch.statuses[Status::Sent as usize], 2);
    for (delivery, is_kept) in held.iter().zip([false, false, true, true]) {
        assert_eq!(must(bench.queue.job(delivery.job).await).is_some(), is_kept);
    }
    bench.pass(6).await;
    for (delivery, is_kept) in held.iter().zip([false, false, false, true]) {
        assert_eq!(must(bench.queue.job(delivery.job).await).is_some(), is_kept);
    }
    assert_eq!(bench.counts().await, counts);
    // A held one waits for a person; when that is done the last trace goes.
    must(bench.queue.requeue(held[3].job).await);
    bench.done(&bench.claim_one().await, Verdict::Sent).await;
    bench.pass(6).await;
    assert_eq!(must(bench.queue.batch(jobs[0].batch).await), None);
    assert_eq!(bench.counts().await, [(Status::Sent, 3), (Status::Failed, 1)]);
}

/// However many end within their time, no more records than that are kept: the newest.
pub async fn ended_records_are_removed_by_number(harness: &dyn Harness) {
    let bench = Bench::with(harness, |limits| limits.retain = 5).await;
    let mut ended = Vec::new();
    for n in 0..12 {
        ended.push(bench.put_one().await);
        let delivery = bench.claim_one().await;
        let verdict = if n % 3 == 0 { Verdict::Fail(Reason::Permanent) } else { Verdict::Sent };
        bench.done(&delivery, verdict).await;
        // Their order is by time.
        harness.pass(Duration::from_millis(2)).await;
    }
    bench.maintain().await;
    let mut kept = Vec::new();
    for job in &ended {
        if must(bench.queue.job(*job).await).is_some() {
            kept.push(*job);
        }
    }
    assert_eq!(kept, ended[7..]);
    assert_eq!(bench.counts().await, [(Status::Sent, 8), (Status::Failed, 4)]);
}

/// Whoever maintains knows when to look again.
pub async fn maintenance_tells_when_the_next_job_is_due(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    bench.put_scheduled(50).await;
    bench.put_scheduled(8).await;
    let due = must(bench.queue.maintain().await).next_due;
    assert!(due.is_some_and(|due| due <= bench.units(8) && due > bench.units(5)), "{due:?}");
}
