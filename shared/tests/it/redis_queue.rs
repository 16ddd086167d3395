//! The queue on one server.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Map;
use shared::address::{Address, Mailbox};
use shared::clock::{Clock, SystemClock};
use shared::job::{JobId, Priority, Reason, Recipient, Status};
use shared::message::{Body, Content};
use shared::queue::redis::{ConnectError, RedisQueue};
use shared::queue::{
    Consumer, Control, Delivery, EnqueueError, Idempotency, Intake, JobFilter, KeptMessage, Limits, NewBatch,
    Ordered, Outbox, PauseCause, RelayBoard, Settled, Settlement, Verdict,
};
use shared::reply::{LastReply, Reply, Stage};
use shared::settings;
use shared::template::{Bundle, BundleHash};

use crate::redis_server::{Server, batch_of, connect, consumer, limits, metadata, try_connect};

pub(crate) fn settlement(delivery: &Delivery, verdict: Verdict) -> Settlement {
    Settlement {
        job: delivery.job,
        receipt: delivery.receipt,
        attempt: delivery.attempt,
        verdict,
        relay: Some("default".to_owned()),
        reply: None,
        detail: "detail".to_owned(),
    }
}

/// As a worker tells it.
pub(crate) fn sent(delivery: &Delivery) -> Settlement {
    let reply = LastReply::heard(Stage::Dot, &Reply::new(250, "2.0.0 Ok: queued"));
    Settlement { reply: Some(reply), detail: String::new(), ..settlement(delivery, Verdict::Sent) }
}

#[tokio::test]
async fn an_expired_job_is_not_handed_out_though_nobody_has_looked_at_it() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    let soon = |batch| NewBatch { expire_after: Duration::from_millis(20), ..batch };
    let mut jobs = Vec::new();
    for batch in [soon(batch_of(1)), soon(batch_of(2)), batch_of(1)] {
        let accepted = queue.enqueue(batch).await.unwrap();
        jobs.extend((0..accepted.count).map(|index| JobId { batch: accepted.batch, index }));
    }
    tokio::time::sleep(Duration::from_millis(40)).await;
    let claimed = queue.claim(&consumer("me"), 10).await.unwrap();
    assert_eq!(claimed.iter().map(|delivery| delivery.job).collect::<Vec<_>>(), jobs[3..]);
    for job in &jobs[..3] {
        let record = queue.job(*job).await.unwrap().unwrap();
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Expired)));
    }
}

#[tokio::test]
async fn a_batch_is_accepted_handed_out_and_ended() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    let me = consumer("me");

    let batch = batch_of(4);
    let accepted = queue.enqueue(batch.clone()).await.unwrap();
    assert_eq!((accepted.batch, accepted.count, accepted.replayed), (batch.id, 4, false));

    let deliveries = queue.claim(&me, 10).await.unwrap();
    assert_eq!(deliveries.len(), 4);
    assert_eq!(deliveries[0].recipient, batch.recipients[0]);
    assert_eq!(deliveries[0].content, batch.content);

    let verdicts = [
        Verdict::Sent,
        Verdict::Retry { delay: Duration::from_mins(1) },
        Verdict::Fail(Reason::Permanent),
        Verdict::Hold,
    ];
    let settlements: Vec<Settlement> =
        deliveries.iter().zip(verdicts).map(|(d, v)| settlement(d, v)).collect();
    assert_eq!(queue.settle(&me, &settlements).await.unwrap(), [Settled::Done; 4]);
    assert_eq!(queue.settle(&me, &settlements).await.unwrap(), [Settled::Lost; 4]);

    let stats = queue.stats().await.unwrap();
    assert!(stats.ledger.balances(), "{:?}", stats.ledger);
    let record = queue.batch(batch.id).await.unwrap().unwrap();
    for (count, status) in record.statuses.iter().zip(Status::ALL) {
        assert_eq!(*count, stats.ledger.of(*status), "{status}");
    }
    let job = queue.job(deliveries[1].job).await.unwrap().unwrap();
    assert_eq!((job.status, job.attempts), (Status::Retrying, 1));
    assert!(job.next_attempt_at.is_some());
    let events: Vec<&str> = job.timeline.iter().map(|e| e.event.as_str()).collect();
    assert_eq!(events, ["accepted", "sending", "retrying"]);
}

/// The same batch with a template as its body.
pub(crate) fn templated(batch: NewBatch) -> NewBatch {
    let bundle = Bundle {
        template: "en/a.html".to_owned(),
        sources: BTreeMap::from([("en/a.html".to_owned(), "<p>{{ name }}</p>".to_owned())]),
    };
    let content = Content {
        body: Body::Template { bundle: BundleHash("5eed".to_owned()), data: Map::new() },
        ..(*batch.content).clone()
    };
    NewBatch { content: Arc::new(content), bundle: Some(Arc::new(bundle)), ..batch }
}

#[tokio::test]
async fn a_template_is_stored_once_and_freed_with_the_last_batch_that_needs_it() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    let me = consumer("me");
    let batches = [templated(batch_of(1)), templated(batch_of(2))];
    for batch in &batches {
        queue.enqueue(batch.clone()).await.unwrap();
    }
    let jobs = queue.claim(&me, 3).await.unwrap();
    assert!(jobs.iter().all(|job| job.bundle == batches[0].bundle));
    for (job, left) in jobs.iter().zip([1, 1, 0]) {
        queue.settle(&me, &[settlement(job, Verdict::Sent)]).await.unwrap();
        let stored: u64 = server.run_command(&["EXISTS", "{emailer}:template:5eed"]).await;
        assert_eq!(stored, left);
    }
    // The next batch brings it again, though this process had thought it stored.
    queue.enqueue(templated(batch_of(1))).await.unwrap();
    assert_eq!(queue.claim(&me, 1).await.unwrap()[0].bundle, batches[0].bundle);
}

#[tokio::test]
async fn large_content_is_made_lasting_by_its_batch_only() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), Limits { max_queue_size: 1, ..limits() }).await;
    let me = consumer("me");
    let (taken, refused) = (large(batch_of(1)), large(batch_of(1)));
    queue.enqueue(taken.clone()).await.unwrap();
    assert!(matches!(queue.enqueue(refused.clone()).await, Err(EnqueueError::Full { used: 1, max: 1 })));
    // A repetition must not make it vanish.
    queue.enqueue(taken.clone()).await.unwrap();
    let ttl = async |batch: &NewBatch| -> i64 {
        server.run_command(&["PTTL", &format!("{{emailer}}:content:{}", batch.id)]).await
    };
    assert_eq!(ttl(&taken).await, -1);
    assert!(ttl(&refused).await > 0);
    let jobs = queue.claim(&me, 1).await.unwrap();
    assert_eq!(jobs[0].content, taken.content);
}

#[tokio::test]
async fn a_job_whose_content_is_lost_fails_instead_of_blocking_the_queue() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    let me = consumer("me");
    let broken = batch_of(1);
    queue.enqueue(broken.clone()).await.unwrap();
    queue.enqueue(batch_of(1)).await.unwrap();
    let _: u64 = server.run_command(&["DEL", &format!("{{emailer}}:content:{}", broken.id)]).await;
    assert_eq!(queue.claim(&me, 2).await.unwrap().len(), 1);
    let job = queue.job(shared::job::JobId { batch: broken.id, index: 0 }).await.unwrap().unwrap();
    assert_eq!((job.status, job.reason), (Status::Failed, Some(Reason::Render)));
}

#[tokio::test]
async fn batches_that_arrive_together_share_a_call() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    queue.enqueue(batch_of(1)).await.unwrap();
    let _: String = server.run_command(&["CONFIG", "RESETSTAT"]).await;
    futures::future::try_join_all((0..300).map(|_| queue.enqueue(batch_of(2)))).await.unwrap();
    let stats: String = server.run_command(&["INFO", "commandstats"]).await;
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap();
    let calls: u32 = line.split(',').next().unwrap().parse().unwrap();
    assert!(calls <= 10, "300 batches took {calls} calls");
    assert_eq!(queue.stats().await.unwrap().ledger.queued, 601);
}

#[tokio::test]
async fn a_full_queue_writes_nothing_of_what_it_refuses() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), Limits { max_queue_size: 1, ..limits() }).await;
    let first = batch_of(1);
    queue.enqueue(first.clone()).await.unwrap();
    let is_refused = async || {
        let answer = queue.enqueue(batch_of(1)).await;
        matches!(answer, Err(EnqueueError::Full { used: 1, max: 1 }))
    };
    // From the first refusal on.
    assert!(is_refused().await);
    let _: String = server.run_command(&["CONFIG", "RESETSTAT"]).await;
    for _ in 0..5 {
        assert!(is_refused().await);
    }
    let refused_at = tokio::time::Instant::now();
    assert_eq!(queue.enqueue(first.clone()).await.unwrap().batch, first.id);
    let stats: String = server.run_command(&["INFO", "commandstats"]).await;
    assert!(!stats.contains("cmdstat_mset:"), "{stats}");
    let me = consumer("me");
    let job = queue.claim(&me, 1).await.unwrap().remove(0);
    queue.settle(&me, &[sent(&job)]).await.unwrap();
    let short_ways = if refused_at.elapsed() < Duration::from_millis(900) { 1 } else { 2 };
    queue.enqueue(batch_of(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    queue.settle(&me, &[sent(&queue.claim(&me, 1).await.unwrap().remove(0))]).await.unwrap();
    queue.enqueue(batch_of(1)).await.unwrap();
    let stats: String = server.run_command(&["INFO", "commandstats"]).await;
    assert!(
        stats.contains(&format!("cmdstat_exec:calls={short_ways},")),
        "not the short way again, or too soon: {stats}"
    );
}

#[tokio::test]
async fn a_redis_that_may_evict_is_refused_unless_that_is_wanted() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]).await;
    let refused = try_connect(&server.url(), limits()).await.unwrap_err();
    assert!(matches!(&refused, ConnectError::Evicts(policy) if policy == "allkeys-lru"), "{refused}");
    let allowed = settings::Redis { url: server.url().into(), allow_unsafe: true };
    let queue = RedisQueue::connect(&allowed, "emailer", limits()).await.unwrap();
    let told = queue.durability().await.unwrap();
    assert!(!told.survives_crash);
    assert!(told.details.iter().any(|line| line.contains("allkeys-lru")), "{told:?}");
}

#[tokio::test]
async fn what_redis_is_set_up_for_is_told() {
    let server = Server::start(&[]).await;
    let told = connect(&server.url(), limits()).await.durability().await.unwrap();
    assert_eq!((told.backend, told.survives_crash), ("redis", true));
    let _: String = server.run_command(&["CONFIG", "SET", "appendfsync", "everysec"]).await;
    let told = connect(&server.url(), limits()).await.durability().await.unwrap();
    assert!(!told.survives_crash && told.details[0].contains("two seconds"), "{told:?}");
}

/// Batches of every kind: urgent, scheduled, large, with a template, with an idempotency key, plain.
pub(crate) async fn accept_of_every_kind(queue: &RedisQueue) {
    let key =
        Idempotency { key: "key".to_owned(), fingerprint: "print".to_owned(), keep: Duration::from_mins(1) };
    let in_an_hour = SystemClock.now() + Duration::from_hours(1);
    for batch in [
        NewBatch { priority: Priority::High, ..templated(batch_of(2)) },
        NewBatch { priority: Priority::High, send_at: Some(in_an_hour), ..batch_of(2) },
        NewBatch {
            tags: vec!["t".repeat(80)],
            metadata: Some(metadata("m", "m")),
            idempotency: Some(key.clone()),
            ..large(batch_of(11))
        },
        batch_of(1),
    ] {
        queue.enqueue(batch).await.unwrap();
    }
    assert!(queue.replay(&key).await.unwrap().is_some());
}

/// Hands out what [`accept_of_every_kind`] queued, and ends it in every way.
pub(crate) async fn deliver_in_every_way(queue: &RedisQueue) {
    let (me, other) = (consumer("me"), consumer("other"));
    queue.heartbeat(&me).await.unwrap();
    let jobs = queue.claim(&me, 12).await.unwrap();
    assert_eq!(jobs.len(), 12);
    let ids: Vec<JobId> = jobs.iter().map(|job| job.job).collect();
    assert!(queue.extend(&me, &ids).await.unwrap().is_empty());
    assert!(queue.mark(&me, &ids[..1]).await.unwrap().is_empty());
    assert_eq!(queue.held_by(&me).await.unwrap().len(), 12);
    queue.reclaim(&other, 1).await.unwrap();
    let verdicts = [
        Verdict::Sent,
        Verdict::Retry { delay: Duration::from_mins(1) },
        Verdict::Retry { delay: Duration::ZERO },
        Verdict::Release,
        Verdict::Fail(Reason::Permanent),
        Verdict::Fail(Reason::Suppressed),
        Verdict::Hold,
        Verdict::Sent,
    ];
    let settlements: Vec<Settlement> = jobs.iter().zip(verdicts).map(|(d, v)| settlement(d, v)).collect();
    assert_eq!(queue.settle(&me, &settlements).await.unwrap(), [Settled::Done; 8]);
    let late = settlement(&jobs[4], Verdict::Sent);
    assert_eq!(queue.settle(&other, &[late]).await.unwrap(), [Settled::Late]);
    assert_eq!(queue.maintain().await.unwrap().promoted, 1);
    assert_eq!(queue.claim(&me, 100).await.unwrap().len(), 4);
    queue.ready(&me, Duration::from_millis(5)).await.unwrap();
    queue.leave(&other).await.unwrap();
    let reply = LastReply::none(Stage::Connect, "refused");
    queue.pause_relay("r", PauseCause::Down, Duration::ZERO, 1, reply).await.unwrap();
    assert!(queue.relay_pause("r").await.unwrap().is_some());
    assert!(queue.take_probe("r", &me, Duration::from_secs(1)).await.unwrap());
    queue.resume_relay("r").await.unwrap();
    let kept = KeptMessage {
        job: ids[0],
        at: SystemClock.now(),
        from: "a@example.org".to_owned(),
        to: vec!["b@example.org".to_owned()],
        source: "Subject: x\r\n\r\nx".to_owned(),
    };
    queue.keep(kept.clone()).await.unwrap();
    assert_eq!(queue.kept(10).await.unwrap(), std::slice::from_ref(&kept));
    assert_eq!(queue.kept_message(ids[0]).await.unwrap(), Some(kept));
}

/// Gives every order on what is left.
pub(crate) async fn order_everything(queue: &RedisQueue) {
    let with = async |status| {
        let filter = JobFilter { status: Some(status), ..JobFilter::default() };
        queue.jobs(&filter, 100, None).await.unwrap().jobs
    };
    let scheduled = with(Status::Scheduled).await;
    let held = with(Status::Held).await;
    let later = SystemClock.now() + Duration::from_hours(2);
    for order in [
        queue.reschedule(scheduled[0].id, later).await.unwrap(),
        queue.reschedule(scheduled[0].id, SystemClock.now()).await.unwrap(),
        queue.requeue(held[0].id).await.unwrap(),
        queue.cancel(held[0].id).await.unwrap(),
    ] {
        assert!(matches!(order, Ordered::Done(_)), "{order:?}");
    }
    let batch = scheduled[1].id.batch;
    assert_eq!(queue.batch(batch).await.unwrap().unwrap().count, 2);
    assert_eq!(queue.cancel_batch(batch).await.unwrap(), Some(2));
    queue.set_paused(true).await.unwrap();
    assert!(queue.stats().await.unwrap().paused);
    queue.set_paused(false).await.unwrap();
    let stats = queue.stats().await.unwrap();
    assert!(stats.ledger.balances() && !stats.paused, "{stats:?}");
    queue.durability().await.unwrap();
}

fn large(batch: NewBatch) -> NewBatch {
    let content = Content { body: Body::Html("x".repeat(200_000)), ..(*batch.content).clone() };
    NewBatch { content: Arc::new(content), ..batch }
}

#[tokio::test]
async fn every_operation_works_on_one_server() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    crate::redis_topology::live_through_everything(&queue).await;
}

#[tokio::test]
async fn a_consumer_of_a_paused_queue_waits_until_it_is_resumed() {
    let server = Server::start(&[]).await;
    let queue = Arc::new(connect(&server.url(), limits()).await);
    let me = consumer("me");
    queue.enqueue(batch_of(1)).await.unwrap();
    queue.set_paused(true).await.unwrap();
    assert!(queue.claim(&me, 1).await.unwrap().is_empty());
    // A job is there, and a wait that looked at it would return at once and for ever.
    let start = Instant::now();
    queue.ready(&me, Duration::from_millis(300)).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(290), "{:?}", start.elapsed());
    let waiting = tokio::spawn({
        let (queue, me) = (Arc::clone(&queue), me.clone());
        async move { queue.ready(&me, Duration::from_mins(1)).await.unwrap() }
    });
    queue.set_paused(false).await.unwrap();
    waiting.await.unwrap();
    assert_eq!(queue.claim(&me, 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_recipient_is_found_whatever_its_address_is_made_of() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    for text in ["User.One@Example.org", "ÉTÉ@example.org", "用户@例子.中国"] {
        let address = Address::parse(text).unwrap();
        let recipient = Recipient { mailbox: Mailbox::new(address.clone()), data: None };
        let batch = NewBatch { recipients: vec![recipient], ..batch_of(1) };
        queue.enqueue(batch).await.unwrap();
        queue.enqueue(batch_of(1)).await.unwrap();
        let filter = JobFilter { recipient: Some(address.key()), ..JobFilter::default() };
        let found = queue.jobs(&filter, 10, None).await.unwrap().jobs;
        assert_eq!(found.len(), 1, "{text}");
        assert_eq!(found[0].recipient.mailbox.address, address);
    }
}

#[tokio::test]
async fn a_dropped_wait_leaves_its_connection_to_the_next() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    let me = consumer("me");
    assert!(queue.claim(&me, 1).await.unwrap().is_empty());
    queue.ready(&me, Duration::from_millis(5)).await.unwrap();
    let connections = async || -> u64 {
        let info: String = server.run_command(&["INFO", "stats"]).await;
        let line = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        line.unwrap().trim().parse().unwrap()
    };
    let before = connections().await;
    for _ in 0..20 {
        let wait = queue.ready(&me, Duration::from_mins(1));
        assert!(tokio::time::timeout(Duration::from_millis(2), wait).await.is_err());
    }
    assert_eq!(connections().await, before + 1, "but for the one that asks");
    // The read that was left behind does not hold up the next wait.
    let start = Instant::now();
    let wait = queue.ready(&me, Duration::from_mins(1));
    let (woken, accepted) = tokio::join!(wait, queue.enqueue(batch_of(1)));
    woken.unwrap();
    accepted.unwrap();
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    assert_eq!(queue.claim(&me, 1).await.unwrap().len(), 1);
}
