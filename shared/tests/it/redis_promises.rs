//! Time, leases and listings on one server: what the scripts decide.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use shared::clock::{Clock, SystemClock};
use shared::job::{BatchId, JobId, OnAmbiguous, Reason, Status};
use shared::queue::redis::RedisQueue;
use shared::queue::{
    Consumer, Control, Intake, JobFilter, KeptMessage, Limits, NewBatch, Outbox, Settled, Verdict,
};

use crate::redis_queue::settlement;
use crate::redis_server::{Server, batch_of, connect, consumer, limits};

const LEASE: Duration = Duration::from_millis(300);
const LIFE: Duration = Duration::from_millis(300);

/// A little more than a lease, or a life.
async fn pass() {
    tokio::time::sleep(LEASE + Duration::from_millis(30)).await;
}

async fn queue_on(server: &Server) -> RedisQueue {
    connect(&server.url(), Limits { lease: LEASE, ..limits() }).await
}

fn short_lived() -> NewBatch {
    NewBatch { expire_after: LIFE, ..batch_of(1) }
}

async fn end_of(queue: &RedisQueue, job: JobId) -> (Status, Option<Reason>) {
    let record = queue.job(job).await.unwrap().unwrap();
    (record.status, record.reason)
}

#[tokio::test]
async fn jobs_expire_wherever_they_wait() {
    let server = Server::start(&[]).await;
    let queue = queue_on(&server).await;
    let me = consumer("me");

    queue.enqueue(short_lived()).await.unwrap();
    pass().await;
    let expired = queue.maintain().await.unwrap().expired;
    assert_eq!(end_of(&queue, expired[0]).await, (Status::Failed, Some(Reason::Expired)));

    let met_by_a_claim = queue.enqueue(short_lived()).await.unwrap().batch;
    pass().await;
    assert!(queue.claim(&me, 5).await.unwrap().is_empty());
    let job = JobId { batch: met_by_a_claim, index: 0 };
    assert_eq!(end_of(&queue, job).await, (Status::Failed, Some(Reason::Expired)));

    // Its next attempt would be due after its end.
    queue.enqueue(short_lived()).await.unwrap();
    let jobs = queue.claim(&me, 1).await.unwrap();
    let retry = Verdict::Retry { delay: Duration::from_mins(1) };
    queue.settle(&me, &[settlement(&jobs[0], retry)]).await.unwrap();
    assert!(queue.maintain().await.unwrap().expired.is_empty());
    pass().await;
    assert_eq!(queue.maintain().await.unwrap().expired, [jobs[0].job]);
}

#[tokio::test]
async fn a_job_ages_from_its_time_to_send_and_not_while_the_queue_is_paused() {
    let server = Server::start(&[]).await;
    let queue = queue_on(&server).await;
    let scheduled = NewBatch { send_at: Some(SystemClock.now() + LIFE), ..short_lived() };
    queue.enqueue(scheduled).await.unwrap();
    pass().await;
    let due = queue.maintain().await.unwrap();
    assert_eq!((due.promoted, due.expired.len()), (1, 0));
    queue.set_paused(true).await.unwrap();
    pass().await;
    assert!(queue.maintain().await.unwrap().expired.is_empty());
    queue.set_paused(false).await.unwrap();
    assert!(queue.maintain().await.unwrap().expired.is_empty());
    pass().await;
    assert_eq!(queue.maintain().await.unwrap().expired.len(), 1);
}

#[tokio::test]
async fn the_fifth_reclaim_ends_a_job_and_a_late_success_ends_it_better() {
    let server = Server::start(&[]).await;
    let queue = queue_on(&server).await;
    let (dead, other) = (consumer("dead"), consumer("other"));
    queue.enqueue(NewBatch { on_ambiguous: OnAmbiguous::Hold, ..batch_of(1) }).await.unwrap();
    queue.enqueue(batch_of(1)).await.unwrap();
    let jobs = queue.claim(&dead, 2).await.unwrap();
    queue.mark(&dead, &[jobs[0].job]).await.unwrap();
    for reclaims in 1..5 {
        pass().await;
        let mut taken = queue.reclaim(&other, 10).await.unwrap().deliveries;
        taken.sort_by_key(|delivery| delivery.job);
        assert!(taken.iter().all(|d| (d.reclaims, d.attempt) == (reclaims, 1)));
        assert_eq!((taken[0].marked, taken[1].marked), (true, false));
    }
    let zombie = |verdict| [settlement(&jobs[0], verdict), settlement(&jobs[1], verdict)];
    assert_eq!(queue.settle(&dead, &zombie(Verdict::Hold)).await.unwrap(), [Settled::Lost; 2]);
    pass().await;
    let last = queue.reclaim(&other, 10).await.unwrap();
    assert_eq!((last.deliveries.len(), last.poisoned.len()), (0, 2));
    assert_eq!(end_of(&queue, jobs[0].job).await, (Status::Held, None));
    assert_eq!(end_of(&queue, jobs[1].job).await, (Status::Failed, Some(Reason::Poison)));
    assert_eq!(queue.settle(&dead, &zombie(Verdict::Sent)).await.unwrap(), [Settled::Late; 2]);
    assert_eq!(queue.settle(&dead, &zombie(Verdict::Sent)).await.unwrap(), [Settled::Lost; 2]);
    for job in &jobs {
        assert_eq!(end_of(&queue, job.job).await, (Status::Sent, None));
    }
}

#[tokio::test]
async fn nothing_is_reclaimed_into_hands_while_the_queue_is_paused() {
    let server = Server::start(&[]).await;
    let queue = queue_on(&server).await;
    let (dead, other) = (consumer("dead"), consumer("other"));
    queue.enqueue(batch_of(1)).await.unwrap();
    let jobs = queue.claim(&dead, 1).await.unwrap();
    queue.mark(&dead, &[jobs[0].job]).await.unwrap();
    queue.set_paused(true).await.unwrap();
    pass().await;
    assert!(queue.reclaim(&other, 9).await.unwrap().deliveries.is_empty());
    queue.set_paused(false).await.unwrap();
    let again = queue.claim(&other, 9).await.unwrap();
    assert_eq!((again.len(), again[0].reclaims, again[0].marked), (1, 1, true));
}

#[tokio::test]
async fn a_listing_goes_from_the_newest_to_the_oldest_in_pages_of_any_size() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), Limits { retain: 3, ..limits() }).await;
    let me = consumer("me");
    let mut all = Vec::new();
    for n in [3, 1, 4, 2] {
        let tagged = NewBatch { tags: vec![format!("t{n}")], ..batch_of(n) };
        let accepted = queue.enqueue(tagged).await.unwrap();
        all.extend((0..accepted.count).map(|index| JobId { batch: accepted.batch, index }));
    }
    all.reverse();
    for limit in [1, 2, 3, 7, 10, 20] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = queue.jobs(&JobFilter::default(), limit, after).await.unwrap();
            assert!(page.jobs.len() <= limit);
            found.extend(page.jobs.iter().map(|job| job.id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, all, "pages of {limit}");
    }
    let tagged = JobFilter { tag: Some("t4".to_owned()), ..JobFilter::default() };
    assert_eq!(queue.jobs(&tagged, 10, None).await.unwrap().jobs.len(), 4);
    let of_a_batch = JobFilter { batch: Some(all[3].batch), ..JobFilter::default() };
    assert_eq!(queue.jobs(&of_a_batch, 10, None).await.unwrap().jobs.len(), 4);

    // Only so many ended ones are kept, and a page goes on behind a batch that is gone.
    let jobs = queue.claim(&me, 10).await.unwrap();
    let ends: Vec<_> = jobs.iter().map(|job| settlement(job, Verdict::Sent)).collect();
    queue.settle(&me, &ends).await.unwrap();
    assert_eq!(queue.maintain().await.unwrap().removed, 7);
    assert_eq!(queue.jobs(&JobFilter::default(), 10, None).await.unwrap().jobs.len(), 3);
    assert!(queue.jobs(&JobFilter::default(), 10, Some(all[9])).await.unwrap().jobs.is_empty());
    // What is gone is still counted.
    let half_gone = queue.batch(all[2].batch).await.unwrap().unwrap();
    assert_eq!(half_gone.statuses[Status::Sent as usize], 4);
}

#[tokio::test]
async fn a_listing_looks_at_a_bounded_number_of_records() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    for _ in 0..6 {
        queue.enqueue(batch_of(1_000)).await.unwrap();
    }
    let none = JobFilter { status: Some(Status::Failed), ..JobFilter::default() };
    let page = queue.jobs(&none, 10, None).await.unwrap();
    assert!(page.jobs.is_empty() && page.next.is_some());
    let rest = queue.jobs(&none, 10, page.next).await.unwrap();
    assert!(rest.jobs.is_empty() && rest.next.is_none());
}

#[tokio::test]
async fn a_listing_shows_each_of_the_batches_that_came_together_once_whatever_is_removed_meanwhile() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), Limits { retention: Duration::ZERO, ..limits() }).await;
    let accepted = futures::future::join_all((0..60).map(|_| queue.enqueue(batch_of(1)))).await;
    let mut left: BTreeSet<JobId> =
        accepted.into_iter().map(|accepted| JobId { batch: accepted.unwrap().batch, index: 0 }).collect();
    let entries: u64 = server.run_command(&["XLEN", "{emailer}:batches"]).await;
    assert!(entries < 60, "no two came together");
    let mut after = None;
    loop {
        let page = queue.jobs(&JobFilter::default(), 7, after).await.unwrap();
        for job in &page.jobs {
            assert!(left.remove(&job.id), "{} is shown again", job.id);
        }
        let Some(next) = page.next else { break };
        // The record at which the next page begins is gone by then.
        queue.cancel(next).await.unwrap();
        while queue.maintain().await.unwrap().removed == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(queue.job(next).await.unwrap().is_none());
        after = Some(next);
    }
    assert_eq!(left, BTreeSet::new());
}

#[tokio::test]
async fn the_outbox_keeps_a_bounded_size() {
    let server = Server::start(&["--appendonly", "no"]).await;
    let queue = connect(&server.url(), limits()).await;
    for index in 0..9 {
        let job = JobId { batch: BatchId::generate(), index };
        let message = KeptMessage {
            job,
            at: SystemClock.now(),
            from: "a@example.org".to_owned(),
            to: Vec::new(),
            source: "\r\n".repeat(4 * 1024 * 1024 + usize::from(index == 8)),
        };
        queue.keep(message).await.unwrap();
    }
    // Eight of 8 MiB fill it; the last one is two bytes larger.
    assert_eq!(queue.kept(500).await.unwrap().len(), 7);
}
