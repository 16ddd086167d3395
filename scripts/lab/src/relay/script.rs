//! How the relay behaves: switches for the whole server, and orders in a recipient's local part.

use std::time::Duration;

/// The switches. They may be changed while the relay runs; what a client was told by EHLO stays as it was.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Script {
    /// PIPELINING is offered (RFC 2920).
    pub pipelining: bool,
    /// SMTPUTF8 is offered (RFC 6531).
    pub smtputf8: bool,
    /// The SIZE that is announced and kept to (RFC 1870), in bytes.
    pub size: Option<usize>,
    /// TLS.
    pub tls: Tls,
    /// The names in the certificate.
    pub certified_for: Vec<String>,
    /// A login that is required.
    pub login: Option<Login>,
    /// How many logins are refused although they are right. `u32::MAX`: all.
    pub login_refusals: u32,
    /// The reply to a login that is refused.
    pub login_refusal: String,
    /// The first line; a 220 where none is set. The connection is closed after any other code.
    pub greeting: Option<String>,
    /// The reply to EHLO instead of the capabilities.
    pub ehlo_refusal: Option<String>,
    /// The reply to every MAIL.
    pub sender_refusal: Option<String>,
    /// Messages on one connection; the MAIL after them gets `limit_reply`, and the connection ends.
    pub messages_per_connection: Option<u32>,
    /// What is said at the end of a connection that carried all it may.
    pub limit_reply: String,
    /// Connections at one time; the next one is greeted with 421.
    pub max_connections: Option<usize>,
    /// What happens to a connection whose message has been answered.
    pub afterwards: Afterwards,
    /// DATA is answered with 354 although every recipient was refused (RFC 2920 §3.1 allows it).
    pub data_regardless: bool,
    /// The reply to the lone dot that ends such a DATA is not given: the connection ends.
    pub lone_dot_cut: bool,
    /// The reply to DATA instead of 354.
    pub data_reply: Option<String>,
    /// MAIL is answered twice: every later answer stands one place too late.
    pub answers_mail_twice: bool,
    /// Sent in the clear in the same segment as the answer to STARTTLS, as an attacker would (CVE-2011-0411).
    pub injected: Option<String>,
    /// How replies look.
    pub form: Form,
    /// A reply by name, for the recipient `text-<name>-…`.
    pub texts: Vec<(String, String)>,
    /// A wait before each answer: the round trip of a long wire.
    pub round_trip: Duration,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            pipelining: true,
            smtputf8: true,
            size: None,
            tls: Tls::None,
            certified_for: vec!["localhost".into(), "127.0.0.1".into()],
            login: None,
            login_refusals: 0,
            login_refusal: "535 5.7.8 Error: authentication failed".into(),
            greeting: None,
            ehlo_refusal: None,
            sender_refusal: None,
            messages_per_connection: None,
            limit_reply: "421 4.4.5 Too many messages on this connection".into(),
            max_connections: None,
            afterwards: Afterwards::Stay,
            data_regardless: false,
            lone_dot_cut: false,
            data_reply: None,
            answers_mail_twice: false,
            injected: None,
            form: Form::default(),
            texts: Vec::new(),
            round_trip: Duration::ZERO,
        }
    }
}

/// TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Not known.
    None,
    /// STARTTLS is offered (RFC 3207).
    Offered,
    /// STARTTLS is offered, and AUTH and MAIL are refused before it.
    Required,
    /// From the first byte (RFC 8314).
    Implicit,
}

/// A login that is required before MAIL (RFC 4954).
#[derive(Debug, Clone)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub pass: String,
    /// What is offered, such as `PLAIN LOGIN`.
    pub mechanisms: String,
}

impl Login {
    /// A login by `PLAIN` or `LOGIN`.
    #[must_use]
    pub fn new(user: &str, pass: &str) -> Self {
        Self { user: user.into(), pass: pass.into(), mechanisms: "PLAIN LOGIN".into() }
    }
}

/// What happens to a connection whose message has been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// It stays open.
    Stay,
    /// It is closed without a word.
    Close,
    /// 421, then it is closed.
    SayAndClose,
}

/// How replies look.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
pub struct Form {
    /// Lines end with LF alone.
    pub bare_lf: bool,
    /// Replies have a code and nothing else; the capabilities stay.
    pub code_only: bool,
    /// Text is GB18030.
    pub gbk: bool,
    /// Every byte in a segment of its own.
    pub one_byte: bool,
    /// The keywords of EHLO are in lower case.
    pub lowercase: bool,
}

/// What the local part of a recipient asks for. Words are set apart by `-`, and anything may follow them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    Accept,
    /// A code in answer to a step, so many times, then as `Accept`.
    Refuse {
        at: Step,
        code: u16,
        times: u32,
    },
    /// The reply of `Script::texts` with this name, in answer to RCPT.
    Text(String),
    /// The connection ends instead of an answer to this step; at the dot before the message is kept.
    Cut(Step),
    /// The connection ends behind the 354.
    CutAfterGo,
    /// The connection ends when some content has come, and the dot has not been looked for.
    CutInContent,
    /// The message is kept, then the connection ends without an answer.
    CutAfterTaking,
    /// No more content is read, and nothing is said.
    Stall,
    /// An answer when some content has come, then the connection ends.
    RefuseInContent(u16),
    /// The answer to the dot comes late.
    Slow(Duration),
    /// The answer to the dot never comes; the message is not kept.
    Mute,
    /// The answer to the dot is no reply.
    Garble,
}

/// Where an order applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Rcpt,
    Data,
    Dot,
}

impl Order {
    /// Reads a local part; see the table of [`crate::relay`].
    pub(super) fn of(local: &str) -> Self {
        let words: Vec<&str> = local.split('-').collect();
        let number = |n: usize| words.get(n).and_then(|word| word.parse::<u32>().ok());
        let code = |n: usize| number(n).and_then(|code| u16::try_from(code).ok());
        let step = |word: &str| match word {
            "rcpt" => Some(Step::Rcpt),
            "data" => Some(Step::Data),
            "dot" => Some(Step::Dot),
            _ => None,
        };
        let read = || {
            Some(match *words.first()? {
                "text" => Self::Text((*words.get(1)?).to_owned()),
                "cut" => match *words.get(1)? {
                    "go" => Self::CutAfterGo,
                    "content" => Self::CutInContent,
                    "taken" => Self::CutAfterTaking,
                    word => Self::Cut(step(word)?),
                },
                "stall" => Self::Stall,
                "early" => Self::RefuseInContent(code(1)?),
                "slow" => Self::Slow(Duration::from_millis(u64::from(number(1)?))),
                "mute" => Self::Mute,
                "garble" => Self::Garble,
                word => {
                    Self::Refuse { at: step(word)?, code: code(1)?, times: number(2).unwrap_or(u32::MAX) }
                }
            })
        };
        read().unwrap_or(Self::Accept)
    }
}

/// An ordinary text for a code.
pub(super) fn text_for(code: u16) -> &'static str {
    match code {
        421 => "4.3.2 Service shutting down",
        450 => "4.2.0 Mailbox busy",
        451 => "4.7.1 Greylisting in action, please try again later",
        452 => "4.2.2 Mailbox full",
        550 => "5.1.1 No such user",
        552 => "5.2.2 Mailbox full",
        553 => "5.1.3 Bad mailbox name",
        554 => "5.7.1 Refused by policy",
        503 => "5.5.1 Bad sequence of commands",
        400..500 => "4.0.0 Not now",
        _ => "5.0.0 No",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_part_is_an_order_only_where_it_is_one() {
        for (local, order) in [
            ("bob", Order::Accept),
            ("rcpt", Order::Accept),
            ("data-entry", Order::Accept),
            ("rcpt-450-2-bob", Order::Refuse { at: Step::Rcpt, code: 450, times: 2 }),
            ("dot-554-bob", Order::Refuse { at: Step::Dot, code: 554, times: u32::MAX }),
            ("text-full-bob", Order::Text("full".into())),
            ("cut-dot", Order::Cut(Step::Dot)),
            ("cut-taken", Order::CutAfterTaking),
            ("slow-30-x", Order::Slow(Duration::from_millis(30))),
        ] {
            assert_eq!(Order::of(local), order, "{local}");
        }
    }
}
