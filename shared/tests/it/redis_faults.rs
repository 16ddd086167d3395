//! The queue while Redis, or the way to it, fails.

use std::time::{Duration, Instant};

use shared::queue::{
    Consumer, Control, EnqueueError, Idempotency, Intake, Limits, NewBatch, Settled, Verdict,
};

use crate::redis_queue::settlement;
use crate::redis_server::{Server, batch_of, connect, consumer, limits, until};

async fn keys(server: &Server) -> Vec<String> {
    let mut keys: Vec<String> = server.run_command(&["KEYS", "*"]).await;
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn scripts_are_loaded_again_after_a_script_flush() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    let me = consumer("me");
    for _ in 0..2 {
        queue.enqueue(batch_of(1)).await.unwrap();
        let jobs = queue.claim(&me, 1).await.unwrap();
        assert!(queue.extend(&me, &[jobs[0].job]).await.unwrap().is_empty());
        assert_eq!(queue.settle(&me, &[settlement(&jobs[0], Verdict::Sent)]).await.unwrap(), [Settled::Done]);
        queue.maintain().await.unwrap();
        assert!(queue.stats().await.unwrap().ledger.balances());
        let _: String = server.run_command(&["SCRIPT", "FLUSH"]).await;
    }
}

#[tokio::test]
async fn a_flushed_redis_is_a_new_queue() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    let me = consumer("me");
    queue.enqueue(batch_of(2)).await.unwrap();
    let lost = queue.claim(&me, 1).await.unwrap();

    let _: String = server.run_command(&["FLUSHALL"]).await;
    assert_eq!(queue.settle(&me, &[settlement(&lost[0], Verdict::Sent)]).await.unwrap(), [Settled::Lost]);
    assert_eq!(queue.extend(&me, &[lost[0].job]).await.unwrap(), [lost[0].job]);
    queue.maintain().await.unwrap();
    // Queued before anybody has made the group again: it must not be passed over.
    queue.enqueue(batch_of(3)).await.unwrap();
    assert_eq!(queue.stats().await.unwrap().ready.normal, 3);
    assert_eq!(queue.claim(&me, 10).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_full_memory_refuses_batches_before_they_leave_a_trace_and_lets_mail_out() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    let me = consumer("me");
    queue.enqueue(batch_of(3)).await.unwrap();
    let jobs = queue.claim(&me, 2).await.unwrap();
    let _: String = server.run_command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let before = keys(&server).await;

    let start = Instant::now();
    let refused = queue.enqueue(batch_of(1)).await.unwrap_err();
    assert!(matches!(&refused, EnqueueError::Unavailable(e) if e.message.contains("OOM")), "{refused}");
    assert!(start.elapsed() < Duration::from_secs(2), "it is told at once");
    assert_eq!(keys(&server).await, before);

    let retry = Verdict::Retry { delay: Duration::ZERO };
    let settlements = [settlement(&jobs[0], Verdict::Sent), settlement(&jobs[1], retry)];
    assert_eq!(queue.settle(&me, &settlements).await.unwrap(), [Settled::Done; 2]);
    assert_eq!(queue.maintain().await.unwrap().promoted, 1);
    assert_eq!(queue.claim(&me, 5).await.unwrap().len(), 2);
    assert!(queue.cancel(jobs[0].job).await.is_ok());
    assert!(queue.stats().await.unwrap().ledger.balances());
}

#[tokio::test]
async fn batch_that_cannot_be_decided_on_leaves_those_of_the_same_call_alone() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    let idempotency = Idempotency {
        key: "broken".to_owned(),
        fingerprint: "print".to_owned(),
        keep: Duration::from_mins(1),
    };
    let key = format!("{{emailer}}:idem:{}", idempotency.key);
    server.run_command::<String>(&["SET", &key, "not JSON"]).await;
    let broken = NewBatch { idempotency: Some(idempotency), ..batch_of(1) };
    // The first is on its way alone; the others gather meanwhile.
    let (first, before, refused, behind) = tokio::join!(
        queue.enqueue(batch_of(1)),
        queue.enqueue(batch_of(1)),
        queue.enqueue(broken),
        queue.enqueue(batch_of(2)),
    );
    assert!(matches!(refused, Err(EnqueueError::Unavailable(_))));
    assert!(first.is_ok() && before.is_ok() && behind.is_ok());
    let ledger = queue.stats().await.unwrap().ledger;
    assert_eq!((ledger.accepted, ledger.queued), (4, 4));
    let claimed = queue.claim(&consumer("me"), 10).await.unwrap();
    assert_eq!(claimed.len(), 4);
}

#[tokio::test]
async fn every_connection_is_opened_again_when_it_is_killed() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    let me = consumer("me");
    queue.claim(&me, 1).await.unwrap();
    for round in 0..3 {
        queue.enqueue(batch_of(1)).await.unwrap();
        queue.ready(&me, Duration::from_millis(10)).await.unwrap();
        queue.stats().await.unwrap();
        let killed: u64 = server.run_command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        assert!(killed >= 4, "round {round}: {killed}");

        // Acceptance and questions mend themselves unseen; a claim tells, since its answer may have named jobs.
        // One of several has its content fetched on a connection of its own.
        queue.enqueue(batch_of(2)).await.unwrap();
        queue.stats().await.unwrap();
        until("a claim is answered again", async || queue.claim(&me, 3).await.is_ok()).await;
        until("a wait is answered again", async || queue.ready(&me, Duration::from_millis(10)).await.is_ok())
            .await;
    }
    let ledger = queue.stats().await.unwrap().ledger;
    assert_eq!(ledger.accepted, 9);
    assert!(ledger.balances());
}

#[tokio::test]
async fn a_killed_wait_is_told_and_the_next_one_sees_what_came_meanwhile() {
    let server = Server::start(&[]).await;
    let queue = std::sync::Arc::new(connect(&server.url(), limits()).await);
    let me = consumer("me");
    assert!(queue.claim(&me, 1).await.unwrap().is_empty());
    let waiting = tokio::spawn({
        let (queue, me) = (std::sync::Arc::clone(&queue), me.clone());
        async move { queue.ready(&me, Duration::from_mins(1)).await }
    });
    let mut blocked = None;
    until("somebody waits", async || {
        let clients: String = server.run_command(&["CLIENT", "LIST"]).await;
        blocked = clients.lines().find(|line| line.contains("cmd=xread")).map(ToOwned::to_owned);
        blocked.is_some()
    })
    .await;
    let blocked = blocked.unwrap();
    let id = blocked.split(' ').find_map(|field| field.strip_prefix("id=")).unwrap();
    let _: i64 = server.run_command(&["CLIENT", "KILL", "ID", id]).await;
    assert!(waiting.await.unwrap().is_err());
    queue.enqueue(batch_of(1)).await.unwrap();
    queue.ready(&me, Duration::from_mins(1)).await.unwrap();
    assert_eq!(queue.claim(&me, 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_batch_whose_answers_are_late_is_accepted_once() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    let me = consumer("me");
    queue.enqueue(batch_of(1)).await.unwrap();
    queue.claim(&me, 1).await.unwrap();
    // Longer than one timeout: the first answer is lost, though the step will have been done.
    let _: String = server.run_command(&["CLIENT", "PAUSE", "4000", "ALL"]).await;
    let batch = batch_of(5);
    let (accepted, claimed) = tokio::join!(queue.enqueue(batch.clone()), queue.claim(&me, 1));
    let accepted = accepted.unwrap();
    assert_eq!((accepted.batch, accepted.count, accepted.replayed), (batch.id, 5, false));
    assert!(claimed.is_err());
    assert_eq!(queue.stats().await.unwrap().ledger.accepted, 6);
    // What the lost claim took is still ours, and found.
    let held = queue.held_by(&me).await.unwrap().len();
    let sending = queue.stats().await.unwrap().ledger.sending;
    assert_eq!(held as u64, sending);
}

#[tokio::test]
async fn a_batch_is_given_up_at_its_deadline_and_can_be_repeated() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    let batch = batch_of(2);
    server.signal("-STOP");
    let start = Instant::now();
    let error = queue.enqueue(batch.clone()).await.unwrap_err();
    assert!(matches!(error, EnqueueError::Unavailable(_)), "{error}");
    assert!((9..15).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    server.signal("-CONT");
    let accepted = queue.enqueue(batch.clone()).await.unwrap();
    assert_eq!((accepted.batch, accepted.count), (batch.id, 2));
    assert_eq!(queue.stats().await.unwrap().ledger.accepted, 2);
}

#[tokio::test]
async fn a_master_that_became_a_replica_is_left() {
    let server = Server::start(&[]).await;
    let other = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    let me = consumer("me");
    queue.enqueue(batch_of(1)).await.unwrap();
    queue.claim(&me, 1).await.unwrap();

    let other_port = other.port.to_string();
    let _: String = server.run_command(&["REPLICAOF", "127.0.0.1", &other_port]).await;
    let error = queue.claim(&me, 1).await.unwrap_err();
    assert!(error.message.contains("READONLY"), "{error}");
    let batch = batch_of(1);
    let (accepted, ()) = tokio::join!(queue.enqueue(batch.clone()), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let _: String = server.run_command(&["REPLICAOF", "NO", "ONE"]).await;
    });
    assert_eq!(accepted.unwrap().batch, batch.id);
    until("a claim is answered again", async || queue.claim(&me, 1).await.is_ok()).await;
}

#[tokio::test]
async fn an_outage_longer_than_the_lease_takes_no_job_from_a_live_worker() {
    let server = Server::start(&[]).await;
    let lease = Duration::from_secs(2);
    let queue = connect(&server.url(), Limits { lease, ..limits() }).await;
    let (alive, other) = (consumer("alive"), consumer("other"));
    queue.enqueue(batch_of(1)).await.unwrap();
    let jobs = queue.claim(&alive, 1).await.unwrap();

    // A reclaim lies in the socket of the stopped server, and finds every lease run out when it goes on.
    tokio::time::sleep(lease).await;
    queue.extend(&alive, &[jobs[0].job]).await.unwrap();
    server.signal("-STOP");
    let (during, ()) = tokio::join!(queue.reclaim(&other, 10), async {
        tokio::time::sleep(lease + Duration::from_millis(500)).await;
        server.signal("-CONT");
    });
    assert!(during.is_err() || during.unwrap().deliveries.is_empty());
    until("the server answers again", async || queue.heartbeat(&alive).await.is_ok()).await;
    let after = queue.reclaim(&other, 10).await.unwrap();
    assert!(after.deliveries.is_empty(), "the live worker had no time to renew");
    assert!(queue.extend(&alive, &[jobs[0].job]).await.unwrap().is_empty());

    // A worker that is dead indeed loses its jobs all the same.
    let mut taken = Vec::new();
    until("the job is reclaimed", async || {
        taken = queue.reclaim(&other, 10).await.unwrap().deliveries;
        !taken.is_empty()
    })
    .await;
    assert_eq!((taken[0].job, taken[0].reclaims), (jobs[0].job, 1));
}

#[tokio::test]
async fn nothing_is_left_of_ended_jobs_when_their_retention_has_passed() {
    let server = Server::start(&[]).await;
    let none = Duration::ZERO;
    let queue = connect(&server.url(), Limits { retention: none, failed_retention: none, ..limits() }).await;
    let me = consumer("me");
    let long = crate::redis_server::metadata("long", &"x".repeat(200));
    for n in [1, 3] {
        let batch = NewBatch {
            metadata: Some(long.clone()),
            tags: vec!["a".repeat(70)],
            ..crate::redis_queue::templated(batch_of(n))
        };
        queue.enqueue(batch).await.unwrap();
    }
    let scheduled = NewBatch {
        send_at: Some(shared::clock::Clock::now(&shared::clock::SystemClock) + Duration::from_hours(1)),
        ..batch_of(1)
    };
    queue.enqueue(scheduled.clone()).await.unwrap();
    queue.cancel_batch(scheduled.id).await.unwrap();
    let jobs = queue.claim(&me, 10).await.unwrap();
    let verdicts = [
        Verdict::Sent,
        Verdict::Fail(shared::job::Reason::Permanent),
        Verdict::Fail(shared::job::Reason::Suppressed),
        Verdict::Sent,
    ];
    let settlements: Vec<_> = jobs.iter().zip(verdicts).map(|(job, v)| settlement(job, v)).collect();
    queue.settle(&me, &settlements).await.unwrap();
    queue.leave(&me).await.unwrap();
    until("all records are removed", async || {
        queue.maintain().await.unwrap().removed == 0 && queue.job(jobs[0].job).await.unwrap().is_none()
    })
    .await;

    // What a queue has once stays; a batch is remembered for a minute, so that a repeated enqueue is recognised.
    let mut left = keys(&server).await;
    let mut remembered = 0;
    for key in
        left.extract_if(.., |key| key.starts_with("{emailer}:batch:") || key.starts_with("{emailer}:job:"))
    {
        let fields: Vec<String> = server.run_command(&["HKEYS", &key]).await;
        assert_eq!(fields, ["gone"], "{key}");
        let ttl: i64 = server.run_command(&["PTTL", &key]).await;
        assert!((1..=60_000).contains(&ttl), "{key}: {ttl}");
        remembered += 1;
    }
    assert_eq!(remembered, 3);
    let fixed = ["batches", "counters", "meta", "ready:normal", "ready:high", "ready:bulk"];
    left.retain(|key| !fixed.contains(&key.trim_start_matches("{emailer}:")));
    assert_eq!(left, Vec::<String>::new());
    let streams: u64 = server.run_command(&["XLEN", "{emailer}:batches"]).await;
    assert_eq!(streams, 0);
    let consumers: Vec<redis::Value> =
        server.run_command(&["XINFO", "CONSUMERS", "{emailer}:ready:normal", "workers"]).await;
    assert!(consumers.is_empty());
    let ledger = queue.stats().await.unwrap().ledger;
    assert_eq!(
        (ledger.accepted, ledger.sent, ledger.failed, ledger.suppressed, ledger.cancelled),
        (5, 2, 1, 1, 1)
    );
}
