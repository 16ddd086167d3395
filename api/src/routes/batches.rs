//! What became of a batch.

use actix_web::{HttpResponse, web};
use serde_json::{Map, Value, json};
use shared::job::{BatchId, Status};

use crate::Site;
use crate::problem::Problem;

pub(super) async fn show(site: web::Data<Site>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let batch = site.deps.queue.batch(parse(&id)?).await?.ok_or_else(Problem::not_found)?;
    let statuses: Map<String, Value> = Status::ALL
        .iter()
        .zip(batch.statuses)
        .map(|(status, count)| (status.to_string(), count.into()))
        .collect();
    Ok(HttpResponse::Ok().json(json!({
        "id": batch.id,
        "accepted_at": batch.accepted_at.to_string(),
        "count": batch.count,
        "statuses": statuses,
        "tags": batch.tags,
        "metadata": batch.metadata,
    })))
}

pub(super) async fn cancel(site: web::Data<Site>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let id = parse(&id)?;
    let cancelled = site.deps.queue.cancel_batch(id).await?.ok_or_else(Problem::not_found)?;
    site.jobs.cancelled(cancelled);
    Ok(HttpResponse::Ok().json(json!({"id": id, "cancelled": cancelled})))
}

fn parse(id: &str) -> Result<BatchId, Problem> {
    BatchId::parse(id).map_err(|_| Problem::not_found())
}
