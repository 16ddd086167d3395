//! What became of a job, and what people may order.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::address::Address;
use shared::clock::Timestamp;
use shared::job::{BatchId, JobId, JobRecord, Status, TimelineEntry, message_id};
use shared::queue::{JobFilter, Ordered};
use shared::reply::LastReply;

use crate::Site;
use crate::problem::{Code, Fault, Faults, Problem, Rule};
use crate::request;

/// Jobs on a page, where the request does not say.
const PAGE: usize = 50;

/// Jobs on a page at most.
const PAGE_LIMIT: usize = 200;

/// Parameters of a listing at most: more than there are names.
const PARAMETERS: usize = 20;

/// A job as users see it.
pub(super) fn view(job: &JobRecord) -> Value {
    let mut view = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            view.insert(name.to_owned(), value);
        }
    };
    let time = |at: Option<Timestamp>| at.map_or(Value::Null, |at| at.to_string().into());
    put("id", json!(job.id));
    put("batch_id", json!(job.id.batch));
    put("recipient", job.recipient.mailbox.address.as_str().into());
    put("status", json!(job.status));
    put("reason", json!(job.reason));
    put("priority", json!(job.priority));
    put("attempts", job.attempts.into());
    put("max_attempts", job.max_attempts.into());
    put("accepted_at", job.accepted_at.to_string().into());
    put("send_at", time(job.send_at));
    put("next_attempt_at", time(job.next_attempt_at));
    put("last_reply", job.last_reply.as_ref().map_or(Value::Null, reply));
    put("relay", json!(job.relay));
    put("message_id", message_id(job.id, &job.message_domain).into());
    put("tags", json!(job.tags));
    put("metadata", json!(job.metadata.clone().unwrap_or_default()));
    put("timeline", job.timeline.iter().map(entry).collect());
    view.into()
}

fn reply(reply: &LastReply) -> Value {
    json!(reply)
}

fn entry(entry: &TimelineEntry) -> Value {
    json!({"at": entry.at.to_string(), "event": entry.event, "detail": entry.detail})
}

fn parse(id: &str) -> Result<JobId, Problem> {
    JobId::parse(id).map_err(|_| Problem::not_found())
}

pub(super) async fn show(site: web::Data<Site>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let job = site.deps.queue.job(parse(&id)?).await?.ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().json(view(&job)))
}

#[derive(Deserialize)]
struct Pair(String, String);

pub(super) async fn list(site: web::Data<Site>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let pairs = web::Query::<Vec<Pair>>::from_query(request.query_string())
        .map_err(|_| Problem::from(Fault::new("?", Rule::InvalidValue, "name=value pairs are expected")))?;
    let (filter, limit, after) = query(&pairs)?;
    let page = site.deps.queue.jobs(&filter, limit, after).await?;
    Ok(HttpResponse::Ok().json(json!({
        "data": page.jobs.iter().map(view).collect::<Vec<_>>(),
        "has_more": page.next.is_some(),
        "next": page.next,
    })))
}

fn query(pairs: &[Pair]) -> Result<(JobFilter, usize, Option<JobId>), Faults> {
    let (mut filter, mut limit, mut after) = (JobFilter::default(), PAGE, None);
    let mut faults = Faults::default();
    if pairs.len() > PARAMETERS {
        faults.add("?", Rule::TooMany, format!("at most {PARAMETERS} parameters are allowed"));
        return Err(faults);
    }
    for (n, Pair(name, value)) in pairs.iter().enumerate() {
        let mut bad = |code, message: &str| faults.add(format!("?{name}"), code, message);
        if pairs[..n].iter().any(|Pair(other, _)| other == name) {
            bad(Rule::Duplicate, "is given twice");
            continue;
        }
        match name.as_str() {
            "status" => match Status::from_word(value) {
                Some(status) => filter.status = Some(status),
                None => bad(Rule::InvalidValue, "a job's status is expected, such as queued or failed"),
            },
            "recipient" => match Address::parse(value) {
                Ok(address) => filter.recipient = Some(address.key()),
                Err(error) => bad(Rule::InvalidAddress, &error.to_string()),
            },
            "tag" => filter.tag = Some(value.clone()),
            "batch_id" => match BatchId::parse(value) {
                Ok(batch) => filter.batch = Some(batch),
                Err(_) => bad(Rule::InvalidValue, "the id of a batch is expected"),
            },
            "limit" => match value.parse() {
                Ok(number @ 1..=PAGE_LIMIT) => limit = number,
                _ => bad(Rule::InvalidValue, "a number from 1 to 200 is expected"),
            },
            "after" => match JobId::parse(value) {
                Ok(id) => after = Some(id),
                Err(_) => bad(Rule::InvalidValue, "the value of next in the page before is expected"),
            },
            _ => bad(Rule::UnknownField, "status, recipient, tag, batch_id, limit and after are allowed"),
        }
    }
    if faults.is_empty() { Ok((filter, limit, after)) } else { Err(faults) }
}

pub(super) async fn cancel(site: web::Data<Site>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let ordered = site.deps.queue.cancel(parse(&id)?).await?;
    if matches!(ordered, Ordered::Done(_)) {
        site.jobs.cancelled(1);
    }
    answer(ordered, "cancelled")
}

pub(super) async fn requeue(site: web::Data<Site>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    answer(site.deps.queue.requeue(parse(&id)?).await?, "queued again")
}

pub(super) async fn reschedule(
    site: web::Data<Site>,
    id: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let id = parse(&id)?;
    let body = request::read(&request, payload, site.deps.settings.server.max_body).await?;
    let send_at = request::send_at_only(&body, site.deps.clock.now())?;
    answer(site.deps.queue.reschedule(id, send_at).await?, "moved")
}

fn answer(ordered: Ordered, what: &str) -> Result<HttpResponse, Problem> {
    match ordered {
        Ordered::Done(job) => Ok(HttpResponse::Ok().json(view(&job))),
        Ordered::Unknown => Err(Problem::not_found()),
        Ordered::Conflict(status) => {
            Err(Problem::new(Code::Conflict, format!("A job that is {status} cannot be {what}.")))
        }
        Ordered::Full => {
            Err(Problem::new(Code::QueueFull, "The queue has no place for it. Try again.").retry_after(5))
        }
    }
}
