//! `POST /v1/send-event-email`: a mail is checked, rendered once to be sure, and promised.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{HeaderName, HeaderValue, LOCATION};
use actix_web::web::{self, Bytes, ReqData};
use actix_web::{HttpRequest, HttpResponse};
use mail_parser::MessageParser;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use shared::address::Address;
use shared::clock::Timestamp;
use shared::job::{BatchId, JobId, Recipient, Status};
use shared::message::{Body, Content};
use shared::queue::{Accepted, Delivery, EnqueueError, Idempotency, NewBatch, Receipt};
use shared::template::{Bundle, Compiled, RenderError};

use super::outbox;
use crate::auth::Caller;
use crate::problem::{Code, Fault, Problem};
use crate::request::{self, Wanted, WantedBody};
use crate::{Site, metrics};

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// How long an idempotency key is remembered.
const KEY_KEPT: Duration = Duration::from_hours(24);

/// The longest idempotency key.
const KEY_LIMIT: usize = 256;

/// How many render faults are told at most: the recipients of a batch tend to lack the same.
const RENDER_FAULTS: usize = 20;

/// How many messages a dry run shows.
const SHOWN: usize = 10;

pub(super) async fn send_event_email(
    site: web::Data<Site>,
    caller: ReqData<Caller>,
    request: HttpRequest,
    body: Result<Bytes, actix_web::Error>,
) -> Result<HttpResponse, Problem> {
    let body = request::json_body(&request, body)?;
    let key = idempotency(&request, &caller, &body)?;
    match prepare(&site, &body).await {
        Ok(prepared) if prepared.dry_run => Ok(dry_run(&site, &prepared)),
        Ok(prepared) => accept(&site, prepared, key).await,
        // What was accepted once is answered again, whatever its template or its time has become since.
        Err(problem) => match &key {
            Some(key) => replay(&site, key, &body).await?.ok_or(problem),
            None => Err(problem),
        },
    }
}

/// A request that keeps all rules.
struct Prepared {
    recipients: Vec<Recipient>,
    content: Arc<Content>,
    bundle: Option<Arc<Bundle>>,
    terms: Terms,
    dry_run: bool,
}

/// What of a request goes to the queue as it is.
struct Terms {
    send_at: Option<Timestamp>,
    priority: shared::job::Priority,
    tags: Vec<String>,
    metadata: Option<Map<String, Value>>,
    on_ambiguous: shared::job::OnAmbiguous,
}

async fn prepare(site: &web::Data<Site>, body: &[u8]) -> Result<Prepared, Problem> {
    let settings = &site.deps.settings;
    let (draft, mut faults) = request::draft(body)?;
    // The template is looked up whatever else is wrong, so that its faults are told too.
    let template = draft.template_id.as_deref().filter(|_| draft.body.is_none());
    let found = template.map(|id| site.deps.templates.find(id, draft.locale.as_deref()));
    if let Some(None) = found {
        faults.push(Fault::new("/template_id", "unknown_template", "there is no template of this name"));
    }
    let compiled = found.flatten();
    if compiled.as_ref().is_some_and(|compiled| !compiled.has_subject()) && draft.subject.is_none() {
        faults.push(Fault::new("/subject", "required", "a subject is expected: the template has none"));
    }
    let now = site.deps.clock.now();
    let wanted = request::check(draft, now, &mut faults);
    let Some(mut wanted) = wanted.filter(|_| faults.is_empty()) else {
        return Err(Problem::faults(faults));
    };
    let count = wanted.recipients.len() as u64;
    let max = if wanted.send_at.is_some_and(|at| at > now) {
        settings.queue.limits.max_scheduled
    } else {
        settings.queue.limits.max_queue_size
    };
    if count > max {
        return Err(too_large(count, max));
    }
    let mut recipients = std::mem::take(&mut wanted.recipients);
    if let (Some(compiled), WantedBody::Template { data }) = (&compiled, &wanted.body) {
        let (compiled, subject, data) = (Arc::clone(compiled), wanted.subject.clone(), data.clone());
        // Rendering may take its time: not on the threads that serve the connections.
        let rendered =
            web::block(move || (render_all(&compiled, subject.as_deref(), &data, &recipients), recipients));
        let lost = |_| Problem::new(Code::QueueUnavailable, "The request was not taken. Try again.");
        let faults;
        (faults, recipients) = rendered.await.map_err(lost)?;
        if !faults.is_empty() {
            return Err(Problem::faults(faults));
        }
    }
    if let Some(from) = &wanted.from
        && !settings.mail.allowed_from.allows(from.address.domain())
    {
        let detail = format!("/from: the domain {} is not one that may be sent as.", from.address.domain());
        return Err(Problem::new(Code::SenderNotAllowed, detail));
    }
    Ok(assemble(site, wanted, recipients, compiled))
}

fn assemble(
    site: &Site,
    wanted: Wanted,
    recipients: Vec<Recipient>,
    compiled: Option<Arc<Compiled>>,
) -> Prepared {
    let body = match (wanted.body, &compiled) {
        (WantedBody::Html(html), _) => Body::Html(html),
        (WantedBody::Template { data }, Some(compiled)) => {
            Body::Template { bundle: compiled.hash().clone(), data }
        }
        // Cannot be: a template that was not found is a fault.
        (WantedBody::Template { .. }, None) => Body::Html(String::new()),
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
        recipients,
        content: Arc::new(content),
        bundle: compiled.map(|compiled| Arc::clone(compiled.bundle())),
        terms: Terms {
            send_at: wanted.send_at,
            priority: wanted.priority,
            tags: wanted.tags,
            metadata: wanted.metadata,
            on_ambiguous: wanted.on_ambiguous,
        },
        dry_run: wanted.dry_run,
    }
}

/// Renders for each recipient, those without data of their own once.
fn render_all(
    compiled: &Compiled,
    subject: Option<&str>,
    data: &Map<String, Value>,
    recipients: &[Recipient],
) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut shared_is_done = false;
    for (n, recipient) in recipients.iter().enumerate() {
        if recipient.data.is_none() && std::mem::replace(&mut shared_is_done, true) {
            continue;
        }
        if let Err(error) = compiled.render(subject, data, recipient.data.as_ref()) {
            let own = recipient.data.as_ref().map(|_| n);
            faults.push(render_fault(&error, own));
        }
        if faults.len() == RENDER_FAULTS {
            break;
        }
    }
    faults
}

fn render_fault(error: &RenderError, recipient: Option<usize>) -> Fault {
    let code = if error.undefined.is_some() { "undefined_variable" } else { "invalid_value" };
    let pointer = match recipient {
        Some(n) => format!("/recipients/{n}/data"),
        None if error.undefined.is_none() && error.template == "subject" => "/subject".into(),
        None => "/template_data".into(),
    };
    Fault::new(pointer, code, error.to_string())
}

fn too_large(count: u64, max: u64) -> Problem {
    let message = format!("{count} recipients are more than the queue can ever hold ({max})");
    Problem::faults(vec![Fault::new("/recipients", "too_many", message)])
}

async fn accept(site: &Site, prepared: Prepared, key: Option<Idempotency>) -> Result<HttpResponse, Problem> {
    let settings = &site.deps.settings;
    let addresses: Vec<Address> = prepared.recipients.iter().map(|one| one.mailbox.address.clone()).collect();
    let has_key = key.is_some();
    let batch = NewBatch {
        id: BatchId::generate(),
        priority: prepared.terms.priority,
        send_at: prepared.terms.send_at,
        on_ambiguous: prepared.terms.on_ambiguous,
        max_attempts: settings.retry.max_attempts(),
        expire_after: settings.expire_after,
        tags: prepared.terms.tags,
        metadata: prepared.terms.metadata,
        content: prepared.content,
        bundle: prepared.bundle,
        recipients: prepared.recipients,
        idempotency: key,
    };
    let accepted = site.deps.queue.enqueue(batch).await.map_err(|error| refused(&error, has_key))?;
    if !accepted.replayed {
        metrics::accepted(accepted.count);
    }
    Ok(answer(accepted, &addresses))
}

fn refused(error: &EnqueueError, has_key: bool) -> Problem {
    match error {
        EnqueueError::Full { used, max } => {
            Problem::new(Code::QueueFull, format!("{used} of {max} jobs wait. Try again.")).retry_after(5)
        }
        EnqueueError::ScheduleFull { used, max } => {
            Problem::new(Code::ScheduleFull, format!("{used} of {max} jobs are scheduled. Try again."))
                .retry_after(60)
        }
        EnqueueError::TooLarge { count, max } => too_large(*count, *max),
        EnqueueError::KeyReuse => {
            Problem::new(Code::IdempotencyKeyReuse, "This key was used with another body. Use a new one.")
        }
        EnqueueError::Unavailable(error) => {
            tracing::error!(%error, "the queue does not answer");
            let detail = if has_key {
                "The batch may have been queued. Repeat the request with the same Idempotency-Key."
            } else {
                "The batch may have been queued. With an Idempotency-Key a repetition would be harmless."
            };
            Problem::new(Code::QueueUnavailable, detail).retry_after(2)
        }
    }
}

fn answer(accepted: Accepted, addresses: &[Address]) -> HttpResponse {
    #[derive(Serialize)]
    struct Job<'a> {
        id: JobId,
        recipient: &'a str,
        status: Status,
    }
    #[derive(Serialize)]
    struct Answer<'a> {
        message: &'static str,
        count: u32,
        batch_id: BatchId,
        jobs: Vec<Job<'a>>,
    }
    let status = if accepted.scheduled { Status::Scheduled } else { Status::Queued };
    let jobs = (0..).zip(addresses).map(|(index, address)| Job {
        id: JobId { batch: accepted.batch, index },
        recipient: address.as_str(),
        status,
    });
    let answer = Answer {
        message: "Jobs accepted for processing.",
        count: accepted.count,
        batch_id: accepted.batch,
        jobs: jobs.collect(),
    };
    let mut response = HttpResponse::Accepted();
    response.insert_header((LOCATION, format!("/v1/batches/{}", accepted.batch)));
    if accepted.replayed {
        response.insert_header((REPLAYED, HeaderValue::from_static("true")));
    }
    response.json(answer)
}

async fn replay(site: &Site, key: &Idempotency, body: &[u8]) -> Result<Option<HttpResponse>, Problem> {
    // A key that was used with another body is told as such only when the body itself is right.
    match site.deps.queue.replay(key).await {
        Ok(Some(accepted)) => Ok(request::recipients(body).map(|addresses| answer(accepted, &addresses))),
        Ok(None) | Err(EnqueueError::KeyReuse) => Ok(None),
        Err(error) => Err(refused(&error, true)),
    }
}

fn idempotency(request: &HttpRequest, caller: &Caller, body: &[u8]) -> Result<Option<Idempotency>, Problem> {
    let mut given = request.headers().get_all(IDEMPOTENCY_KEY);
    let Some(key) = given.next() else { return Ok(None) };
    let is_sane =
        |key: &[u8]| (1..=KEY_LIMIT).contains(&key.len()) && key.iter().all(|b| (b' '..=b'~').contains(b));
    if !is_sane(key.as_bytes()) || given.next().is_some() {
        let message = "one key of 1 to 256 printable ASCII characters is expected";
        return Err(Problem::faults(vec![Fault::new("Idempotency-Key:", "invalid_value", message)]));
    }
    let mut digest = Sha256::new();
    digest.update((caller.0.len() as u64).to_be_bytes());
    digest.update(&caller.0);
    digest.update(key.as_bytes());
    Ok(Some(Idempotency {
        key: hex(&digest.finalize()),
        fingerprint: hex(&Sha256::digest(body)),
        keep: KEY_KEPT,
    }))
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|n| char::from_digit(u32::from(n), 16))
        .collect()
}

/// The rendered message, for the first recipients; nothing is queued.
fn dry_run(site: &Site, prepared: &Prepared) -> HttpResponse {
    let batch = BatchId::generate();
    let now = site.deps.clock.now();
    let shown = (0..).zip(prepared.recipients.iter().take(SHOWN)).map(|(index, recipient)| {
        let delivery = Delivery {
            job: JobId { batch, index },
            receipt: Receipt(0, 0),
            recipient: recipient.clone(),
            priority: prepared.terms.priority,
            attempt: 1,
            max_attempts: 1,
            reclaims: 0,
            marked: false,
            on_ambiguous: prepared.terms.on_ambiguous,
            accepted_at: now,
            send_at: prepared.terms.send_at,
            content: Arc::clone(&prepared.content),
            bundle: prepared.bundle.clone(),
        };
        let letter = site.composer.compose(&delivery).map_err(|error| {
            Problem::faults(vec![Fault::new(format!("/recipients/{index}"), "invalid_value", error.message)])
        })?;
        let message = MessageParser::new().parse(letter.source.as_bytes()).unwrap_or_default();
        Ok::<Value, Problem>(json!({
            "recipient": recipient.mailbox.address.as_str(),
            "subject": message.subject(),
            "html": outbox::html(&message),
            "text": outbox::text(&message),
            "source": letter.source,
        }))
    });
    match shown.collect::<Result<Vec<Value>, Problem>>() {
        Ok(messages) => {
            let count = prepared.recipients.len();
            HttpResponse::Ok().json(json!({"dry_run": true, "count": count, "messages": messages}))
        }
        Err(problem) => HttpResponse::from_error(problem),
    }
}
