//! The queue on one server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;
use shared::job::{Reason, Status};
use shared::message::{Body, Content};
use shared::queue::redis::{ConnectError, RedisQueue};
use shared::queue::{
    Consumer, Control, Delivery, EnqueueError, Intake, Limits, NewBatch, Settled, Settlement, Verdict,
};
use shared::settings;
use shared::template::{Bundle, BundleHash};

use crate::redis_server::{Server, batch_of, connect, consumer, limits, try_connect};

pub(crate) fn settlement(delivery: &Delivery, verdict: Verdict) -> Settlement {
    Settlement {
        job: delivery.job,
        attempt: delivery.attempt,
        verdict,
        relay: Some("default".to_owned()),
        reply: None,
        detail: "detail".to_owned(),
    }
}

#[tokio::test]
async fn a_batch_is_accepted_handed_out_and_ended() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    let me = consumer("me");

    let batch = batch_of(4);
    let accepted = queue.enqueue(batch.clone()).await.unwrap();
    assert_eq!(
        (accepted.batch, accepted.count, accepted.replayed),
        (batch.id, 4, false)
    );

    let deliveries = queue.claim(&me, 10).await.unwrap();
    assert_eq!(deliveries.len(), 4);
    assert_eq!(deliveries[0].recipient, batch.recipients[0]);
    assert_eq!(deliveries[0].content, batch.content);

    let verdicts = [
        Verdict::Sent,
        Verdict::Retry {
            delay: Duration::from_mins(1),
        },
        Verdict::Fail(Reason::Permanent),
        Verdict::Hold,
    ];
    let settlements: Vec<Settlement> = deliveries
        .iter()
        .zip(verdicts)
        .map(|(d, v)| settlement(d, v))
        .collect();
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
        body: Body::Template {
            bundle: BundleHash("5eed".to_owned()),
            data: Map::new(),
        },
        ..(*batch.content).clone()
    };
    NewBatch {
        content: Arc::new(content),
        bundle: Some(Arc::new(bundle)),
        ..batch
    }
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
        queue
            .settle(&me, &[settlement(job, Verdict::Sent)])
            .await
            .unwrap();
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
    let queue = connect(
        &server.url(),
        Limits {
            max_queue_size: 1,
            ..limits()
        },
    )
    .await;
    let me = consumer("me");
    let large = || {
        let batch = batch_of(1);
        let content = Content {
            body: Body::Html("x".repeat(200_000)),
            ..(*batch.content).clone()
        };
        NewBatch {
            content: Arc::new(content),
            ..batch
        }
    };
    let (taken, refused) = (large(), large());
    queue.enqueue(taken.clone()).await.unwrap();
    assert!(matches!(
        queue.enqueue(refused.clone()).await,
        Err(EnqueueError::Full { used: 1, max: 1 })
    ));
    // A repetition must not make it vanish.
    queue.enqueue(taken.clone()).await.unwrap();
    let ttl = async |batch: &NewBatch| -> i64 {
        server
            .run_command(&["PTTL", &format!("{{emailer}}:content:{}", batch.id)])
            .await
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
    let _: u64 = server
        .run_command(&["DEL", &format!("{{emailer}}:content:{}", broken.id)])
        .await;
    assert_eq!(queue.claim(&me, 2).await.unwrap().len(), 1);
    let job = queue
        .job(shared::job::JobId {
            batch: broken.id,
            index: 0,
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!((job.status, job.reason), (Status::Failed, Some(Reason::Render)));
}

#[tokio::test]
async fn batches_that_arrive_together_share_a_call() {
    let server = Server::start(&[]).await;
    let queue = connect(&server.url(), limits()).await;
    queue.enqueue(batch_of(1)).await.unwrap();
    let _: String = server.run_command(&["CONFIG", "RESETSTAT"]).await;
    futures::future::try_join_all((0..300).map(|_| queue.enqueue(batch_of(2))))
        .await
        .unwrap();
    let stats: String = server.run_command(&["INFO", "commandstats"]).await;
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="))
        .unwrap();
    let calls: u32 = line.split(',').next().unwrap().parse().unwrap();
    assert!(calls <= 10, "300 batches took {calls} calls");
    assert_eq!(queue.stats().await.unwrap().ledger.queued, 601);
}

#[tokio::test]
async fn a_redis_that_may_evict_is_refused_unless_that_is_wanted() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]).await;
    let refused = try_connect(&server.url(), limits()).await.unwrap_err();
    assert!(
        matches!(&refused, ConnectError::Evicts(policy) if policy == "allkeys-lru"),
        "{refused}"
    );
    let allowed = settings::Redis {
        url: server.url().into(),
        allow_unsafe: true,
    };
    let queue = RedisQueue::connect(&allowed, "emailer", limits()).await.unwrap();
    let told = queue.durability().await.unwrap();
    assert!(!told.survives_crash);
    assert!(
        told.details.iter().any(|line| line.contains("allkeys-lru")),
        "{told:?}"
    );
}

#[tokio::test]
async fn what_redis_is_set_up_for_is_told() {
    let server = Server::start(&[]).await;
    let told = connect(&server.url(), limits()).await.durability().await.unwrap();
    assert_eq!((told.backend, told.survives_crash), ("redis", true));
    let _: String = server
        .run_command(&["CONFIG", "SET", "appendfsync", "everysec"])
        .await;
    let told = connect(&server.url(), limits()).await.durability().await.unwrap();
    assert!(
        !told.survives_crash && told.details[0].contains("two seconds"),
        "{told:?}"
    );
}
