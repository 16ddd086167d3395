//! Whether the process lives, whether it can take mail, what it measures.

use std::time::Duration;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::Site;
use crate::problem::{Code, Problem};

/// How long the queue may take to say that it is there.
const ASK: Duration = Duration::from_secs(2);

/// Depends on nothing: a process that cannot reach its queue is not helped by a restart.
pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "ok"}))
}

/// Depends on the queue and not on the relays: mail can be taken while they are down.
pub(super) async fn readyz(site: web::Data<Site>) -> Result<HttpResponse, Problem> {
    let not_ready = |why: &str| Err(Problem::new(Code::QueueUnavailable, why));
    if site.deps.shutdown.is_stopping() {
        return not_ready("The service is stopping.");
    }
    match tokio::time::timeout(ASK, site.deps.queue.durability()).await {
        Ok(Ok(durability)) => {
            Ok(HttpResponse::Ok().json(json!({"status": "ready", "durability": durability})))
        }
        Ok(Err(_)) | Err(_) => not_ready("The queue cannot be reached."),
    }
}

/// Answers without the queue, too: then its gauges are old.
pub(super) async fn metrics(site: web::Data<Site>) -> HttpResponse {
    site.gauges.refresh(&*site.deps.queue).await;
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, shared::metrics::CONTENT_TYPE))
        .body(site.deps.metrics.render())
}
