//! A connection that is logged in, and the messages that it carries.
//!
//! With PIPELINING (RFC 2920) a message's envelope is one write, and after two messages that went well the next
//! one's envelope goes behind the final dot: one round trip a message. What always holds: 354 stands where it must, or
//! the connection is not used again; a future that is dropped in the middle leaves a connection that is not usable.

use std::sync::Arc;
use std::time::Duration;

use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail, Quit, Rcpt, Rset};
use lettre::transport::smtp::extension::{MailBodyParameter, MailParameter};
use shared::classify::{Cause, Failure};
use shared::reply::{Reply, Stage};
use tokio::time::Instant;

use super::connect::{FAREWELL, failure, hear, unsupported};
use super::ehlo::Capabilities;
use super::limit::MessageLimit;
use super::wire::Handle;
use crate::compose::Letter;

/// How many messages must have gone well before the next envelope goes behind a final dot.
const GOOD_BEFORE_LOOKING_AHEAD: u32 = 2;

/// How long a connection may be unused before its first command may find it stale.
const IDLE: Duration = Duration::from_secs(1);

/// What a connection keeps to.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) command: Duration,
    pub(super) data: Duration,
    pub(super) max_messages: u32,
    pub(super) learned: Arc<MessageLimit>,
}

/// One connection, logged in. Not to be used after [`Connection::is_usable`] says no; dropping it closes the socket.
///
/// A message goes `envelope` → `content`. `content` may carry the next message's envelope in the same write: then
/// `envelope` is called for that one and only reads the answers.
pub struct Connection {
    smtp: AsyncSmtpConnection,
    handle: Handle,
    can: Capabilities,
    terms: Terms,
    /// Transactions that were begun.
    messages: u32,
    /// Messages that were taken since the last trouble.
    good: u32,
    used: Instant,
    /// The envelope of the next message is on its way.
    is_begun: bool,
    /// Set while a future is under way, so that one that was dropped is noticed.
    is_busy: bool,
    is_over: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("messages", &self.messages).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(smtp: AsyncSmtpConnection, handle: Handle, can: Capabilities, terms: Terms) -> Self {
        let used = Instant::now();
        Self {
            smtp,
            handle,
            can,
            terms,
            messages: 0,
            good: 0,
            used,
            is_begun: false,
            is_busy: false,
            is_over: false,
        }
    }

    /// Whether the relay can take this letter at all: SMTPUTF8 (RFC 6531) and SIZE (RFC 1870) are known from EHLO.
    ///
    /// # Errors
    /// [`Cause::Unsupported`]; nothing has been written.
    fn fits(&self, letter: &Letter) -> Result<(), Failure> {
        if letter.smtputf8 && !self.can.smtputf8 {
            return Err(unsupported(Stage::Mail, "an address is not ASCII and the relay offers no SMTPUTF8"));
        }
        let size = letter.source.len();
        match self.can.max_size {
            Some(max) if size > max => {
                Err(unsupported(Stage::Mail, &format!("the message has {size} bytes, the relay takes {max}")))
            }
            _ => Ok(()),
        }
    }

    fn mail(&self, letter: &Letter) -> Mail {
        let mut parameters = Vec::new();
        if self.can.has_size {
            parameters.push(MailParameter::Size(letter.source.len()));
        }
        if letter.smtputf8 {
            parameters.push(MailParameter::SmtpUtfEight);
            if self.can.eight_bit {
                parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
            }
        }
        Mail::new(Some(letter.from.as_lettre().clone()), parameters)
    }

    fn group(&self, letter: &Letter) -> String {
        format!("{}{}{Data}", self.mail(letter), Rcpt::new(letter.to.as_lettre().clone(), Vec::new()))
    }

    /// MAIL, RCPT and DATA, up to the 354: in one write where PIPELINING is offered; only the answers where they went
    /// behind the last final dot. After an error the transaction is undone, where the connection stays usable.
    ///
    /// # Errors
    /// The [`Failure`] of the first command that was refused, or of what the relay lacks for this letter.
    pub async fn envelope(&mut self, letter: &Letter) -> Result<(), Failure> {
        if !self.is_begun {
            self.fits(letter)?;
        }
        tracing::debug!(
            from = %letter.from, to = %letter.to, bytes = letter.source.len(), ahead = self.is_begun, "envelope"
        );
        let was_idle = self.used.elapsed() > IDLE;
        let carried = self.messages;
        self.is_busy = true;
        self.messages += 1;
        let result = if self.can.pipelining || self.is_begun {
            self.pipelined(letter).await
        } else {
            self.stepwise(letter).await
        };
        self.is_begun = false;
        self.is_busy = false;
        self.used = Instant::now();
        result.map_err(|mut failure| {
            self.good = 0;
            failure.stale = failure.stage == Stage::Mail && (carried > 0 || was_idle);
            if let Cause::Reply(reply) = &failure.cause
                && failure.stale
                && !was_idle
            {
                self.terms.learned.hear(carried, reply);
            }
            failure
        })
    }

    async fn pipelined(&mut self, letter: &Letter) -> Result<(), Failure> {
        self.handle.be_patient(self.terms.command);
        if !self.is_begun {
            // The first answer stays with the handle.
            drop(self.smtp.command(self.group(letter)).await);
        }
        let mut refusal: Option<Failure> = None;
        let mut is_begun = false;
        for stage in [Stage::Mail, Stage::Rcpt, Stage::Data] {
            // Mostly all answers have come in one piece.
            if !self.handle.has_heard() {
                self.handle.acknowledge_at_once();
            }
            // A connection that ends in the middle of a group has often said why.
            let reply = match self.answer(stage).await {
                Ok(reply) => reply,
                Err(lost) => return Err(refusal.unwrap_or(lost)),
            };
            let (code, is_wanted) = (reply.code, is_wanted(stage, &reply));
            is_begun |= stage == Stage::Mail && is_wanted;
            if !is_wanted {
                // Answers that have slipped: no later one can be trusted.
                let failure = self.refusal(stage, reply)?;
                refusal.get_or_insert(failure);
            }
            if code == 421 {
                break;
            }
            if stage == Stage::Data && is_wanted && refusal.is_some() {
                self.lone_dot().await;
                is_begun = false;
            }
        }
        match refusal {
            Some(failure) => {
                self.undo(failure.stage, is_begun).await;
                Err(failure)
            }
            None => Ok(()),
        }
    }

    async fn stepwise(&mut self, letter: &Letter) -> Result<(), Failure> {
        let mail = self.mail(letter);
        let rcpt = Rcpt::new(letter.to.as_lettre().clone(), Vec::new());
        for (stage, command) in [
            (Stage::Mail, mail.to_string()),
            (Stage::Rcpt, rcpt.to_string()),
            (Stage::Data, Data.to_string()),
        ] {
            self.handle.be_patient(self.terms.command);
            let reply = self.command(command, stage).await?;
            if !is_wanted(stage, &reply) {
                let failure = self.refusal(stage, reply)?;
                self.undo(stage, stage != Stage::Mail).await;
                return Err(failure);
            }
        }
        Ok(())
    }

    /// What a reply that was not wanted is: a refusal, or (the error) one that cannot stand where it stands.
    fn refusal(&mut self, stage: Stage, reply: Reply) -> Result<Failure, Failure> {
        if reply.is_transient() || reply.is_permanent() {
            self.is_over |= reply.code == 421;
            return Ok(heard(stage, reply));
        }
        self.is_over = true;
        Err(garbled(stage, reply.code))
    }

    /// Ends the content of a message that has no recipient: a server may wait for it although it refused the envelope
    /// (RFC 2920 §3.1). Its answer says nothing about the message.
    async fn lone_dot(&mut self) {
        self.handle.be_patient(self.terms.command);
        let answer = self.command(".\r\n", Stage::Dot).await;
        self.is_over |= !matches!(answer, Ok(reply) if reply.code != 421 && reply.code / 100 != 3);
    }

    /// Ends a transaction that was begun and refused, so that another can follow.
    async fn undo(&mut self, stage: Stage, is_begun: bool) {
        if is_begun && !self.is_over {
            self.handle.be_patient(self.terms.command);
            let answer = self.command(Rset, stage).await;
            self.is_over |= !matches!(answer, Ok(reply) if reply.is_positive());
        }
    }

    /// Writes the content and the final dot, and behind it the envelope of `next`, where the connection looks ahead and
    /// it fits; then waits for the answer to the dot. [`Connection::is_begun`] tells whether the envelope of `next` went
    /// out.
    ///
    /// # Errors
    /// The [`Failure`]. At [`Stage::Data`] the final dot has not gone out; at [`Stage::Dot`] one that is not a reply
    /// leaves the message's fate unknown.
    pub async fn content(&mut self, letter: &Letter, next: Option<&Letter>) -> Result<Reply, Failure> {
        self.is_busy = true;
        let handed = if self.handle.stirred() {
            // Closed, or 421, since the 354: then nothing of the message goes out.
            self.is_over = true;
            let answer = self.answer(Stage::Data).await;
            answer.and_then(|reply| Err(self.refusal(Stage::Data, reply)?))
        } else {
            self.hand_over(letter, next).await
        };
        self.is_busy = false;
        self.used = Instant::now();
        match &handed {
            Ok(_) => self.good += 1,
            Err(_) => self.good = 0,
        }
        self.is_begun &= !self.is_over;
        handed
    }

    async fn hand_over(&mut self, letter: &Letter, next: Option<&Letter>) -> Result<Reply, Failure> {
        let mut out = stuffed(letter);
        let dot = out.len();
        if let Some(next) = next.filter(|next| self.looks_ahead() && self.fits(next).is_ok()) {
            out.push_str(&self.group(next));
            self.is_begun = true;
        }
        let all = out.len();
        tracing::debug!(bytes = dot, ahead = self.is_begun, "content");
        self.handle.be_patient_with_content(self.terms.command, self.terms.data);
        let answer = self.command(out, Stage::Dot).await;
        let written = self.handle.written();
        // What the socket never took has not gone out: without its dot a message is not one.
        let stage = if written < dot { Stage::Data } else { Stage::Dot };
        self.is_over |= written < all;
        match answer {
            Ok(reply) if reply.is_positive() && stage == Stage::Dot => Ok(reply),
            Ok(reply) => Err(self.refusal(stage, reply)?),
            Err(failure) => Err(Failure { stage, ..failure }),
        }
    }

    /// Writes a command and reads one reply. Content has a patience of its own.
    async fn command(&mut self, command: impl std::fmt::Display, stage: Stage) -> Result<Reply, Failure> {
        // lettre's own reading of the reply decides nothing: the handle has it. A write that failed is no end yet,
        // since the server may have answered before it closed.
        drop(self.smtp.command(command).await);
        self.answer(stage).await
    }

    /// Reads one reply.
    async fn answer(&mut self, stage: Stage) -> Result<Reply, Failure> {
        let reply = hear(&mut self.smtp, &self.handle, stage).await;
        if reply.is_none() {
            self.is_over = true;
        }
        reply.ok_or_else(|| failure(&self.handle, stage, None))
    }

    /// Whether the next letter's envelope may go behind this one's final dot: PIPELINING is offered, the last messages
    /// went well, and the connection may carry another.
    #[must_use]
    pub fn looks_ahead(&self) -> bool {
        self.can.pipelining && self.good >= GOOD_BEFORE_LOOKING_AHEAD && !self.is_spent()
    }

    /// Whether the envelope of the next message is on its way.
    #[must_use]
    pub const fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// Whether it has carried all the messages that it may.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.messages >= self.terms.max_messages.min(self.terms.learned.get())
    }

    /// Whether another message can follow.
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        !self.is_over && !self.is_busy
    }

    /// Whether the server has closed it, or said something, while it was idle: then it is not to be used again. Costs
    /// no round trip.
    #[must_use]
    pub fn stirred(&self) -> bool {
        self.handle.stirred()
    }

    /// No pipelining from now on: the server did not understand.
    pub const fn be_sequential(&mut self) {
        self.can.pipelining = false;
    }

    /// Gives up a transaction: nothing is safe but to drop the connection.
    pub const fn abandon(&mut self) {
        self.is_over = true;
    }

    /// Says QUIT, without waiting long for the answer, and closes.
    pub async fn quit(mut self) {
        self.handle.be_patient(FAREWELL);
        drop(self.smtp.command(Quit).await);
    }
}

fn heard(stage: Stage, reply: Reply) -> Failure {
    Failure { stage, cause: Cause::Reply(reply), stale: false, detail: String::new() }
}

fn garbled(stage: Stage, code: u16) -> Failure {
    Failure {
        stage,
        cause: Cause::Garbled,
        stale: false,
        detail: format!("{code} is no answer to this step"),
    }
}

/// 354 to DATA, 2xx to the others: and 354 nowhere else.
fn is_wanted(stage: Stage, reply: &Reply) -> bool {
    if stage == Stage::Data { reply.code == 354 } else { reply.is_positive() }
}

/// The content as it goes over the wire: a dot at the start of a line doubled (RFC 5321 §4.5.2), the final dot behind.
fn stuffed(letter: &Letter) -> String {
    let source = letter.source.as_str();
    let mut out = String::with_capacity(source.len() + 1_024);
    let mut from = 0;
    if source.starts_with('.') {
        out.push('.');
    }
    for at in memchr::memmem::find_iter(source.as_bytes(), b"\r\n.") {
        out.push_str(&source[from..at + 2]);
        out.push('.');
        from = at + 2;
    }
    out.push_str(&source[from..]);
    if !source.ends_with("\r\n") {
        out.push_str("\r\n");
    }
    out.push_str(".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use shared::address::Address;

    use super::*;

    /// A protected connection whose relay has said 354 and reads no more.
    async fn stalled(relay: &lab::relay::Relay) -> Connection {
        let env = [("MAIL_FROM", "a@b.c"), ("SMTP_HOST", "127.0.0.1"), ("SMTP_TLS", "implicit")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut smtp = shared::settings::Settings::load(shared::settings::Program::Api, env).unwrap().smtp;
        smtp.port = relay.addr().port();
        smtp.ca_file = relay.ca_file();
        let mut connection = super::super::Connector::try_new(Arc::new(smtp)).unwrap().open().await.unwrap();
        let letter = Letter {
            from: Address::parse("a@b.c").unwrap(),
            to: Address::parse("stall@b.c").unwrap(),
            source: String::new(),
            smtputf8: false,
        };
        connection.envelope(&letter).await.unwrap();
        let short = Duration::from_millis(500);
        connection.handle.be_patient_with_content(short, short);
        connection
    }

    #[tokio::test]
    async fn flush_of_a_protected_connection_has_a_deadline() {
        let script = lab::relay::Script { tls: lab::relay::Tls::Implicit, ..lab::relay::Script::default() };
        let relay = lab::relay::Relay::start(script).await.unwrap();
        let mut first = stalled(&relay).await;
        drop(first.command("x".repeat(30_000_000), Stage::Dot).await);
        // TLS itself holds back the last 64 KiB of what the socket seemed to take: a little less is all written, and
        // then never flushed.
        let taken = first.handle.written();
        let mut second = stalled(&relay).await;
        let command = second.command("x".repeat(taken - 20_000), Stage::Dot);
        let answer = tokio::time::timeout(Duration::from_secs(20), command).await;
        assert_eq!(answer.expect("it waits on and on").unwrap_err().cause, Cause::TimedOut);
    }

    #[test]
    fn dots_at_the_start_of_a_line_are_doubled() {
        let address = Address::parse("a@b.c").unwrap();
        for (source, wire) in [
            ("a\r\n", "a\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            (".a\r\n..\r\nb.c\r\n.\r\n", "..a\r\n...\r\nb.c\r\n..\r\n.\r\n"),
        ] {
            let letter =
                Letter { from: address.clone(), to: address.clone(), source: source.into(), smtputf8: false };
            assert_eq!(stuffed(&letter), wire);
        }
    }
}
