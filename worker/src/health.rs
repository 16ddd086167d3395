//! `/healthz`, `/readyz` and `/metrics` of the worker's program.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::json;
use shared::metrics::PrometheusHandle;
use shared::queue::Queue;
use shared::shutdown::Shutdown;

use crate::Worker;

/// How long the queue may take to say that it is there.
const ASK: Duration = Duration::from_secs(2);

/// What the answers rest on.
#[derive(Clone)]
pub struct Health {
    /// Asked by `/readyz`.
    pub queue: Arc<dyn Queue>,
    /// Asked by `/readyz`.
    pub worker: Worker,
    /// A worker that stops is not ready.
    pub shutdown: Shutdown,
    /// Renders `/metrics`.
    pub metrics: PrometheusHandle,
}

/// Serves the three routes. The caller awaits the server and stops it.
///
/// # Errors
/// When the listener cannot be used.
pub fn serve(health: Health, listener: TcpListener) -> std::io::Result<Server> {
    let health = web::Data::new(health);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(health.clone())
            .service(web::resource("/healthz").get(healthz))
            .service(web::resource("/readyz").get(readyz))
            .service(web::resource("/metrics").get(metrics))
    });
    Ok(server.workers(1).shutdown_timeout(1).disable_signals().listen(listener)?.run())
}

async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "ok"}))
}

async fn metrics(health: web::Data<Health>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, shared::metrics::CONTENT_TYPE))
        .body(health.metrics.render())
}

/// Depends on the queue and not on the relays: a paused relay is no reason to start another worker.
async fn readyz(health: web::Data<Health>) -> HttpResponse {
    let not_ready =
        |why: &str| HttpResponse::ServiceUnavailable().json(json!({"status": "not ready", "detail": why}));
    if health.shutdown.is_stopping() {
        return not_ready("The worker is stopping.");
    }
    if !health.worker.is_ready() {
        return not_ready("The queue does not take what became of the jobs.");
    }
    match tokio::time::timeout(ASK, health.queue.durability()).await {
        Ok(Ok(durability)) => HttpResponse::Ok().json(json!({"status": "ready", "durability": durability})),
        Ok(Err(_)) | Err(_) => not_ready("The queue cannot be reached."),
    }
}
