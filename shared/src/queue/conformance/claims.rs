//! Handing jobs out: each once, the urgent ones first, none for ever last.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::Harness;
use super::bench::{Bench, consumer, ids, must};
use crate::job::{OnAmbiguous, Priority, Status};
use crate::queue::{NewBatch, Verdict};
use crate::template::Bundle;

impl Bench<'_> {
    fn urgent(&self, priority: Priority, count: u32) -> NewBatch {
        NewBatch { priority, ..self.batch(count) }
    }

    /// Claims one at a time; returns after how many claims a `high` job came out.
    async fn claims_until_high(&self) -> usize {
        for n in 1..=100 {
            if self.claim_one().await.priority == Priority::High {
                return n;
            }
        }
        100
    }
}

/// Consumers that claim at the same time share the jobs.
pub async fn each_job_is_handed_out_once(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let jobs: BTreeSet<_> = bench.put(bench.batch(100)).await.into_iter().collect();
    let consumers: Vec<_> = (0..6).map(|n| consumer(&format!("c{n}"))).collect();
    let mut seen = BTreeSet::new();
    while seen.len() < jobs.len() {
        let claims = consumers.iter().zip(bench.handles.iter().cycle()).map(|(me, queue)| queue.claim(me, 4));
        let claimed: Vec<_> = join_all(claims).await.into_iter().flat_map(must).collect();
        assert!(!claimed.is_empty(), "{} of 100 were handed out", seen.len());
        for delivery in claimed {
            assert!(jobs.contains(&delivery.job));
            assert!(seen.insert(delivery.job), "handed out twice");
        }
    }
    assert!(bench.claim(10).await.is_empty());
    assert_eq!(bench.counts().await, [(Status::Sending, 100)]);
}

/// A worker needs nothing but the delivery.
pub async fn delivery_carries_all_that_sending_needs(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let mut batch = bench.urgent(Priority::Bulk, 1);
    batch.on_ambiguous = OnAmbiguous::Hold;
    batch.bundle = Some(std::sync::Arc::new(Bundle {
        template: "en/hello.html".to_owned(),
        sources: [("en/hello.html".to_owned(), "Hello {{ name }}".to_owned())].into(),
    }));
    if let crate::message::Body::Html(_) = batch.content.body {
        let mut content = (*batch.content).clone();
        content.body = crate::message::Body::Template {
            bundle: crate::template::BundleHash("0123456789abcdef".to_owned()),
            data: serde_json::Map::new(),
        };
        batch.content = content.into();
    }
    bench.put(batch.clone()).await;
    let delivery = bench.claim_one().await;
    assert_eq!(delivery.recipient, batch.recipients[0]);
    assert_eq!(delivery.priority, Priority::Bulk);
    assert_eq!((delivery.attempt, delivery.max_attempts), (1, 4));
    assert_eq!((delivery.reclaims, delivery.marked), (0, false));
    assert_eq!(delivery.on_ambiguous, OnAmbiguous::Hold);
    assert_eq!(delivery.send_at, None);
    assert_eq!(delivery.accepted_at, bench.record(delivery.job).await.accepted_at);
    assert_eq!(delivery.content, batch.content);
    assert_eq!(delivery.bundle, batch.bundle);
}

/// A consumer has no more permits than it asks for.
pub async fn claim_takes_no_more_than_asked(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    bench.put(bench.urgent(Priority::High, 4)).await;
    bench.put(bench.batch(4)).await;
    bench.put(bench.urgent(Priority::Bulk, 4)).await;
    assert_eq!(bench.claim(5).await.len(), 5);
    assert_eq!(bench.claim(0).await.len(), 0);
    assert_eq!(bench.claim(100).await.len(), 7);
}

/// However many `bulk` jobs became due before it, a due `high` job is not behind them.
pub async fn high_job_comes_out_past_fifty_thousand_due_bulk_jobs(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    for _ in 0..50 {
        bench.put(NewBatch { send_at: Some(bench.in_units(1)), ..bench.urgent(Priority::Bulk, 1_000) }).await;
    }
    bench.put(NewBatch { send_at: Some(bench.in_units(1)), ..bench.urgent(Priority::High, 1) }).await;
    bench.pass(2).await;
    assert_eq!(bench.counts().await, [(Status::Queued, 50_001)]);
    let claims = bench.claims_until_high().await;
    assert!(claims <= 12, "it came out after {claims} claims");
}

/// A `high` job does not wait for what was queued before it.
pub async fn high_job_overtakes_a_backlog(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    bench.put(bench.urgent(Priority::Bulk, 1_000)).await;
    bench.put(bench.batch(1_000)).await;
    for _ in 0..5 {
        bench.put(bench.urgent(Priority::High, 1)).await;
        let claims = bench.claims_until_high().await;
        assert!(claims <= 30, "it came out after {claims} claims");
    }
}

/// Of twelve claims about eight, three and one go to the priorities, whatever the size of a claim. The margins allow a
/// backend that draws by chance: each is more than four standard deviations wide.
pub async fn bulk_never_starves(harness: &dyn Harness) {
    for size in [1, 7] {
        let bench = Bench::new(harness).await;
        for priority in Priority::ALL {
            for _ in 0..5 {
                bench.put(bench.urgent(*priority, 1_000)).await;
            }
        }
        let mut taken = [0_usize; 3];
        for _ in 0..600 {
            for delivery in bench.claim(size).await {
                taken[delivery.priority as usize] += 1;
            }
        }
        assert_eq!(taken.iter().sum::<usize>(), 600 * size);
        let [high, normal, bulk] = taken.map(|n| n / size);
        assert!((330..=470).contains(&high), "high {taken:?}");
        assert!((100..=200).contains(&normal), "normal {taken:?}");
        assert!((20..=85).contains(&bulk), "bulk {taken:?}");
    }
}

/// A paused queue gives nothing, and takes everything.
pub async fn nothing_is_handed_out_while_paused(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let [first, second] = [bench.put_one().await, bench.put_one().await];
    let delivery = bench.claim_one().await;
    must(bench.queue.set_paused(true).await);
    assert!(bench.claim(10).await.is_empty());
    bench.done(&delivery, Verdict::Retry { delay: bench.units(1) }).await;
    let third = bench.put_one().await;
    bench.pass(2).await;
    assert!(bench.claim(10).await.is_empty());
    assert_eq!(bench.counts().await, [(Status::Queued, 2), (Status::Retrying, 1)]);
    must(bench.queue.set_paused(false).await);
    let claimed: BTreeSet<_> = ids(&bench.claim(10).await).into_iter().collect();
    assert_eq!(claimed, BTreeSet::from([first, second, third]));
}

/// What the consumer does not know of is told when it asks.
pub async fn lost_claim_answer_is_found_again(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    bench.put(bench.batch(3)).await;
    let lost = bench.claim(2).await;
    let mut held = must(bench.queue.held_by(&bench.me).await);
    held.sort_by_key(|delivery| delivery.job);
    let mut expected = ids(&lost);
    expected.sort();
    assert_eq!(ids(&held), expected);
    for delivery in &held {
        assert_eq!(delivery.attempt, 1);
        assert_eq!(delivery.content.subject.as_deref(), Some("你好"));
        bench.done(delivery, Verdict::Sent).await;
    }
    assert!(must(bench.queue.held_by(&bench.me).await).is_empty());
    assert!(must(bench.queue.held_by(&consumer("other")).await).is_empty());
}
