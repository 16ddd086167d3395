//! How jobs leave: settlements by their holders, orders by people, the end of their time.

use super::state::{Place, State};
use crate::clock::Timestamp;
use crate::job::{BatchId, JobId, OnAmbiguous, Reason, Status, TimelineEntry};
use crate::queue::{ConsumerId, Ordered, Settled, Settlement, Verdict};

impl State {
    pub(super) fn settle(&mut self, me: &ConsumerId, end: &Settlement, now: Timestamp) -> Settled {
        if self.holds(me, end.job) != Some(end.receipt) {
            return if end.verdict == Verdict::Sent { self.late_success(end, now) } else { Settled::Lost };
        }
        let detail = end.in_words();
        if let Some(job) = self.jobs.get_mut(&end.job) {
            if let Some(reply) = &end.reply {
                job.last_reply = Some(Box::new(reply.clone()));
            }
            if let Some(relay) = &end.relay {
                job.relay = Some(relay.as_str().into());
            }
            job.marked = false;
            job.reclaims = 0;
        }
        match end.verdict {
            Verdict::Release => {
                let place = Place::Ready { serial: self.next_serial() };
                self.put(end.job, place, |job| job.note(now, "released", detail));
            }
            Verdict::Retry { delay } => {
                let due = now + delay;
                self.put(end.job, Place::Retrying { due }, |job| {
                    job.attempts += 1;
                    job.note(now, "retrying", format!("{detail}; next attempt at {due}"));
                });
            }
            Verdict::Sent => self.ended_by_attempt(end, Status::Sent, None, now, detail),
            Verdict::Hold => self.ended_by_attempt(end, Status::Held, None, now, detail),
            Verdict::Fail(reason) => {
                let status = if reason == Reason::Suppressed { Status::Suppressed } else { Status::Failed };
                self.ended_by_attempt(end, status, Some(reason), now, detail);
            }
        }
        Settled::Done
    }

    fn ended_by_attempt(
        &mut self,
        settlement: &Settlement,
        status: Status,
        reason: Option<Reason>,
        now: Timestamp,
        detail: String,
    ) {
        // What could not be built, or was not to be, was no attempt.
        if !matches!(reason, Some(Reason::Render | Reason::Encryption | Reason::Suppressed))
            && let Some(job) = self.jobs.get_mut(&settlement.job)
        {
            job.attempts += 1;
        }
        self.end(settlement.job, status, reason, now, detail);
    }

    /// A 250 of a consumer that has lost the job: the mail went out, wherever the job is now.
    fn late_success(&mut self, end: &Settlement, now: Timestamp) -> Settled {
        match self.status(end.job) {
            None | Some(Status::Sent) => return Settled::Lost,
            Some(Status::Cancelled | Status::Suppressed) => {
                // A person's word stands, though the mail went out; that it did is noted, once.
                if let Some(job) = self.jobs.get_mut(&end.job).filter(|job| !job.timeline.iter().any(is_late))
                {
                    job.note(now, LATE, end.in_words());
                }
                return Settled::Lost;
            }
            Some(_) => {}
        }
        self.put(end.job, Place::Ended { status: Status::Sent, at: now }, |job| {
            job.attempts = job.attempts.max(end.attempt);
            job.last_reply = end.reply.clone().map(Box::new);
            job.reason = None;
            job.reclaims = 0;
            job.marked = false;
            job.note(now, Status::Sent.as_str(), format!("{}; a late answer", end.in_words()));
        });
        Settled::Late
    }

    /// Ends a job.
    pub(super) fn end(
        &mut self,
        id: JobId,
        status: Status,
        reason: Option<Reason>,
        now: Timestamp,
        detail: String,
    ) {
        self.put(id, Place::Ended { status, at: now }, |job| {
            job.reason = reason;
            job.reclaims = 0;
            job.marked = false;
            job.note(now, status.as_str(), detail);
        });
    }

    /// Ends a job for a reason that no attempt gave. One that the relay may have, and that must not be sent twice, is
    /// a person's to decide.
    pub(super) fn give_up(&mut self, id: JobId, reason: Reason, now: Timestamp) {
        let holds = self.batches.get(&id.batch).is_some_and(|batch| batch.on_ambiguous == OnAmbiguous::Hold);
        let why = reason.as_str();
        if holds && self.jobs.get(&id).is_some_and(|job| job.marked) {
            self.end(id, Status::Held, None, now, format!("{why}; the relay may have it"));
        } else {
            self.end(id, Status::Failed, Some(reason), now, why.to_owned());
        }
    }

    pub(super) fn cancel(&mut self, id: JobId, now: Timestamp) -> Ordered {
        match self.status(id) {
            None => Ordered::Unknown,
            Some(Status::Queued | Status::Scheduled | Status::Retrying) => {
                self.end(id, Status::Cancelled, None, now, String::new());
                self.done(id)
            }
            Some(status) => Ordered::Conflict(status),
        }
    }

    pub(super) fn cancel_batch(&mut self, id: BatchId, now: Timestamp) -> Option<u64> {
        let count = self.batches.get(&id)?.count;
        let mut cancelled = 0;
        for index in 0..count {
            if matches!(self.cancel(JobId { batch: id, index }, now), Ordered::Done(_)) {
                cancelled += 1;
            }
        }
        Some(cancelled)
    }

    pub(super) fn reschedule(&mut self, id: JobId, send_at: Timestamp, now: Timestamp) -> Ordered {
        match self.status(id) {
            None => Ordered::Unknown,
            Some(Status::Scheduled) => {
                if send_at <= now && self.ledger.used() >= self.limits.max_queue_size {
                    return Ordered::Full;
                }
                let expires = self.fresh_expiry(id, send_at.max(now));
                let (place, send_at) = if send_at > now {
                    (Place::Scheduled { due: send_at }, Some(send_at))
                } else {
                    (Place::Ready { serial: self.next_serial() }, None)
                };
                self.put(id, place, |job| {
                    job.send_at = send_at;
                    job.expires = expires;
                    let detail = send_at.map_or_else(|| "now".to_owned(), |at| at.to_string());
                    job.note(now, "rescheduled", detail);
                });
                self.done(id)
            }
            Some(status) => Ordered::Conflict(status),
        }
    }

    pub(super) fn requeue(&mut self, id: JobId, now: Timestamp) -> Ordered {
        match self.status(id) {
            None => Ordered::Unknown,
            Some(status @ (Status::Failed | Status::Held)) => {
                // A held job is counted already.
                if status == Status::Failed && self.ledger.used() >= self.limits.max_queue_size {
                    return Ordered::Full;
                }
                let expires = self.fresh_expiry(id, now);
                let place = Place::Ready { serial: self.next_serial() };
                self.put(id, place, |job| {
                    job.attempts = 0;
                    job.reason = None;
                    job.expires = expires;
                    job.note(now, "requeued", String::new());
                });
                self.done(id)
            }
            Some(status) => Ordered::Conflict(status),
        }
    }

    fn status(&self, id: JobId) -> Option<Status> {
        self.jobs.get(&id)?.status()
    }

    fn done(&self, id: JobId) -> Ordered {
        self.record(id).map_or(Ordered::Unknown, |record| Ordered::Done(Box::new(record)))
    }
}

/// What is noted of a mail that went out although it had been taken back.
const LATE: &str = "late_success";

fn is_late(entry: &TimelineEntry) -> bool {
    entry.event == LATE
}
