//! From a request's body to what it asks for: parsed once, every broken rule at once.
//!
//! [`Draft`] is what the body says, by type; [`check`] is what the rules make of it. A body that fits the types costs one
//! parse; one that does not is walked once more, so that its other faults are told too.

mod check;
mod draft;
mod walk;

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use shared::clock::Timestamp;

use crate::problem::{Code, Fault, Problem};

pub(crate) use check::{Wanted, WantedBody, check};
pub(crate) use draft::Draft;
pub(crate) use walk::recipients;

/// How far ahead a mail may be scheduled.
pub(crate) const SEND_AT_LIMIT: Duration = Duration::from_hours(30 * 24);

/// The body of a request that must be JSON.
pub(crate) fn json_body(
    request: &HttpRequest,
    body: Result<Bytes, actix_web::Error>,
) -> Result<Bytes, Problem> {
    use actix_web::HttpMessage;
    let kind = request.content_type();
    if !(kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json")) {
        return Err(Problem::new(Code::UnsupportedMediaType, "Content-Type: application/json is expected."));
    }
    body.map_err(|error| match error.as_error::<PayloadError>() {
        Some(PayloadError::Overflow) => {
            Problem::new(Code::TooLarge, "The body is larger than server.max_body allows.")
        }
        _ => Problem::new(Code::MalformedJson, "The body could not be read."),
    })
}

/// What a body says, by type; with the faults of type where there are some.
pub(crate) fn draft(body: &[u8]) -> Result<(Draft, Vec<Fault>), Problem> {
    let error = match serde_json::from_slice::<Draft>(body) {
        Ok(draft) => return Ok((draft, Vec::new())),
        Err(error) => error,
    };
    let malformed =
        |error: &serde_json::Error| Problem::new(Code::MalformedJson, format!("Not JSON: {error}"));
    let value: serde_json::Value = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    if !value.is_object() {
        return Err(Problem::faults(vec![Fault::new("", "wrong_type", "an object is expected")]));
    }
    match walk::walk(value) {
        // JSON that only the typed parser refuses, such as a field that is there twice.
        (_, faults) if faults.is_empty() => Err(malformed(&error)),
        walked => Ok(walked),
    }
}

/// `{"send_at": "…"}` and nothing else.
pub(crate) fn send_at_only(body: &[u8], now: Timestamp) -> Result<Timestamp, Problem> {
    let value: serde_json::Value = serde_json::from_slice(body)
        .map_err(|error| Problem::new(Code::MalformedJson, format!("Not JSON: {error}")))?;
    let mut faults = Vec::new();
    let mut at = None;
    let Some(object) = value.as_object() else {
        return Err(Problem::faults(vec![Fault::new("", "wrong_type", "an object is expected")]));
    };
    for (name, value) in object {
        match (name.as_str(), value.as_str()) {
            ("send_at", Some(text)) => match check::send_at(text, now) {
                Ok(time) => at = Some(time),
                Err(fault) => faults.push(fault),
            },
            ("send_at", None) => faults.push(Fault::new("/send_at", "wrong_type", "a string is expected")),
            _ => faults.push(Fault::new(walk::pointer(name), "unknown_field", "send_at is allowed")),
        }
    }
    if at.is_none() && faults.is_empty() {
        faults.push(Fault::new("/send_at", "required", "send_at is expected"));
    }
    at.filter(|_| faults.is_empty()).ok_or_else(|| Problem::faults(faults))
}

#[cfg(test)]
mod tests;
