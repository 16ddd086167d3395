//! From a delivery to a message (RFC 5322, MIME) and its envelope.

use shared::address::Address;
use shared::job::Reason;
use shared::queue::Delivery;

/// A message and its envelope, ready for a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The envelope's sender.
    pub from: Address,
    /// The envelope's recipient.
    pub to: Address,
    /// The message: CRLF line ends, no line over 998 octets, ASCII unless `smtputf8`. Not dot-stuffed; ends with CRLF.
    pub source: String,
    /// Whether the relay must offer SMTPUTF8 (RFC 6531): an address in the envelope or the headers is not ASCII.
    pub smtputf8: bool,
}

/// Why a message cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotBuilt {
    /// The reason that the job fails with.
    pub reason: Reason,
    /// For a person; no address.
    pub message: String,
}

/// Builds messages; keeps the templates of recent bundles compiled.
#[derive(Debug, Default)]
pub struct Composer {}

impl Composer {
    /// Builds the message of a delivery. The same delivery gives the same headers in every attempt.
    ///
    /// # Errors
    /// [`NotBuilt`] when it cannot be rendered or built.
    pub fn compose(&self, _delivery: &Delivery) -> Result<Letter, NotBuilt> {
        unimplemented!()
    }
}
