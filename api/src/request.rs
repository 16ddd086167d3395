//! From a request's body to what it asks for: parsed once, every broken rule at once.
//!
//! [`body`] reads it. [`Draft`] is what it says, by type; [`check`] is what the rules make of it. A body that fits the
//! types costs one parse; one that does not is walked once more, so that its other faults are told too.

mod body;
mod check;
mod draft;
mod walk;

use serde_json::Value;
use shared::clock::Timestamp;

use crate::problem::{Code, Fault, Faults, Problem, Rule};

pub(crate) use body::read;
pub(crate) use check::{Wanted, WantedBody, check};
pub(crate) use draft::Draft;
pub(crate) use walk::recipients;

/// Values of a body, at most: 1,000 recipients with 200 of their own each.
const VALUES: usize = 200_000;

/// What a body says, by type; with the faults of type where there are some.
pub(crate) fn draft(body: &[u8]) -> Result<(Draft, Faults), Problem> {
    if has_more_values_than(body, VALUES) {
        let allowed = format!("at most {VALUES} values are allowed in a body");
        return Err(Fault::new("", Rule::TooLong, allowed).into());
    }
    // A list of the fields' values would pass for an object.
    if body.trim_ascii_start().first() != Some(&b'{') {
        value(body)?;
        return Err(Fault::new("", Rule::WrongType, "an object is expected").into());
    }
    let error = match serde_json::from_slice::<Draft>(body) {
        Ok(draft) => return Ok((draft, Faults::default())),
        Err(error) => error,
    };
    match walk::walk(value(body)?) {
        // JSON that only the typed parser refuses: a field that is there twice.
        (_, faults) if faults.is_empty() => Err(malformed(&error)),
        walked => Ok(walked),
    }
}

/// Whether a body that names no template breaks no rule: all that is read and checked of a request before it is promised.
#[must_use]
pub fn is_acceptable(body: &[u8], now: Timestamp) -> bool {
    let none = |_: &str, _: Option<&str>| None;
    draft(body).is_ok_and(|(draft, faults)| check(draft, faults, &none, now).is_ok())
}

/// `{"send_at": "…"}` and nothing else; a past time is now.
pub(crate) fn send_at_only(body: &[u8], now: Timestamp) -> Result<Timestamp, Problem> {
    let Value::Object(object) = value(body)? else {
        return Err(Fault::new("", Rule::WrongType, "an object is expected").into());
    };
    let mut faults = Faults::default();
    let mut at = None;
    for (name, value) in &object {
        match (name.as_str(), value) {
            ("send_at", Value::String(text)) => at = check::send_at(text, now, &mut faults),
            ("send_at", _) => faults.add("/send_at", Rule::WrongType, "a string is expected"),
            _ => faults.add(walk::pointer(name), Rule::UnknownField, "only send_at is allowed"),
        }
    }
    if at.is_none() && !faults.names("/send_at") {
        faults.add("/send_at", Rule::Required, "a time is expected");
    }
    at.filter(|_| faults.is_empty()).ok_or_else(|| faults.into())
}

fn value(body: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(body).map_err(|error| malformed(&error))
}

/// Whether JSON has more values than that, or nearly so: each but the first follows one of `[`, `{` or `,`. In memory a
/// value takes some hundred times the octet or two that it can be written in.
fn has_more_values_than(body: &[u8], max: usize) -> bool {
    if body.len() <= max {
        return false;
    }
    let (mut values, mut in_string) = (0, false);
    let mut octets = body.iter();
    while let Some(octet) = octets.next() {
        match octet {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                octets.next();
            }
            b'[' | b'{' | b',' if !in_string => values += 1,
            _ => {}
        }
    }
    values > max
}

fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(Code::MalformedJson, format!("Not JSON: {error}."))
}

#[cfg(test)]
mod tests;
