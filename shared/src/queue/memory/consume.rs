//! Handing jobs out and taking their ends. Only the holder of a job moves it, but for a success.

use crate::clock::Timestamp;
use crate::job::{JobId, OnAmbiguous, POISON_RECLAIMS, Reason, Status};
use crate::queue::{ConsumerId, Delivery, Reclaimed, Settled, Settlement, Verdict};

use super::index::To;
use super::records::Detail;
use super::state::State;

/// How many expired jobs a claim ends before it answers with what it has.
const EXPIRED_PER_CLAIM: usize = 1_000;

/// How many due jobs of each priority a claim makes ready.
const PROMOTED_PER_CLAIM: usize = 100;

impl State {
    /// Hands out at most `max` ready jobs.
    pub(super) fn claim(&mut self, me: &ConsumerId, max: usize, now: Timestamp) -> Vec<Delivery> {
        if self.index.paused.is_some() {
            return Vec::new();
        }
        // A due job does not wait for the next upkeep.
        self.promote(PROMOTED_PER_CLAIM, now);
        let running = self.index.running_time(now);
        let mut claimed = Vec::new();
        let mut expired = 0;
        while claimed.len() < max && expired < EXPIRED_PER_CLAIM {
            let Some(id) = self.index.ready.pick() else { break };
            let Some(batch) = self.batches.get_mut(&id.batch) else {
                break;
            };
            if batch.job(id.index).is_some_and(|job| job.expires <= running) {
                self.index.expire(batch, id.index, now);
                expired += 1;
                continue;
            }
            self.index.move_job(batch, id.index, To::Sending(me), now);
            if let Some(job) = batch.job_mut(id.index) {
                let attempt = job.attempts + 1;
                job.note(now, "sending", Detail::Attempt(attempt));
            }
            claimed.extend(batch.delivery(id.index));
        }
        // One waiting consumer is woken per change; whoever leaves jobs behind wakes the next.
        self.index.wake |= self.is_claimable(now);
        claimed
    }

    /// Renews leases; returns the jobs that the consumer does not hold.
    pub(super) fn extend(&mut self, me: &ConsumerId, jobs: &[JobId], now: Timestamp) -> Vec<JobId> {
        let until = now + self.index.limits.lease;
        let leases = &mut self.index.leases;
        let lost = jobs.iter().filter(|job| !leases.extend(**job, me, until));
        lost.copied().collect()
    }

    /// Notes that content is about to go out; returns the jobs that the consumer does not hold.
    pub(super) fn mark(&mut self, me: &ConsumerId, jobs: &[JobId]) -> Vec<JobId> {
        let mut lost = Vec::new();
        for id in jobs {
            let held = self.index.leases.is_held_by(*id, me);
            let job = self.batches.get_mut(&id.batch).and_then(|b| b.job_mut(id.index));
            match job.filter(|_| held) {
                Some(job) => job.marked = true,
                None => lost.push(*id),
            }
        }
        lost
    }

    pub(super) fn held_by(&self, me: &ConsumerId) -> Vec<Delivery> {
        let held = self.index.leases.held_by(me);
        held.filter_map(|id| self.batches.get(&id.batch)?.delivery(id.index))
            .collect()
    }

    /// Ends one delivery.
    pub(super) fn settle(&mut self, me: &ConsumerId, end: &Settlement, now: Timestamp) -> Settled {
        let id = end.job;
        let holds = self.index.leases.is_held_by(id, me);
        let Some(batch) = self.batches.get_mut(&id.batch) else {
            return Settled::Lost;
        };
        let Some(job) = batch.job_mut(id.index) else {
            return Settled::Lost;
        };
        // A replay of an earlier attempt's end must not end this one.
        if !holds || job.attempts + 1 != end.attempt {
            return if end.verdict == Verdict::Sent {
                self.settle_late(end, now)
            } else {
                Settled::Lost
            };
        }

        let detail = match (&end.reply, end.detail.is_empty()) {
            (Some(reply), true) => Detail::Text(reply.to_string().into()),
            _ => Detail::text(&end.detail),
        };
        let (to, word, counts) = match end.verdict {
            Verdict::Sent => (To::Ended(Status::Sent, None), "sent", true),
            Verdict::Retry { delay } => (To::Retrying(now + delay), "retrying", true),
            Verdict::Release => (To::Ready, "released", false),
            Verdict::Hold => (To::Ended(Status::Held, None), "held", true),
            Verdict::Fail(Reason::Suppressed) => (
                To::Ended(Status::Suppressed, Some(Reason::Suppressed)),
                "suppressed",
                false,
            ),
            Verdict::Fail(reason) => (
                To::Ended(Status::Failed, Some(reason)),
                "failed",
                !matches!(reason, Reason::Render | Reason::Encryption),
            ),
        };
        job.attempts += u32::from(counts);
        job.reclaims = 0;
        job.marked = false;
        remember(job, end);
        job.note(now, word, detail);
        self.index.move_job(batch, id.index, to, now);
        Settled::Done
    }

    /// Takes the 250 of a consumer that does not hold the job: the mail went out, wherever the job now is. Only a
    /// cancelled job keeps its status, a person's word; that the mail went out after all is noted for that person.
    /// A suppressed one was never to be sent by anyone, so it keeps its status too.
    fn settle_late(&mut self, end: &Settlement, now: Timestamp) -> Settled {
        let id = end.job;
        let Some(batch) = self.batches.get_mut(&id.batch) else {
            return Settled::Lost;
        };
        let Some(job) = batch.job_mut(id.index) else {
            return Settled::Lost;
        };
        match job.status {
            Status::Sent => Settled::Lost,
            Status::Cancelled | Status::Suppressed => {
                if !job.has_event("late_success") {
                    remember(job, end);
                    job.note(
                        now,
                        "late_success",
                        Detail::Fixed("the relay had taken it before"),
                    );
                }
                Settled::Lost
            }
            _ => {
                job.attempts = job.attempts.max(end.attempt);
                job.reclaims = 0;
                job.marked = false;
                remember(job, end);
                job.note(now, "sent", Detail::Fixed("reported after the lease was lost"));
                self.index
                    .move_job(batch, id.index, To::Ended(Status::Sent, None), now);
                Settled::Late
            }
        }
    }

    /// Takes over at most `max` jobs whose lease has run out. While the queue is paused nothing is handed out: they go
    /// back to their line, with their mark.
    pub(super) fn reclaim(&mut self, me: &ConsumerId, max: usize, now: Timestamp) -> Reclaimed {
        let mut reclaimed = Reclaimed::default();
        let running = self.index.running_time(now);
        for id in self.index.leases.run_out(now, max) {
            let Some(batch) = self.batches.get_mut(&id.batch) else {
                continue;
            };
            let hold = batch.on_ambiguous == OnAmbiguous::Hold;
            let Some(job) = batch.job_mut(id.index) else {
                continue;
            };
            job.reclaims += 1;
            let expired = job.expires <= running && !job.marked;
            if job.reclaims >= POISON_RECLAIMS {
                let undecided = hold && job.marked;
                let word = if undecided { "held" } else { "failed" };
                job.note(now, word, Detail::Fixed("its workers died too often"));
                let to = if undecided {
                    To::Ended(Status::Held, None)
                } else {
                    To::Ended(Status::Failed, Some(Reason::Poison))
                };
                self.index.move_job(batch, id.index, to, now);
                reclaimed.poisoned.push(id);
            } else if self.index.paused.is_some() || expired {
                job.note(now, "reclaimed", Detail::None);
                self.index.move_job(batch, id.index, To::Ready, now);
            } else {
                job.note(now, "reclaimed", Detail::None);
                self.index.move_job(batch, id.index, To::Sending(me), now);
                reclaimed.deliveries.extend(batch.delivery(id.index));
            }
        }
        reclaimed
    }
}

fn remember(job: &mut super::records::Job, end: &Settlement) {
    if let Some(reply) = &end.reply {
        job.last_reply = Some(Box::new(reply.clone()));
    }
    if let Some(relay) = &end.relay {
        job.relay = Some(relay.as_str().into());
    }
}
