//! The queue on one server.

use std::time::Duration;

use shared::job::{Reason, Status};
use shared::queue::{Consumer, Control, Delivery, Intake, Settled, Settlement, Verdict};

use crate::redis_server::{Server, batch_of, connect, consumer, limits};

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
