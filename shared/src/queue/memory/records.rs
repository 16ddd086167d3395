//! What the memory queue keeps of batches and jobs.
//!
//! What the jobs of a batch share is kept once. A job keeps only what is its own: its text forms (timeline, record)
//! are made when somebody asks. The status of a job follows from its [`Place`] in one step ([`super::index`]).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::job::{
    BatchId, BatchRecord, JobId, JobRecord, OnAmbiguous, Priority, Reason, Recipient, Status, TIMELINE_LIMIT,
    TimelineEntry,
};
use crate::message::Content;
use crate::queue::{Delivery, NewBatch};
use crate::reply::LastReply;
use crate::template::Bundle;

/// A batch and its jobs.
pub(super) struct Batch {
    pub(super) id: BatchId,
    pub(super) priority: Priority,
    pub(super) on_ambiguous: OnAmbiguous,
    pub(super) max_attempts: u32,
    pub(super) expire_after: Duration,
    pub(super) tags: Vec<String>,
    pub(super) metadata: Option<Map<String, Value>>,
    pub(super) message_domain: Box<str>,
    pub(super) accepted_at: Timestamp,
    /// Whether its jobs were scheduled when it was accepted.
    pub(super) scheduled: bool,
    /// Dropped when no job needs it any more.
    pub(super) content: Option<Arc<Content>>,
    pub(super) bundle: Option<Arc<Bundle>>,
    /// By their index; a removed record leaves an empty place. Boxed, so that the place is small.
    pub(super) jobs: Vec<Option<Box<Job>>>,
    /// Jobs by status, in the order of [`Status::ALL`]; removed records stay counted.
    pub(super) counts: [u32; Status::ALL.len()],
    /// Records that are left.
    pub(super) records: u32,
    /// Jobs that may still need the content.
    pub(super) needing: u32,
}

/// A job's own part.
pub(super) struct Job {
    pub(super) recipient: Recipient,
    pub(super) status: Status,
    pub(super) place: Place,
    pub(super) reason: Option<Reason>,
    pub(super) attempts: u32,
    pub(super) reclaims: u32,
    pub(super) marked: bool,
    pub(super) send_at: Option<Timestamp>,
    /// When it expires, on the clock that stands still while the queue is paused. Meaningless while scheduled.
    pub(super) expires: Timestamp,
    pub(super) last_reply: Option<Box<LastReply>>,
    pub(super) relay: Option<Box<str>>,
    /// The newest events, without the acceptance.
    events: Vec<Event>,
}

/// Where a job is: which index of the queue has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere yet.
    New,
    /// Ready, at this turn of its priority.
    Ready(u64),
    /// Waits for this time.
    Delayed(Timestamp),
    /// Held by a consumer.
    Leased,
    /// Held for a person: in no index.
    Held,
    /// Ended at this time.
    Ended(Timestamp),
}

/// A timeline entry in a small form.
struct Event {
    at: Timestamp,
    word: &'static str,
    detail: Detail,
}

/// What there is to say about an event.
pub(super) enum Detail {
    None,
    Attempt(u32),
    Fixed(&'static str),
    Text(Box<str>),
}

impl Detail {
    /// From a person's words; empty ones are none.
    pub(super) fn text(text: &str) -> Self {
        if text.is_empty() {
            Self::None
        } else {
            Self::Text(text.into())
        }
    }
}

impl Job {
    fn new(recipient: Recipient, send_at: Option<Timestamp>) -> Self {
        Self {
            recipient,
            status: Status::Queued,
            place: Place::New,
            reason: None,
            attempts: 0,
            reclaims: 0,
            marked: false,
            send_at,
            expires: Timestamp::default(),
            last_reply: None,
            relay: None,
            events: Vec::new(),
        }
    }

    /// Adds to the timeline, of which the newest [`TIMELINE_LIMIT`] stay.
    pub(super) fn note(&mut self, at: Timestamp, word: &'static str, detail: Detail) {
        if self.events.len() == TIMELINE_LIMIT {
            self.events.remove(0);
        }
        self.events.push(Event { at, word, detail });
    }

    /// Whether an event of this name is in the timeline.
    pub(super) fn has_event(&self, word: &str) -> bool {
        self.events.iter().any(|event| event.word == word)
    }

    fn timeline(&self, accepted_at: Timestamp) -> Vec<TimelineEntry> {
        // The acceptance is the batch's; it is shown as long as it would be among the newest.
        let accepted = (self.events.len() < TIMELINE_LIMIT).then(|| TimelineEntry {
            at: accepted_at,
            event: "accepted".to_owned(),
            detail: String::new(),
        });
        let later = self.events.iter().map(|event| TimelineEntry {
            at: event.at,
            event: event.word.to_owned(),
            detail: match &event.detail {
                Detail::None => String::new(),
                Detail::Attempt(n) => format!("attempt {n}"),
                Detail::Fixed(text) => (*text).to_owned(),
                Detail::Text(text) => text.to_string(),
            },
        });
        accepted.into_iter().chain(later).collect()
    }
}

impl Batch {
    /// A batch whose jobs are nowhere yet.
    pub(super) fn new(new: NewBatch, accepted_at: Timestamp) -> Self {
        let send_at = new.send_at.filter(|at| *at > accepted_at);
        let jobs: Vec<_> = new
            .recipients
            .into_iter()
            .map(|recipient| Some(Box::new(Job::new(recipient, send_at))))
            .collect();
        Self {
            id: new.id,
            priority: new.priority,
            on_ambiguous: new.on_ambiguous,
            max_attempts: new.max_attempts,
            expire_after: new.expire_after,
            tags: new.tags,
            metadata: new.metadata,
            message_domain: new.content.from.address.domain().into(),
            accepted_at,
            scheduled: send_at.is_some(),
            content: Some(new.content),
            bundle: new.bundle,
            counts: [0; Status::ALL.len()],
            records: u32::try_from(jobs.len()).unwrap_or(u32::MAX),
            needing: 0,
            jobs,
        }
    }

    /// How many jobs it made.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.jobs.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn job(&self, n: u32) -> Option<&Job> {
        self.jobs.get(n as usize)?.as_deref()
    }

    pub(super) fn job_mut(&mut self, n: u32) -> Option<&mut Job> {
        self.jobs.get_mut(n as usize)?.as_deref_mut()
    }

    /// What a consumer is handed.
    pub(super) fn delivery(&self, n: u32) -> Option<Delivery> {
        let job = self.job(n)?;
        Some(Delivery {
            job: JobId {
                batch: self.id,
                index: n,
            },
            recipient: job.recipient.clone(),
            priority: self.priority,
            attempt: job.attempts + 1,
            max_attempts: self.max_attempts,
            reclaims: job.reclaims,
            marked: job.marked,
            on_ambiguous: self.on_ambiguous,
            accepted_at: self.accepted_at,
            send_at: job.send_at,
            content: self.content.clone()?,
            bundle: self.bundle.clone(),
        })
    }

    /// What a person is shown of a job.
    pub(super) fn job_record(&self, n: u32) -> Option<JobRecord> {
        let job = self.job(n)?;
        let next_attempt_at = match job.place {
            Place::Delayed(due) => Some(due),
            _ => None,
        };
        Some(JobRecord {
            id: JobId {
                batch: self.id,
                index: n,
            },
            recipient: job.recipient.clone(),
            status: job.status,
            reason: job.reason,
            priority: self.priority,
            attempts: job.attempts,
            max_attempts: self.max_attempts,
            accepted_at: self.accepted_at,
            send_at: job.send_at,
            next_attempt_at,
            last_reply: job.last_reply.as_deref().cloned(),
            relay: job.relay.as_deref().map(ToOwned::to_owned),
            message_domain: self.message_domain.to_string(),
            tags: self.tags.clone(),
            metadata: self.metadata.clone(),
            timeline: job.timeline(self.accepted_at),
        })
    }

    /// What a person is shown of the batch.
    pub(super) fn record(&self) -> BatchRecord {
        BatchRecord {
            id: self.id,
            accepted_at: self.accepted_at,
            count: u64::from(self.count()),
            statuses: self.counts.map(u64::from),
            tags: self.tags.clone(),
            metadata: self.metadata.clone(),
        }
    }
}
