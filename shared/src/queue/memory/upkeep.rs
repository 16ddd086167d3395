//! What time does to the queue: due jobs become ready, old ones expire, records and keys are removed.
//!
//! Each call is a bounded piece of work under the lock.

use crate::clock::Timestamp;
use crate::job::{JobId, Priority};
use crate::queue::Maintenance;

use super::state::State;

/// How much of each kind of work one call does.
const BATCH: usize = 1_000;

impl State {
    pub(super) fn maintain(&mut self, now: Timestamp) -> Maintenance {
        let promoted = self.promote(BATCH, now);
        let expired = self.expire(BATCH, now);
        let removed = self.remove_old_records(BATCH, now);
        self.keys.forget(now, BATCH);
        let lease = self.index.limits.lease;
        self.index.heard.retain(|_, heard| now.since(*heard) < lease);
        let next_due = self.index.delayed.next_due();
        Maintenance {
            promoted,
            expired,
            removed,
            next_due: next_due.map(|due| due.since(now)),
        }
    }

    /// Makes at most `max` due jobs of each priority ready. Returns how many.
    pub(super) fn promote(&mut self, max: usize, now: Timestamp) -> u64 {
        let mut promoted = 0;
        for priority in Priority::ALL {
            for _ in 0..max {
                let Some(id) = self.index.delayed.due(*priority, now) else {
                    break;
                };
                let Some(batch) = self.batches.get_mut(&id.batch) else {
                    break;
                };
                self.index.promote(batch, id.index, now);
                promoted += 1;
            }
        }
        promoted
    }

    fn expire(&mut self, max: usize, now: Timestamp) -> Vec<JobId> {
        let running = self.index.running_time(now);
        let mut expired = Vec::new();
        while expired.len() < max {
            let Some((_, id)) = self.index.expiring.first().filter(|(at, _)| *at <= running) else {
                break;
            };
            let id = *id;
            let Some(batch) = self.batches.get_mut(&id.batch) else {
                break;
            };
            self.index.expire(batch, id.index, now);
            expired.push(id);
        }
        expired
    }

    fn remove_old_records(&mut self, max: usize, now: Timestamp) -> u64 {
        let limits = &self.index.limits;
        let (retention, failed_retention) = (limits.retention, limits.failed_retention);
        let mut removed = self.remove_surplus(max);
        while removed < max as u64 {
            let ended = self.index.ended.first().copied();
            let failed = self.index.failed.first().copied();
            let old = ended
                .filter(|(at, _)| *at + retention <= now)
                .or(failed.filter(|(at, _)| *at + failed_retention <= now));
            let Some((_, id)) = old else { break };
            self.remove_record(id);
            removed += 1;
        }
        removed
    }

    /// Removes the records that ended first, at most `max`, while there are more than are to be kept.
    pub(super) fn remove_surplus(&mut self, max: usize) -> u64 {
        let mut removed = 0;
        while removed < max {
            let (ended, failed) = (&self.index.ended, &self.index.failed);
            if (ended.len() + failed.len()) as u64 <= self.index.limits.retain {
                break;
            }
            let oldest = [ended.first(), failed.first()]
                .into_iter()
                .flatten()
                .min()
                .copied();
            let Some((_, id)) = oldest else { break };
            self.remove_record(id);
            removed += 1;
        }
        removed as u64
    }

    fn remove_record(&mut self, id: JobId) {
        let Some(batch) = self.batches.get_mut(&id.batch) else {
            return;
        };
        self.index.remove_record(batch, id.index);
        if batch.records == 0 {
            self.batches.remove(&id.batch);
        }
    }
}
