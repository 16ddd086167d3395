//! The queue at one moment, and the switch that stops it.

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::Site;
use crate::problem::Problem;

pub(super) async fn show(site: web::Data<Site>) -> Result<HttpResponse, Problem> {
    let stats = site.deps.queue.stats().await?;
    let durability = site.deps.queue.durability().await?;
    let oldest = &stats.oldest;
    Ok(HttpResponse::Ok().json(json!({
        "paused": stats.paused,
        "ledger": stats.ledger,
        "ready": stats.ready,
        "oldest_seconds": {
            "high": oldest.high.as_secs(), "normal": oldest.normal.as_secs(), "bulk": oldest.bulk.as_secs(),
        },
        "capacity": {"used": stats.ledger.used(), "max": stats.max_queue_size},
        "workers": {"alive": stats.workers},
        "durability": durability,
    })))
}

pub(super) async fn pause(site: web::Data<Site>) -> Result<HttpResponse, Problem> {
    set(&site, true).await
}

pub(super) async fn resume(site: web::Data<Site>) -> Result<HttpResponse, Problem> {
    set(&site, false).await
}

async fn set(site: &Site, paused: bool) -> Result<HttpResponse, Problem> {
    site.deps.queue.set_paused(paused).await?;
    tracing::warn!(paused, "the queue was switched by a person");
    Ok(HttpResponse::Ok().json(json!({"paused": paused})))
}
