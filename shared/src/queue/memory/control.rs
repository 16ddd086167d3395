//! What people ask and order.

use crate::clock::Timestamp;
use crate::job::{BatchId, JobId, Priority, Status};
use crate::queue::{ByPriority, JobFilter, JobPage, LISTING_LOOKS_AT, Ordered, Stats};

use super::index::To;
use super::records::{Batch, Detail, Job};
use super::state::State;

impl State {
    pub(super) fn stats(&self, now: Timestamp) -> Stats {
        let index = &self.index;
        let mut ready = ByPriority::default();
        let mut oldest = ByPriority::default();
        for priority in Priority::ALL {
            *ready.of_mut(*priority) = index.ready.len(*priority) as u64;
            *oldest.of_mut(*priority) = index
                .ready
                .oldest(*priority)
                .map_or_else(Default::default, |at| now.since(at));
        }
        let alive = |heard: &&Timestamp| now.since(**heard) < index.limits.lease;
        Stats {
            paused: index.paused.is_some(),
            ledger: index.ledger,
            states: index.states,
            ready,
            oldest,
            max_queue_size: index.limits.max_queue_size,
            workers: index.heard.values().filter(alive).count() as u64,
        }
    }

    /// A page of the listing: walks the records from the newest, and looks at a bounded number of places.
    pub(super) fn jobs(&self, filter: &JobFilter, limit: usize, after: Option<JobId>) -> JobPage {
        let recipient = filter.recipient.as_deref().and_then(|key| key.rsplit_once('@'));
        let matches = |batch: &Batch, job: &Job| {
            let address = &job.recipient.mailbox.address;
            filter.status.is_none_or(|status| job.status == status)
                && filter.tag.as_ref().is_none_or(|tag| batch.tags.contains(tag))
                && (filter.recipient.is_none()
                    || recipient.is_some_and(|(local, domain)| {
                        address.domain() == domain && address.local().to_lowercase() == local
                    }))
        };
        let newest = match (after, filter.batch) {
            (Some(after), _) => self.batches.range(..=after.batch),
            (None, Some(only)) => self.batches.range(..=only),
            (None, None) => self.batches.range::<BatchId, _>(..),
        };
        let places = newest
            .rev()
            .skip_while(|(id, _)| filter.batch.is_some_and(|only| **id > only))
            .take_while(|(id, _)| filter.batch.is_none_or(|only| **id == only))
            .flat_map(|(id, batch)| {
                let end = after.filter(|after| after.batch == *id).map(|after| after.index);
                let end = end.map_or(batch.count(), |end| end.min(batch.count()));
                (0..end).rev().map(move |n| (batch, n))
            });

        let mut page = JobPage::default();
        let mut last = None;
        for (looked_at, (batch, n)) in places.enumerate() {
            if looked_at == LISTING_LOOKS_AT || page.jobs.len() == limit {
                page.next = last;
                break;
            }
            if batch.job(n).is_some_and(|job| matches(batch, job)) {
                page.jobs.extend(batch.job_record(n));
            }
            let batch = batch.id;
            last = Some(JobId { batch, index: n });
        }
        page
    }

    pub(super) fn cancel(&mut self, id: JobId, now: Timestamp) -> Ordered {
        self.order(id, now, |job| match job.status {
            Status::Queued | Status::Scheduled | Status::Retrying => {
                job.note(now, "cancelled", Detail::None);
                Ok(To::Ended(Status::Cancelled, None))
            }
            status => Err(Ordered::Conflict(status)),
        })
    }

    pub(super) fn cancel_batch(&mut self, id: BatchId, now: Timestamp) -> Option<u64> {
        let count = self.batches.get(&id)?.count();
        let cancelled = (0..count).filter(|index| {
            let job = JobId {
                batch: id,
                index: *index,
            };
            matches!(self.cancel(job, now), Ordered::Done(_))
        });
        Some(cancelled.count() as u64)
    }

    pub(super) fn reschedule(&mut self, id: JobId, send_at: Timestamp, now: Timestamp) -> Ordered {
        let limits = &self.index.limits;
        let full = self.index.ledger.used() >= limits.max_queue_size;
        let expiry = self
            .batches
            .get(&id.batch)
            .map_or(now, |batch| self.index.expiry(now, batch.expire_after, now));
        self.order(id, now, |job| match job.status {
            Status::Scheduled if send_at > now => {
                job.send_at = Some(send_at);
                job.note(now, "rescheduled", Detail::Text(send_at.to_string().into()));
                Ok(To::Scheduled(send_at))
            }
            Status::Scheduled if full => Err(Ordered::Full),
            Status::Scheduled => {
                job.send_at = None;
                job.expires = expiry;
                job.note(now, "rescheduled", Detail::Fixed("now"));
                Ok(To::Ready)
            }
            status => Err(Ordered::Conflict(status)),
        })
    }

    pub(super) fn requeue(&mut self, id: JobId, now: Timestamp) -> Ordered {
        let limits = &self.index.limits;
        let full = self.index.ledger.used() >= limits.max_queue_size;
        let expiry = self
            .batches
            .get(&id.batch)
            .map_or(now, |batch| self.index.expiry(now, batch.expire_after, now));
        self.order(id, now, |job| match job.status {
            // A held job has its place already.
            Status::Failed if full => Err(Ordered::Full),
            Status::Failed | Status::Held => {
                job.attempts = 0;
                job.reclaims = 0;
                job.marked = false;
                job.reason = None;
                job.expires = expiry;
                job.note(now, "requeued", Detail::None);
                Ok(To::Ready)
            }
            status => Err(Ordered::Conflict(status)),
        })
    }

    /// Decides on a job, and moves it where the decision says.
    fn order(
        &mut self,
        id: JobId,
        now: Timestamp,
        decide: impl FnOnce(&mut Job) -> Result<To<'static>, Ordered>,
    ) -> Ordered {
        let Some(batch) = self.batches.get_mut(&id.batch) else {
            return Ordered::Unknown;
        };
        let Some(job) = batch.job_mut(id.index) else {
            return Ordered::Unknown;
        };
        match decide(job) {
            Ok(to) => self.index.move_job(batch, id.index, to, now),
            Err(refused) => return refused,
        }
        batch
            .job_record(id.index)
            .map_or(Ordered::Unknown, |record| Ordered::Done(Box::new(record)))
    }
}
