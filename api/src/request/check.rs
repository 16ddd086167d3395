//! The rules of a request.

mod headers;
mod labels;
mod recipients;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use shared::address::Mailbox;
use shared::clock::Timestamp;
use shared::job::{OnAmbiguous, Priority, Recipient};
use shared::message::PlainPart;
use shared::template::Compiled;

use super::draft::Draft;
use crate::problem::{Faults, Rule};

/// How far ahead a mail may be scheduled.
const SEND_AT_LIMIT: Duration = Duration::from_hours(30 * 24);

/// Characters of a subject, at most.
const SUBJECT: usize = 998;

/// Levels of template data and metadata, at most. Less than the 127 that the parser takes: what is stored has them some
/// levels further in, and must be read again.
const LEVELS: usize = 100;

/// What a request asks for; its template is found and not rendered yet.
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

/// Where the HTML part comes from.
#[derive(Debug)]
pub(crate) enum WantedBody {
    Html(String),
    Template { template: Arc<Compiled>, data: Map<String, Value> },
}

/// Finds the template of an id and a locale.
pub(crate) type Find<'a> = &'a dyn Fn(&str, Option<&str>) -> Option<Arc<Compiled>>;

/// Applies the rules. `faults` are those of type; the request is as it must be where there are none and none comes.
pub(crate) fn check(
    draft: Draft,
    mut faults: Faults,
    find: Find<'_>,
    now: Timestamp,
) -> Result<Wanted, Faults> {
    let faults_of_all = &mut faults;
    let recipients = recipients::check(draft.recipients, faults_of_all);
    let template = Template { id: draft.template_id, data: draft.template_data, locale: draft.locale };
    let body = body(draft.body, template, find, faults_of_all);
    let subject = subject(draft.subject, body.as_ref(), faults_of_all);
    let text = plain_part(draft.text, faults_of_all);
    let from = mailbox("/from", draft.from, faults_of_all);
    let reply_to = mailbox("/reply_to", draft.reply_to, faults_of_all);
    let headers = headers::check(draft.headers.unwrap_or_default().0, faults_of_all);
    let send_at = draft.send_at.and_then(|text| send_at(&text, now, faults_of_all));
    let priority = word("/priority", draft.priority, Priority::from_word, Priority::ALL, faults_of_all);
    let on_ambiguous = draft.on_ambiguous;
    let on_ambiguous =
        word("/on_ambiguous", on_ambiguous, OnAmbiguous::from_word, OnAmbiguous::ALL, faults_of_all);
    let tags = labels::tags(draft.tags.unwrap_or_default(), faults_of_all);
    let metadata = labels::metadata(draft.metadata, faults_of_all);
    let (Some(body), true) = (body, faults.is_empty()) else { return Err(faults) };
    Ok(Wanted {
        subject,
        recipients,
        body,
        text,
        from,
        reply_to,
        headers,
        send_at,
        priority: priority.unwrap_or(Priority::Normal),
        tags,
        metadata,
        on_ambiguous: on_ambiguous.unwrap_or(OnAmbiguous::Resend),
        dry_run: draft.dry_run.unwrap_or(false),
    })
}

/// A time in a request, not too far ahead; a past one is now.
pub(super) fn send_at(text: &str, now: Timestamp, faults: &mut Faults) -> Option<Timestamp> {
    match Timestamp::parse(text) {
        Ok(at) if at <= now + SEND_AT_LIMIT => return Some(at),
        Ok(_) => faults.add("/send_at", Rule::InvalidTime, "at most 30 days ahead is allowed"),
        Err(error) => faults.add("/send_at", Rule::InvalidTime, error.to_string()),
    }
    None
}

/// What a request says of its template.
struct Template {
    id: Option<String>,
    data: Option<Map<String, Value>>,
    locale: Option<String>,
}

fn body(body: Option<String>, template: Template, find: Find<'_>, faults: &mut Faults) -> Option<WantedBody> {
    if let Some(data) = &template.data {
        check_depth("/template_data", data, faults);
    }
    match (body, template.id) {
        (Some(_), Some(_)) => {
            faults.add("/template_id", Rule::Conflict, "body and template_id exclude each other");
            None
        }
        (Some(html), None) => {
            let only_with_template =
                [("/template_data", template.data.is_some()), ("/locale", template.locale.is_some())];
            for (at, _) in only_with_template.into_iter().filter(|(_, is_there)| *is_there) {
                faults.add(at, Rule::Conflict, "is only allowed with template_id");
            }
            if html.is_empty() {
                faults.add("/body", Rule::Required, "a body of at least one character is expected");
            }
            check_nul("/body", &html, faults);
            Some(WantedBody::Html(html))
        }
        (None, Some(id)) => {
            if template.locale.as_deref().is_some_and(|locale| !is_language_tag(locale)) {
                faults.add("/locale", Rule::InvalidValue, "a language tag such as en or zh-CN is expected");
                return None;
            }
            let Some(found) = find(&id, template.locale.as_deref()) else {
                faults.add("/template_id", Rule::UnknownTemplate, "there is no template of this name");
                return None;
            };
            Some(WantedBody::Template { template: found, data: template.data.unwrap_or_default() })
        }
        (None, None) => {
            if !faults.names("/body") && !faults.names("/template_id") {
                faults.add("/body", Rule::Required, "body or template_id is expected");
            }
            None
        }
    }
}

/// BCP 47 §2.1.1: letters, digits and hyphens, and 35 characters are enough. An underscore is as good as a hyphen.
fn is_language_tag(text: &str) -> bool {
    (1..=35).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

fn subject(subject: Option<String>, body: Option<&WantedBody>, faults: &mut Faults) -> Option<String> {
    const AT: &str = "/subject";
    let Some(subject) = subject else {
        match body {
            Some(WantedBody::Template { template, .. }) if template.has_subject() => {}
            _ if faults.names(AT) => {}
            Some(WantedBody::Template { .. }) => {
                faults.add(AT, Rule::Required, "a subject is expected: the template has none");
            }
            // Whether the template would have had one cannot be told.
            None if faults.names("/template_id") || faults.names("/locale") => {}
            Some(WantedBody::Html(_)) | None => faults.add(AT, Rule::Required, "a subject is expected"),
        }
        return None;
    };
    if subject.is_empty() {
        faults.add(AT, Rule::Required, "a subject of at least one character is expected");
    } else if subject.len() > SUBJECT && subject.chars().count() > SUBJECT {
        faults.add(AT, Rule::TooLong, format!("at most {SUBJECT} characters are allowed"));
    }
    if subject.contains(['\r', '\n', '\0']) {
        faults.add(AT, Rule::ControlCharacter, "a subject has no line break and no NUL");
    }
    Some(subject)
}

fn plain_part(text: Option<String>, faults: &mut Faults) -> PlainPart {
    match text {
        None => PlainPart::Made,
        Some(text) if text.is_empty() => PlainPart::LeftOut,
        Some(text) => {
            check_nul("/text", &text, faults);
            PlainPart::Given(text)
        }
    }
}

fn check_nul(at: &str, text: &str, faults: &mut Faults) {
    if text.contains('\0') {
        faults.add(at, Rule::ControlCharacter, "a text has no NUL");
    }
}

fn mailbox(at: &str, text: Option<String>, faults: &mut Faults) -> Option<Mailbox> {
    let parsed =
        Mailbox::parse(&text?).map_err(|error| faults.add(at, Rule::InvalidAddress, error.to_string()));
    let mailbox = parsed.ok()?;
    if mailbox.name.as_ref().is_some_and(|name| name.chars().count() > recipients::NAME) {
        faults.add(
            at,
            Rule::TooLong,
            format!("a name of at most {} characters is allowed", recipients::NAME),
        );
        return None;
    }
    Some(mailbox)
}

fn word<T: std::fmt::Display>(
    at: &str,
    text: Option<String>,
    parse: fn(&str) -> Option<T>,
    all: &[T],
    faults: &mut Faults,
) -> Option<T> {
    let parsed = parse(&text?);
    if parsed.is_none() {
        let words: Vec<String> = all.iter().map(ToString::to_string).collect();
        faults.add(at, Rule::InvalidValue, format!("one of {} is expected", words.join(", ")));
    }
    parsed
}

fn check_depth(at: &str, data: &Map<String, Value>, faults: &mut Faults) {
    if data.values().any(|value| is_deeper(value, LEVELS - 1)) {
        faults.add(at, Rule::InvalidValue, format!("nested too deeply: at most {LEVELS} levels are allowed"));
    }
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    let Some(inner) = levels.checked_sub(1) else { return value.is_object() || value.is_array() };
    match value {
        Value::Array(list) => list.iter().any(|value| is_deeper(value, inner)),
        Value::Object(object) => object.values().any(|value| is_deeper(value, inner)),
        _ => false,
    }
}
