//! Breaks a running fleet in every way that it promises to survive, and counts every mail.
//!
//! A real API, real workers, a real Redis and the [`crate::sink`], on free loopback ports. While [`traffic`] asks and
//! samples the ledger, [`faults`] kill, stop and cut what is running, from a seed; then everything is left to run dry
//! and each accepted job is looked for at the sink by its Message-ID ([`verdict`]). A run in which no kill hit work in
//! flight, nothing was taken over, sent again or held, proves nothing and fails.
//!
//! Redis is restarted cleanly where it writes its file every second, and killed where it writes it before each answer:
//! that is what a 202 is worth there. An outage that is longer than the lease comes last, alone: it may double nothing.

mod faults;
mod fleet;
mod traffic;
mod verdict;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

use faults::Faults;
use fleet::Fleet;
use traffic::Traffic;
pub use verdict::Verdict;

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The same seed chooses the same faults in the same order; when they hit is up to the machine.
    pub seed: u64,
    /// How long faults go on.
    pub time: Duration,
    /// How many workers run.
    pub workers: usize,
    /// Requests a second.
    pub rate: u32,
    /// `everysec` or `always`.
    pub fsync: Fsync,
    /// The folder of `emailer-api` and `emailer-worker`.
    pub programs: PathBuf,
    /// An empty folder for logs and Redis' files; without, they are removed at the end.
    pub logs: Option<PathBuf>,
}

/// When Redis writes its append-only file to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Every second: restarted cleanly.
    Everysec,
    /// Before each answer: killed.
    Always,
}

impl Fsync {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Everysec => "everysec",
            Self::Always => "always",
        }
    }
}

/// How long what is left may take to be sent when the faults are over.
const RUN_DRY: Duration = Duration::from_mins(2);

/// Runs it.
///
/// # Errors
/// When something cannot be started, or does not come to rest. What the run found is no error: see [`Verdict`].
pub async fn run(plan: &Plan) -> anyhow::Result<Verdict> {
    let mut chance = StdRng::seed_from_u64(plan.seed);
    let mut fleet = Fleet::start(plan).await?;
    let traffic = Traffic::start(&fleet, plan);
    let mut faults = Faults::default();
    let begun = Instant::now();
    while begun.elapsed() < plan.time {
        faults.one(&mut fleet, &mut chance).await?;
    }
    fleet.mend().await?;
    fleet.settle(Duration::from_secs(5)).await;
    faults.long_outage(&mut fleet, &traffic).await?;

    let asked = traffic.stop_asking().await;
    let ran_dry = fleet.run_dry(RUN_DRY).await;
    let samples = traffic.stop_sampling().await;
    let verdict = Verdict::reach(&fleet, asked, samples, faults).await;
    fleet.stop().await;
    match (ran_dry, verdict) {
        (Ok(()), verdict) => verdict.context("counting"),
        (Err(error), Ok(verdict)) => Err(error.context(format!("the queue did not run dry:\n{verdict}"))),
        (Err(error), Err(_)) => Err(error),
    }
}
