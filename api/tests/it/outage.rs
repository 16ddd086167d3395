//! A queue that cannot be reached.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use serde_json::json;
use shared::clock::Timestamp;
use shared::job::{BatchId, BatchRecord, JobId, JobRecord};
use shared::queue::memory::MemoryQueue;
use shared::queue::{
    Accepted, Consumer, ConsumerId, Control, Delivery, Durability, EnqueueError, Idempotency, Intake,
    JobFilter, JobPage, KeptMessage, Maintenance, NewBatch, Ordered, Outbox, PauseCause, Reclaimed,
    RelayBoard, RelayPause, Settled, Settlement, Stats, Unavailable,
};
use shared::reply::LastReply;

use crate::support::{App, plain, serve, settings};

/// Answers nothing.
#[derive(Debug)]
struct Unreachable;

fn gone<T>() -> Result<T, Unavailable> {
    Err(Unavailable { message: "connection refused (10.1.2.3:6379)".into() })
}

#[async_trait]
impl Intake for Unreachable {
    async fn enqueue(&self, _: NewBatch) -> Result<Accepted, EnqueueError> {
        Ok(gone()?)
    }

    async fn replay(&self, _: &Idempotency) -> Result<Option<Accepted>, EnqueueError> {
        Ok(gone()?)
    }
}

#[async_trait]
impl Consumer for Unreachable {
    async fn claim(&self, _: &ConsumerId, _: usize) -> Result<Vec<Delivery>, Unavailable> {
        gone()
    }

    async fn ready(&self, _: &ConsumerId, _: Duration) -> Result<(), Unavailable> {
        gone()
    }

    async fn extend(&self, _: &ConsumerId, _: &[JobId]) -> Result<Vec<JobId>, Unavailable> {
        gone()
    }

    async fn mark(&self, _: &ConsumerId, _: &[JobId]) -> Result<Vec<JobId>, Unavailable> {
        gone()
    }

    async fn settle(&self, _: &ConsumerId, _: &[Settlement]) -> Result<Vec<Settled>, Unavailable> {
        gone()
    }

    async fn reclaim(&self, _: &ConsumerId, _: usize) -> Result<Reclaimed, Unavailable> {
        gone()
    }

    async fn held_by(&self, _: &ConsumerId) -> Result<Vec<Delivery>, Unavailable> {
        gone()
    }

    async fn heartbeat(&self, _: &ConsumerId) -> Result<(), Unavailable> {
        gone()
    }

    async fn leave(&self, _: &ConsumerId) -> Result<(), Unavailable> {
        gone()
    }

    async fn maintain(&self) -> Result<Maintenance, Unavailable> {
        gone()
    }
}

#[async_trait]
impl Control for Unreachable {
    async fn job(&self, _: JobId) -> Result<Option<JobRecord>, Unavailable> {
        gone()
    }

    async fn jobs(&self, _: &JobFilter, _: usize, _: Option<JobId>) -> Result<JobPage, Unavailable> {
        gone()
    }

    async fn batch(&self, _: BatchId) -> Result<Option<BatchRecord>, Unavailable> {
        gone()
    }

    async fn cancel(&self, _: JobId) -> Result<Ordered, Unavailable> {
        gone()
    }

    async fn cancel_batch(&self, _: BatchId) -> Result<Option<u64>, Unavailable> {
        gone()
    }

    async fn reschedule(&self, _: JobId, _: Timestamp) -> Result<Ordered, Unavailable> {
        gone()
    }

    async fn requeue(&self, _: JobId) -> Result<Ordered, Unavailable> {
        gone()
    }

    async fn stats(&self) -> Result<Stats, Unavailable> {
        gone()
    }

    async fn set_paused(&self, _: bool) -> Result<(), Unavailable> {
        gone()
    }

    async fn durability(&self) -> Result<Durability, Unavailable> {
        gone()
    }
}

#[async_trait]
impl RelayBoard for Unreachable {
    async fn relay_pause(&self, _: &str) -> Result<Option<RelayPause>, Unavailable> {
        gone()
    }

    async fn pause_relay(
        &self,
        _: &str,
        _: PauseCause,
        _: Duration,
        _: u32,
        _: LastReply,
    ) -> Result<RelayPause, Unavailable> {
        gone()
    }

    async fn resume_relay(&self, _: &str) -> Result<(), Unavailable> {
        gone()
    }

    async fn take_probe(&self, _: &str, _: &ConsumerId, _: Duration) -> Result<bool, Unavailable> {
        gone()
    }
}

#[async_trait]
impl Outbox for Unreachable {
    async fn keep(&self, _: KeptMessage) -> Result<(), Unavailable> {
        gone()
    }

    async fn kept(&self, _: usize) -> Result<Vec<KeptMessage>, Unavailable> {
        gone()
    }

    async fn kept_message(&self, _: JobId) -> Result<Option<KeptMessage>, Unavailable> {
        gone()
    }
}

fn start() -> App {
    let served = serve(settings(&[]), Arc::new(Unreachable), None);
    let clock = Arc::new(shared::clock::SystemClock);
    let queue = Arc::new(MemoryQueue::new(served.settings.queue.limits.clone(), clock));
    App::of(served, queue)
}

#[tokio::test]
async fn unreachable_queue_is_503_on_every_route_and_tells_nothing_of_it() {
    let app = start();
    let job = "06h0pqn761opr2rpaduas4t4m0-0";
    let batch = "06h0pqn761opr2rpaduas4t4m0";
    for (method, path) in [
        (Method::GET, "/v1/jobs".to_owned()),
        (Method::GET, format!("/v1/jobs/{job}")),
        (Method::POST, format!("/v1/jobs/{job}/cancel")),
        (Method::POST, format!("/v1/jobs/{job}/requeue")),
        (Method::GET, format!("/v1/batches/{batch}")),
        (Method::POST, format!("/v1/batches/{batch}/cancel")),
        (Method::GET, "/v1/queue".to_owned()),
        (Method::POST, "/v1/queue/pause".to_owned()),
        (Method::GET, "/v1/outbox".to_owned()),
        (Method::GET, format!("/v1/outbox/{job}")),
    ] {
        let answer = app.send(app.request(method, &path)).await;
        assert_eq!(answer.problem(), (503, "queue_unavailable", vec![]), "{path}");
        assert!(answer.headers.contains_key("retry-after"), "{path}");
        assert!(!answer.body.to_string().contains("10.1.2.3"), "{path}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn lost_answer_tells_how_to_repeat_the_request() {
    let app = start();
    let with_key = app.post_mail_with_key(&plain("a@example.com"), "order-42").await;
    assert_eq!(with_key.problem(), (503, "queue_unavailable", vec![]));
    let detail = with_key.body["detail"].as_str().unwrap();
    assert!(detail.contains("may have been queued") && detail.contains("same Idempotency-Key"), "{detail}");
    // Whether it is a replay cannot be told: it is not called wrong.
    let broken = app.post_mail_with_key(&json!({"subject": "x"}), "order-42").await;
    assert_eq!(broken.problem().1, "queue_unavailable");
    assert_eq!(app.post_mail(&json!({"subject": "x"})).await.problem().1, "invalid_request");
}

#[tokio::test]
async fn process_lives_and_is_measured_but_is_not_ready() {
    let app = start();
    assert_eq!(app.get("/healthz").await.status, 200);
    assert_eq!(app.get("/readyz").await.problem(), (503, "queue_unavailable", vec![]));
    assert_eq!(app.get("/metrics").await.status, 200);
}
