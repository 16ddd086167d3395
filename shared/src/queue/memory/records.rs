//! What is told of the jobs, and the switch that stops them all.

use std::time::Duration;

use super::state::{Place, State};
use crate::clock::Timestamp;
use crate::job::{BatchId, BatchRecord, JobId, JobRecord, Priority, TimelineEntry};
use crate::queue::{ByPriority, JobFilter, JobPage, LISTING_LOOKS_AT, Stats};

impl State {
    pub(super) fn record(&self, id: JobId) -> Option<JobRecord> {
        let (job, batch) = (self.jobs.get(&id)?, self.batches.get(&id.batch)?);
        let accepted =
            TimelineEntry { at: batch.accepted_at, event: "accepted".into(), detail: String::new() };
        Some(JobRecord {
            id,
            recipient: job.recipient.clone(),
            status: job.status()?,
            reason: job.reason,
            priority: batch.priority,
            attempts: job.attempts,
            max_attempts: batch.max_attempts,
            accepted_at: batch.accepted_at,
            send_at: job.send_at,
            next_attempt_at: match job.place {
                Place::Scheduled { due } | Place::Retrying { due } => Some(due),
                _ => None,
            },
            last_reply: job.last_reply.as_deref().cloned(),
            relay: job.relay.as_deref().map(Into::into),
            message_domain: batch.message_domain.clone(),
            tags: batch.tags.clone(),
            metadata: batch.metadata.clone(),
            timeline: std::iter::once(accepted).chain(job.timeline.iter().cloned()).collect(),
        })
    }

    pub(super) fn list(&self, filter: &JobFilter, limit: usize, after: Option<JobId>) -> JobPage {
        let jobs = match (filter.batch, after) {
            (Some(batch), None) => {
                self.jobs.range(JobId { batch, index: 0 }..=JobId { batch, index: u32::MAX })
            }
            (Some(batch), Some(after)) => {
                let end = after.clamp(JobId { batch, index: 0 }, JobId { batch, index: u32::MAX });
                self.jobs.range(JobId { batch, index: 0 }..end)
            }
            (None, Some(after)) => self.jobs.range(..after),
            (None, None) => self.jobs.range::<JobId, _>(..),
        };
        let mut page = JobPage::default();
        let mut last = None;
        for (looked_at, (id, _)) in jobs.rev().enumerate() {
            if page.jobs.len() == limit || looked_at == LISTING_LOOKS_AT {
                page.next = last;
                break;
            }
            last = Some(*id);
            if self.matches(*id, filter) {
                page.jobs.extend(self.record(*id));
            }
        }
        page
    }

    fn matches(&self, id: JobId, filter: &JobFilter) -> bool {
        let (Some(job), Some(batch)) = (self.jobs.get(&id), self.batches.get(&id.batch)) else {
            return false;
        };
        filter.status.is_none_or(|status| job.status() == Some(status))
            && filter.tag.as_ref().is_none_or(|tag| batch.tags.contains(tag))
            && filter.recipient.as_ref().is_none_or(|key| job.recipient.mailbox.address.key() == *key)
    }

    pub(super) fn batch_record(&self, id: BatchId) -> Option<BatchRecord> {
        let batch = self.batches.get(&id)?;
        Some(BatchRecord {
            id,
            accepted_at: batch.accepted_at,
            count: u64::from(batch.count),
            statuses: batch.statuses,
            tags: batch.tags.clone(),
            metadata: batch.metadata.clone(),
        })
    }

    pub(super) fn stats(&self, now: Timestamp) -> Stats {
        let lease = self.limits.lease;
        let mut stats = Stats {
            paused: self.paused_since.is_some(),
            ledger: self.ledger,
            states: self.by_priority,
            ready: ByPriority::default(),
            oldest: ByPriority::default(),
            max_queue_size: self.limits.max_queue_size,
            workers: self.consumers.values().filter(|heard| now.since(**heard) < lease).count() as u64,
        };
        for priority in Priority::ALL {
            let ready = self.ready.of(*priority);
            *stats.ready.of_mut(*priority) = ready.len() as u64;
            let first = ready.first_key_value().and_then(|(_, id)| self.batches.get(&id.batch));
            *stats.oldest.of_mut(*priority) =
                first.map_or(Duration::ZERO, |batch| now.since(batch.accepted_at));
        }
        stats
    }

    pub(super) fn set_paused(&mut self, paused: bool, now: Timestamp) {
        match (self.paused_since, paused) {
            (None, true) => self.paused_since = Some(now),
            (Some(since), false) => {
                self.paused_for += now.since(since);
                self.paused_since = None;
                self.has_more = true;
            }
            _ => {}
        }
    }
}
