//! Accepting batches: whole or not at all, within the limits, once for each request.

use futures::future::join_all;
use serde_json::json;

use super::Harness;
use super::bench::{Bench, must, some};
use crate::job::{BatchId, Status};
use crate::queue::{Accepted, EnqueueError, Idempotency, NewBatch, Verdict};

impl Bench<'_> {
    /// A batch of one job with this key and body, remembered for `keep` units.
    fn keyed(&self, key: &str, fingerprint: &str, keep: u32) -> NewBatch {
        let idempotency =
            Idempotency { key: key.to_owned(), fingerprint: fingerprint.to_owned(), keep: self.units(keep) };
        NewBatch { idempotency: Some(idempotency), ..self.batch(1) }
    }

    fn scheduled(&self, count: u32, units: u32) -> NewBatch {
        NewBatch { send_at: Some(self.in_units(units)), ..self.batch(count) }
    }
}

/// A batch makes a job for each recipient, in their order, with all that was given.
pub async fn accepted_batch_is_queued_whole(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let before = harness.now();
    let mut batch = bench.batch(3);
    batch.tags = vec!["receipt".to_owned(), "vip".to_owned()];
    batch.metadata = json!({ "order": 17 }).as_object().cloned();
    let id = batch.id;
    let answer = must(bench.enqueue(batch.clone()).await);
    let expected = Accepted { batch: id, count: 3, scheduled: false, replayed: false };
    assert_eq!(answer, expected);
    assert_eq!(bench.counts().await, [(Status::Queued, 3)]);
    assert_eq!(bench.ledger().await.accepted, 3);

    for (index, recipient) in (0..).zip(&batch.recipients) {
        let record = bench.record(crate::job::JobId { batch: id, index }).await;
        assert_eq!(&record.recipient, recipient);
        assert_eq!((record.status, record.reason), (Status::Queued, None));
        assert_eq!((record.attempts, record.max_attempts), (0, 4));
        assert_eq!(record.priority, batch.priority);
        assert_eq!((record.send_at, record.next_attempt_at), (None, None));
        assert_eq!(record.message_domain, "sender.example");
        assert_eq!((&record.tags, &record.metadata), (&batch.tags, &batch.metadata));
        assert!(record.accepted_at >= before && record.accepted_at <= harness.now());
        assert_eq!(record.timeline.len(), 1);
        assert_eq!(record.timeline[0].event, "accepted");
    }
}

/// A refusal for want of place writes nothing of the batch.
pub async fn batch_that_does_not_fit_is_refused_whole(harness: &dyn Harness) {
    let bench = Bench::with(harness, |limits| limits.max_queue_size = 5).await;
    bench.put(bench.batch(3)).await;
    let refused = bench.batch(3);
    let id = refused.id;
    let error = bench.enqueue(refused).await;
    assert!(matches!(error, Err(EnqueueError::Full { used: 3, max: 5 })), "{error:?}");
    assert_eq!(bench.ledger().await.accepted, 3);
    assert_eq!(must(bench.queue.batch(id).await), None);
    bench.put(bench.batch(2)).await;
    assert_eq!(bench.counts().await, [(Status::Queued, 5)]);
}

/// A batch that can never be accepted is told apart from one that may be later.
pub async fn batch_larger_than_the_queue_is_refused_as_such(harness: &dyn Harness) {
    let bench = Bench::with(harness, |limits| limits.max_queue_size = 5).await;
    for _ in 0..2 {
        let error = bench.enqueue(bench.batch(6)).await;
        assert!(matches!(error, Err(EnqueueError::TooLarge { count: 6, max: 5 })), "{error:?}");
        // The same when it is full.
        must(bench.enqueue(bench.batch(2)).await);
    }
}

/// Scheduled jobs take no place of the others, nor the others theirs.
pub async fn schedule_has_a_limit_of_its_own(harness: &dyn Harness) {
    let bench = Bench::with(harness, |limits| {
        limits.max_queue_size = 3;
        limits.max_scheduled = 2;
    })
    .await;
    bench.put(bench.batch(3)).await;
    let error = bench.enqueue(bench.scheduled(3, 1_000)).await;
    assert!(matches!(error, Err(EnqueueError::TooLarge { count: 3, max: 2 })), "{error:?}");
    assert!(must(bench.enqueue(bench.scheduled(2, 1_000)).await).scheduled);
    let error = bench.enqueue(bench.scheduled(1, 1_000)).await;
    assert!(matches!(error, Err(EnqueueError::ScheduleFull { used: 2, max: 2 })), "{error:?}");
    assert_eq!(bench.counts().await, [(Status::Queued, 3), (Status::Scheduled, 2)]);
}

/// queued + retrying + sending + held is what the limit counts.
pub async fn every_state_but_scheduled_and_ended_takes_a_place(harness: &dyn Harness) {
    let bench = Bench::with(harness, |limits| limits.max_queue_size = 4).await;
    bench.put(bench.batch(4)).await;
    let claimed = bench.claim(3).await;
    bench.done(&claimed[0], Verdict::Retry { delay: bench.units(1_000) }).await;
    bench.done(&claimed[1], Verdict::Hold).await;
    let error = bench.enqueue(bench.batch(1)).await;
    assert!(matches!(error, Err(EnqueueError::Full { used: 4, max: 4 })), "{error:?}");
    bench.done(&claimed[2], Verdict::Sent).await;
    bench.put_one().await;
    let error = bench.enqueue(bench.batch(1)).await;
    assert!(matches!(error, Err(EnqueueError::Full { .. })), "{error:?}");
}

/// A promise that was made is kept: a scheduled job needs no place when its time has come.
pub async fn due_job_moves_over_into_a_full_queue(harness: &dyn Harness) {
    let bench = Bench::with(harness, |limits| limits.max_queue_size = 1).await;
    bench.put(bench.scheduled(1, 3)).await;
    bench.put_one().await;
    bench.pass(4).await;
    assert_eq!(bench.counts().await, [(Status::Queued, 2)]);
    let error = bench.enqueue(bench.batch(1)).await;
    assert!(matches!(error, Err(EnqueueError::Full { used: 2, max: 1 })), "{error:?}");
}

/// `send_at` in the past is no schedule.
pub async fn time_that_is_not_in_the_future_is_as_none(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let mut batch = bench.batch(1);
    batch.send_at = Some(harness.now());
    assert!(!must(bench.enqueue(batch).await).scheduled);
    let delivery = bench.claim_one().await;
    assert_eq!(delivery.send_at, None);
}

/// A call whose answer was lost is repeated without harm, at any time.
pub async fn repeated_enqueue_of_a_batch_changes_nothing(harness: &dyn Harness) {
    let bench = Bench::with(harness, |limits| limits.max_queue_size = 1).await;
    for batch in [bench.batch(1), bench.keyed("key", "body", 100), bench.scheduled(1, 1_000)] {
        let first = must(bench.enqueue(batch.clone()).await);
        assert!(!first.replayed);
        let ledger = bench.ledger().await;
        assert_eq!(must(bench.enqueue(batch.clone()).await), first);
        assert_eq!(bench.ledger().await, ledger);
        for delivery in bench.claim(1).await {
            bench.done(&delivery, Verdict::Sent).await;
        }
        let ledger = bench.ledger().await;
        assert_eq!(must(bench.enqueue(batch).await), first);
        assert_eq!(bench.ledger().await, ledger);
    }
}

/// The same request again is answered as it was, and queues nothing.
pub async fn same_key_and_body_answers_the_first_again(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let first = must(bench.enqueue(bench.keyed("key", "body", 1_000)).await);
    let again = must(bench.enqueue(bench.keyed("key", "body", 1_000)).await);
    let replayed = Accepted { replayed: true, ..first };
    assert_eq!(again, replayed);
    assert_eq!(bench.ledger().await.accepted, 1);

    let asked = some(bench.keyed("key", "body", 1_000).idempotency, "key");
    assert_eq!(must(bench.queue.replay(&asked).await), Some(replayed));
    let other = some(bench.keyed("other", "body", 1_000).idempotency, "key");
    assert_eq!(must(bench.queue.replay(&other).await), None);
}

/// One key means one body.
pub async fn same_key_with_another_body_is_refused(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    must(bench.enqueue(bench.keyed("key", "body", 1_000)).await);
    let reused = bench.keyed("key", "other", 1_000);
    let asked = some(reused.idempotency.clone(), "key");
    let error = bench.enqueue(reused).await;
    assert!(matches!(error, Err(EnqueueError::KeyReuse)), "{error:?}");
    let error = bench.queue.replay(&asked).await;
    assert!(matches!(error, Err(EnqueueError::KeyReuse)), "{error:?}");
    assert_eq!(bench.ledger().await.accepted, 1);
}

/// After its time a key is free, for any body.
pub async fn key_is_forgotten_after_its_time(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let first = must(bench.enqueue(bench.keyed("key", "body", 4)).await);
    assert!(must(bench.enqueue(bench.keyed("key", "body", 4)).await).replayed);
    bench.pass(5).await;
    let second = must(bench.enqueue(bench.keyed("key", "other", 4)).await);
    assert!(!second.replayed && second.batch != first.batch);
    // The second use is remembered for its own time.
    bench.pass(1).await;
    assert!(must(bench.enqueue(bench.keyed("key", "other", 4)).await).replayed);
}

/// The key of a scheduled batch is kept from `send_at`, not from acceptance.
pub async fn key_of_a_scheduled_batch_is_kept_from_its_time(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let scheduled = NewBatch { send_at: Some(bench.in_units(5)), ..bench.keyed("key", "body", 4) };
    must(bench.enqueue(scheduled).await);
    bench.pass(6).await;
    assert!(must(bench.enqueue(bench.keyed("key", "body", 4)).await).replayed);
    bench.pass(4).await;
    assert!(!must(bench.enqueue(bench.keyed("key", "body", 4)).await).replayed);
}

/// A refused request may be repeated when there is place.
pub async fn refused_batch_leaves_no_key(harness: &dyn Harness) {
    let bench = Bench::with(harness, |limits| limits.max_queue_size = 1).await;
    bench.put_one().await;
    let error = bench.enqueue(bench.keyed("key", "body", 1_000)).await;
    assert!(matches!(error, Err(EnqueueError::Full { .. })), "{error:?}");
    let delivery = bench.claim_one().await;
    bench.done(&delivery, Verdict::Sent).await;
    assert!(!must(bench.enqueue(bench.keyed("key", "other", 1_000)).await).replayed);
}

/// A repeated request needs no place.
pub async fn replay_is_answered_by_a_full_queue(harness: &dyn Harness) {
    let bench = Bench::with(harness, |limits| limits.max_queue_size = 1).await;
    must(bench.enqueue(bench.keyed("key", "body", 1_000)).await);
    assert!(must(bench.enqueue(bench.keyed("key", "body", 1_000)).await).replayed);
}

/// The limit is tested in the step that takes the place.
pub async fn concurrent_batches_never_pass_the_limit(harness: &dyn Harness) {
    let bench = Bench::with(harness, |limits| limits.max_queue_size = 10).await;
    let all = (0..30).map(|n| bench.handles[n % bench.handles.len()].enqueue(bench.batch(3)));
    let accepted = join_all(all).await.into_iter().flatten().count();
    assert_eq!(accepted, 3);
    assert_eq!(bench.counts().await, [(Status::Queued, 9)]);
}

/// The key is recorded in the step that queues the batch.
pub async fn concurrent_requests_with_one_key_make_one_batch(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let all =
        (0..12).map(|n| bench.handles[n % bench.handles.len()].enqueue(bench.keyed("key", "body", 1_000)));
    let answers: Vec<_> = join_all(all).await.into_iter().map(must).collect();
    let batches: std::collections::BTreeSet<BatchId> = answers.iter().map(|answer| answer.batch).collect();
    assert_eq!(batches.len(), 1);
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    assert_eq!(bench.ledger().await.accepted, 1);
}
