//! A connection that is logged in, and the messages that it carries.
//!
//! With PIPELINING (RFC 2920) a message's envelope is one write, and after two messages that went well the next
//! one's envelope goes behind the final dot: one round trip a message. What always holds: 354 stands where it must, or
//! the connection is not used again; a future that is dropped in the middle leaves a connection that is not usable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail, Quit, Rcpt, Rset};
use lettre::transport::smtp::extension::{MailBodyParameter, MailParameter};
use shared::classify::{Cause, Failure};
use shared::reply::{Reply, Stage};
use tokio::time::Instant;

use super::connect::{FAREWELL, failure, unsupported};
use super::ehlo::Capabilities;
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
    pub(super) learned: Arc<AtomicU32>,
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
        let is_stale = self.messages > 0 || self.used.elapsed() > IDLE;
        self.is_busy = true;
        self.messages += 1;
        self.handle.be_patient(self.terms.command);
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
            let ended = match &failure.cause {
                Cause::Reply(reply) => reply.code == 421 || failure.detail == ENDED,
                // What the relay lacks is known before anything is written.
                Cause::Unsupported => false,
                _ => true,
            };
            self.is_over |= ended;
            failure.stale = is_stale && ended && failure.stage == Stage::Mail;
            if failure.stale {
                self.learn(&failure);
            }
            failure
        })
    }

    async fn pipelined(&mut self, letter: &Letter) -> Result<(), Failure> {
        let group = if self.is_begun { None } else { Some(self.group(letter)) };
        let mail = match group {
            Some(group) => {
                self.handle.acknowledge_at_once();
                self.command(group, Stage::Mail).await
            }
            None => self.answer(Stage::Mail).await,
        }?;
        let rcpt = self.answer(Stage::Rcpt).await.map_err(|lost| first(lost, &[(Stage::Mail, &mail)]))?;
        let data = self.answer(Stage::Data).await;
        let data = data.map_err(|lost| first(lost, &[(Stage::Mail, &mail), (Stage::Rcpt, &rcpt)]))?;
        let refused =
            [(Stage::Mail, &mail), (Stage::Rcpt, &rcpt)].into_iter().find(|(_, r)| !r.is_positive());
        match (refused, data.code) {
            (None, 354) => Ok(()),
            (Some((stage, reply)), 354) => {
                // The server waits for content although it refused the envelope: a lone dot ends that.
                let reply = reply.clone();
                self.command(".\r\n", Stage::Dot).await?;
                Err(heard(stage, reply))
            }
            (refused, code) if code / 100 == 2 => {
                // A 250 where only 354 may be: answers have slipped, and no later one can be trusted.
                self.is_over = true;
                let (stage, _) = refused.unwrap_or((Stage::Data, &data));
                let detail = format!("{code} in answer to DATA");
                Err(Failure { stage, cause: Cause::Garbled, stale: false, detail })
            }
            (refused, _) => {
                let (stage, reply) = refused.unwrap_or((Stage::Data, &data));
                let failure = heard(stage, reply.clone());
                self.undo(&failure, mail.is_positive()).await;
                Err(failure)
            }
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
            let reply = self.command(command, stage).await?;
            let is_wanted = if stage == Stage::Data { reply.code == 354 } else { reply.is_positive() };
            if !is_wanted {
                let failure = heard(stage, reply);
                self.undo(&failure, stage != Stage::Mail).await;
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Ends a transaction that was begun and refused, so that another can follow.
    async fn undo(&mut self, failure: &Failure, is_begun: bool) {
        let is_closing = matches!(&failure.cause, Cause::Reply(reply) if reply.code == 421);
        if is_begun
            && !is_closing
            && !matches!(self.command(Rset, failure.stage).await, Ok(reply) if reply.is_positive())
        {
            self.is_over = true;
        }
    }

    /// A server that ends every connection after as many messages is not asked for one more.
    fn learn(&self, failure: &Failure) {
        let carried = self.messages.saturating_sub(1);
        let is_limit = match &failure.cause {
            // 4.3.2 is a server that goes down, 4.7.0 one that does not like us: neither counts messages.
            Cause::Reply(reply) => {
                !reply.enhanced.is_some_and(|e| matches!((e.subject, e.detail), (3, 2) | (7, 0)))
            }
            _ => false,
        };
        if is_limit && carried > 1 && self.used.elapsed() < IDLE {
            self.terms.learned.fetch_min(carried, Ordering::Relaxed);
        }
    }

    /// Writes the content and the final dot, and behind it the envelope of `next`, where it fits; then waits for the
    /// answer to the dot. [`Connection::is_begun`] tells whether the envelope of `next` went out.
    ///
    /// # Errors
    /// The [`Failure`]; one that is not a reply leaves the message's fate unknown.
    pub async fn content(&mut self, letter: &Letter, next: Option<&Letter>) -> Result<Reply, Failure> {
        self.is_busy = true;
        self.handle.be_patient(self.terms.data);
        let mut out = stuffed(letter);
        if let Some(next) = next.filter(|next| self.fits(next).is_ok()) {
            out.push_str(&self.group(next));
            self.is_begun = true;
        }
        let answer = self.command(out, Stage::Dot).await;
        self.is_busy = false;
        self.used = Instant::now();
        let failure = match answer {
            Ok(reply) if reply.is_positive() => {
                self.good += 1;
                return Ok(reply);
            }
            Ok(reply) if reply.code / 100 == 3 => {
                self.is_over = true;
                let detail = format!("{} in answer to the final dot", reply.code);
                Failure { stage: Stage::Dot, cause: Cause::Garbled, stale: false, detail }
            }
            Ok(reply) => {
                self.is_over |= reply.code == 421;
                heard(Stage::Dot, reply)
            }
            Err(failure) => {
                self.is_over = true;
                failure
            }
        };
        self.good = 0;
        self.is_begun &= !self.is_over;
        Err(failure)
    }

    /// Writes a command and reads one reply.
    async fn command(&mut self, command: impl std::fmt::Display, stage: Stage) -> Result<Reply, Failure> {
        // lettre's own reading of the reply decides nothing: the handle has it.
        let result = self.smtp.command(command).await;
        if let Some(reply) = self.handle.heard() {
            return Ok(note(stage, reply));
        }
        if result.is_err() && self.handle.broken().is_none() {
            // The write failed: the server may have answered before it closed.
            return self.answer(stage).await;
        }
        Err(failure(&self.handle, stage, None))
    }

    /// Reads one reply.
    async fn answer(&mut self, stage: Stage) -> Result<Reply, Failure> {
        let ahead = self.handle.heard();
        // Where the reply was read together with the one before, lettre still has to read its copy.
        drop(self.smtp.read_response().await);
        match ahead.or_else(|| self.handle.heard()) {
            Some(reply) => Ok(note(stage, reply)),
            None => Err(failure(&self.handle, stage, None)),
        }
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
        self.messages >= self.terms.max_messages.min(self.terms.learned.load(Ordering::Relaxed))
    }

    /// Whether another message can follow.
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        !self.is_over && !self.is_busy
    }

    /// Whether the server has closed it, or said something, while it was idle: then it is not to be used again.
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

fn note(stage: Stage, reply: Reply) -> Reply {
    tracing::debug!(%stage, code = reply.code, text = %reply.text, "the relay answers");
    reply
}

fn heard(stage: Stage, reply: Reply) -> Failure {
    Failure { stage, cause: Cause::Reply(reply), stale: false, detail: String::new() }
}

/// A connection that ends in the middle of a group has often said why: the first refusal is the failure, not the end.
fn first(lost: Failure, answers: &[(Stage, &Reply)]) -> Failure {
    let refusal = answers.iter().find(|(_, reply)| !reply.is_positive());
    refusal.map_or(lost, |(stage, reply)| Failure { detail: ENDED.into(), ..heard(*stage, (*reply).clone()) })
}

/// The detail of a failure after which there is no connection.
const ENDED: &str = "and the connection ended";

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
