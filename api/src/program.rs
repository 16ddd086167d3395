//! What the program does from its settings to its end.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use shared::clock::{Clock, SystemClock};
use shared::program::{Begun, CLEAN, Findings, StopSignals, Task};
use shared::queue::Ledger;
use shared::settings::{Backend, Settings};
use shared::shutdown::Shutdown;
use shared::template::TemplateStore;
use shared::{metrics, queue};
use tokio::time::{Instant, timeout_at};
use worker::{Drain, check};

use crate::{Deps, build};

/// What answers that are being written get, when the time for the stop is over.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// Runs until it is asked to stop; a soft stop sends what is due within `shutdown.timeout`.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(begun: Begun) -> anyhow::Result<ExitCode> {
    let Begun { settings, task, supervisor } = begun;
    let settings = Arc::new(settings);
    match task {
        Task::Run => {}
        Task::Check => return Ok(checked(&settings).await),
        Task::Health => return Ok(shared::health::report(&settings.server.listen).await),
    }
    let mut signals = StopSignals::listen()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let queue = tokio::select! {
        opened = queue::open(&settings.queue, Arc::clone(&clock), false) => opened?,
        () = signals.asked() => return Ok(ExitCode::from(CLEAN)),
    };
    let templates = &settings.templates;
    let templates = Arc::new(TemplateStore::open(templates.dir.as_deref(), &templates.default_locale)?);
    let _watching = templates.watch()?;
    let shutdown = Shutdown::new();
    let deps = Deps {
        settings: Arc::clone(&settings),
        queue: Arc::clone(&queue),
        templates,
        clock: Arc::clone(&clock),
        shutdown: shutdown.clone(),
        metrics: metrics::install()?,
    };
    let gathered = deps.metrics.clone();
    tokio::spawn(async move { metrics::upkeep(&gathered).await });
    let listener = settings.server.listen.bind().context("SERVER_HOST, SERVER_PORT")?;
    let address = listener.local_addr()?;
    let server = build(deps, listener)?;
    let handle = server.handle();
    let mut server = tokio::spawn(server);
    let in_memory = matches!(settings.queue.backend, Backend::Memory);
    if in_memory {
        // Nobody else can.
        worker::start(&worker::Deps {
            settings: Arc::clone(&settings),
            queue: Arc::clone(&queue),
            clock,
            shutdown: shutdown.clone(),
            drain: Drain::SendDue,
        })?;
    }
    check::tell_durability(&*queue).await;
    let delivery = if in_memory { settings.transport() } else { "by emailer-worker".to_owned() };
    supervisor.ready(&format!("ready at {address}, delivery: {delivery}")).await;
    tokio::spawn(supervisor.clone().attend(address, shutdown.clone()));
    tracing::info!(%address, queue = settings.queue.backend.name(), delivery, "ready");
    if settings.auth.disabled {
        tracing::warn!("auth.disabled: everybody who can reach this address can send");
    }
    tokio::select! {
        () = signals.asked() => {}
        ended = &mut server => return Err(anyhow::anyhow!("the HTTP server ended: {ended:?}")),
    }
    let what = if in_memory { "sending what is due" } else { "answering what has been asked" };
    let what = format!("stopping: {what}");
    tracing::info!(timeout.secs = settings.shutdown_timeout.as_secs(), "{what}");
    supervisor.stopping(settings.shutdown_timeout, &what).await;
    let end = Instant::now() + settings.shutdown_timeout;
    let in_time = shutdown.drain(settings.shutdown_timeout).await;
    // Answers that are on their way get what is left of the time.
    if timeout_at(end.max(Instant::now() + LAST_ANSWERS), handle.stop(true)).await.is_err() {
        handle.stop(false).await;
    }
    if in_memory {
        tell_lost(&queue.stats().await?.ledger);
    }
    tracing::info!(in_time, "stopped");
    Ok(ExitCode::from(CLEAN))
}

/// What ends with the process.
fn tell_lost(left: &Ledger) {
    if left.used() + left.scheduled > 0 {
        let Ledger { queued, retrying, sending, scheduled, held, .. } = left;
        tracing::error!(queued, retrying, sending, scheduled, held, "lost with the memory queue");
    }
    tracing::info!(left.sent, left.failed, "the memory queue ends");
}

async fn checked(settings: &Settings) -> ExitCode {
    let mut findings = Findings::default();
    findings.note("settings", Ok("valid".into()));
    check::queue(&settings.queue, &mut findings).await;
    check::relay(settings, &mut findings).await;
    let templates =
        TemplateStore::open(settings.templates.dir.as_deref(), &settings.templates.default_locale);
    let place = settings
        .templates
        .dir
        .as_ref()
        .map_or_else(|| "built in".to_owned(), |dir| dir.display().to_string());
    let found =
        templates.map(|store| format!("{} in {place}", store.count())).map_err(|error| error.to_string());
    findings.note("templates", found);
    findings.report()
}
