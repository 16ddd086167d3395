//! The rules of further header fields.

use std::collections::HashSet;

use crate::problem::{Faults, Rule};
use crate::request::walk::pointer;

/// Header fields of one request, at most.
const HEADERS: usize = 50;

/// Octets of a field's name, at most: with its colon it stays on one line of 78 (RFC 5322 §2.1.1).
const NAME: usize = 76;

/// Octets of a field's value, at most: with its name it fits a line of 998 (RFC 5322 §2.1.1).
const VALUE: usize = 900;

/// Fields that we set; `Content-*` and `Resent-*` too.
const OURS: [&str; 13] = [
    "from",
    "to",
    "cc",
    "bcc",
    "sender",
    "date",
    "subject",
    "message-id",
    "mime-version",
    "dkim-signature",
    "return-path",
    "received",
    "reply-to",
];

/// The fields as they are; what is wrong with them is among the faults.
pub(super) fn check(headers: Vec<(String, String)>, faults: &mut Faults) -> Vec<(String, String)> {
    if headers.len() > HEADERS {
        faults.add("/headers", Rule::TooMany, format!("at most {HEADERS} headers are allowed"));
        return Vec::new();
    }
    let mut seen = HashSet::with_capacity(headers.len());
    for (name, value) in &headers {
        let at = || format!("/headers{}", pointer(name));
        let lower = name.to_ascii_lowercase();
        if !is_name(name) {
            let message = format!("1 to {NAME} printable ASCII characters without a colon are expected");
            faults.add(at(), Rule::InvalidValue, message);
        } else if is_ours(&lower) {
            let message = match lower.as_str() {
                "reply-to" => "use reply_to",
                "from" => "use from",
                "subject" => "use subject",
                "to" => "use recipients",
                _ => "this header is not for a request to set",
            };
            faults.add(at(), Rule::ForbiddenHeader, message);
        } else if !seen.insert(lower) {
            faults.add(at(), Rule::Duplicate, "the same header is there twice");
        }
        if value.chars().any(|c| c.is_control() && c != '\t') {
            faults.add(at(), Rule::ControlCharacter, "a value has no line break and no control character");
        } else if value.len() > VALUE {
            faults.add(at(), Rule::TooLong, format!("at most {VALUE} bytes are allowed"));
        }
    }
    headers
}

/// RFC 5322 §3.6.8: printable ASCII without a colon.
fn is_name(name: &str) -> bool {
    (1..=NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

fn is_ours(lower: &str) -> bool {
    OURS.contains(&lower) || lower.starts_with("content-") || lower.starts_with("resent-")
}
