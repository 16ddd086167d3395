//! Whether the process lives, whether it can take mail, what it measures.

use std::time::Duration;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::Site;

/// How long the queue may take to say that it is there.
const ASK: Duration = Duration::from_secs(2);

pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "ok"}))
}

pub(super) async fn readyz(site: web::Data<Site>) -> HttpResponse {
    let not_ready =
        |why: &str| HttpResponse::ServiceUnavailable().json(json!({"status": "not ready", "detail": why}));
    if site.deps.shutdown.is_stopping() {
        return not_ready("the process stops");
    }
    match tokio::time::timeout(ASK, site.deps.queue.durability()).await {
        Ok(Ok(durability)) => HttpResponse::Ok().json(json!({"status": "ready", "durability": durability})),
        Ok(Err(_)) | Err(_) => not_ready("the queue cannot be reached"),
    }
}

pub(super) async fn metrics(site: web::Data<Site>) -> HttpResponse {
    site.gauges.refresh(&*site.deps.queue).await;
    site.deps.metrics.run_upkeep();
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/plain; version=0.0.4"))
        .body(site.deps.metrics.render())
}
