//! `POST /v1/send-event-email`: a mail is checked, rendered once to be sure, and promised.
//!
//! A 202 is given only after the queue has confirmed the whole batch.

mod answer;
mod dry_run;
mod idempotency;
mod render;

use std::sync::Arc;

use actix_web::web::{self, Bytes, ReqData};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Map, Value};
use shared::address::Address;
use shared::clock::Timestamp;
use shared::job::{BatchId, OnAmbiguous, Priority, Recipient};
use shared::message::{Body, Content};
use shared::queue::{Accepted, Idempotency, NewBatch};
use shared::settings::Backend;
use shared::template::Bundle;

use crate::Site;
use crate::auth::Caller;
use crate::guard::RequestId;
use crate::problem::{Code, Problem};
use crate::request::{self, Wanted, WantedBody};

/// Octets of a body from which on it is parsed off the threads that serve connections.
const LARGE: usize = 256 * 1024;

pub(super) async fn send_event_email(
    site: web::Data<Site>,
    caller: ReqData<Caller>,
    id: ReqData<RequestId>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let body = request::read(&request, payload, site.deps.settings.server.max_body).await?;
    refuse_while_stopping(&site)?;
    let key = idempotency::parse(&request, &caller, &body)?;
    match prepare(&site, &body).await {
        Ok(prepared) if prepared.dry_run => dry_run::show(site, prepared).await,
        Ok(prepared) => accept(&site, &id, prepared, key).await,
        // What was accepted once is answered again, whatever its template, its time or the rules have become since.
        Err(problem) => match &key {
            Some(key) => idempotency::replay(&site, key, &body).await?.ok_or(problem),
            None => Err(problem),
        },
    }
}

/// A memory queue ends with the process: what came in now would be promised and lost. Another one is there for the
/// next process, and what a load balancer still sends here is taken.
fn refuse_while_stopping(site: &Site) -> Result<(), Problem> {
    if ends_with_us(site) && site.deps.shutdown.is_stopping() { Err(stopping()) } else { Ok(()) }
}

fn ends_with_us(site: &Site) -> bool {
    matches!(site.deps.settings.queue.backend, Backend::Memory)
}

fn stopping() -> Problem {
    let detail = "The service is stopping and takes no new mail. Nothing was queued.";
    Problem::new(Code::QueueUnavailable, detail).retry_after(answer::RETRY_STOPPING)
}

/// A request that keeps all rules.
struct Prepared {
    recipients: Vec<Recipient>,
    content: Arc<Content>,
    bundle: Option<Arc<Bundle>>,
    send_at: Option<Timestamp>,
    priority: Priority,
    tags: Vec<String>,
    metadata: Option<Map<String, Value>>,
    on_ambiguous: OnAmbiguous,
    dry_run: bool,
}

/// What a body asks for, where it keeps the rules that its own words can break.
fn read(site: &Site, body: &[u8], now: Timestamp) -> Result<Wanted, Problem> {
    let (draft, faults) = request::draft(body)?;
    let find = |id: &str, locale: Option<&str>| site.deps.templates.find(id, locale);
    Ok(request::check(draft, faults, &find, now)?)
}

async fn prepare(site: &web::Data<Site>, body: &Bytes) -> Result<Prepared, Problem> {
    let settings = &site.deps.settings;
    let now = site.deps.clock.now();
    let mut wanted = if body.len() < LARGE {
        read(site, body, now)?
    } else {
        let (reader, body) = (site.clone(), body.clone());
        site.render(move || read(&reader, &body, now)).await??
    };
    let limits = &settings.queue.limits;
    let is_later = wanted.send_at.is_some_and(|at| at > now);
    let max = if is_later { limits.max_scheduled } else { limits.max_queue_size };
    if wanted.recipients.len() as u64 > max {
        return Err(answer::too_large(wanted.recipients.len() as u64, max));
    }
    if let WantedBody::Template { template, data } = &wanted.body {
        let job = render::Job {
            template: Arc::clone(template),
            subject: wanted.subject.clone(),
            data: data.clone(),
            recipients: std::mem::take(&mut wanted.recipients),
        };
        wanted.recipients = render::all(site, job).await?;
    }
    // Last, so that a request which breaks a rule is told its rules.
    if let Some(from) = &wanted.from
        && !settings.mail.allowed_from.allows(from.address.domain())
    {
        let detail = format!("/from: the domain {} is not one that may be sent as.", from.address.domain());
        return Err(Problem::new(Code::SenderNotAllowed, detail));
    }
    Ok(assemble(site, wanted))
}

fn assemble(site: &Site, wanted: Wanted) -> Prepared {
    let (body, bundle) = match wanted.body {
        WantedBody::Html(html) => (Body::Html(html), None),
        WantedBody::Template { template, data } => {
            let bundle = template.hash().clone();
            (Body::Template { bundle, data }, Some(Arc::clone(template.bundle())))
        }
    };
    let content = Content {
        from_requested: wanted.from.is_some(),
        from: wanted.from.unwrap_or_else(|| site.deps.settings.mail.from.clone()),
        reply_to: wanted.reply_to,
        subject: wanted.subject,
        body,
        text: wanted.text,
        headers: wanted.headers,
    };
    Prepared {
        recipients: wanted.recipients,
        content: Arc::new(content),
        bundle,
        send_at: wanted.send_at,
        priority: wanted.priority,
        tags: wanted.tags,
        metadata: wanted.metadata,
        on_ambiguous: wanted.on_ambiguous,
        dry_run: wanted.dry_run,
    }
}

async fn accept(
    site: &Site,
    id: &RequestId,
    prepared: Prepared,
    key: Option<Idempotency>,
) -> Result<HttpResponse, Problem> {
    let settings = &site.deps.settings;
    let addresses: Vec<Address> = prepared.recipients.iter().map(|one| one.mailbox.address.clone()).collect();
    let has_key = key.is_some();
    let batch = NewBatch {
        id: BatchId::generate(),
        priority: prepared.priority,
        send_at: prepared.send_at,
        on_ambiguous: prepared.on_ambiguous,
        max_attempts: settings.retry.max_attempts(),
        expire_after: settings.expire_after,
        tags: prepared.tags,
        metadata: prepared.metadata,
        content: prepared.content,
        bundle: prepared.bundle,
        recipients: prepared.recipients,
        idempotency: key,
    };
    // Rendering takes its time: the stop may have begun since.
    let _promise = if ends_with_us(site) {
        Some(site.deps.shutdown.promise().await.ok_or_else(stopping)?)
    } else {
        None
    };
    let accepted = site.deps.queue.enqueue(batch).await.map_err(|error| answer::refused(&error, has_key))?;
    if !accepted.replayed {
        site.jobs.accepted(accepted.count);
    }
    let Accepted { batch, count, replayed, .. } = accepted;
    tracing::debug!(request.id = %id.0, %batch, count, replayed, "accepted");
    Ok(answer::accepted(accepted, &addresses))
}
