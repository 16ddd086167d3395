//! What the program does from its settings to its end.

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use shared::clock::{Clock, SystemClock};
use shared::metrics;
use shared::program::{Begun, CLEAN, Findings, asked_to_stop};
use shared::queue::Queue;
use shared::queue::memory::MemoryQueue;
use shared::settings::{Backend, Settings, TransportKind};
use shared::shutdown::Shutdown;
use shared::template::TemplateStore;
use worker::{Drain, check};

use crate::{Deps, build};

/// Runs until it is asked to stop; a soft stop sends what is due within `shutdown.timeout`.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(begun: Begun) -> anyhow::Result<ExitCode> {
    let settings = Arc::new(begun.settings);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let queue: Arc<dyn Queue> = match settings.queue.backend {
        Backend::Memory => Arc::new(MemoryQueue::new(settings.queue.limits.clone(), Arc::clone(&clock))),
    };
    if begun.check {
        return Ok(checked(&settings, &*queue).await);
    }
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
    let listen = &settings.server.listen;
    let place = (listen.host.trim_matches(['[', ']']), listen.port);
    let listener = TcpListener::bind(place)
        .with_context(|| format!("SERVER_HOST, SERVER_PORT: {}:{}", place.0, place.1))?;
    let address = listener.local_addr()?;
    let server = build(deps, listener)?;
    let handle = server.handle();
    let mut server = tokio::spawn(server);
    let worker = worker::Deps {
        settings: Arc::clone(&settings),
        queue: Arc::clone(&queue),
        clock,
        shutdown: shutdown.clone(),
        drain: Drain::SendDue,
    };
    worker::start(&worker)?;
    tracing::info!(%address, queue = "memory", transport = transport(&settings), "ready");
    if settings.auth.disabled {
        tracing::warn!("auth.disabled: everybody who can reach this address can send");
    }
    tokio::select! {
        asked = asked_to_stop() => asked?,
        ended = &mut server => return Err(anyhow::anyhow!("the HTTP server ended: {ended:?}")),
    }
    tracing::info!(timeout.secs = settings.shutdown_timeout.as_secs(), "stopping: sending what is due");
    let in_time = shutdown.drain(settings.shutdown_timeout).await;
    handle.stop(true).await;
    let left = queue.stats().await?.ledger;
    let lost = left.used() + left.scheduled;
    if lost > 0 {
        let (queued, retrying, sending, scheduled) =
            (left.queued, left.retrying, left.sending, left.scheduled);
        tracing::error!(queued, retrying, sending, scheduled, held = left.held, "lost with the memory queue");
    }
    tracing::info!(in_time, sent = left.sent, "stopped");
    Ok(ExitCode::from(CLEAN))
}

fn transport(settings: &Settings) -> String {
    match settings.mail.transport {
        TransportKind::Smtp => format!("{}:{}", settings.smtp.host, settings.smtp.port),
        TransportKind::Outbox => "outbox".into(),
    }
}

async fn checked(settings: &Settings, queue: &dyn Queue) -> ExitCode {
    let mut findings = Findings::default();
    findings.note("settings", Ok("valid".into()));
    check::queue(queue, &mut findings).await;
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
