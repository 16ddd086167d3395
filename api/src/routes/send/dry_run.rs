//! `dry_run`: the messages as they would go out, for the first recipients. Nothing is queued.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde_json::{Value, json};
use shared::job::{BatchId, JobId, Recipient};
use shared::queue::{Delivery, Receipt};
use worker::compose::NotBuilt;

use super::Prepared;
use crate::Site;
use crate::problem::{Fault, Problem, Rule};
use crate::routes::outbox;

/// How many messages are shown, at most.
const SHOWN: usize = 10;

/// 200 with the messages. Composed off the threads that serve connections.
pub(super) async fn show(site: web::Data<Site>, prepared: Prepared) -> Result<HttpResponse, Problem> {
    let composer = site.clone();
    let messages = site.render(move || messages(&composer, &prepared)).await??;
    Ok(HttpResponse::Ok().json(messages))
}

fn messages(site: &Site, prepared: &Prepared) -> Result<Value, Fault> {
    let batch = BatchId::generate();
    let mut messages = Vec::new();
    for (index, recipient) in (0..).zip(prepared.recipients.iter().take(SHOWN)) {
        let delivery = delivery(site, prepared, JobId { batch, index }, recipient);
        let not_built =
            |error: NotBuilt| Fault::new(format!("/recipients/{index}"), Rule::InvalidValue, error.message);
        let letter = site.composer.compose(&delivery).map_err(not_built)?;
        let source = String::from_utf8_lossy(letter.source.as_ref());
        let mut message = outbox::parsed(&source);
        message.insert("recipient".into(), recipient.mailbox.address.as_str().into());
        message.insert("source".into(), source.into());
        messages.push(Value::from(message));
    }
    Ok(json!({"dry_run": true, "count": prepared.recipients.len(), "messages": messages}))
}

/// The first delivery that the job would have.
fn delivery(site: &Site, prepared: &Prepared, job: JobId, recipient: &Recipient) -> Delivery {
    Delivery {
        job,
        receipt: Receipt(0, 0),
        recipient: recipient.clone(),
        priority: prepared.priority,
        attempt: 1,
        max_attempts: site.deps.settings.retry.max_attempts(),
        reclaims: 0,
        marked: false,
        on_ambiguous: prepared.on_ambiguous,
        accepted_at: site.deps.clock.now(),
        send_at: prepared.send_at,
        content: Arc::clone(&prepared.content),
        bundle: prepared.bundle.clone(),
    }
}
