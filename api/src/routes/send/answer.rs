//! What is answered when the queue has spoken.

use actix_web::HttpResponse;
use actix_web::http::header::{HeaderName, HeaderValue, LOCATION};
use serde::Serialize;
use shared::address::Address;
use shared::job::{BatchId, JobId, Status};
use shared::queue::{Accepted, EnqueueError};

use crate::problem::{Code, Fault, Problem, Rule};

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Seconds after which a full queue may have room: a worker's next replies.
const RETRY_FULL: u32 = 5;

/// Seconds after which another process may have taken this one's place.
pub(super) const RETRY_STOPPING: u32 = 5;

/// Seconds after which a full schedule may have room.
const RETRY_SCHEDULE_FULL: u32 = 60;

/// Seconds after which a queue that did not answer may answer.
const RETRY_UNAVAILABLE: u32 = 2;

/// A batch that can never be accepted.
pub(super) fn too_large(count: u64, max: u64) -> Problem {
    let message = format!("{count} recipients are more than the queue can ever hold ({max})");
    Fault::new("/recipients", Rule::TooMany, message).into()
}

/// Why the queue did not take a batch. `has_key`: the request can be repeated without harm.
pub(super) fn refused(error: &EnqueueError, has_key: bool) -> Problem {
    match error {
        EnqueueError::Full { used, max } => {
            let detail = format!("{used} of {max} jobs are in the queue. Nothing was queued; try again.");
            Problem::new(Code::QueueFull, detail).retry_after(RETRY_FULL)
        }
        EnqueueError::ScheduleFull { used, max } => {
            let detail = format!("{used} of {max} jobs are scheduled. Nothing was queued; try again.");
            Problem::new(Code::ScheduleFull, detail).retry_after(RETRY_SCHEDULE_FULL)
        }
        EnqueueError::TooLarge { count, max } => too_large(*count, *max),
        EnqueueError::KeyReuse => {
            let detail = "This Idempotency-Key was used with another body. Use a new one.";
            Problem::new(Code::IdempotencyKeyReuse, detail)
        }
        EnqueueError::Unavailable(error) => {
            tracing::warn!(%error, "the queue does not answer");
            let detail = if has_key {
                "The batch may have been queued. Repeat the request with the same Idempotency-Key."
            } else {
                "The batch may have been queued. With an Idempotency-Key, repeating the request would be harmless."
            };
            Problem::new(Code::QueueUnavailable, detail).retry_after(RETRY_UNAVAILABLE)
        }
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    message: &'static str,
    count: u32,
    batch_id: BatchId,
    jobs: Vec<AnsweredJob<'a>>,
}

#[derive(Serialize)]
struct AnsweredJob<'a> {
    id: JobId,
    recipient: &'a str,
    status: Status,
}

/// 202. The same for a replay as it was the first time, but for a header.
pub(super) fn accepted(accepted: Accepted, addresses: &[Address]) -> HttpResponse {
    let status = if accepted.scheduled { Status::Scheduled } else { Status::Queued };
    let jobs = (0..).zip(addresses).map(|(index, address)| AnsweredJob {
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
