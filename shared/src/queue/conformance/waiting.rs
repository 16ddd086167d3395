//! Waiting for work: whoever waits is woken by what it waits for, and by nothing that it has to ask about again and
//! again.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;

use super::Harness;
use super::bench::{Bench, consumer, must};
use crate::job::JobId;
use crate::queue::{ConsumerId, Delivery, NewBatch, Verdict};

impl Bench<'_> {
    /// Claims as a worker does: asks, and waits where there is nothing. Panics when nothing comes in `units`.
    async fn wait_for_one(&self, me: &ConsumerId, handle: usize, units: u32) -> Delivery {
        let queue = &self.handles[handle % self.handles.len()];
        let wait = async {
            loop {
                if let Some(delivery) = must(queue.claim(me, 1).await).pop() {
                    return delivery;
                }
                must(queue.ready(me, self.units(units) * 2).await);
            }
        };
        match timeout(self.units(units), wait).await {
            Ok(delivery) => delivery,
            Err(elapsed) => panic!("nothing came in {units} units: {elapsed}"),
        }
    }

    /// What `act` makes claimable is found by a consumer that waits before it begins.
    async fn wakes_for<T>(&self, act: impl AsyncFnOnce() -> T) -> (Delivery, T) {
        assert!(self.claim(1).await.is_empty());
        let acting = async {
            tokio::time::sleep(self.units(1)).await;
            act().await
        };
        tokio::join!(self.wait_for_one(&self.me, 0, 20), acting)
    }
}

/// What is there is not waited for.
pub async fn ready_returns_at_once_when_a_job_is_there(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let first = bench.put_one().await;
    assert_eq!(bench.wait_for_one(&bench.me, 0, 3).await.job, first);
    // Also what came between the last claim and the call.
    assert!(bench.claim(1).await.is_empty());
    bench.put_one().await;
    let waited = timeout(bench.units(3), bench.queue.ready(&bench.me, bench.units(100))).await;
    assert!(waited.is_ok(), "it waited for what was there");
}

/// Waiting ends.
pub async fn ready_returns_after_the_time_given(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    assert!(bench.claim(1).await.is_empty());
    let waited = timeout(bench.units(50), bench.queue.ready(&bench.me, bench.units(1))).await;
    assert!(waited.is_ok(), "it went on waiting");
}

/// A new job wakes who waits.
pub async fn ready_wakes_for_a_new_job(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let (delivery, job) = bench.wakes_for(async || bench.put_one().await).await;
    assert_eq!(delivery.job, job);
}

/// So does one whose time has come, though nobody else looks after it.
pub async fn ready_wakes_for_a_due_job(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let scheduled = NewBatch { send_at: Some(bench.in_units(4)), ..bench.batch(1) };
    let scheduled = bench.put(scheduled).await[0];
    assert!(bench.claim(1).await.is_empty());
    let delivery = bench.wait_for_one(&bench.me, 0, 20).await;
    assert_eq!(delivery.job, scheduled);
    // One that is scheduled while it waits, too: what nobody could know of, somebody's maintenance finds.
    let scheduled = async || {
        let scheduled = NewBatch { send_at: Some(bench.in_units(3)), ..bench.batch(1) };
        bench.put(scheduled).await[0]
    };
    let maintain = async {
        loop {
            tokio::time::sleep(bench.units(1)).await;
            must(bench.handles[2].maintain().await);
        }
    };
    tokio::select! {
        (delivery, job) = bench.wakes_for(scheduled) => assert_eq!(delivery.job, job),
        () = maintain => {}
    }
}

/// What comes back wakes as what is new.
pub async fn ready_wakes_on_release_and_requeue(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let job = bench.put_one().await;
    let other = consumer("other");
    let held = bench.claim_one_as(&other).await;
    let (held, ()) = bench
        .wakes_for(async || {
            bench.settle_as(&other, &held, Verdict::Release).await;
        })
        .await;
    assert_eq!(held.job, job);
    bench.done(&held, Verdict::Hold).await;
    let (again, _) = bench.wakes_for(async || must(bench.handles[1].requeue(job).await)).await;
    assert_eq!(again.job, job);
}

/// The end of a pause wakes those who found nothing because of it.
pub async fn ready_wakes_on_resume(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    must(bench.queue.set_paused(true).await);
    let job = bench.put_one().await;
    let (delivery, ()) = bench.wakes_for(async || must(bench.handles[1].set_paused(false).await)).await;
    assert_eq!(delivery.job, job);
}

/// As many jobs, as many who wait: each gets one.
pub async fn every_waiting_consumer_finds_its_job(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let waiting: Vec<_> = (0..6).map(|n| consumer(&format!("c{n}"))).collect();
    let all = waiting.iter().enumerate().map(|(n, me)| bench.wait_for_one(me, n, 20));
    let put = async {
        tokio::time::sleep(bench.units(1)).await;
        let mut jobs = bench.put(bench.batch(4)).await;
        jobs.push(bench.put_one().await);
        jobs.push(bench.put_one().await);
        jobs
    };
    let (found, mut jobs) = tokio::join!(join_all(all), put);
    let mut found: Vec<JobId> = found.into_iter().map(|delivery| delivery.job).collect();
    found.sort();
    jobs.sort();
    assert_eq!(found, jobs);
}

/// However closely a job follows an empty claim, it is found.
pub async fn no_wake_up_is_lost(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    for n in 0..100_u64 {
        let put = async {
            for _ in 0..n % 7 {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(Duration::from_micros(n % 5 * 50)).await;
            bench.put_one().await
        };
        let (delivery, job) = tokio::join!(bench.wait_for_one(&bench.me, 1, 20), put);
        assert_eq!(delivery.job, job);
        bench.done(&delivery, Verdict::Sent).await;
    }
}
