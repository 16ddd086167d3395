//! What people order and ask: taking back, queueing again, looking.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join;

use super::Harness;
use super::bench::{Bench, consumer, must, some};
use crate::job::{BatchId, JobId, JobRecord, Priority, Reason, Status, TIMELINE_LIMIT};
use crate::queue::{JobFilter, LISTING_LOOKS_AT, NewBatch, Ordered, Unavailable, Verdict};

impl Bench<'_> {
    /// A job in each of the states that there are, in the order of [`Status::ALL`] but for `suppressed`.
    async fn one_in_each_state(&self) -> Vec<(Status, JobId)> {
        let delay = self.units(1_000);
        let mut jobs = Vec::new();
        let ends = [
            (Status::Retrying, Verdict::Retry { delay }),
            (Status::Sent, Verdict::Sent),
            (Status::Failed, Verdict::Fail(Reason::Permanent)),
            (Status::Held, Verdict::Hold),
        ];
        for (status, verdict) in ends {
            jobs.push((status, self.put_one().await));
            let delivery = self.claim_one().await;
            self.done(&delivery, verdict).await;
        }
        jobs.push((Status::Sending, self.put_one().await));
        self.claim_one().await;
        jobs.push((Status::Cancelled, self.put_one().await));
        ordered(self.queue.cancel(jobs[5].1).await);
        jobs.push((Status::Queued, self.put_one().await));
        let scheduled = NewBatch { send_at: Some(self.in_units(1_000)), ..self.batch(1) };
        jobs.push((Status::Scheduled, self.put(scheduled).await[0]));
        for (status, job) in &jobs {
            assert_eq!(self.record(*job).await.status, *status);
        }
        jobs
    }

    /// A job whose retries are used up.
    async fn failed(&self) -> JobId {
        let job = self.put_one().await;
        let delivery = self.claim_one().await;
        self.done(&delivery, Verdict::Fail(Reason::RetriesExhausted)).await;
        job
    }

    async fn list(&self, filter: JobFilter) -> Vec<JobId> {
        let page = must(self.queue.jobs(&filter, 1_000, None).await);
        assert_eq!(page.next, None);
        page.jobs.into_iter().map(|record| record.id).collect()
    }
}

/// The job as it is after an order that was done.
fn ordered(answer: Result<Ordered, Unavailable>) -> JobRecord {
    match must(answer) {
        Ordered::Done(record) => *record,
        other => panic!("it was not done: {other:?}"),
    }
}

/// queued, scheduled and retrying jobs can be taken back; those in hand and those that are over cannot.
pub async fn only_waiting_jobs_can_be_cancelled(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    for (status, job) in bench.one_in_each_state().await {
        let answer = must(bench.queue.cancel(job).await);
        if matches!(status, Status::Queued | Status::Scheduled | Status::Retrying) {
            let Ordered::Done(record) = answer else { panic!("{status}: {answer:?}") };
            assert_eq!((record.id, record.status, record.next_attempt_at), (job, Status::Cancelled, None));
        } else {
            assert_eq!(answer, Ordered::Conflict(status));
            assert_eq!(bench.record(job).await.status, status);
        }
    }
    assert_eq!(bench.ledger().await.cancelled, 4);
}

/// Taken back is taken back.
pub async fn cancelled_job_is_never_handed_out(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let jobs = bench.put(bench.batch(3)).await;
    let scheduled = NewBatch { send_at: Some(bench.in_units(2)), ..bench.batch(1) };
    let scheduled = bench.put(scheduled).await[0];
    ordered(bench.queue.cancel(jobs[1]).await);
    ordered(bench.queue.cancel(scheduled).await);
    bench.pass(3).await;
    let claimed: BTreeSet<_> = bench.claim(10).await.into_iter().map(|delivery| delivery.job).collect();
    assert_eq!(claimed, BTreeSet::from([jobs[0], jobs[2]]));
}

/// Of a cancel and a claim at the same time one wins.
pub async fn cancel_and_claim_never_both_win(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    for n in 0..50 {
        let job = bench.put_one().await;
        let (cancel, claim) = (bench.handles[1].cancel(job), bench.handles[2].claim(&bench.me, 1));
        let (cancelled, claimed) = if n % 2 == 0 {
            join(cancel, claim).await
        } else {
            let (claimed, cancelled) = join(claim, cancel).await;
            (cancelled, claimed)
        };
        let was_cancelled = matches!(must(cancelled), Ordered::Done(_));
        let claimed = must(claimed);
        assert_ne!(was_cancelled, !claimed.is_empty());
        for delivery in claimed {
            bench.done(&delivery, Verdict::Sent).await;
        }
    }
    let ledger = bench.ledger().await;
    assert_eq!(ledger.sent + ledger.cancelled, 50);
}

/// A batch is taken back as far as it has not gone out.
pub async fn batch_can_be_cancelled(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let jobs = bench.put(bench.batch(5)).await;
    let other = bench.put_one().await;
    let claimed = bench.claim(2).await;
    let of_batch = claimed.iter().filter(|delivery| delivery.job != other).count() as u64;
    assert_eq!(must(bench.queue.cancel_batch(jobs[0].batch).await), Some(5 - of_batch));
    assert_eq!(must(bench.queue.cancel_batch(jobs[0].batch).await), Some(0));
    assert_eq!(must(bench.queue.cancel_batch(BatchId::generate()).await), None);
    assert_eq!(bench.ledger().await.cancelled, 5 - of_batch);
    assert_ne!(bench.record(other).await.status, Status::Cancelled);
}

/// failed and held jobs can be queued again; no others.
pub async fn only_failed_and_held_jobs_can_be_requeued(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    for (status, job) in bench.one_in_each_state().await {
        let answer = must(bench.queue.requeue(job).await);
        if matches!(status, Status::Failed | Status::Held) {
            let Ordered::Done(record) = answer else { panic!("{status}: {answer:?}") };
            assert_eq!((record.id, record.status, record.reason), (job, Status::Queued, None));
        } else {
            assert_eq!(answer, Ordered::Conflict(status));
        }
    }
}

/// All attempts are before it again, and it has its content still.
pub async fn requeued_job_starts_anew(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let batch = NewBatch { expire_after: bench.units(8), ..bench.batch(1) };
    let job = bench.put(batch).await[0];
    let delivery = bench.claim_one().await;
    bench.done(&delivery, Verdict::Retry { delay: Duration::ZERO }).await;
    bench.pass(1).await;
    let delivery = bench.claim_one().await;
    bench.done(&delivery, Verdict::Fail(Reason::RetriesExhausted)).await;
    bench.pass(6).await;
    let record = ordered(bench.queue.requeue(job).await);
    assert_eq!((record.attempts, record.max_attempts), (0, 4));
    // By its first time it would have expired by now.
    bench.pass(3).await;
    let delivery = bench.claim_one().await;
    assert_eq!((delivery.job, delivery.attempt, delivery.marked, delivery.reclaims), (job, 1, false, 0));
    assert_eq!(delivery.content.subject.as_deref(), Some("你好"));
    bench.done(&delivery, Verdict::Sent).await;
    assert_eq!(bench.counts().await, [(Status::Sent, 1)]);
}

/// A held job has a place already; a failed one needs one.
pub async fn requeue_needs_a_place_unless_it_is_held(harness: &dyn Harness) {
    let bench = Bench::with(harness, |limits| limits.max_queue_size = 2).await;
    let failed = bench.failed().await;
    let held = bench.put_one().await;
    let delivery = bench.claim_one().await;
    bench.done(&delivery, Verdict::Hold).await;
    bench.put_one().await;
    assert_eq!(must(bench.queue.requeue(failed).await), Ordered::Full);
    assert_eq!(bench.record(failed).await.status, Status::Failed);
    ordered(bench.queue.requeue(held).await);
    ordered(bench.queue.cancel(held).await);
    ordered(bench.queue.requeue(failed).await);
}

/// What is not there is said not to be.
pub async fn unknown_ids_are_unknown(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let known = bench.put_one().await;
    for job in [JobId { batch: BatchId::generate(), index: 0 }, JobId { index: 1, ..known }] {
        assert_eq!(must(bench.queue.job(job).await), None);
        assert_eq!(must(bench.queue.cancel(job).await), Ordered::Unknown);
        assert_eq!(must(bench.queue.requeue(job).await), Ordered::Unknown);
        assert_eq!(must(bench.queue.reschedule(job, bench.in_units(9)).await), Ordered::Unknown);
    }
    assert_eq!(must(bench.queue.batch(BatchId::generate()).await), None);
    assert_eq!(bench.counts().await, [(Status::Queued, 1)]);
}

/// A listing is read page by page, whole, and none comes twice, though jobs are accepted meanwhile.
pub async fn listing_goes_from_the_newest_to_the_oldest(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let mut expected = Vec::new();
    for count in [3, 1, 4] {
        expected.extend(bench.put(bench.batch(count)).await);
        // Ids sort by the millisecond.
        harness.pass(Duration::from_millis(2)).await;
    }
    expected.reverse();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = must(bench.queue.jobs(&JobFilter::default(), 3, after).await);
        assert!(page.jobs.len() <= 3);
        seen.extend(page.jobs.into_iter().map(|record| record.id));
        bench.put_one().await;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, expected);
}

/// Each filter by itself, and together.
pub async fn listing_filters(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let mut tagged = bench.batch(2);
    tagged.tags = vec!["receipt".to_owned()];
    let tagged = bench.put(tagged).await;
    let plain = bench.put(bench.batch(2)).await;
    let delivery = bench.claim_one().await;
    bench.done(&delivery, Verdict::Sent).await;
    let all: Vec<_> = tagged.iter().chain(&plain).copied().collect();

    let by_tag = || JobFilter { tag: Some("receipt".to_owned()), ..JobFilter::default() };
    assert_eq!(bench.list(by_tag()).await, [tagged[1], tagged[0]]);
    let by_batch = JobFilter { batch: Some(plain[0].batch), ..JobFilter::default() };
    assert_eq!(bench.list(by_batch).await, [plain[1], plain[0]]);
    let key = bench.record(plain[1]).await.recipient.mailbox.address.key();
    let by_recipient = || JobFilter { recipient: Some(key.clone()), ..JobFilter::default() };
    assert_eq!(bench.list(by_recipient()).await, [plain[1], tagged[1]]);
    let by_status = JobFilter { status: Some(Status::Sent), ..JobFilter::default() };
    assert_eq!(bench.list(by_status).await, [delivery.job]);
    let queued = JobFilter { status: Some(Status::Queued), ..JobFilter::default() };
    let waiting: BTreeSet<_> = bench.list(queued).await.into_iter().collect();
    assert_eq!(waiting, all.into_iter().filter(|job| *job != delivery.job).collect());
    assert_eq!(bench.list(JobFilter { tag: by_tag().tag, ..by_recipient() }).await, [tagged[1]]);
    let nobody = JobFilter { batch: Some(BatchId::generate()), ..JobFilter::default() };
    assert!(bench.list(nobody).await.is_empty());
}

/// A listing that finds nothing does not go through everything to find it.
pub async fn listing_looks_at_a_bounded_number(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let wanted = bench.put(NewBatch { tags: vec!["rare".to_owned()], ..bench.batch(1) }).await;
    harness.pass(Duration::from_millis(2)).await;
    for _ in 0..LISTING_LOOKS_AT / 1_000 {
        bench.put(bench.batch(1_000)).await;
    }
    bench.put_one().await;
    let filter = JobFilter { tag: Some("rare".to_owned()), ..JobFilter::default() };
    let first = must(bench.queue.jobs(&filter, 10, None).await);
    assert!(first.jobs.is_empty());
    let second = must(bench.queue.jobs(&filter, 10, Some(some(first.next, "next page"))).await);
    assert_eq!(second.jobs.iter().map(|record| record.id).collect::<Vec<_>>(), wanted);
    assert_eq!(second.next, None);
}

/// A batch tells how far it is.
pub async fn batch_counts_its_jobs_by_status(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let before = harness.now();
    let batch = NewBatch { tags: vec!["receipt".to_owned()], ..bench.batch(6) };
    let id = batch.id;
    bench.put(batch).await;
    let claimed = bench.claim(4).await;
    bench.done(&claimed[0], Verdict::Sent).await;
    bench.done(&claimed[1], Verdict::Sent).await;
    bench.done(&claimed[2], Verdict::Retry { delay: bench.units(100) }).await;
    let record = some(must(bench.queue.batch(id).await), "batch");
    assert_eq!((record.id, record.count), (id, 6));
    assert!(record.accepted_at >= before);
    assert_eq!(record.tags, ["receipt"]);
    let expected = [(Status::Queued, 2), (Status::Sending, 1), (Status::Retrying, 1), (Status::Sent, 2)];
    for status in Status::ALL {
        let count = expected.iter().find(|(of, _)| of == status).map_or(0, |(_, count)| *count);
        assert_eq!(record.statuses[*status as usize], count, "{status}");
    }
}

/// A job's history is bounded; what happened last is kept.
pub async fn timeline_keeps_the_newest(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_one().await;
    for _ in 0..TIMELINE_LIMIT + 5 {
        let delivery = bench.claim_one().await;
        bench.done(&delivery, Verdict::Release).await;
    }
    let delivery = bench.claim_one().await;
    bench.done(&delivery, Verdict::Sent).await;
    let timeline = bench.record(job).await.timeline;
    assert!((TIMELINE_LIMIT / 2..=TIMELINE_LIMIT).contains(&timeline.len()), "{}", timeline.len());
    assert_eq!(timeline.last().map(|entry| entry.event.as_str()), Some("sent"));
    assert!(timeline.is_sorted_by_key(|entry| entry.at));
}

/// What waits, by priority, and how long it has.
pub async fn stats_tell_what_is_ready_and_how_old(harness: &dyn Harness) {
    let bench = Bench::with(harness, |limits| limits.max_queue_size = 777).await;
    bench.put(NewBatch { priority: Priority::Bulk, ..bench.batch(3) }).await;
    bench.pass(3).await;
    bench.put(NewBatch { priority: Priority::Bulk, ..bench.batch(1) }).await;
    bench.put(NewBatch { send_at: Some(bench.in_units(500)), ..bench.batch(2) }).await;
    let stats = must(bench.queue.stats().await);
    assert_eq!((stats.paused, stats.max_queue_size), (false, 777));
    assert_eq!((stats.ready.high, stats.ready.normal, stats.ready.bulk), (0, 0, 4));
    assert_eq!((stats.states.bulk.queued, stats.states.normal.scheduled), (4, 2));
    assert!(stats.oldest.bulk >= bench.units(3) && stats.oldest.bulk < bench.units(5), "{:?}", stats.oldest);
    assert_eq!(stats.oldest.normal, Duration::ZERO);
    bench.claim(3).await;
    let stats = must(bench.queue.stats().await);
    assert_eq!((stats.ready.bulk, stats.states.bulk.queued, stats.states.bulk.sending), (1, 1, 3));
    assert!(stats.oldest.bulk < bench.units(2), "{:?}", stats.oldest);
}

/// A pause is the queue's, not a process'.
pub async fn pause_is_seen_by_all(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    bench.put_one().await;
    must(bench.handles[0].set_paused(true).await);
    assert!(must(bench.handles[1].stats().await).paused);
    assert!(must(bench.handles[2].claim(&bench.me, 1).await).is_empty());
    must(bench.handles[1].set_paused(false).await);
    assert!(!must(bench.handles[0].stats().await).paused);
    assert_eq!(must(bench.handles[2].claim(&consumer("other"), 1).await).len(), 1);
}

/// A reading taken amid all others balances, each.
pub async fn ledger_balances_at_every_moment(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let work = async {
        for n in 0..60 {
            let batch = NewBatch { send_at: (n % 4 == 0).then(|| bench.in_units(1)), ..bench.batch(5) };
            let jobs = bench.put(batch).await;
            must(bench.handles[1].cancel(jobs[0]).await);
            let held = must(bench.handles[2].claim(&bench.me, 4).await);
            let verdicts = bench.verdicts();
            let ends: Vec<_> = held
                .iter()
                .zip(verdicts.iter().cycle().skip(n))
                .map(|(d, v)| super::bench::end(d, *v))
                .collect();
            must(bench.handles[1].settle(&bench.me, &ends).await);
            must(bench.handles[0].requeue(jobs[1]).await);
            must(bench.handles[2].maintain().await);
        }
    };
    let watch = async {
        let mut samples = 0;
        loop {
            bench.ledger().await;
            samples += 1;
            tokio::task::yield_now().await;
            if samples == 10_000 {
                break;
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = watch => {}
    }
    assert_eq!(bench.ledger().await.accepted % 5, 0);
}

/// Each backend says what a 202 is worth.
pub async fn durability_is_told(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let durability = must(bench.queue.durability().await);
    assert!(["memory", "redis", "nats"].contains(&durability.backend));
    assert!(!durability.details.is_empty());
}
