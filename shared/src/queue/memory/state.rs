//! The jobs, where they are, and the counts that follow every move.
//!
//! A job is in exactly one [`Place`]; [`State::put`] is the one way from one to the next. It keeps the indexes, the
//! ledger and the batch's counts in step, so that no caller can forget one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::job::{
    BatchId, JobId, OnAmbiguous, Priority, Reason, Recipient, Status, TIMELINE_LIMIT, TimelineEntry,
};
use crate::message::Content;
use crate::queue::{Accepted, ByPriority, ConsumerId, Ledger, Limits};
use crate::reply::LastReply;
use crate::template::Bundle;

/// A point on the clock that stands still while the queue is paused, in milliseconds: expiry is counted on it.
pub(super) type Unpaused = i64;

#[derive(Debug)]
pub(super) struct State {
    pub(super) limits: Limits,
    pub(super) jobs: BTreeMap<JobId, Job>,
    pub(super) batches: HashMap<BatchId, Batch>,
    /// Jobs to be claimed, by arrival.
    pub(super) ready: ByPriority<BTreeMap<u64, JobId>>,
    /// Retries and scheduled jobs, by due time.
    pub(super) delayed: ByPriority<BTreeSet<(Timestamp, JobId)>>,
    /// Jobs in hand, by the end of their lease.
    pub(super) leases: BTreeSet<(Timestamp, JobId)>,
    /// Ready and delayed jobs, by when they expire.
    pub(super) expiries: BTreeSet<(Unpaused, JobId)>,
    /// Ended jobs but for held ones, by their end; what is removed when there are too many.
    pub(super) ended: BTreeSet<(Timestamp, JobId)>,
    /// The same, by when their time is over.
    pub(super) removals: BTreeSet<(Timestamp, JobId)>,
    pub(super) idempotency: HashMap<String, Remembered>,
    pub(super) forgets: BTreeSet<(Timestamp, String)>,
    pub(super) consumers: HashMap<ConsumerId, Timestamp>,
    pub(super) ledger: Ledger,
    /// The states that a priority matters in.
    pub(super) by_priority: ByPriority<Ledger>,
    pub(super) paused_since: Option<Timestamp>,
    pub(super) paused_for: Duration,
    /// The place in the cycle of priorities.
    pub(super) turn: usize,
    /// The last number given to an arrival or a hand-out.
    pub(super) serial: u64,
    /// Set by a step after which a claim may find more.
    pub(super) has_more: bool,
}

/// What the jobs of a batch share.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) priority: Priority,
    pub(super) on_ambiguous: OnAmbiguous,
    pub(super) max_attempts: u32,
    pub(super) expire_after: Duration,
    pub(super) accepted_at: Timestamp,
    pub(super) tags: Vec<String>,
    pub(super) metadata: Option<Map<String, Value>>,
    pub(super) message_domain: String,
    /// As long as a job may need it.
    pub(super) content: Option<(Arc<Content>, Option<Arc<Bundle>>)>,
    /// Jobs that may need the content.
    pub(super) needing: u32,
    /// Jobs whose records are kept.
    pub(super) recorded: u32,
    pub(super) count: u32,
    pub(super) scheduled: bool,
    pub(super) statuses: [u64; Status::ALL.len()],
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) recipient: Recipient,
    pub(super) place: Place,
    pub(super) attempts: u32,
    pub(super) reclaims: u32,
    pub(super) marked: bool,
    pub(super) expires: Unpaused,
    pub(super) send_at: Option<Timestamp>,
    pub(super) reason: Option<Reason>,
    pub(super) relay: Option<Arc<str>>,
    pub(super) last_reply: Option<Box<LastReply>>,
    /// What happened after acceptance.
    pub(super) timeline: Vec<TimelineEntry>,
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Not yet in the queue.
    Nowhere,
    /// To be claimed.
    Ready { serial: u64 },
    /// Due later: for the first time, or again.
    Scheduled { due: Timestamp },
    /// Due later, after an attempt that counted.
    Retrying { due: Timestamp },
    /// In a consumer's hands.
    Sending { by: ConsumerId, receipt: u64, until: Timestamp },
    /// Over.
    Ended { status: Status, at: Timestamp },
}

#[derive(Debug)]
pub(super) struct Remembered {
    pub(super) fingerprint: String,
    pub(super) answer: Accepted,
    pub(super) until: Timestamp,
}

impl Job {
    /// The status that users see. A job that waits is `retrying` once an attempt has counted.
    pub(super) fn status(&self) -> Option<Status> {
        Some(match &self.place {
            Place::Nowhere => return None,
            Place::Ready { .. } if self.attempts == 0 => Status::Queued,
            Place::Ready { .. } | Place::Retrying { .. } => Status::Retrying,
            Place::Scheduled { .. } => Status::Scheduled,
            Place::Sending { .. } => Status::Sending,
            Place::Ended { status, .. } => *status,
        })
    }

    pub(super) fn note(&mut self, at: Timestamp, event: &str, detail: String) {
        // The first of the fifty is `accepted`, which is not kept.
        if self.timeline.len() == TIMELINE_LIMIT - 1 {
            self.timeline.remove(0);
        }
        self.timeline.push(TimelineEntry { at, event: event.to_owned(), detail });
    }
}

impl State {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            jobs: BTreeMap::new(),
            batches: HashMap::new(),
            ready: ByPriority::default(),
            delayed: ByPriority::default(),
            leases: BTreeSet::new(),
            expiries: BTreeSet::new(),
            ended: BTreeSet::new(),
            removals: BTreeSet::new(),
            idempotency: HashMap::new(),
            forgets: BTreeSet::new(),
            consumers: HashMap::new(),
            ledger: Ledger::default(),
            by_priority: ByPriority::default(),
            paused_since: None,
            paused_for: Duration::ZERO,
            turn: 0,
            serial: 0,
            has_more: false,
        }
    }

    /// The clock that stands still while the queue is paused.
    pub(super) fn unpaused(&self, at: Timestamp) -> Unpaused {
        let running = self.paused_since.map_or(Duration::ZERO, |since| at.since(since));
        at.as_millis() - millis(self.paused_for + running)
    }

    pub(super) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Changes a job and puts it into a place, in one move: indexes and counts follow.
    pub(super) fn put(&mut self, id: JobId, place: Place, change: impl FnOnce(&mut Job)) {
        let Self { jobs, batches, .. } = self;
        let (Some(job), Some(batch)) = (jobs.get_mut(&id), batches.get_mut(&id.batch)) else {
            return;
        };
        let priority = batch.priority;
        let (old_status, old_place, old_expires) = (job.status(), job.place.clone(), job.expires);
        let needed = needs_content(old_status);
        change(job);
        job.place = place;
        let (new_status, new_place, new_expires) = (job.status(), job.place.clone(), job.expires);

        if let Some(status) = old_status {
            batch.statuses[status as usize] -= 1;
        }
        if let Some(status) = new_status {
            batch.statuses[status as usize] += 1;
        }
        match (needed, needs_content(new_status)) {
            (false, true) => batch.needing += 1,
            (true, false) => {
                batch.needing -= 1;
                if batch.needing == 0 {
                    batch.content = None;
                }
            }
            _ => {}
        }
        if let Some(status) = old_status {
            self.count(priority, status, false);
        }
        if let Some(status) = new_status {
            self.count(priority, status, true);
        }
        self.unlist(id, priority, &old_place, old_expires);
        self.list_in(id, priority, &new_place, new_expires);
    }

    fn count(&mut self, priority: Priority, status: Status, up: bool) {
        let mut all = vec![self.ledger.of_mut(status)];
        if !status.is_final() {
            all.push(self.by_priority.of_mut(priority).of_mut(status));
        }
        for count in all {
            *count = if up { *count + 1 } else { *count - 1 };
        }
    }

    fn unlist(&mut self, id: JobId, priority: Priority, place: &Place, expires: Unpaused) {
        match place {
            Place::Nowhere => {}
            Place::Ready { serial } => {
                self.ready.of_mut(priority).remove(serial);
                self.expiries.remove(&(expires, id));
            }
            Place::Scheduled { due } => {
                self.delayed.of_mut(priority).remove(&(*due, id));
            }
            Place::Retrying { due } => {
                self.delayed.of_mut(priority).remove(&(*due, id));
                self.expiries.remove(&(expires, id));
            }
            Place::Sending { until, .. } => {
                self.leases.remove(&(*until, id));
            }
            Place::Ended { at, status } => {
                self.ended.remove(&(*at, id));
                self.removals.remove(&(*at + self.kept_for(*status), id));
            }
        }
    }

    fn list_in(&mut self, id: JobId, priority: Priority, place: &Place, expires: Unpaused) {
        match place {
            Place::Nowhere | Place::Ended { status: Status::Held, .. } => {}
            Place::Ready { serial } => {
                self.ready.of_mut(priority).insert(*serial, id);
                self.expiries.insert((expires, id));
                self.has_more = true;
            }
            Place::Scheduled { due } => {
                self.delayed.of_mut(priority).insert((*due, id));
                self.has_more = true;
            }
            Place::Retrying { due } => {
                self.delayed.of_mut(priority).insert((*due, id));
                self.expiries.insert((expires, id));
                self.has_more = true;
            }
            Place::Sending { until, .. } => {
                self.leases.insert((*until, id));
            }
            Place::Ended { at, status } => {
                self.ended.insert((*at, id));
                self.removals.insert((*at + self.kept_for(*status), id));
            }
        }
    }

    fn kept_for(&self, status: Status) -> Duration {
        if status == Status::Failed { self.limits.failed_retention } else { self.limits.retention }
    }

    /// Removes an ended job's record, and its batch's with the last one.
    pub(super) fn remove(&mut self, id: JobId) {
        let Some(job) = self.jobs.remove(&id) else { return };
        let Some(batch) = self.batches.get_mut(&id.batch) else {
            return;
        };
        if needs_content(job.status()) {
            batch.needing -= 1;
            if batch.needing == 0 {
                batch.content = None;
            }
        }
        batch.recorded -= 1;
        let (priority, is_last) = (batch.priority, batch.recorded == 0);
        if is_last {
            self.batches.remove(&id.batch);
        }
        self.unlist(id, priority, &job.place, job.expires);
    }
}

/// Whether a job in this status may still need its content. A failed one does: a person may requeue it.
fn needs_content(status: Option<Status>) -> bool {
    !matches!(status, None | Some(Status::Sent | Status::Cancelled | Status::Suppressed))
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
