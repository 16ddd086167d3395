//! One SMTP connection to a relay: opened, logged in, used for one message after another.

use std::sync::Arc;

use shared::classify::Failure;
use shared::reply::Reply;
use shared::settings::Smtp;

use crate::compose::Letter;

/// Opens connections to one relay. Cheap to clone; one TLS configuration for all, so that sessions resume.
#[derive(Debug, Clone)]
pub struct Connector {}

impl Connector {
    /// A connector for a relay.
    ///
    /// # Errors
    /// When `smtp.ca_file` cannot be read or holds no certificate, or no system roots are found where TLS is needed.
    pub fn try_new(_relay: Arc<Smtp>) -> Result<Self, ConnectorError> {
        unimplemented!()
    }

    /// Opens and closes a connection.
    ///
    /// # Errors
    /// As open.
    pub async fn probe(&self) -> Result<(), Failure> {
        unimplemented!()
    }
    /// Connects, greets, protects and logs in. Each stage has its own deadline.
    ///
    /// # Errors
    /// The [`Failure`] with its stage.
    pub async fn open(&self) -> Result<Connection, Failure> {
        unimplemented!()
    }
}

/// A relay's settings that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {message}")]
pub struct ConnectorError {
    /// The setting, as an environment variable.
    pub setting: &'static str,
    /// What is wrong with it.
    pub message: String,
}

/// What became of a message's content.
#[derive(Debug)]
pub struct Handed {
    /// The reply to the final dot, or what came instead.
    pub result: Result<Reply, Failure>,
}

/// One connection, logged in. Never used after a [`Connection::is_usable`] of false; dropping it closes the socket.
///
/// A message goes `begin` → `envelope` → `content`. `content` may carry the next message's `begin` in the same write
/// (RFC 2920 §3.1): then `envelope` is called for that one without another `begin`.
#[derive(Debug)]
pub struct Connection {}

impl Connection {
    /// Writes MAIL, RCPT and DATA of a letter: in one write where PIPELINING is offered. Checks SIZE and SMTPUTF8 first.
    ///
    /// # Errors
    /// [`Failure`] when the relay lacks what the letter needs (nothing was written, the connection stays usable) or
    /// when the write failed.
    pub async fn begin(&mut self, _letter: &Letter) -> Result<(), Failure> {
        unimplemented!()
    }

    /// Reads the replies up to the 354. After an error the transaction is undone (a lone dot where 354 came for no
    /// recipient; RSET else), and [`Connection::is_usable`] tells whether another message can follow.
    ///
    /// # Errors
    /// The [`Failure`] of the first command that was refused.
    pub async fn envelope(&mut self) -> Result<(), Failure> {
        unimplemented!()
    }

    /// Gives up a transaction that got its 354 without sending content: the connection is dropped, since nothing else
    /// is safe.
    pub fn abandon(&mut self) {
        unimplemented!()
    }

    /// Writes the content and the final dot, and behind it the envelope of `next` where [`Connection::looks_ahead`];
    /// then waits for the reply to the dot. An error at [`shared::reply::Stage::Dot`] other than a reply leaves the
    /// message's fate unknown.
    pub async fn content(&mut self, _letter: &Letter, _next: Option<&Letter>) -> Handed {
        unimplemented!()
    }

    /// Whether the next letter's envelope may go behind this one's final dot: PIPELINING is offered, two messages went
    /// well, and this is not the last message that the connection may carry.
    #[must_use]
    pub fn looks_ahead(&self) -> bool {
        unimplemented!()
    }

    /// Whether another message can follow.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        unimplemented!()
    }

    /// Whether an envelope is on its way.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        unimplemented!()
    }
    /// Whether it has carried all the messages that it may.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        unimplemented!()
    }
    /// Whether the server has closed it, or said goodbye, while it was idle.
    pub fn closed_while_idle(&mut self) -> bool {
        unimplemented!()
    }
    /// No pipelining.
    pub fn be_sequential(&mut self) {
        unimplemented!()
    }

    /// Says QUIT without waiting long for the answer, and closes.
    pub async fn quit(self) {
        unimplemented!()
    }
}
