//! Two releases on one queue: what a later one writes is left as it is by this one, and never lost.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use shared::job::JobId;
use shared::queue::redis::RedisQueue;
use shared::queue::{Consumer, Control, Delivery, Intake, NewBatch, Ordered, Verdict};

use crate::redis_queue::settlement;
use crate::redis_server::{Server, batch_of, connect, consumer, limits};

type Hash = BTreeMap<String, String>;

fn key(name: &str) -> String {
    format!("{{emailer}}:{name}")
}

/// The hash that holds a batch's facts.
fn facts_of(batch: &NewBatch) -> String {
    if batch.recipients.len() == 1 {
        key(&format!("job:{}-0", batch.id))
    } else {
        key(&format!("batch:{}", batch.id))
    }
}

async fn hash(server: &Server, name: &str) -> Hash {
    server.run_command(&["HGETALL", name]).await
}

/// Makes a batch's facts ones of a later version, or of this one again.
async fn set_version(server: &Server, batch: &NewBatch, version: &str) {
    let facts: String = server.run_command(&["HGET", &facts_of(batch), "facts"]).await;
    let (_, rest) = facts.split_once(' ').unwrap();
    server.run_command::<i64>(&["HSET", &facts_of(batch), "facts", &format!("{version} {rest}")]).await;
}

async fn make_due(server: &Server, id: JobId) {
    let moved: u64 = server.run_command(&["ZADD", &key("delayed"), "XX", "CH", "1", &id.to_string()]).await;
    assert_eq!(moved, 1, "{id} waits for a worker that knows it");
}

async fn claim_all(queue: &RedisQueue) -> Vec<Delivery> {
    let mut all = Vec::new();
    loop {
        let some = queue.claim(&consumer("old"), 10).await.unwrap();
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

#[tokio::test]
async fn job_of_a_later_release_waits_for_a_worker_of_that_release() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    for recipients in [1, 2] {
        let (later, ours) = (batch_of(recipients), batch_of(recipients));
        for batch in [&later, &ours] {
            queue.enqueue(batch.clone()).await.unwrap();
        }
        set_version(&server, &later, "2").await;
        let id = JobId { batch: later.id, index: 0 };
        let before = hash(&server, &key(&format!("job:{id}"))).await;

        let claimed = claim_all(&queue).await;
        assert_eq!(claimed.len(), recipients);
        assert!(claimed.iter().all(|delivery| delivery.job.batch == ours.id));
        queue.maintain().await.unwrap();
        assert!(matches!(queue.cancel(id).await.unwrap(), Ordered::Unknown));
        assert!(matches!(queue.requeue(id).await.unwrap(), Ordered::Unknown));
        assert!(queue.job(id).await.unwrap().is_none());
        assert_eq!(queue.cancel_batch(later.id).await.unwrap(), None);
        // Even when it is offered again.
        for index in 0..u32::try_from(recipients).unwrap() {
            make_due(&server, JobId { batch: later.id, index }).await;
        }
        queue.maintain().await.unwrap();
        assert!(claim_all(&queue).await.is_empty());
        assert_eq!(hash(&server, &key(&format!("job:{id}"))).await, before);
        let ledger = queue.stats().await.unwrap().ledger;
        assert!(ledger.balances());
        assert_eq!(ledger.queued, recipients as u64);

        // A worker of that release comes.
        set_version(&server, &later, "1").await;
        for index in 0..u32::try_from(recipients).unwrap() {
            make_due(&server, JobId { batch: later.id, index }).await;
        }
        let delivered = claim_all(&queue).await;
        assert_eq!(delivered.len(), recipients);
        for delivery in claimed.iter().chain(&delivered) {
            queue.settle(&consumer("old"), &[settlement(delivery, Verdict::Sent)]).await.unwrap();
        }
        let delayed: u64 = server.run_command(&["ZCARD", &key("delayed")]).await;
        assert_eq!(delayed, 0);
    }
    assert_eq!(queue.stats().await.unwrap().ledger.sent, 6);
}

#[tokio::test]
async fn job_that_a_later_worker_held_when_it_died_is_left_to_another_of_its_release() {
    let server = Server::start(&[]).await;
    let lease = Duration::from_millis(200);
    let queue = connect(&server.url(), shared::queue::Limits { lease, ..limits() }).await;
    let later = batch_of(1);
    queue.enqueue(later.clone()).await.unwrap();
    assert_eq!(queue.claim(&consumer("later"), 1).await.unwrap().len(), 1);
    set_version(&server, &later, "2").await;
    tokio::time::sleep(lease * 2).await;
    assert!(queue.reclaim(&consumer("old"), 10).await.unwrap().deliveries.is_empty());
    set_version(&server, &later, "1").await;
    let reclaimed = queue.reclaim(&consumer("another"), 10).await.unwrap().deliveries;
    assert_eq!(reclaimed.len(), 1);
    assert_eq!(reclaimed[0].reclaims, 1);
}

#[tokio::test]
async fn what_a_later_release_adds_survives_a_whole_life() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    for recipients in [1, 2] {
        let batch = batch_of(recipients);
        queue.enqueue(batch.clone()).await.unwrap();
        let id = JobId { batch: batch.id, index: 0 };
        let (job, home) = (key(&format!("job:{id}")), facts_of(&batch));
        let facts: String = server.run_command(&["HGET", &home, "facts"]).await;
        let facts = format!("{facts} more");
        server.run_command::<i64>(&["HSET", &home, "facts", &facts, "later", "shared"]).await;
        server.run_command::<i64>(&["HSET", &job, "later_too", "own"]).await;
        let content = key(&format!("content:{}", batch.id));
        let text: String = server.run_command(&["GET", &content]).await;
        let grown = text.replacen("\"v\":1,", "\"v\":1,\"later\":[1],", 1);
        assert_ne!(grown, text);
        server.run_command::<String>(&["SET", &content, &grown]).await;

        let me = consumer("me");
        let retry = Verdict::Retry { delay: Duration::ZERO };
        for verdict in [Verdict::Release, retry, Verdict::Sent] {
            queue.maintain().await.unwrap();
            for delivery in queue.claim(&me, 10).await.unwrap() {
                assert_eq!(delivery.content.subject, batch.content.subject);
                queue.settle(&me, &[settlement(&delivery, verdict)]).await.unwrap();
            }
        }
        assert_eq!(queue.job(id).await.unwrap().unwrap().status, shared::job::Status::Sent);
        assert_eq!(hash(&server, &home).await["facts"], facts);
        assert_eq!(hash(&server, &home).await["later"], "shared");
        assert_eq!(hash(&server, &job).await["later_too"], "own");
    }
}
