//! What it means that a message did not get its 250: pure decisions, from the stage, the code, the enhanced
//! code and the provider's text, in this order. The texts are data, in `classify.toml`.

use std::time::Duration;

use crate::reply::{LastReply, Reply, Stage};

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
    /// The name of the relay is no matter of a failure; what it said is, for the record.
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
pub fn classify(_failure: &Failure, _sender_requested: bool) -> Meaning {
    unimplemented!()
}
