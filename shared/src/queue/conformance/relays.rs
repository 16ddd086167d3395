//! What the fleet knows of its relays: all see a pause, and one probes.

use futures::future::join_all;

use super::Harness;
use super::bench::{Bench, consumer, must, reply, some};
use crate::queue::{PauseCause, RelayPause};

impl Bench<'_> {
    async fn pause_relay(&self, cause: PauseCause, units: u32, probes: u32) -> RelayPause {
        let said = reply(454, "4.7.0 not now");
        must(self.handles[0].pause_relay("main", cause, self.units(units), probes, said).await)
    }

    /// What another process sees.
    async fn seen(&self) -> Option<RelayPause> {
        must(self.handles[1].relay_pause("main").await)
    }
}

/// A pause holds for all, until it is taken back.
pub async fn paused_relay_is_seen_by_all(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    assert_eq!(bench.seen().await, None);
    let before = harness.now();
    let pause = bench.pause_relay(PauseCause::Down, 3, 0).await;
    assert!(pause.since >= before && pause.until.since(pause.since) == bench.units(3));
    assert_eq!((pause.cause, pause.probes), (PauseCause::Down, 0));
    assert_eq!(pause.reply, reply(454, "4.7.0 not now"));
    assert_eq!(bench.seen().await, Some(pause));
    assert_eq!(must(bench.queue.relay_pause("other").await), None);
    must(bench.handles[2].resume_relay("main").await);
    assert_eq!(bench.seen().await, None);
    must(bench.queue.resume_relay("main").await);
}

/// A relay that is down stays so until somebody has seen it work: time alone does not bring it back, nor does a slower
/// word make it a lesser pause.
pub async fn relay_that_is_down_stays_so_until_resumed(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let first = bench.pause_relay(PauseCause::Down, 2, 0).await;
    bench.pass(3).await;
    assert_eq!(bench.seen().await, Some(first.clone()));
    let again = bench.pause_relay(PauseCause::Down, 4, 1).await;
    assert_eq!((again.since, again.probes), (first.since, 1));
    assert!(again.until > first.until);
    let throttled = bench.pause_relay(PauseCause::Throttled, 100, 0).await;
    assert_eq!(throttled, again);
    assert_eq!(bench.seen().await, Some(again));
}

/// A relay that asked to slow down needs no probe.
pub async fn throttled_relay_is_not_taken_for_down(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let pause = bench.pause_relay(PauseCause::Throttled, 3, 0).await;
    assert_eq!(some(bench.seen().await, "pause"), pause);
    assert_eq!(pause.cause, PauseCause::Throttled);
    let down = bench.pause_relay(PauseCause::Down, 3, 0).await;
    assert_eq!(down.cause, PauseCause::Down);
}

/// One of the fleet probes, and not before the pause is over.
pub async fn one_consumer_probes(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let lease = bench.units(50);
    let me = consumer("a");
    assert!(!must(bench.queue.take_probe("main", &me, lease).await), "nothing is to be probed");
    bench.pause_relay(PauseCause::Down, 3, 0).await;
    assert!(!must(bench.queue.take_probe("main", &me, lease).await), "it is paused");
    bench.pass(4).await;
    let fleet: Vec<_> = (0..6).map(|n| consumer(&format!("c{n}"))).collect();
    let asks =
        fleet.iter().zip(bench.handles.iter().cycle()).map(|(me, queue)| queue.take_probe("main", me, lease));
    let takers = join_all(asks).await.into_iter().map(must).filter(|taken| *taken).count();
    assert_eq!(takers, 1);
    // The next pause is probed anew.
    bench.pause_relay(PauseCause::Down, 1, 1).await;
    bench.pass(2).await;
    assert!(must(bench.queue.take_probe("main", &me, lease).await));
}

/// A probe that never ended does not keep a relay down.
pub async fn probe_of_a_dead_consumer_is_taken_over(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    bench.pause_relay(PauseCause::Down, 0, 0).await;
    bench.pass(1).await;
    assert!(must(bench.queue.take_probe("main", &consumer("dead"), bench.units(3)).await));
    assert!(!must(bench.queue.take_probe("main", &bench.me, bench.units(3)).await));
    bench.pass(4).await;
    assert!(must(bench.queue.take_probe("main", &bench.me, bench.units(3)).await));
}
