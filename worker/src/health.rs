//! `/healthz`, `/readyz` and `/metrics` of the worker's program.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{App, HttpResponse, HttpServer, web};
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
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Serves the three routes. The caller awaits the server and stops it.
///
/// # Errors
/// When the listener cannot be used.
pub fn serve(health: Health, listener: TcpListener) -> std::io::Result<Server> {
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(health.clone()))
            .service(
                web::resource("/healthz")
                    .get(|| async { HttpResponse::Ok().json(serde_json::json!({"status": "ok"})) }),
            )
            .service(web::resource("/readyz").get(readyz))
            .service(web::resource("/metrics").get(metrics))
    });
    Ok(server.workers(1).disable_signals().listen(listener)?.run())
}

async fn metrics(health: web::Data<Health>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/plain; version=0.0.4"))
        .body((health.metrics)())
}

async fn readyz(health: web::Data<Health>) -> HttpResponse {
    let not_ready = |why: &str| {
        HttpResponse::ServiceUnavailable().json(serde_json::json!({"status": "not ready", "detail": why}))
    };
    if health.shutdown.is_stopping() {
        return not_ready("the worker stops");
    }
    if !health.worker.is_ready() {
        return not_ready("the queue does not take settlements");
    }
    match tokio::time::timeout(ASK, health.queue.durability()).await {
        Ok(Ok(durability)) => {
            HttpResponse::Ok().json(serde_json::json!({"status": "ready", "durability": durability}))
        }
        Ok(Err(_)) | Err(_) => not_ready("the queue cannot be reached"),
    }
}
