//! The rules of a request.

use std::collections::HashMap;

use serde_json::{Map, Value};
use shared::address::{Address, Mailbox};
use shared::clock::Timestamp;
use shared::job::{OnAmbiguous, Priority, Recipient};
use shared::message::PlainPart;

use super::SEND_AT_LIMIT;
use super::draft::{Draft, DraftRecipient, RecipientObject};
use super::walk::pointer;
use crate::problem::Fault;

/// Recipients of one request, at most.
const RECIPIENTS: usize = 1_000;
/// Characters of a subject, at most (RFC 5322 §2.1.1 counts octets of a line; this is what fits when encoded and folded).
const SUBJECT: usize = 998;
/// Header fields of one request, and octets of one of them, at most.
const HEADERS: usize = 50;
const HEADER: usize = 900;
/// Tags of one request, and characters of one, at most.
const TAGS: usize = 10;
const TAG: usize = 64;
/// Bytes of metadata, as JSON, at most.
const METADATA: usize = 4_096;
/// Characters of a display name, at most.
const NAME: usize = 256;

/// Headers that are ours to set; `Content-*` and `Resent-*` too.
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

/// What a request asks for; its template is not rendered yet.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) subject: Option<String>,
    pub(crate) recipients: Vec<Recipient>,
    pub(crate) body: WantedBody,
    pub(crate) text: PlainPart,
    /// The sender that the request names.
    pub(crate) from: Option<Mailbox>,
    pub(crate) reply_to: Option<Mailbox>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) send_at: Option<Timestamp>,
    pub(crate) priority: Priority,
    pub(crate) tags: Vec<String>,
    pub(crate) metadata: Option<Map<String, Value>>,
    pub(crate) on_ambiguous: OnAmbiguous,
    pub(crate) dry_run: bool,
}

#[derive(Debug)]
pub(crate) enum WantedBody {
    Html(String),
    Template { data: Map<String, Value> },
}

struct Check<'a> {
    faults: &'a mut Vec<Fault>,
}

/// Applies the rules. `faults` holds what is wrong already, and gets the rest; none: it is as it should be.
pub(crate) fn check(draft: Draft, now: Timestamp, faults: &mut Vec<Fault>) -> Option<Wanted> {
    let mut check = Check { faults };
    let recipients = check.recipients(draft.recipients);
    let subject = check.subject(draft.subject, draft.template_id.is_some());
    let body = check.body(draft.body, draft.template_id, draft.template_data, draft.locale.as_deref());
    let text = draft.text.map(|text| check.content("/text", text));
    let from = draft.from.and_then(|from| check.mailbox("/from", &from));
    let reply_to = draft.reply_to.and_then(|address| check.mailbox("/reply_to", &address));
    let headers = check.headers(draft.headers.map(|headers| headers.0).unwrap_or_default());
    let send_at = draft.send_at.and_then(|text| check.kept(send_at(&text, now)));
    let priority =
        check.word("/priority", draft.priority, Priority::Normal, Priority::from_word, Priority::ALL);
    let on_ambiguous = draft.on_ambiguous;
    let on_ambiguous = check.word(
        "/on_ambiguous",
        on_ambiguous,
        OnAmbiguous::Resend,
        OnAmbiguous::from_word,
        OnAmbiguous::ALL,
    );
    check.tags(draft.tags.as_deref().unwrap_or_default());
    check.metadata(draft.metadata.as_ref());
    if !check.faults.is_empty() {
        return None;
    }
    Some(Wanted {
        subject,
        recipients,
        body: body?,
        text: match text {
            None => PlainPart::Made,
            Some(text) if text.is_empty() => PlainPart::LeftOut,
            Some(text) => PlainPart::Given(text),
        },
        from,
        reply_to,
        headers,
        send_at,
        priority,
        tags: draft.tags.unwrap_or_default(),
        metadata: draft.metadata,
        on_ambiguous,
        dry_run: draft.dry_run.unwrap_or(false),
    })
}

/// A time in a request; a past one is now.
pub(super) fn send_at(text: &str, now: Timestamp) -> Result<Timestamp, Fault> {
    match Timestamp::parse(text) {
        Err(error) => Err(Fault::new("/send_at", "invalid_time", error.to_string())),
        Ok(at) if at > now + SEND_AT_LIMIT => {
            Err(Fault::new("/send_at", "invalid_time", "at most 30 days ahead is allowed"))
        }
        Ok(at) => Ok(at),
    }
}

impl Check<'_> {
    fn fault(&mut self, pointer: impl Into<String>, code: &'static str, message: impl Into<String>) {
        self.faults.push(Fault::new(pointer, code, message));
    }

    fn kept<T>(&mut self, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.faults.push(fault)).ok()
    }

    /// Whether a fault of this place is told already: then that it is missing is not.
    fn is_told(&self, pointer: &str) -> bool {
        self.faults.iter().any(|fault| fault.pointer == pointer)
    }

    fn recipients(&mut self, recipients: Option<Vec<DraftRecipient>>) -> Vec<Recipient> {
        let recipients = recipients.unwrap_or_default();
        if recipients.is_empty() {
            if !self.is_told("/recipients") {
                self.fault("/recipients", "required", "at least one recipient is expected");
            }
            return Vec::new();
        }
        if recipients.len() > RECIPIENTS {
            self.fault("/recipients", "too_many", format!("at most {RECIPIENTS} recipients are allowed"));
            return Vec::new();
        }
        let mut seen: HashMap<String, usize> = HashMap::new();
        let is_one = recipients.len() == 1;
        let mut checked = Vec::with_capacity(recipients.len());
        for (n, recipient) in recipients.into_iter().enumerate() {
            let Some(recipient) = self.recipient(&format!("/recipients/{n}"), recipient) else {
                continue;
            };
            if !is_one && let Some(first) = seen.insert(recipient.mailbox.address.key(), n) {
                self.fault(
                    format!("/recipients/{n}"),
                    "duplicate",
                    format!("the same address as /recipients/{first}"),
                );
            }
            checked.push(recipient);
        }
        checked
    }

    fn recipient(&mut self, at: &str, recipient: DraftRecipient) -> Option<Recipient> {
        let (at, object) = match recipient {
            DraftRecipient::Wrong => return None,
            DraftRecipient::Address(email) => {
                (at.to_owned(), RecipientObject { email: Some(email), ..RecipientObject::default() })
            }
            DraftRecipient::Object(object) => (format!("{at}/email"), object),
        };
        let Some(email) = object.email else {
            self.fault(at, "required", "an address is expected");
            return None;
        };
        let address =
            Address::parse(email.trim()).map_err(|e| self.fault(&at, "invalid_address", e.to_string())).ok();
        if let Some(name) = &object.name {
            let at = at.replace("/email", "/name");
            if name.chars().count() > NAME {
                self.fault(&at, "too_long", format!("at most {NAME} characters are allowed"));
            } else if name.chars().any(char::is_control) {
                self.fault(&at, "control_character", "a name has no control characters");
            }
        }
        let mailbox = Mailbox::try_new(object.name.as_deref(), address?).ok()?;
        Some(Recipient { mailbox, data: object.data })
    }

    fn subject(&mut self, subject: Option<String>, has_template: bool) -> Option<String> {
        const AT: &str = "/subject";
        let Some(subject) = subject else {
            if !has_template && !self.is_told(AT) {
                self.fault(AT, "required", "a subject is expected");
            }
            return None;
        };
        if subject.is_empty() {
            self.fault(AT, "required", "a subject of at least one character is expected");
        } else if subject.chars().count() > SUBJECT {
            self.fault(AT, "too_long", format!("at most {SUBJECT} characters are allowed"));
        }
        if subject.contains(['\r', '\n', '\0']) {
            self.fault(AT, "control_character", "a subject has no line break and no NUL");
        }
        Some(subject)
    }

    fn body(
        &mut self,
        body: Option<String>,
        template_id: Option<String>,
        data: Option<Map<String, Value>>,
        locale: Option<&str>,
    ) -> Option<WantedBody> {
        match (body, template_id) {
            (Some(_), Some(_)) => {
                self.fault("/template_id", "conflict", "body and template_id exclude each other");
                None
            }
            (Some(html), None) => {
                for (at, is_there) in [("/template_data", data.is_some()), ("/locale", locale.is_some())] {
                    if is_there {
                        self.fault(at, "conflict", "is only allowed with template_id");
                    }
                }
                if html.is_empty() {
                    self.fault("/body", "required", "a body of at least one character is expected");
                }
                Some(WantedBody::Html(self.content("/body", html)))
            }
            (None, Some(_)) => Some(WantedBody::Template { data: data.unwrap_or_default() }),
            (None, None) => {
                if !self.is_told("/body") && !self.is_told("/template_id") {
                    self.fault("/body", "required", "body or template_id is expected");
                }
                None
            }
        }
    }

    fn content(&mut self, at: &str, text: String) -> String {
        if text.contains('\0') {
            self.fault(at, "control_character", "a text has no NUL");
        }
        text
    }

    fn mailbox(&mut self, at: &str, text: &str) -> Option<Mailbox> {
        let parsed = Mailbox::parse(text);
        parsed.map_err(|error| self.fault(at, "invalid_address", error.to_string())).ok()
    }

    fn headers(&mut self, headers: Vec<(String, String)>) -> Vec<(String, String)> {
        if headers.len() > HEADERS {
            self.fault("/headers", "too_many", format!("at most {HEADERS} headers are allowed"));
        }
        let mut seen = Vec::new();
        for (name, value) in &headers {
            let at = format!("/headers{}", pointer(name));
            let lower = name.to_ascii_lowercase();
            // RFC 5322 §3.6.8: printable ASCII without a colon.
            if name.is_empty() || name.len() > 76 || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
            {
                self.fault(
                    &at,
                    "invalid_value",
                    "a header's name is 1 to 76 printable ASCII characters without a colon",
                );
            } else if OURS.contains(&lower.as_str())
                || lower.starts_with("content-")
                || lower.starts_with("resent-")
            {
                self.fault(&at, "forbidden_header", "this header is not set by a request");
            } else if seen.contains(&lower) {
                self.fault(&at, "duplicate", "the same header is there twice");
            }
            if value.chars().any(|c| c.is_control() && c != '\t') {
                self.fault(
                    &at,
                    "control_character",
                    "a header's value has no line break and no control character",
                );
            } else if value.len() > HEADER {
                self.fault(&at, "too_long", format!("at most {HEADER} bytes are allowed"));
            }
            seen.push(lower);
        }
        headers
    }

    fn word<T: Copy + std::fmt::Display>(
        &mut self,
        at: &str,
        text: Option<String>,
        default: T,
        parse: fn(&str) -> Option<T>,
        all: &[T],
    ) -> T {
        let Some(text) = text else { return default };
        parse(&text).unwrap_or_else(|| {
            let words: Vec<String> = all.iter().map(ToString::to_string).collect();
            self.fault(at, "invalid_value", format!("one of {} is expected", words.join(", ")));
            default
        })
    }

    fn tags(&mut self, tags: &[String]) {
        if tags.len() > TAGS {
            self.fault("/tags", "too_many", format!("at most {TAGS} tags are allowed"));
        }
        for (n, tag) in tags.iter().enumerate() {
            let at = format!("/tags/{n}");
            if tag.is_empty() {
                self.fault(at, "required", "a tag of at least one character is expected");
            } else if tag.chars().count() > TAG {
                self.fault(at, "too_long", format!("at most {TAG} characters are allowed"));
            } else if tag.chars().any(char::is_control) {
                self.fault(at, "control_character", "a tag has no control characters");
            } else if tags[..n].contains(tag) {
                self.fault(at, "duplicate", "the same tag is there twice");
            }
        }
    }

    fn metadata(&mut self, metadata: Option<&Map<String, Value>>) {
        let size =
            metadata.map_or(0, |metadata| serde_json::to_string(metadata).map_or(0, |json| json.len()));
        if size > METADATA {
            self.fault(
                "/metadata",
                "too_long",
                format!("{size} bytes as JSON; at most {METADATA} are allowed"),
            );
        }
    }
}
