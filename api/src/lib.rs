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
use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::StatusCode;
use actix_web::{App, HttpServer, web};
use metrics_exporter_prometheus::PrometheusHandle;
use shared::clock::Clock;
use shared::queue::Queue;
use shared::settings::Settings;
use shared::shutdown::Shutdown;
use shared::template::TemplateStore;
use tokio::sync::Semaphore;
use worker::compose::Composer;

pub use crate::request::is_acceptable;

use crate::auth::Keys;
use crate::problem::Problem;

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
    /// One for each core: who renders holds one, so that what is rendered at once leaves the connections their turn.
    renders: Arc<Semaphore>,
}

impl Site {
    fn new(deps: Deps) -> Self {
        Self {
            keys: Keys::new(&deps.settings.auth),
            composer: Composer::default(),
            gauges: metrics::QueueGauges::default(),
            jobs: metrics::JobMeters::new(),
            renders: Arc::new(Semaphore::new(available_parallelism().map_or(2, NonZero::get))),
            deps,
        }
    }

    /// Runs what takes CPU time off the threads that serve connections.
    async fn render<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let lost = || Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR);
        let permit = Arc::clone(&self.renders).acquire_owned().await.map_err(|_| lost())?;
        // The permit goes along: who hangs up does not end the work.
        let held = move || {
            let _permit = permit;
            work()
        };
        web::block(held).await.map_err(|_| lost())
    }
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
    let site = web::Data::new(Site::new(deps));
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
