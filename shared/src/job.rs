//! A job is one message to one recipient; a batch is what one accepted request made.
//!
//! This module owns their names, states and records. Which state may follow which is kept by the queues,
//! and proven by the conformance suite.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::address::Mailbox;
use crate::clock::Timestamp;
use crate::reply::LastReply;

/// Names a batch: a UUID of version 7 (RFC 9562) in 26 characters of lower-case base32hex, so that ids sort by age.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(uuid::Uuid);

impl BatchId {
    /// A new id, later than all that this process made before.
    #[must_use]
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7())
    }

    /// Parses the 26 characters.
    ///
    /// # Errors
    /// [`InvalidId`] for anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        if text.len() != 26 || text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(InvalidId);
        }
        let bytes = data_encoding::BASE32HEX_NOPAD
            .decode(text.to_ascii_uppercase().as_bytes())
            .map_err(|_| InvalidId)?;
        uuid::Uuid::from_slice(&bytes).map(Self).map_err(|_| InvalidId)
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 26];
        data_encoding::BASE32HEX_NOPAD.encode_mut(self.0.as_bytes(), &mut text);
        text.make_ascii_lowercase();
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// Names a job: its batch and its place in it, `<batch>-<n>` from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId {
    /// The batch.
    pub batch: BatchId,
    /// The place in the batch, from 0.
    pub index: u32,
}

impl JobId {
    /// Parses `<batch>-<n>`.
    ///
    /// # Errors
    /// [`InvalidId`] for anything else; a number with a sign or a leading zero too.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let (batch, index) = text.split_once('-').ok_or(InvalidId)?;
        let id = Self { batch: BatchId::parse(batch)?, index: index.parse().map_err(|_| InvalidId)? };
        if id.index.to_string() == index { Ok(id) } else { Err(InvalidId) }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.batch, self.index)
    }
}

macro_rules! text_form {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                Self::parse(s)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    )*};
}
text_form!(BatchId, JobId);

/// Not the id of a batch or a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id")]
pub struct InvalidId;

/// A closed choice of words: as text, from text, all of them.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant),* }

        impl $name {
            /// All of them, in the order in which they are documented.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word that users see and that is stored.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// From the word.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// The state of a job. The last five are final.
    Status {
        /// Ready to be sent, or waiting for its relay, a limit or a paused queue before any attempt counted.
        Queued = "queued",
        /// Waits for its `send_at`.
        Scheduled = "scheduled",
        /// In a worker's hands.
        Sending = "sending",
        /// An attempt has counted; waits for the next.
        Retrying = "retrying",
        /// The relay answered 250 to the final dot.
        Sent = "sent",
        /// Given up; see [`Reason`].
        Failed = "failed",
        /// Taken back by a person before it was sent.
        Cancelled = "cancelled",
        /// The relay may have it; waits for a person's decision.
        Held = "held",
        /// Its address is one never to send to.
        Suppressed = "suppressed",
    }
}

impl Status {
    /// Whether the job has ended.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Sent | Self::Failed | Self::Cancelled | Self::Held | Self::Suppressed)
    }
}

words! {
    /// Why a job is `failed` or `suppressed`.
    Reason {
        /// The relay refused it for good.
        Permanent = "permanent",
        /// Every attempt was deferred.
        RetriesExhausted = "retries_exhausted",
        /// Not sent within `jobs.expire_after`.
        Expired = "expired",
        /// Its worker died five times.
        Poison = "poison",
        /// The message could not be built.
        Render = "render",
        /// The message could not be encrypted.
        Encryption = "encryption",
        /// The address is suppressed.
        Suppressed = "suppressed",
    }
}

words! {
    /// How urgent a batch is. Of twelve claims, `high` gets first pick of eight, `normal` of three, `bulk` of one.
    Priority {
        /// Overtakes: two of three claims.
        High = "high",
        /// The default.
        Normal = "normal",
        /// Never starves: at least one of twelve claims.
        Bulk = "bulk",
    }
}

words! {
    /// What happens when a connection or a worker died after the message was handed over and before the
    /// reply was recorded: the relay may have the message.
    OnAmbiguous {
        /// Send again: a retry that counts and waits its delay. A duplicate may arise.
        Resend = "resend",
        /// Never send twice: the job is held for a person.
        Hold = "hold",
    }
}

/// A job's recipient, and what is particular to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipient {
    /// Whom the message goes to.
    #[serde(flatten)]
    pub mailbox: Mailbox,
    /// Laid over the batch's template data, at the top level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Map<String, Value>>,
}

/// One entry of a job's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// When.
    pub at: Timestamp,
    /// What, one word: `accepted`, `sending`, `retrying`, `sent`, …
    pub event: String,
    /// More, for a person. Never an address or a secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// How many of a job's newest timeline entries are kept.
pub const TIMELINE_LIMIT: usize = 50;

/// How often a job may be reclaimed from dead workers before it is poison.
pub const POISON_RECLAIMS: u32 = 5;

/// What is known of a job: the answer to `GET /v1/jobs/{id}`.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRecord {
    /// The job.
    pub id: JobId,
    /// Its recipient.
    pub recipient: Recipient,
    /// Where it stands.
    pub status: Status,
    /// Why it failed.
    pub reason: Option<Reason>,
    /// How urgent it is.
    pub priority: Priority,
    /// Attempts that counted.
    pub attempts: u32,
    /// Attempts at most: 1 + `retry.max_retries` at acceptance.
    pub max_attempts: u32,
    /// When the queue confirmed it.
    pub accepted_at: Timestamp,
    /// When it may first be sent, where the request asked for a time.
    pub send_at: Option<Timestamp>,
    /// When the next attempt is due; only while scheduled or retrying.
    pub next_attempt_at: Option<Timestamp>,
    /// What the relay said last.
    pub last_reply: Option<LastReply>,
    /// The relay that was tried last.
    pub relay: Option<String>,
    /// The domain of the sender: the right side of the Message-ID.
    pub message_domain: String,
    /// Names given by the caller.
    pub tags: Vec<String>,
    /// Data given by the caller.
    pub metadata: Option<Map<String, Value>>,
    /// The newest [`TIMELINE_LIMIT`] events, oldest first.
    pub timeline: Vec<TimelineEntry>,
}

/// The Message-ID of a job (RFC 5322 §3.6.4), without angle brackets. Fixed at acceptance, so that a receiver
/// can tell a duplicate.
#[must_use]
pub fn message_id(job: JobId, sender_domain: &str) -> String {
    format!("{job}@{sender_domain}")
}

/// The counts of a batch by status: the answer to `GET /v1/batches/{id}`.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchRecord {
    /// The batch.
    pub id: BatchId,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// How many jobs it made.
    pub count: u64,
    /// How many of them are in each status, in the order of [`Status::ALL`]. A job whose record has been removed
    /// after its retention is still counted under the status it ended in.
    pub statuses: [u64; Status::ALL.len()],
    /// Names given by the caller.
    pub tags: Vec<String>,
    /// Data given by the caller.
    pub metadata: Option<Map<String, Value>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_age_and_survive_their_text() {
        let ids: Vec<BatchId> = (0..1000).map(|_| BatchId::generate()).collect();
        let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
        assert!(ids.is_sorted() && texts.is_sorted());
        assert_eq!(texts[0].parse::<BatchId>().unwrap(), ids[0]);
        let job = JobId { batch: ids[0], index: 17 };
        assert_eq!(job.to_string().parse::<JobId>().unwrap(), job);
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        let batch = BatchId::generate().to_string();
        for bad in [
            "",
            "x",
            &batch.to_uppercase(),
            &format!("{batch}-"),
            &format!("{batch}-01"),
            &format!("{batch}-+1"),
        ] {
            assert_eq!(JobId::parse(bad), Err(InvalidId), "{bad}");
        }
        assert_eq!(BatchId::parse(&format!("{batch}0")), Err(InvalidId));
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for status in Status::ALL {
            assert_eq!(Status::from_word(status.as_str()), Some(*status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        assert_eq!(Priority::from_word("urgent"), None);
    }
}
