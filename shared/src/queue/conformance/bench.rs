//! What the cases share: a queue on the bench, and short words for what is done to it.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::Harness;
use crate::address::{Address, Mailbox};
use crate::clock::Timestamp;
use crate::job::{BatchId, JobId, JobRecord, OnAmbiguous, Priority, Recipient, Status};
use crate::message::{Body, Content, PlainPart};
use crate::queue::{
    Accepted, ConsumerId, Delivery, EnqueueError, Ledger, Limits, NewBatch, Queue, Settled, Settlement,
    Verdict,
};
use crate::reply::{LastReply, Reply, Stage};

/// The value, or the end of the case.
pub(super) fn must<T, E: Debug>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error:?}"),
    }
}

/// The value, or the end of the case.
pub(super) fn some<T>(value: Option<T>, what: &str) -> T {
    match value {
        Some(value) => value,
        None => panic!("there is no {what}"),
    }
}

/// A consumer of this name.
pub(super) fn consumer(name: &str) -> ConsumerId {
    ConsumerId(name.into())
}

/// A reply as a relay gives it.
pub(super) fn reply(code: u16, text: &str) -> LastReply {
    LastReply::heard(Stage::Rcpt, &Reply::new(code, text))
}

/// The end of a delivery.
pub(super) fn end(delivery: &Delivery, verdict: Verdict) -> Settlement {
    Settlement {
        receipt: delivery.receipt,
        job: delivery.job,
        attempt: delivery.attempt,
        verdict,
        relay: Some("default".to_owned()),
        reply: Some(reply(451, "4.7.1 come back later")),
        detail: String::new(),
    }
}

pub(super) fn ids(deliveries: &[Delivery]) -> Vec<JobId> {
    deliveries.iter().map(|delivery| delivery.job).collect()
}

/// A queue that is tested, by its first handle unless a case asks for more.
pub(super) struct Bench<'a> {
    pub(super) harness: &'a dyn Harness,
    pub(super) queue: Arc<dyn Queue>,
    pub(super) handles: Vec<Arc<dyn Queue>>,
    pub(super) me: ConsumerId,
}

impl<'a> Bench<'a> {
    /// Wide limits, a lease of five units.
    pub(super) fn limits(harness: &dyn Harness) -> Limits {
        let unit = harness.unit();
        Limits {
            max_queue_size: 100_000,
            max_scheduled: 100_000,
            lease: unit * 5,
            retention: unit * 10_000,
            failed_retention: unit * 10_000,
            retain: 100_000,
        }
    }

    pub(super) async fn new(harness: &'a dyn Harness) -> Self {
        Self::with(harness, |_| {}).await
    }

    /// With other limits than the wide ones.
    pub(super) async fn with(harness: &'a dyn Harness, change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Self::limits(harness);
        change(&mut limits);
        let handles = harness.open(limits, 3).await;
        Self { harness, queue: Arc::clone(some(handles.first(), "handle")), handles, me: consumer("me") }
    }

    pub(super) fn units(&self, n: u32) -> Duration {
        self.harness.unit() * n
    }

    pub(super) fn in_units(&self, n: u32) -> Timestamp {
        self.harness.now() + self.units(n)
    }

    /// Lets so many units pass, and does what is to be done then.
    pub(super) async fn pass(&self, units: u32) {
        self.harness.pass(self.units(units)).await;
        self.maintain().await;
    }

    /// Maintains until there is nothing more to do.
    pub(super) async fn maintain(&self) {
        loop {
            let did = must(self.queue.maintain().await);
            if did.promoted == 0 && did.expired.is_empty() && did.removed == 0 {
                return;
            }
        }
    }

    /// A batch of `count` normal jobs that do not expire in any case's time.
    pub(super) fn batch(&self, count: u32) -> NewBatch {
        let address = |text: &str| must(Address::parse(text));
        NewBatch {
            id: BatchId::generate(),
            priority: Priority::Normal,
            send_at: None,
            on_ambiguous: OnAmbiguous::Resend,
            max_attempts: 4,
            expire_after: self.units(10_000),
            tags: Vec::new(),
            metadata: None,
            content: Arc::new(Content {
                from: Mailbox::new(address("shop@sender.example")),
                from_requested: false,
                reply_to: None,
                subject: Some("你好".to_owned()),
                body: Body::Html("<p>Hello</p>".to_owned()),
                text: PlainPart::Made,
                headers: Vec::new(),
            }),
            bundle: None,
            recipients: (0..count)
                .map(|n| Recipient {
                    mailbox: Mailbox::new(address(&format!("User{n}@example.com"))),
                    data: json!({ "n": n }).as_object().cloned(),
                })
                .collect(),
            idempotency: None,
        }
    }

    pub(super) async fn enqueue(&self, batch: NewBatch) -> Result<Accepted, EnqueueError> {
        self.queue.enqueue(batch).await
    }

    /// Accepts a batch. Returns its jobs.
    pub(super) async fn put(&self, batch: NewBatch) -> Vec<JobId> {
        let accepted = must(self.enqueue(batch).await);
        let job = |index| JobId { batch: accepted.batch, index };
        (0..accepted.count).map(job).collect()
    }

    /// Accepts one normal job.
    pub(super) async fn put_one(&self) -> JobId {
        self.put(self.batch(1)).await[0]
    }

    pub(super) async fn claim(&self, max: usize) -> Vec<Delivery> {
        must(self.queue.claim(&self.me, max).await)
    }

    /// Claims the one job that there is.
    pub(super) async fn claim_one(&self) -> Delivery {
        self.claim_one_as(&self.me).await
    }

    pub(super) async fn claim_one_as(&self, who: &ConsumerId) -> Delivery {
        let mut claimed = must(self.queue.claim(who, 1).await);
        some(claimed.pop(), "job to claim")
    }

    pub(super) async fn settle(&self, delivery: &Delivery, verdict: Verdict) -> Settled {
        self.settle_as(&self.me, delivery, verdict).await
    }

    pub(super) async fn settle_as(&self, who: &ConsumerId, delivery: &Delivery, verdict: Verdict) -> Settled {
        let settled = must(self.queue.settle(who, &[end(delivery, verdict)]).await);
        assert_eq!(settled.len(), 1, "one answer for each settlement");
        settled[0]
    }

    /// Settles what must be the holder's to settle.
    pub(super) async fn done(&self, delivery: &Delivery, verdict: Verdict) {
        assert_eq!(self.settle(delivery, verdict).await, Settled::Done);
    }

    /// The ledger, which balances.
    pub(super) async fn ledger(&self) -> Ledger {
        if !self.harness.ledger_settles_in().is_zero() {
            self.harness.pass(self.harness.ledger_settles_in()).await;
        }
        let ledger = must(self.queue.stats().await).ledger;
        assert!(ledger.balances(), "the ledger does not balance: {ledger:?}");
        ledger
    }

    /// The statuses that have jobs, with their number; accepted is their sum.
    pub(super) async fn counts(&self) -> Vec<(Status, u64)> {
        let ledger = self.ledger().await;
        let counts = Status::ALL.iter().map(|status| (*status, ledger.of(*status)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    pub(super) async fn record(&self, job: JobId) -> JobRecord {
        some(must(self.queue.job(job).await), "record")
    }
}
