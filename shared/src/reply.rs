//! What an SMTP server says, and where in the dialogue it says it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A step of an SMTP session. Their order is the order in the dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Name lookup and TCP.
    Connect,
    /// The TLS handshake, or STARTTLS (RFC 3207).
    Tls,
    /// The server's first line.
    Greeting,
    /// EHLO.
    Ehlo,
    /// AUTH (RFC 4954).
    Auth,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA, up to the 354.
    Data,
    /// The content and the wait after the final dot. From here on the relay may have the message.
    Dot,
}

impl Stage {
    /// The word that users see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Greeting => "greeting",
            Self::Ehlo => "ehlo",
            Self::Auth => "auth",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::Dot => "dot",
        }
    }

    /// The stage of a word of [`Stage::as_str`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        use Stage::{Auth, Connect, Data, Dot, Ehlo, Greeting, Mail, Rcpt, Tls};
        [Connect, Tls, Greeting, Ehlo, Auth, Mail, Rcpt, Data, Dot]
            .into_iter()
            .find(|stage| stage.as_str() == word)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An enhanced status code, `class.subject.detail` (RFC 3463).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Enhanced {
    /// 2 success, 4 transient, 5 permanent.
    pub class: u8,
    /// What it is about: 1 address, 2 mailbox, 3 system, 4 network, 5 protocol, 6 content, 7 policy.
    pub subject: u16,
    /// The detail.
    pub detail: u16,
}

impl Enhanced {
    /// Reads one at the start of a reply's text.
    #[must_use]
    pub fn parse_prefix(text: &str) -> Option<Self> {
        let word = text.split([' ', '\t']).next()?;
        let mut parts = word.splitn(3, '.');
        let mut next = |max_len: usize| {
            let part = parts.next()?;
            let digits = (1..=max_len).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            if digits { part.parse::<u16>().ok() } else { None }
        };
        let (class, subject, detail) = (next(1)?, next(3)?, next(3)?);
        matches!(class, 2 | 4 | 5).then_some(Self { class: u8::try_from(class).ok()?, subject, detail })
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl Serialize for Enhanced {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Enhanced {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_prefix(&text).ok_or_else(|| serde::de::Error::custom("not an enhanced status code"))
    }
}

/// A reply of an SMTP server (RFC 5321 §4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// The enhanced code that its first line begins with.
    pub enhanced: Option<Enhanced>,
    /// The lines without codes, joined by line feeds.
    pub text: String,
}

impl Reply {
    /// A reply from its code and its lines, the codes already taken off.
    #[must_use]
    pub fn new(code: u16, text: &str) -> Self {
        let enhanced = Enhanced::parse_prefix(text);
        Self { code, enhanced, text: text.to_owned() }
    }

    /// 2xx.
    #[must_use]
    pub const fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 4xx: deferred.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5xx: rejected.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }
}

/// The last thing that was heard of a job's relay, as it is kept with the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReply {
    /// Where in the dialogue.
    pub stage: Stage,
    /// The reply's code; none where there was no reply: refused, closed, timed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The enhanced code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enhanced: Option<Enhanced>,
    /// The reply's text, or what happened instead of one. At most [`LastReply::TEXT_LIMIT`] bytes.
    pub text: String,
}

impl LastReply {
    /// How long the kept text may be, in bytes.
    pub const TEXT_LIMIT: usize = 512;

    /// A reply that was heard at `stage`.
    #[must_use]
    pub fn heard(stage: Stage, reply: &Reply) -> Self {
        Self { stage, code: Some(reply.code), enhanced: reply.enhanced, text: cut(&reply.text) }
    }

    /// What happened at `stage` instead of a reply.
    #[must_use]
    pub fn none(stage: Stage, what: &str) -> Self {
        Self { stage, code: None, enhanced: None, text: cut(what) }
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(LastReply::TEXT_LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].replace('\n', " ")
}

/// A server's text with the addresses in it masked, for a log: servers like to repeat them.
#[must_use]
pub fn masked(text: &str) -> String {
    let is_end = |c: char| c.is_whitespace() || "<>()[]\",;:'".contains(c);
    let mut shown = String::with_capacity(text.len());
    for word in text.split_inclusive(is_end) {
        match word.rsplit_once('@') {
            Some((local, domain)) => {
                shown.extend(local.chars().take(1));
                shown.push_str("***@");
                shown.push_str(domain);
            }
            None => shown.push_str(word),
        }
    }
    shown
}

/// Addresses are masked.
impl fmt::Display for LastReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = masked(&self.text);
        match self.code {
            Some(code) => write!(f, "{code} {text} (at {})", self.stage),
            None => write!(f, "{text} (at {})", self.stage),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enhanced_code_is_read_from_the_start_only() {
        assert_eq!(Reply::new(550, "5.1.1 no such user").enhanced.unwrap().to_string(), "5.1.1");
        for text in ["no 5.1.1", "5.1 x", "5.1.1.1 x", "3.1.1 x", "5.1.x", "55.1.1 x", ""] {
            assert_eq!(Enhanced::parse_prefix(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_in_a_reply_are_not_shown() {
        let reply =
            LastReply::heard(Stage::Rcpt, &Reply::new(550, "5.1.1 <bob.b@x.example>: 'eve@y.example', no"));
        assert_eq!(reply.to_string(), "550 5.1.1 <b***@x.example>: 'e***@y.example', no (at rcpt)");
        assert_eq!(masked("nothing @ all\nhere"), "nothing ***@ all\nhere");
    }

    #[test]
    fn kept_text_is_cut_at_a_character() {
        let reply = LastReply::none(Stage::Dot, &"请".repeat(400));
        assert!(reply.text.len() <= LastReply::TEXT_LIMIT && reply.text.ends_with('请'));
    }
}
