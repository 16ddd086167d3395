//! What `emailer-worker` does from its settings to its end.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use shared::clock::{Clock, SystemClock};
use shared::program::{Begun, CLEAN, Findings, StopSignals, Task};
use shared::settings::Settings;
use shared::shutdown::Shutdown;
use shared::{metrics, queue};

use crate::health::{self, Health};
use crate::{Deps, Drain, check};

/// Runs until it is asked to stop; then work in flight gets `shutdown.timeout`, and what has not gone out goes back to
/// the queue.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(begun: Begun) -> anyhow::Result<ExitCode> {
    let Begun { settings, task, supervisor } = begun;
    let settings = Arc::new(settings);
    match task {
        Task::Run => {}
        Task::Check => return Ok(checked(&settings).await),
        Task::Health => return Ok(shared::health::report(&settings.worker).await),
    }
    let mut signals = StopSignals::listen()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let queue = tokio::select! {
        opened = queue::open(&settings.queue, Arc::clone(&clock), false) => opened?,
        () = signals.asked() => return Ok(ExitCode::from(CLEAN)),
    };
    let listener = settings.worker.bind().context("WORKER_HOST, WORKER_PORT")?;
    let address = listener.local_addr()?;
    let metrics = metrics::install()?;
    let gathered = metrics.clone();
    tokio::spawn(async move { metrics::upkeep(&gathered).await });

    let shutdown = Shutdown::new();
    let worker = crate::start(&Deps {
        settings: Arc::clone(&settings),
        queue: Arc::clone(&queue),
        clock,
        shutdown: shutdown.clone(),
        drain: Drain::HandBack,
    })?;
    let health = Health { queue: Arc::clone(&queue), worker, shutdown: shutdown.clone(), metrics };
    let server = health::serve(health, listener)?;
    let handle = server.handle();
    let mut server = tokio::spawn(server);
    check::tell_durability(&*queue).await;
    let (transport, workers) = (settings.transport(), settings.max_workers);
    supervisor.ready(&format!("ready at {address}, sending to {transport}")).await;
    tokio::spawn(supervisor.clone().attend(address, shutdown.clone()));
    tracing::info!(%address, queue = settings.queue.backend.name(), transport, workers, "ready");
    tokio::select! {
        () = signals.asked() => {}
        ended = &mut server => return Err(anyhow::anyhow!("the health server ended: {ended:?}")),
    }
    tracing::info!(
        timeout.secs = settings.shutdown_timeout.as_secs(),
        "stopping: handing back what has not gone out"
    );
    supervisor.stopping(settings.shutdown_timeout, "stopping: handing back what has not gone out").await;
    let in_time = shutdown.drain(settings.shutdown_timeout).await;
    handle.stop(true).await;
    tracing::info!(in_time, "stopped");
    Ok(ExitCode::from(CLEAN))
}

async fn checked(settings: &Settings) -> ExitCode {
    let mut findings = Findings::default();
    findings.note("settings", Ok("valid".into()));
    check::queue(&settings.queue, &mut findings).await;
    check::relay(settings, &mut findings).await;
    findings.report()
}
