//! The indexes over the jobs, the counters, and the one function that moves a job.
//!
//! A job is in exactly one [`Place`], and its status says which. [`Index::move_job`] is the only code that changes
//! either: it takes the job out of its old index, puts it into the new one and moves the counters, under the queue's
//! lock. So the ledger needs no scan, and nothing can be counted twice.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::job::{JobId, Reason, Status};
use crate::queue::{ByPriority, ConsumerId, Ledger, Limits};

use super::delayed::Delayed;
use super::leases::Leases;
use super::ready::Ready;
use super::records::{Batch, Detail, Job, Place};

/// Where a job goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum To<'a> {
    /// To the end of its line: `queued`, or `retrying` once an attempt has counted.
    Ready,
    /// Not before this time; nothing has been tried.
    Scheduled(Timestamp),
    /// Not before this time; an attempt has counted.
    Retrying(Timestamp),
    /// Into a consumer's hands.
    Sending(&'a ConsumerId),
    /// Into a final status.
    Ended(Status, Option<Reason>),
}

/// Everything about the jobs but the jobs.
pub(super) struct Index {
    pub(super) limits: Limits,
    pub(super) ready: Ready,
    pub(super) delayed: Delayed,
    pub(super) leases: Leases,
    /// Jobs queued or retrying, by the time at which they expire, on the clock of [`Index::running_time`].
    pub(super) expiring: BTreeSet<(Timestamp, JobId)>,
    /// Sent, cancelled and suppressed jobs' records, by the time at which they ended.
    pub(super) ended: BTreeSet<(Timestamp, JobId)>,
    /// Failed jobs' records.
    pub(super) failed: BTreeSet<(Timestamp, JobId)>,
    pub(super) ledger: Ledger,
    pub(super) states: ByPriority<Ledger>,
    pub(super) heard: HashMap<ConsumerId, Timestamp>,
    /// Since when the queue is paused.
    pub(super) paused: Option<Timestamp>,
    /// How long all pauses took that have ended.
    paused_before: Duration,
    resumed_at: Timestamp,
    /// A waiting consumer has something to look at.
    pub(super) wake: bool,
}

impl Index {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            ready: Ready::default(),
            delayed: Delayed::default(),
            leases: Leases::default(),
            expiring: BTreeSet::new(),
            ended: BTreeSet::new(),
            failed: BTreeSet::new(),
            ledger: Ledger::default(),
            states: ByPriority::default(),
            heard: HashMap::new(),
            paused: None,
            paused_before: Duration::ZERO,
            resumed_at: Timestamp::default(),
            wake: false,
        }
    }

    /// The time on a clock that stands still while the queue is paused.
    pub(super) fn running_time(&self, now: Timestamp) -> Timestamp {
        let at = self.paused.unwrap_or(now).as_millis();
        let paused = i64::try_from(self.paused_before.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(at.saturating_sub(paused))
    }

    /// When a job expires whose time began to count at `from`, which is not later than now.
    pub(super) fn expiry(&self, from: Timestamp, expire_after: Duration, now: Timestamp) -> Timestamp {
        // Of the time since `from`, what lies before the latest resumption is not counted: it may have been paused.
        let late = match self.paused {
            Some(_) => Duration::ZERO,
            None => now.since(from.max(self.resumed_at)),
        };
        let late = i64::try_from(late.as_millis()).unwrap_or(i64::MAX);
        let start = self.running_time(now).as_millis().saturating_sub(late);
        Timestamp::from_millis(start) + expire_after
    }

    pub(super) fn set_paused(&mut self, paused: bool, now: Timestamp) {
        match (self.paused, paused) {
            (None, true) => self.paused = Some(now),
            (Some(since), false) => {
                self.paused = None;
                self.paused_before += now.since(since);
                self.resumed_at = now;
                self.wake = true;
            }
            _ => {}
        }
    }

    /// Counts a new job, which is nowhere yet, and puts it where it goes.
    pub(super) fn admit(&mut self, batch: &mut Batch, n: u32, now: Timestamp) {
        let Some(job) = batch.job_mut(n) else { return };
        let send_at = job.send_at;
        self.ledger.accepted += 1;
        self.move_job(batch, n, send_at.map_or(To::Ready, To::Scheduled), now);
    }

    /// Moves a job: the one step from state to state.
    pub(super) fn move_job(&mut self, batch: &mut Batch, n: u32, to: To<'_>, now: Timestamp) {
        let id = JobId {
            batch: batch.id,
            index: n,
        };
        let (priority, accepted_at, expire_after) = (batch.priority, batch.accepted_at, batch.expire_after);
        let Some(job) = batch.job_mut(n) else { return };
        let (old, old_place) = (job.status, job.place);
        self.take_out(job, id, priority, accepted_at);

        let status = match to {
            To::Ready if job.attempts > 0 => Status::Retrying,
            To::Ready => Status::Queued,
            To::Scheduled(_) => Status::Scheduled,
            To::Retrying(_) => Status::Retrying,
            To::Sending(_) => Status::Sending,
            To::Ended(status, _) => status,
        };
        job.status = status;
        job.place = match to {
            To::Ready => {
                if old_place == Place::New {
                    job.expires = self.expiry(now, expire_after, now);
                }
                self.wake = true;
                Place::Ready(self.ready.push(priority, accepted_at, id))
            }
            To::Scheduled(due) | To::Retrying(due) => {
                self.wake |= self.delayed.next_due().is_none_or(|next| due < next);
                self.delayed.insert(priority, due, id);
                Place::Delayed(due)
            }
            To::Sending(who) => {
                self.leases.grant(id, who, now + self.limits.lease);
                Place::Leased
            }
            To::Ended(Status::Held, reason) => {
                job.reason = reason;
                Place::Held
            }
            To::Ended(status, reason) => {
                job.reason = reason;
                self.records_of(status).insert((now, id));
                Place::Ended(now)
            }
        };
        if matches!(status, Status::Queued | Status::Retrying) {
            self.expiring.insert((job.expires, id));
        }
        self.count(batch, (old_place != Place::New).then_some(old), status);
    }

    /// Takes a job out of the index that has it.
    fn take_out(&mut self, job: &Job, id: JobId, priority: crate::job::Priority, accepted_at: Timestamp) {
        if matches!(job.status, Status::Queued | Status::Retrying) {
            self.expiring.remove(&(job.expires, id));
        }
        match job.place {
            Place::New | Place::Held => {}
            Place::Ready(turn) => self.ready.remove(priority, accepted_at, turn),
            Place::Delayed(due) => self.delayed.remove(priority, due, id),
            Place::Leased => self.leases.remove(id),
            Place::Ended(at) => {
                self.records_of(job.status).remove(&(at, id));
            }
        }
    }

    fn records_of(&mut self, status: Status) -> &mut BTreeSet<(Timestamp, JobId)> {
        if status == Status::Failed {
            &mut self.failed
        } else {
            &mut self.ended
        }
    }

    /// Moves the counters; frees the content with the last job that needs it.
    fn count(&mut self, batch: &mut Batch, old: Option<Status>, new: Status) {
        let states = self.states.of_mut(batch.priority);
        if let Some(old) = old {
            *self.ledger.of_mut(old) -= 1;
            batch.counts[old as usize] -= 1;
            batch.needing -= u32::from(needs_content(old));
            if is_shown_by_priority(old) {
                *states.of_mut(old) -= 1;
            }
        }
        *self.ledger.of_mut(new) += 1;
        batch.counts[new as usize] += 1;
        batch.needing += u32::from(needs_content(new));
        if is_shown_by_priority(new) {
            *states.of_mut(new) += 1;
        }
        if old.is_some() && batch.needing == 0 {
            batch.content = None;
            batch.bundle = None;
        }
    }

    /// Takes a record out for good. The ledger and the batch still count it under the status it ended in.
    pub(super) fn remove_record(&mut self, batch: &mut Batch, n: u32) {
        let id = JobId {
            batch: batch.id,
            index: n,
        };
        let Some(job) = batch.jobs.get_mut(n as usize).and_then(Option::take) else {
            return;
        };
        self.take_out(&job, id, batch.priority, batch.accepted_at);
        batch.records -= 1;
        batch.needing -= u32::from(needs_content(job.status));
        if batch.needing == 0 {
            batch.content = None;
            batch.bundle = None;
        }
    }

    /// Makes a due job ready.
    pub(super) fn promote(&mut self, batch: &mut Batch, n: u32, now: Timestamp) {
        let expire_after = batch.expire_after;
        let Some(job) = batch.job_mut(n) else { return };
        if job.status == Status::Scheduled {
            let due = job.send_at.unwrap_or(now).min(now);
            job.expires = self.expiry(due, expire_after, now);
        }
        self.move_job(batch, n, To::Ready, now);
    }

    /// Ends a job that was not sent in time. One that the relay may have, and that must not be sent twice, is a
    /// person's to decide.
    pub(super) fn expire(&mut self, batch: &mut Batch, n: u32, now: Timestamp) {
        let hold = batch.on_ambiguous == crate::job::OnAmbiguous::Hold;
        let Some(job) = batch.job_mut(n) else { return };
        if hold && job.marked {
            job.note(now, "held", Detail::Fixed("expired; the relay may have it"));
            self.move_job(batch, n, To::Ended(Status::Held, None), now);
        } else {
            job.note(now, "failed", Detail::Fixed("expired"));
            self.move_job(batch, n, To::Ended(Status::Failed, Some(Reason::Expired)), now);
        }
    }
}

/// Whether a job in this status may be sent, now or after a person's decision.
const fn needs_content(status: Status) -> bool {
    !matches!(status, Status::Sent | Status::Cancelled | Status::Suppressed)
}

/// Whether [`crate::queue::Stats::states`] shows this status.
const fn is_shown_by_priority(status: Status) -> bool {
    matches!(
        status,
        Status::Queued | Status::Scheduled | Status::Retrying | Status::Sending
    )
}
