//! The HTTP API of Emailer: takes mails, promises them, tells what became of them.
//!
//! It holds nothing that another replica would need: what it knows is in the queue. [`build`] makes the server; the
//! caller owns the listener, the queue and the shutdown.

mod auth;
mod guard;
mod metrics;
mod problem;
pub mod program;
mod request;
mod routes;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::{App, HttpServer, web};
use metrics_exporter_prometheus::PrometheusHandle;
use shared::clock::Clock;
use shared::queue::Queue;
use shared::settings::Settings;
use shared::shutdown::Shutdown;
use shared::template::TemplateStore;
use worker::compose::Composer;

use crate::auth::Keys;

/// What the API stands on. The caller owns all of it.
#[derive(Clone)]
pub struct Deps {
    /// What it was told.
    pub settings: Arc<Settings>,
    /// Where mails go.
    pub queue: Arc<dyn Queue>,
    /// The templates that requests can name.
    pub templates: Arc<TemplateStore>,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// Readiness ends with the soft stop.
    pub shutdown: Shutdown,
    /// Renders `/metrics`.
    pub metrics: PrometheusHandle,
}

/// What every handler can reach.
struct Site {
    deps: Deps,
    keys: Keys,
    composer: Composer,
    gauges: metrics::QueueGauges,
    jobs: metrics::JobMeters,
}

/// How long a client may take for its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to close its side of a connection that is over.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection is kept for the next request: longer than a load balancer keeps it, so that it is the
/// balancer that closes.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// The server on a listener; it runs when it is awaited, and signals are the caller's.
///
/// # Errors
/// When the listener cannot be used.
pub fn build(deps: Deps, listener: TcpListener) -> std::io::Result<Server> {
    let site = web::Data::new(Site {
        keys: Keys::new(&deps.settings.auth),
        composer: Composer::default(),
        gauges: metrics::QueueGauges::default(),
        jobs: metrics::JobMeters::new(),
        deps,
    });
    let stop_timeout = site.deps.settings.shutdown_timeout.as_secs();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(site.clone())
            .configure(routes::configure)
            .default_service(web::to(problem::not_found))
    });
    Ok(server
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .keep_alive(KEEP_ALIVE)
        .tcp_nodelay(true)
        .shutdown_timeout(stop_timeout)
        .disable_signals()
        .listen(listener)?
        .run())
}
