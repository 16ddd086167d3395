//! What is done to the fleet, and what it may cost.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::fleet::{Fleet, LEASE};
use super::traffic::Traffic;
use crate::process::signal;

/// The pause between two faults.
const PAUSE: Duration = Duration::from_millis(400);

/// What was done so far.
#[derive(Debug, Default)]
pub(super) struct Faults {
    kills: u64,
    /// Kills of workers that held jobs.
    pub(super) kills_in_flight: u64,
    stops: u64,
    connections_cut: u64,
    pauses: u64,
    restarts: u64,
    flushes: u64,
    pub(super) dots_cut: u64,
    /// How many mails may have gone out twice for it: what was in the hands of those who were killed or stopped, and
    /// what was taken without an answer.
    pub(super) may_be_doubled: u64,
    /// Mails that came twice while Redis was away for longer than a lease and nothing else was broken.
    pub(super) doubled_by_outage: u64,
}

impl Faults {
    /// Does one thing.
    pub(super) async fn one(&mut self, fleet: &mut Fleet, chance: &mut StdRng) -> anyhow::Result<()> {
        match chance.random_range(0..100) {
            0..45 => self.kill(fleet, chance).await?,
            45..60 => self.cut_dots(fleet, chance),
            60..68 => self.stop(fleet, chance).await?,
            68..80 => {
                // The answers of scripts that have run are lost with their connections.
                fleet.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
                self.connections_cut += 1;
            }
            80..88 => {
                fleet.command(&["CLIENT", "PAUSE", "700", "ALL"]).await?;
                self.pauses += 1;
            }
            88..95 => {
                fleet.restart_redis().await?;
                self.restarts += 1;
            }
            _ => {
                fleet.command(&["SCRIPT", "FLUSH"]).await?;
                self.flushes += 1;
            }
        }
        sleep(PAUSE).await;
        Ok(())
    }

    async fn kill(&mut self, fleet: &mut Fleet, chance: &mut StdRng) -> anyhow::Result<()> {
        let index = chance.random_range(0..fleet.workers());
        let held = fleet.kill_worker(index).await?;
        self.kills += 1;
        self.kills_in_flight += u64::from(held > 0);
        self.may_be_doubled += held;
        fleet.start_worker(index)
    }

    /// The sink takes some messages, and does not take others, without a word of it.
    fn cut_dots(&mut self, fleet: &Fleet, chance: &mut StdRng) {
        let (taken, untaken) = (chance.random_range(1..6), chance.random_range(1..6));
        fleet.sink.change(|faults| {
            faults.cut_taken += taken;
            faults.cut_untaken += untaken;
        });
        self.dots_cut += u64::from(taken + untaken);
        self.may_be_doubled += u64::from(taken);
    }

    /// A worker is stopped for longer than its lease, and goes on as if nothing had been.
    async fn stop(&mut self, fleet: &Fleet, chance: &mut StdRng) -> anyhow::Result<()> {
        let child = fleet.worker(chance.random_range(0..fleet.workers()))?;
        signal(child, "STOP").await?;
        self.may_be_doubled += fleet.held_by(child.id().unwrap_or_default()).await?;
        sleep(LEASE * 2).await;
        signal(child, "CONT").await?;
        self.stops += 1;
        Ok(())
    }

    /// Redis is away for longer than a lease, and all workers live: nothing is sent twice for it.
    pub(super) async fn long_outage(&mut self, fleet: &mut Fleet, traffic: &Traffic) -> anyhow::Result<()> {
        let before = doubled(fleet);
        traffic.ask_for_more().await;
        fleet.freeze_redis(LEASE * 3).await?;
        fleet.settle(Duration::from_secs(20)).await;
        self.doubled_by_outage = doubled(fleet) - before;
        Ok(())
    }
}

/// Mails that came again so far, by their Message-ID.
fn doubled(fleet: &Fleet) -> u64 {
    let arrivals = fleet.sink.arrivals();
    let ids: HashSet<_> = arrivals.iter().map(|arrival| &arrival.message_id).collect();
    (arrivals.len() - ids.len()) as u64
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kills, kills_in_flight, stops, connections_cut, pauses, restarts, flushes, dots_cut, ..
        } = self;
        writeln!(f, "workers killed        {kills}, {kills_in_flight} of them with work in flight")?;
        writeln!(f, "workers stopped       {stops}, each for longer than its lease")?;
        writeln!(
            f,
            "Redis                 {restarts} restarts, {connections_cut} × all connections cut, {pauses} pauses, {flushes} × scripts forgotten, 1 long outage"
        )?;
        write!(f, "final dots cut        {dots_cut}")
    }
}
