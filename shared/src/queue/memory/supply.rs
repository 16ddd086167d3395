//! How jobs get into hands: promotion, claims by priority, leases, and what a dead consumer leaves.

use super::state::{Place, State};
use crate::clock::Timestamp;
use crate::job::{JobId, POISON_RECLAIMS, Priority, Reason};
use crate::queue::{ConsumerId, Delivery, Maintenance, Receipt, Reclaimed};

/// Which priority has the first pick, in twelve claims: high eight times, normal three, bulk once.
const TURNS: [Priority; 12] = {
    use Priority::{Bulk, High, Normal};
    [High, Normal, High, High, Bulk, High, High, Normal, High, High, Normal, High]
};

/// How many jobs of each priority one step promotes, and how many it expires or removes: what keeps a step short.
const AT_ONCE: usize = 100;

impl State {
    /// Makes due jobs ready, some of each priority, so that no number of due bulk jobs delays a high one.
    pub(super) fn promote(&mut self, now: Timestamp) -> u64 {
        let mut promoted = 0;
        for priority in Priority::ALL {
            for _ in 0..AT_ONCE {
                let Some((due, id)) = self.delayed.of(*priority).first().copied() else {
                    break;
                };
                if due > now {
                    break;
                }
                let place = Place::Ready { serial: self.next_serial() };
                // Time that the queue was paused before `send_at` does not count, time after it does.
                let expires = self.fresh_expiry(id, due);
                self.put(id, place, |job| {
                    if matches!(job.place, Place::Scheduled { .. }) {
                        job.expires = expires;
                    }
                });
                promoted += 1;
            }
        }
        promoted
    }

    /// The end of a job's time, counted from `from`.
    pub(super) fn fresh_expiry(&self, id: JobId, from: Timestamp) -> i64 {
        let after = self.batches.get(&id.batch).map_or(0, |batch| super::state::millis(batch.expire_after));
        self.unpaused(from).saturating_add(after)
    }

    /// Whether a claim finds something.
    pub(super) fn can_claim(&self) -> bool {
        let ready = &self.ready;
        self.paused_since.is_none()
            && !(ready.high.is_empty() && ready.normal.is_empty() && ready.bulk.is_empty())
    }

    pub(super) fn claim(&mut self, me: &ConsumerId, max: usize, now: Timestamp) -> Vec<Delivery> {
        self.heard_of(me, now);
        self.promote(now);
        let mut deliveries = Vec::new();
        while deliveries.len() < max && self.can_claim() {
            let first = TURNS[self.turn % TURNS.len()];
            let order = std::iter::once(&first).chain(Priority::ALL);
            let Some(id) =
                order.filter_map(|p| self.ready.of(*p).first_key_value()).map(|(_, id)| *id).next()
            else {
                break;
            };
            if self.is_expired(id, now) {
                self.give_up(id, Reason::Expired, now);
                continue;
            }
            self.turn += 1;
            deliveries.extend(self.hand_out(id, me, now));
        }
        deliveries
    }

    fn hand_out(&mut self, id: JobId, me: &ConsumerId, now: Timestamp) -> Option<Delivery> {
        let (receipt, until) = (self.next_serial(), now + self.limits.lease);
        self.put(id, Place::Sending { by: me.clone(), receipt, until }, |_| {});
        self.delivery(id)
    }

    fn delivery(&self, id: JobId) -> Option<Delivery> {
        let (job, batch) = (self.jobs.get(&id)?, self.batches.get(&id.batch)?);
        let Place::Sending { receipt, .. } = job.place else {
            return None;
        };
        let (content, bundle) = batch.content.clone()?;
        Some(Delivery {
            job: id,
            receipt: Receipt(receipt, 0),
            recipient: job.recipient.clone(),
            priority: batch.priority,
            attempt: job.attempts + 1,
            max_attempts: batch.max_attempts,
            reclaims: job.reclaims,
            marked: job.marked,
            on_ambiguous: batch.on_ambiguous,
            accepted_at: batch.accepted_at,
            send_at: job.send_at,
            content,
            bundle,
        })
    }

    /// The hand-out of a job that a consumer holds.
    pub(super) fn holds(&self, me: &ConsumerId, id: JobId) -> Option<Receipt> {
        match &self.jobs.get(&id)?.place {
            Place::Sending { by, receipt, .. } if by == me => Some(Receipt(*receipt, 0)),
            _ => None,
        }
    }

    pub(super) fn extend(&mut self, me: &ConsumerId, ids: &[JobId], now: Timestamp) -> Vec<JobId> {
        self.heard_of(me, now);
        let mut lost = Vec::new();
        for id in ids {
            if let Some(Receipt(receipt, _)) = self.holds(me, *id) {
                let until = now + self.limits.lease;
                self.put(*id, Place::Sending { by: me.clone(), receipt, until }, |_| {});
            } else {
                lost.push(*id);
            }
        }
        lost
    }

    pub(super) fn mark(&mut self, me: &ConsumerId, ids: &[JobId]) -> Vec<JobId> {
        let mut lost = Vec::new();
        for id in ids {
            match (self.holds(me, *id), self.jobs.get_mut(id)) {
                (Some(_), Some(job)) => job.marked = true,
                _ => lost.push(*id),
            }
        }
        lost
    }

    pub(super) fn reclaim(&mut self, me: &ConsumerId, max: usize, now: Timestamp) -> Reclaimed {
        self.heard_of(me, now);
        let mut reclaimed = Reclaimed::default();
        while reclaimed.deliveries.len() < max
            && let Some((until, id)) = self.leases.first().copied()
            && until <= now
        {
            let Some(job) = self.jobs.get_mut(&id) else { break };
            job.reclaims += 1;
            let (reclaims, marked) = (job.reclaims, job.marked);
            job.note(now, "reclaimed", format!("its worker died ({reclaims} of {POISON_RECLAIMS})"));
            if reclaims >= POISON_RECLAIMS {
                self.give_up(id, Reason::Poison, now);
                reclaimed.poisoned.push(id);
            } else if self.paused_since.is_some() || (self.is_expired(id, now) && !marked) {
                // While the queue is paused nothing is handed out; what has expired is ended where others are.
                let place = Place::Ready { serial: self.next_serial() };
                self.put(id, place, |_| {});
            } else {
                reclaimed.deliveries.extend(self.hand_out(id, me, now));
            }
        }
        reclaimed
    }

    pub(super) fn held_by(&self, me: &ConsumerId) -> Vec<Delivery> {
        let mine = self.leases.iter().filter(|(_, id)| self.holds(me, *id).is_some());
        mine.filter_map(|(_, id)| self.delivery(*id)).collect()
    }

    pub(super) fn heard_of(&mut self, me: &ConsumerId, now: Timestamp) {
        match self.consumers.get_mut(me) {
            Some(heard) => *heard = now,
            None => {
                self.consumers.insert(me.clone(), now);
            }
        }
    }

    pub(super) fn leave(&mut self, me: &ConsumerId) {
        if !self.leases.iter().any(|(_, id)| self.holds(me, *id).is_some()) {
            self.consumers.remove(me);
        }
    }

    pub(super) fn maintain(&mut self, now: Timestamp) -> Maintenance {
        let promoted = self.promote(now);
        let mut expired = Vec::new();
        while expired.len() < AT_ONCE
            && self.paused_since.is_none()
            && let Some((_, id)) = self.expiries.first().copied()
            && self.is_expired(id, now)
        {
            self.give_up(id, Reason::Expired, now);
            expired.push(id);
        }
        let removed = self.remove_old(now);
        self.forget(now, AT_ONCE);
        let lease = self.limits.lease;
        let holding: Vec<ConsumerId> = self.leases.iter().filter_map(|(_, id)| self.holder(*id)).collect();
        self.consumers.retain(|who, heard| now.since(*heard) < lease || holding.contains(who));
        let expiry = self.expiries.first().map(|(at, _)| u64::try_from(at - self.unpaused(now)).unwrap_or(0));
        let expiry = expiry.filter(|_| self.paused_since.is_none()).map(std::time::Duration::from_millis);
        Maintenance {
            promoted,
            expired,
            removed,
            next_due: self.next_due(now).into_iter().chain(expiry).min(),
        }
    }

    fn holder(&self, id: JobId) -> Option<ConsumerId> {
        match &self.jobs.get(&id)?.place {
            Place::Sending { by, .. } => Some(by.clone()),
            _ => None,
        }
    }

    /// Removes records whose time is over, and the oldest where there are too many.
    fn remove_old(&mut self, now: Timestamp) -> u64 {
        let mut removed = 0;
        while removed < AT_ONCE as u64 {
            let over = self.removals.first().filter(|(at, _)| *at <= now).map(|(_, id)| *id);
            let is_full = self.ended.len() as u64 > self.limits.retain;
            let Some(id) = over.or_else(|| self.ended.first().filter(|_| is_full).map(|(_, id)| *id)) else {
                break;
            };
            self.remove(id);
            removed += 1;
        }
        removed
    }

    fn is_expired(&self, id: JobId, now: Timestamp) -> bool {
        self.jobs.get(&id).is_some_and(|job| job.expires <= self.unpaused(now))
    }
}
