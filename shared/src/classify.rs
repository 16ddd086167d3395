//! What it means that a message did not get its 250: pure decisions, from the stage, the code, the enhanced
//! code and the provider's text. The text rules come first and are data, in `classify.toml`.

use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;

use crate::reply::{Enhanced, LastReply, Reply, Stage};

/// What happened at a step of an SMTP session instead of what was wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The step.
    pub stage: Stage,
    /// What happened.
    pub cause: Cause,
    /// Whether it was the first command on a connection that had been idle or had already carried a message:
    /// the server may just have ended the connection (RFC 5321 §3.8).
    pub stale: bool,
    /// What happened instead of a reply, for a person.
    pub detail: String,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A reply that was not the one wanted.
    Reply(Reply),
    /// The connection was closed or broken, or could not be made.
    Closed,
    /// No answer in the time for this stage.
    TimedOut,
    /// The TLS handshake failed, the certificate was refused, or STARTTLS is required and not offered.
    Tls,
    /// Not a reply of RFC 5321, or one where none was due.
    Garbled,
    /// The server lacks what the message needs (SMTPUTF8, a larger SIZE) or the login needs (an AUTH mechanism,
    /// a protected connection).
    Unsupported,
}

impl Failure {
    /// As it is kept with the job.
    #[must_use]
    pub fn last_reply(&self) -> LastReply {
        match &self.cause {
            Cause::Reply(reply) => LastReply::heard(self.stage, reply),
            _ => LastReply::none(self.stage, &self.detail),
        }
    }
}

/// What a failure means for the job and for the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Try again later; the attempt counts.
    Deferred,
    /// Never try again.
    Rejected,
    /// The relay wants us to slow down: it pauses, the job waits, no attempt is spent.
    Throttled {
        /// For how long.
        wait: Duration,
    },
    /// The relay cannot be used: its breaker opens, the job waits, no attempt is spent.
    RelayDown,
    /// The connection was a stale one: once more on a new one, without counting. The second time: [`Meaning::Deferred`].
    Reconnect,
    /// The server did not understand us: once more on a new connection without pipelining. The second time:
    /// [`Meaning::Rejected`].
    OurFault,
    /// The relay may have the message.
    Ambiguous,
}

/// Decides. `sender_requested`: whether the request named the sender (else it is the configured one).
#[must_use]
pub fn classify(failure: &Failure, sender_requested: bool) -> Meaning {
    let Cause::Reply(reply) = &failure.cause else {
        return without_reply(failure);
    };
    // The end of a connection that has done its work, whatever it says: a new one will tell.
    let is_spent = reply.code == 421 || is_message_limit(reply);
    if failure.stale && failure.stage == Stage::Mail && is_spent {
        return Meaning::Reconnect;
    }
    let text = words(&reply.text);
    let rule = RULES.iter().find(|rule| rule.fits(failure.stage, reply, &text));
    let meaning = match (rule, failure.stage) {
        (Some(rule), _) => rule.meaning(&text, sender_requested),
        (None, Stage::Connect | Stage::Tls | Stage::Greeting | Stage::Ehlo | Stage::Auth) => {
            Meaning::RelayDown
        }
        (None, Stage::Mail) => mail(reply, sender_requested),
        (None, Stage::Rcpt | Stage::Data | Stage::Dot) => transaction(reply),
    };
    match meaning {
        // Whatever the table says: a 4xx ends no job, and no job pays for a relay that refuses everybody.
        Meaning::Rejected if reply.is_transient() => Meaning::Deferred,
        Meaning::Deferred | Meaning::Rejected if failure.stage < Stage::Mail => Meaning::RelayDown,
        meaning => meaning,
    }
}

/// Whether a reply says that the connection has carried all the messages that it may: a new one is all it takes.
#[must_use]
pub fn is_message_limit(reply: &Reply) -> bool {
    let text = words(&reply.text);
    let rule = RULES.iter().find(|rule| rule.fits(Stage::Mail, reply, &text));
    rule.is_some_and(|rule| matches!(rule.means, Word::MessageLimit))
}

impl Meaning {
    /// What it means when it is so the second time, on a new connection and command by command: MAIL with the
    /// configured sender is the same for every message, so that a relay which does not understand it is the fault of
    /// none. 555 is about a parameter, which a message may bring.
    #[must_use]
    pub fn after_two_tries(self, failure: &Failure, sender_requested: bool) -> Self {
        match (self, failure.stage, &failure.cause) {
            (Self::OurFault, Stage::Mail, Cause::Reply(reply)) if !sender_requested && reply.code != 555 => {
                Self::RelayDown
            }
            (meaning, ..) => meaning,
        }
    }
}

fn without_reply(failure: &Failure) -> Meaning {
    match (failure.stage, &failure.cause) {
        (Stage::Dot, _) => Meaning::Ambiguous,
        (Stage::Mail | Stage::Rcpt | Stage::Data, Cause::Unsupported) => Meaning::Rejected,
        (Stage::Mail | Stage::Rcpt | Stage::Data, _) if failure.stale => Meaning::Reconnect,
        (Stage::Mail | Stage::Rcpt | Stage::Data, _) => Meaning::Deferred,
        _ => Meaning::RelayDown,
    }
}

fn mail(reply: &Reply, sender_requested: bool) -> Meaning {
    match reply.code {
        530 => Meaning::RelayDown,
        552 => Meaning::Rejected,
        _ if reply.enhanced.is_some_and(|code| code.class == 5 && code.subject == 7)
            && !is_about_sender(reply) =>
        {
            Meaning::RelayDown
        }
        500 | 501 | 503 | 504 | 555 if reply.enhanced.is_none_or(|code| code.subject == 5) => {
            Meaning::OurFault
        }
        _ if reply.is_permanent() && sender_requested => Meaning::Rejected,
        // The configured sender is refused: that is so for every message, and no message's fault.
        _ if reply.is_permanent() => Meaning::RelayDown,
        _ => Meaning::Deferred,
    }
}

/// 5.7.x that speaks of the sender's address (RFC 6409 §6.1; 5.7.60 of Exchange) rather than of our login (5.7.0, 5.7.8,
/// 5.7.9: RFC 4954 §6).
fn is_about_sender(reply: &Reply) -> bool {
    let is_login = reply.enhanced.is_some_and(|code| matches!(code.detail, 0 | 8 | 9 | 11));
    !is_login && reply.text.to_lowercase().contains("sender")
}

fn transaction(reply: &Reply) -> Meaning {
    match reply.code {
        500 | 501 | 503 | 504 | 555 if reply.enhanced.is_none_or(|code| code.subject == 5) => {
            Meaning::OurFault
        }
        _ if reply.is_permanent() => Meaning::Rejected,
        _ => Meaning::Deferred,
    }
}

/// A provider's text and what it means: a row of `classify.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// Who says it: for the reader.
    #[expect(dead_code, reason = "the table is read by people too")]
    provider: String,
    /// Where; empty: anywhere from MAIL on.
    #[serde(default)]
    stages: Vec<Stage>,
    /// With one of these codes; empty: with any.
    #[serde(default)]
    codes: Vec<u16>,
    /// With one of these enhanced codes, or one of the texts of `any`.
    #[serde(default)]
    enhanced: Vec<Enhanced>,
    /// The text contains one of these, without regard to case.
    #[serde(default)]
    any: Vec<String>,
    /// What it means.
    means: Word,
    /// How long to wait, in seconds, where the reply does not say.
    #[serde(default)]
    wait_s: u64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Throttled,
    Deferred,
    Rejected,
    /// The relay takes nothing from us.
    RelayDown,
    /// The sender is refused: the message's matter where the request named it, else the relay's.
    Sender,
    /// No more messages on this connection. On a new one: throttled.
    MessageLimit,
}

#[derive(Deserialize)]
struct Table {
    rule: Vec<Rule>,
}

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let table: Result<Table, _> = toml::from_str(include_str!("classify.toml"));
    // The table is part of the program, and a test reads it.
    table.map(|table| table.rule).unwrap_or_default()
});

impl Rule {
    fn fits(&self, stage: Stage, reply: &Reply, text: &str) -> bool {
        let here = if self.stages.is_empty() { stage >= Stage::Mail } else { self.stages.contains(&stage) };
        if !here || !(self.codes.is_empty() || self.codes.contains(&reply.code)) || reply.code < 400 {
            return false;
        }
        reply.enhanced.is_some_and(|code| self.enhanced.contains(&code))
            || self.any.iter().any(|part| text.contains(part))
    }

    fn meaning(&self, text: &str, sender_requested: bool) -> Meaning {
        match self.means {
            Word::Throttled | Word::MessageLimit => {
                Meaning::Throttled { wait: said_wait(text).unwrap_or(Duration::from_secs(self.wait_s)) }
            }
            Word::Deferred => Meaning::Deferred,
            Word::Rejected => Meaning::Rejected,
            Word::Sender if sender_requested => Meaning::Rejected,
            Word::Sender | Word::RelayDown => Meaning::RelayDown,
        }
    }
}

/// A reply's text in lower case, without the addresses that it repeats: what their owners chose as a name says nothing
/// of the relay.
fn words(text: &str) -> String {
    let is_end = |c: char| c.is_whitespace() || "<>()[]\",;:'".contains(c);
    text.to_lowercase().split_inclusive(is_end).filter(|word| !word.contains('@')).collect()
}

/// The longest wait that a reply is believed: a day.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// "… N seconds", "… N minutes", "… N hours", "… N 分钟" in a reply's text.
fn said_wait(text: &str) -> Option<Duration> {
    let units =
        [("second", 1), ("sec", 1), ("秒", 1), ("minute", 60), ("min", 60), ("分钟", 60), ("hour", 3_600)];
    let text = text.to_lowercase();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        // A number that is a part of a word or of another number, as in 4.7.28, is no time.
        let is_apart = !rest[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '.');
        rest = &rest[at..];
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        rest = behind;
        let unit = behind.trim_start_matches([' ', '-', '\n']);
        let unit = units.iter().find(|(name, _)| starts_with_word(unit, name));
        let number = number.parse::<u64>().ok().filter(|n| *n > 0 && is_apart);
        if let Some((number, (_, seconds))) = number.zip(unit) {
            return Some(Duration::from_secs(number.saturating_mul(*seconds)).min(LONGEST_WAIT));
        }
    }
    None
}

/// Whether a text begins with a word, or its plural.
fn starts_with_word(text: &str, word: &str) -> bool {
    text.strip_prefix(word)
        .map(|rest| rest.strip_prefix('s').unwrap_or(rest))
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Meaning::{Ambiguous, Deferred, OurFault, Reconnect, Rejected, RelayDown};

    fn heard(stage: Stage, code: u16, text: &str) -> Failure {
        Failure { stage, cause: Cause::Reply(Reply::new(code, text)), stale: false, detail: String::new() }
    }

    fn without(stage: Stage, cause: Cause) -> Failure {
        Failure { stage, cause, stale: false, detail: "x".into() }
    }

    const fn throttled(secs: u64) -> Meaning {
        Meaning::Throttled { wait: Duration::from_secs(secs) }
    }

    #[test]
    fn address_in_a_reply_says_nothing_of_the_relay() {
        let text = "5.1.1 <throttle-24hour@slow-down.example>: Recipient address rejected: User unknown";
        assert_eq!(classify(&heard(Stage::Rcpt, 550, text), false), Rejected);
        let text = "4.7.1 <a@b.example>: rate limit, wait 30 seconds";
        assert_eq!(classify(&heard(Stage::Rcpt, 450, text), false), throttled(30));
    }

    #[test]
    fn account_that_has_sent_its_day_is_no_full_mailbox() {
        for stage in [Stage::Rcpt, Stage::Dot] {
            let text = "5.4.5 Daily sending quota exceeded. For more information on Gmail";
            assert_eq!(classify(&heard(stage, 550, text), false), throttled(3_600));
        }
        assert_eq!(classify(&heard(Stage::Rcpt, 552, "mailbox quota exceeded"), false), Deferred);
    }

    #[test]
    fn login_that_is_wanted_at_mail_is_the_relay_s_matter_whatever_the_code() {
        for (code, text) in [
            (503, "5.5.1 Error: authentication required"),
            (503, "Error: need EHLO and AUTH first !"),
            (501, "5.7.1 not permitted"),
            (553, "authentication is required"),
            (530, "5.7.0 Must issue a STARTTLS command first"),
        ] {
            for requested in [false, true] {
                assert_eq!(classify(&heard(Stage::Mail, code, text), requested), RelayDown, "{code} {text}");
            }
        }
        // The configured sender, with a code that else means syntax.
        let refused = heard(Stage::Mail, 501, "5.1.7 Bad sender address");
        assert_eq!((classify(&refused, false), classify(&refused, true)), (RelayDown, Rejected));
    }

    #[test]
    fn what_the_relay_does_not_understand_twice_is_no_message_s_fault_where_it_is_the_same_for_all() {
        let odd = heard(Stage::Mail, 501, "syntax error");
        assert_eq!(OurFault.after_two_tries(&odd, false), RelayDown);
        assert_eq!(OurFault.after_two_tries(&odd, true), OurFault);
        assert_eq!(OurFault.after_two_tries(&heard(Stage::Mail, 555, "x"), false), OurFault);
        assert_eq!(OurFault.after_two_tries(&heard(Stage::Rcpt, 501, "x"), false), OurFault);
    }

    #[test]
    fn every_row_of_the_table_is_read() {
        let table: Table = toml::from_str(include_str!("classify.toml")).unwrap();
        assert_eq!(table.rule.len(), RULES.len());
        for rule in &table.rule {
            assert!(
                !(rule.any.is_empty() && rule.enhanced.is_empty())
                    && rule.any.iter().all(|part| *part == part.to_lowercase()),
                "{rule:?}"
            );
        }
    }

    #[test]
    fn replies_mean_what_the_documentation_says() {
        for (stage, code, text, meaning) in [
            (Stage::Rcpt, 450, "4.2.0 mailbox busy", Deferred),
            (Stage::Rcpt, 451, "4.7.1 Greylisted, please try again later", Deferred),
            (Stage::Rcpt, 451, "4.7.1 Greylisting in action, come back in 5 minutes", Deferred),
            (Stage::Data, 451, "local error", Deferred),
            (Stage::Dot, 451, "4.3.0 try again", Deferred),
            (Stage::Mail, 451, "4.3.0 local error", Deferred),
            (Stage::Rcpt, 550, "5.1.1 no such user", Rejected),
            (Stage::Rcpt, 551, "user not local", Rejected),
            (Stage::Rcpt, 552, "5.2.2 mailbox full", Deferred),
            (Stage::Rcpt, 550, "Mailbox is full", Deferred),
            (Stage::Dot, 554, "5.7.1 content refused", Rejected),
            (Stage::Dot, 554, "DT:SPM 163 smtp", Rejected),
            (Stage::Dot, 552, "5.3.4 message too large", Rejected),
            (Stage::Mail, 552, "5.3.4 message too large", Rejected),
            (Stage::Mail, 530, "5.7.0 Authentication required", RelayDown),
            (Stage::Mail, 550, "5.7.1 not allowed", RelayDown),
            (Stage::Mail, 501, "Mail from address must be same as authorization user.", RelayDown),
            (Stage::Auth, 535, "Error: 请使用授权码登录", RelayDown),
            (Stage::Auth, 454, "4.7.0 Temporary authentication failure", RelayDown),
            (Stage::Auth, 550, "User has no permission / client login not enabled", RelayDown),
            (Stage::Greeting, 554, "no", RelayDown),
            (Stage::Ehlo, 550, "no", RelayDown),
            (Stage::Mail, 500, "what?", OurFault),
            (Stage::Rcpt, 503, "5.5.1 bad sequence", OurFault),
            (Stage::Rcpt, 550, "Connection frequency limited", throttled(600)),
            (Stage::Dot, 550, "Domain frequency limited [163.com]", throttled(600)),
            (Stage::Rcpt, 550, "5.4.5 Daily user sending limit exceeded", throttled(3_600)),
            (Stage::Mail, 421, "4.7.0 Try again later, too many connections, wait 90 seconds", throttled(90)),
            (Stage::Dot, 451, "DT:MI:SFQ too many", throttled(900)),
        ] {
            assert_eq!(classify(&heard(stage, code, text), false), meaning, "{code} {text} at {stage}");
        }
    }

    #[test]
    fn refused_sender_of_a_request_stops_nobody_else() {
        let refused = heard(Stage::Mail, 553, "5.1.8 sender address refused");
        assert_eq!(classify(&refused, true), Rejected);
        assert_eq!(classify(&refused, false), RelayDown);
    }

    #[test]
    fn lost_connection_means_what_its_stage_says() {
        for cause in [Cause::Closed, Cause::TimedOut, Cause::Garbled] {
            assert_eq!(classify(&without(Stage::Dot, cause.clone()), false), Ambiguous);
            for stage in [Stage::Mail, Stage::Rcpt, Stage::Data] {
                assert_eq!(classify(&without(stage, cause.clone()), false), Deferred);
            }
            for stage in [Stage::Connect, Stage::Greeting, Stage::Ehlo, Stage::Auth] {
                assert_eq!(classify(&without(stage, cause.clone()), false), RelayDown);
            }
        }
        assert_eq!(classify(&without(Stage::Tls, Cause::Tls), false), RelayDown);
        assert_eq!(classify(&without(Stage::Auth, Cause::Unsupported), false), RelayDown);
        assert_eq!(classify(&without(Stage::Mail, Cause::Unsupported), false), Rejected);
    }

    #[test]
    fn stale_connection_costs_nothing_once() {
        let stale = |failure: Failure| Failure { stale: true, ..failure };
        assert_eq!(classify(&stale(heard(Stage::Mail, 421, "4.3.2 going down")), false), Reconnect);
        assert_eq!(classify(&stale(without(Stage::Mail, Cause::Closed)), false), Reconnect);
        assert_eq!(classify(&heard(Stage::Mail, 421, "4.3.2 going down"), false), Deferred);
    }

    #[test]
    fn wait_is_taken_from_the_reply_within_reason() {
        assert_eq!(said_wait("try again in 30 seconds"), Some(Duration::from_secs(30)));
        assert_eq!(said_wait("wait 5 minutes."), Some(Duration::from_mins(5)));
        assert_eq!(said_wait("in 999 hours"), Some(LONGEST_WAIT));
        assert_eq!(said_wait("请5分钟后再试"), Some(Duration::from_mins(5)));
        assert_eq!(said_wait("Wait 20-second"), Some(Duration::from_secs(20)));
        for none in ["error 30 at second 0", "0 seconds", "4.7.28 minutes", "in 5 secret ways", "x5 min", ""]
        {
            assert_eq!(said_wait(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_reply_at_all_is_misread(
            stage in prop::sample::select(vec![
                Stage::Connect, Stage::Tls, Stage::Greeting, Stage::Ehlo, Stage::Auth, Stage::Mail, Stage::Rcpt,
                Stage::Data, Stage::Dot,
            ]),
            code in 400u16..600, text in ".{0,80}", stale: bool, requested: bool,
        ) {
            let failure = Failure { stale, ..heard(stage, code, &text) };
            let meaning = classify(&failure, requested);
            prop_assert!(meaning != Ambiguous, "a reply is never ambiguous");
            if code < 500 {
                prop_assert!(meaning != Rejected && meaning != OurFault, "a 4xx never ends a job");
            }
            if stage < Stage::Mail {
                prop_assert!(matches!(meaning, RelayDown | Meaning::Throttled { .. }), "the relay's failure is no job's");
            }
        }
    }
}
