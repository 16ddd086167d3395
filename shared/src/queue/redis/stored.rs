//! The texts that are stored: what they look like, and that they say which version they are.
//!
//! Unknown fields of a newer version are let through, and never lost: no script rewrites one of these texts. A release
//! that changes the meaning of what is there counts the version of a batch's facts up: older ones then leave its jobs
//! alone (`lua/state.lua`).

use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Serialize};

use crate::address::Mailbox;
use crate::clock::Timestamp;
use crate::job::{OnAmbiguous, Priority};
use crate::message::{Body, Content, PlainPart};
use crate::queue::NewBatch;
use crate::reply::{Enhanced, LastReply, Stage};
use crate::template::Bundle;

const VERSION: u32 = 1;

/// `:content:<batch>`: this as JSON, and behind it an HTML body as it is. To escape that would cost more than all the
/// rest, twice.
#[derive(Serialize, Deserialize)]
struct StoredContent<C> {
    v: u32,
    content: C,
}

/// A [`Content`] as it is written. [`HTML_IS_BEHIND`] is the body of one whose HTML is behind.
#[derive(Serialize)]
struct Head<'a> {
    from: &'a Mailbox,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    from_requested: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: &'a Option<Mailbox>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: &'a Option<String>,
    body: &'a Body,
    text: &'a PlainPart,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    headers: &'a [(String, String)],
}

const HTML_IS_BEHIND: Body = Body::Html(String::new());

/// `:template:<hash>`.
#[derive(Serialize, Deserialize)]
struct StoredBundle<B> {
    v: u32,
    bundle: B,
}

/// `:idem:<hash>`, as the enqueue script writes it.
#[derive(Debug, Deserialize)]
pub(super) struct StoredAnswer {
    pub(super) fingerprint: String,
    pub(super) batch: crate::job::BatchId,
    pub(super) count: u32,
    pub(super) scheduled: bool,
}

/// What the script completes to a batch's facts, with the time of acceptance and those that follow from it.
pub(super) fn facts(batch: &NewBatch, expire_after_ms: u64) -> String {
    format!(
        "{VERSION} {} {} {} {expire_after_ms} {}",
        batch.priority,
        batch.max_attempts,
        batch.on_ambiguous.as_str(),
        batch.recipients.len()
    )
}

/// What the jobs of a batch share and what decides (`lua/state.lua`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) priority: Priority,
    pub(super) max_attempts: u32,
    pub(super) on_ambiguous: OnAmbiguous,
    pub(super) count: u64,
    pub(super) accepted: Timestamp,
    pub(super) send_at: Option<Timestamp>,
}

impl Facts {
    /// A job's time to send: its own, where it has one, takes the place of its batch's. One that was moved to the past is
    /// none.
    pub(super) fn send_at_with(&self, own: Option<i64>) -> Option<Timestamp> {
        own.map_or(self.send_at, |ms| (ms > 0).then(|| Timestamp::from_millis(ms)))
    }
}

/// Reads facts of this version.
pub(super) fn read_facts(text: &str) -> Option<Facts> {
    let mut words = text.split(' ');
    if words.next()?.parse() != Ok(VERSION) {
        return None;
    }
    let priority = Priority::from_word(words.next()?)?;
    let max_attempts = words.next()?.parse().ok()?;
    let on_ambiguous = OnAmbiguous::from_word(words.next()?)?;
    let mut words = words.skip(1);
    let count = words.next()?.parse().ok()?;
    let accepted = Timestamp::from_millis(words.next()?.parse().ok()?);
    let send_at = words.nth(1)?.parse().ok().map(Timestamp::from_millis);
    Some(Facts { priority, max_attempts, on_ambiguous, count, accepted, send_at })
}

/// A last reply as it is kept with a job: `stage code|- text`, which is short enough for the job's hash where JSON is
/// not.
pub(super) fn reply(reply: &LastReply) -> Result<String, serde_json::Error> {
    let code = reply.code.map_or_else(|| "-".to_owned(), |code| code.to_string());
    let text = format!("{} {code} {}", reply.stage, reply.text);
    // An enhanced code that the text does not begin with would be lost.
    if read_plain_reply(&text).as_ref() == Some(reply) { Ok(text) } else { serde_json::to_string(reply) }
}

pub(super) fn read_reply(text: &str) -> Option<LastReply> {
    read_plain_reply(text).or_else(|| serde_json::from_str(text).ok())
}

fn read_plain_reply(text: &str) -> Option<LastReply> {
    let mut parts = text.splitn(3, ' ');
    let stage = Stage::from_word(parts.next()?)?;
    let code = match parts.next()? {
        "-" => None,
        code => Some(code.parse().ok()?),
    };
    let text = parts.next()?.to_owned();
    let enhanced = code.and_then(|_| Enhanced::parse_prefix(&text));
    Some(LastReply { stage, code, enhanced, text })
}

pub(super) fn content(content: &Content) -> Result<Vec<u8>, serde_json::Error> {
    let Content { from, from_requested, reply_to, subject, body, text, headers } = content;
    let (body, html) = match body {
        Body::Html(html) => (&HTML_IS_BEHIND, html.as_bytes()),
        body @ Body::Template { .. } => (body, &[][..]),
    };
    let head = Head { from, from_requested: *from_requested, reply_to, subject, body, text, headers };
    // Most heads are shorter.
    let mut stored = Vec::with_capacity(html.len() + 512);
    serde_json::to_writer(&mut stored, &StoredContent { v: VERSION, content: head })?;
    stored.extend_from_slice(html);
    Ok(stored)
}

pub(super) fn read_content(stored: &[u8]) -> Result<Content, serde_json::Error> {
    let mut values = serde_json::Deserializer::from_slice(stored).into_iter::<StoredContent<Content>>();
    let read = values.next().unwrap_or_else(|| Err(de::Error::custom("it is empty")))?;
    let mut content = read.content;
    if let Body::Html(html) = &mut content.body {
        str::from_utf8(&stored[values.byte_offset()..]).map_err(de::Error::custom)?.clone_into(html);
    }
    Ok(content)
}

pub(super) fn bundle(bundle: &Bundle) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&StoredBundle { v: VERSION, bundle })
}

pub(super) fn read_bundle(text: &[u8]) -> Result<Bundle, serde_json::Error> {
    read::<StoredBundle<Bundle>>(text).map(|stored| stored.bundle)
}

pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::reply::Reply;
    use crate::template::BundleHash;

    #[test]
    fn replies_come_back_as_they_were() {
        for kept in [
            LastReply::heard(Stage::Dot, &Reply::new(250, "2.0.0 Ok: queued as 4F7C")),
            LastReply::heard(Stage::Rcpt, &Reply::new(451, "4.7.1 later\nplease")),
            LastReply::heard(Stage::Mail, &Reply::new(550, "")),
            LastReply::none(Stage::Connect, "connection refused"),
            LastReply::none(Stage::Tls, "2.0.0 is no code here"),
            LastReply { enhanced: None, ..LastReply::heard(Stage::Dot, &Reply::new(250, "2.0.0 Ok")) },
            LastReply { enhanced: Enhanced::parse_prefix("5.1.1"), ..LastReply::none(Stage::Dot, "no") },
        ] {
            assert_eq!(read_reply(&reply(&kept).unwrap()).as_ref(), Some(&kept));
        }
        assert_eq!(
            reply(&LastReply::heard(Stage::Dot, &Reply::new(250, "2.0.0 Ok"))).unwrap(),
            "dot 250 2.0.0 Ok"
        );
    }

    #[test]
    fn content_comes_back_as_it_was() {
        let address = |text: &str| Mailbox::new(Address::parse(text).unwrap());
        let plain = Content {
            from: address("a@example.org"),
            from_requested: false,
            reply_to: None,
            subject: Some("S".to_owned()),
            body: Body::Html("{\"v\":1} <p title=\"x\">\n您好</p>".to_owned()),
            text: PlainPart::Made,
            headers: Vec::new(),
        };
        let full = Content {
            from_requested: true,
            reply_to: Some(address("b@example.org")),
            subject: None,
            text: PlainPart::Given("\"text\"".to_owned()),
            headers: vec![("X-A".to_owned(), "b".to_owned())],
            ..plain.clone()
        };
        let empty = Content { body: Body::Html(String::new()), ..plain.clone() };
        let template = Content {
            body: Body::Template { bundle: BundleHash("x".to_owned()), data: serde_json::Map::new() },
            ..plain.clone()
        };
        for kept in [plain, full, empty, template] {
            let text = content(&kept).unwrap();
            assert_eq!(read_content(&text).unwrap(), kept);
            // As a domain type says it, but for the HTML.
            let as_json: serde_json::Value =
                serde_json::Deserializer::from_slice(&text).into_iter().next().unwrap().unwrap();
            let mut said = serde_json::to_value(&kept).unwrap();
            if let Some(html) = said.pointer_mut("/body/html") {
                *html = "".into();
            }
            assert_eq!(as_json["content"], said);
        }
        assert!(read_content(b"").is_err());
        assert!(read_content(b"{\"v\":1}").is_err());
    }

    #[test]
    fn facts_of_a_later_version_are_not_guessed_at() {
        let facts = read_facts("1 high 4 hold 86400000 2 1764001234567 - 1764001239999 2000 more").unwrap();
        assert_eq!((facts.priority, facts.max_attempts, facts.count), (Priority::High, 4, 2));
        assert_eq!(facts.accepted, Timestamp::from_millis(1_764_001_234_567));
        assert_eq!(facts.send_at, Some(Timestamp::from_millis(1_764_001_239_999)));
        assert!(
            read_facts("1 bulk 4 resend 86400000 1 1764001234567 1764087634567 - 2000")
                .unwrap()
                .send_at
                .is_none()
        );
        assert!(read_facts("2 high 4 hold 86400000 2 1764001234567 - -").is_none());
    }
}
