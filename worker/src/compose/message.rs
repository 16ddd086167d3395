//! Headers and MIME structure.

use mail_builder::MessageBuilder;
use mail_builder::headers::HeaderType;
use mail_builder::headers::address::Address as Header;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::date::Date;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};
use shared::address::Mailbox;
use shared::job::message_id;
use shared::queue::Delivery;

use super::{Letter, NotBuilt, Parts};

/// The longest encoded word (RFC 2047 §2) without its frame `=?utf-8?B?…?=`: in bytes of text, so that 4 of them give
/// at most 75 octets with the frame.
const WORD: usize = 45;

/// A header line goes on in the next after as many octets, where it can (RFC 5322 §2.1.1).
const LINE: usize = 76;

/// The longest word of a header that stays as it is: with its name it is within the 998 octets of RFC 5322 §2.1.1.
const LONGEST_WORD: usize = 900;

pub(super) fn build(delivery: &Delivery, parts: &Parts<'_>) -> Result<Letter, NotBuilt> {
    let content = &*delivery.content;
    let (from, to) = (&content.from, &delivery.recipient.mailbox);
    let id = message_id(delivery.job, from.address.domain());
    let mut message = MessageBuilder::new()
        .header("From", address(from))
        .header("To", address(to))
        .date(Date::new(delivery.date().as_millis().div_euclid(1000)))
        .message_id(id)
        .header("Subject", text("Subject", &parts.subject));
    if let Some(reply_to) = &content.reply_to {
        message = message.header("Reply-To", address(reply_to));
    }
    for (name, value) in &content.headers {
        message = message.header(name.clone(), text(name, value));
    }
    let html = part("text/html", &parts.html);
    let body = match &parts.text {
        None => html,
        Some(plain) => {
            // The job's id is in no other message, and no encoded line begins with "--=_".
            let kind = ContentType::new("multipart/alternative")
                .attribute("boundary", format!("=_{}", delivery.job));
            MimePart::new(kind, BodyPart::Multipart(vec![part("text/plain", plain), html]))
        }
    };
    let source = message.body(body).write_to_string().map_err(|error| super::not_built(error.to_string()))?;
    let people = [Some(from), Some(to), content.reply_to.as_ref()];
    let smtputf8 = people.into_iter().flatten().any(|mailbox| mailbox.address.needs_smtputf8());
    Ok(Letter { from: from.address.clone(), to: to.address.clone(), source, smtputf8 })
}

fn part<'a>(kind: &'static str, text: &'a str) -> MimePart<'a> {
    MimePart::new(ContentType::new(kind).attribute("charset", "utf-8"), BodyPart::Text(lines(text)))
}

/// Line ends as the encoder expects them; RFC 5322 §2.3 allows neither a lone CR nor a NUL.
fn lines(text: &str) -> std::borrow::Cow<'_, str> {
    if memchr::memchr2(b'\r', b'\0', text.as_bytes()).is_some() {
        text.replace("\r\n", "\n").replace('\r', "\n").replace('\0', "").into()
    } else {
        text.into()
    }
}

/// `name <address>`, the name encoded where it must be.
fn address(mailbox: &Mailbox) -> HeaderType<'static> {
    let address = mailbox.address.as_str().to_owned();
    match &mailbox.name {
        None => Header::new_address(None::<String>, address).into(),
        Some(name) if name.is_ascii() && name.len() < LINE => {
            Header::new_address(Some(name.clone()), address).into()
        }
        Some(name) => Raw::new(format!("{}\r\n <{address}>", encoded_words(name, LINE))).into(),
    }
}

/// An unstructured header's value: as it is where it fits into folded lines, else in encoded words.
fn text(name: &str, value: &str) -> HeaderType<'static> {
    let room = LINE.saturating_sub(name.len() + 2);
    // What is structured, such as List-Unsubscribe, must not be encoded (RFC 2047 §5): a long word stays long.
    let fits = value.split(' ').all(|word| word.len() <= LONGEST_WORD)
        && value.bytes().all(|b| (b' '..=b'~').contains(&b))
        && !value.contains("=?")
        && value.trim() == value;
    if fits { Raw::new(folded(value, room)).into() } else { Raw::new(encoded_words(value, room)).into() }
}

/// Breaks a value at its spaces.
fn folded(value: &str, room: usize) -> String {
    let mut out = String::with_capacity(value.len() + 16);
    let mut left = room;
    for (n, word) in value.split(' ').enumerate() {
        if n > 0 && word.len() + 1 > left && !word.is_empty() {
            out.push_str("\r\n ");
            left = LINE;
        } else if n > 0 {
            out.push(' ');
            left = left.saturating_sub(1);
        }
        out.push_str(word);
        left = left.saturating_sub(word.len());
    }
    out
}

/// RFC 2047 encoded words, base64, one a line; no character is split.
fn encoded_words(text: &str, room: usize) -> String {
    let mut out = String::new();
    // The first word shares its line with the header's name.
    let mut limit = (room.saturating_sub(12) / 4 * 3).clamp(3, WORD);
    let mut word = String::new();
    let mut put = |word: &str| {
        let first = if out.is_empty() { "" } else { "\r\n " };
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, word);
        out.extend([first, "=?utf-8?B?", &encoded, "?="]);
    };
    for c in text.chars() {
        if word.len() + c.len_utf8() > limit && !word.is_empty() {
            put(&word);
            word.clear();
            limit = WORD;
        }
        word.push(c);
    }
    put(&word);
    out
}
