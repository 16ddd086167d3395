//! Logs: to standard error, for people or for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::settings::{Log, LogFormat};

/// Libraries that tell more than an operator wants to know, even when looking for a fault.
const NOISY: &str = "actix_http=info,actix_server=warn,h2=info,html5ever=error,hyper=info,hyper_util=info,mio=info,\
                     notify=info,rustls=info,selectors=info,tokio_util=info";

/// Starts the logs. A second call changes nothing.
pub fn init(log: &Log) {
    let filter =
        if log.filter.contains(['=', ',']) { log.filter.clone() } else { format!("{},{NOISY}", log.filter) };
    let registry = tracing_subscriber::registry().with(EnvFilter::new(filter));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match log.format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    // It fails only where logs have been started already.
    started.unwrap_or_default();
}
