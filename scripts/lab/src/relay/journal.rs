//! What the relay has seen.

use std::collections::BTreeMap;

/// A message whose final dot came. Kept when the relay takes it: before its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Which connection brought it; the first is 1.
    pub connection: u64,
    /// The envelope's sender.
    pub from: String,
    /// The parameters of MAIL, such as `SIZE=300`.
    pub parameters: String,
    /// The envelope's recipients that were not refused.
    pub to: Vec<String>,
    /// The message, without the dots that SMTP adds.
    pub source: String,
    /// Its Message-ID, without the angle brackets.
    pub message_id: Option<String>,
    /// Who had logged in.
    pub login: Option<String>,
    /// Whether it came over TLS.
    pub is_protected: bool,
}

/// What the relay has counted since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Connections that were opened.
    pub connections: u64,
    /// Connections that are open.
    pub open: usize,
    /// The most that were open at one time.
    pub peak: usize,
    /// Commands by verb, in upper case.
    pub commands: BTreeMap<String, u64>,
    /// How many times the relay had answered and had nothing more to read: each costs the client a round trip.
    pub round_trips: u64,
    /// The most commands that could be read without waiting in between.
    pub largest_group: usize,
    /// TLS handshakes that took up an earlier session.
    pub resumed: u64,
    /// Messages that were taken.
    pub messages: usize,
}

impl Counts {
    /// How often a command came.
    #[must_use]
    pub fn of(&self, verb: &str) -> u64 {
        self.commands.get(verb).copied().unwrap_or(0)
    }
}

/// The value of the Message-ID header.
pub(super) fn message_id(source: &str) -> Option<String> {
    let headers = source.split("\r\n\r\n").next()?;
    let value = headers.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("message-id").then_some(value)
    })?;
    Some(value.trim().trim_matches(['<', '>']).to_owned())
}
