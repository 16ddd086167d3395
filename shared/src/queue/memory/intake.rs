//! How a batch comes in: all checks first, then all of it.

use std::time::Duration;

use super::state::{Batch, Job, Place, Remembered, State, millis};
use crate::clock::Timestamp;
use crate::job::JobId;
use crate::queue::{Accepted, EnqueueError, Idempotency, NewBatch};

impl State {
    pub(super) fn enqueue(&mut self, batch: NewBatch, now: Timestamp) -> Result<Accepted, EnqueueError> {
        if let Some(known) = self.batches.get(&batch.id) {
            let (count, scheduled) = (known.count, known.scheduled);
            return Ok(Accepted { batch: batch.id, count, scheduled, replayed: false });
        }
        if let Some(key) = &batch.idempotency
            && let Some(answer) = self.replay(key, now)?
        {
            return Ok(answer);
        }
        let send_at = batch.send_at.filter(|at| *at > now);
        let count = u32::try_from(batch.recipients.len()).unwrap_or(u32::MAX);
        self.has_room(u64::from(count), send_at.is_some())?;

        let answer = Accepted { batch: batch.id, count, scheduled: send_at.is_some(), replayed: false };
        if let Some(key) = batch.idempotency.clone() {
            let until = send_at.unwrap_or(now) + key.keep;
            self.forgets.insert((until, key.key.clone()));
            self.idempotency.insert(key.key, Remembered { fingerprint: key.fingerprint, answer, until });
        }
        self.write(batch, send_at, count, now);
        Ok(answer)
    }

    fn has_room(&self, count: u64, is_scheduled: bool) -> Result<(), EnqueueError> {
        let (used, max) = if is_scheduled {
            (self.ledger.scheduled, self.limits.max_scheduled)
        } else {
            (self.ledger.used(), self.limits.max_queue_size)
        };
        if count > max {
            Err(EnqueueError::TooLarge { count, max })
        } else if used + count <= max {
            Ok(())
        } else if is_scheduled {
            Err(EnqueueError::ScheduleFull { used, max })
        } else {
            Err(EnqueueError::Full { used, max })
        }
    }

    fn write(&mut self, batch: NewBatch, send_at: Option<Timestamp>, count: u32, now: Timestamp) {
        let id = batch.id;
        let expires = self.unpaused(send_at.unwrap_or(now)).saturating_add(millis(batch.expire_after));
        let shared = Batch {
            priority: batch.priority,
            on_ambiguous: batch.on_ambiguous,
            max_attempts: batch.max_attempts,
            expire_after: batch.expire_after,
            accepted_at: now,
            tags: batch.tags,
            metadata: batch.metadata,
            message_domain: batch.content.from.address.domain().to_owned(),
            content: Some((batch.content, batch.bundle)),
            needing: 0,
            recorded: count,
            count,
            scheduled: send_at.is_some(),
            statuses: Default::default(),
        };
        self.batches.insert(id, shared);
        for (index, recipient) in (0..).zip(batch.recipients) {
            let job = Job {
                recipient,
                place: Place::Nowhere,
                attempts: 0,
                reclaims: 0,
                marked: false,
                expires,
                send_at,
                reason: None,
                relay: None,
                last_reply: None,
                timeline: Vec::new(),
            };
            let id = JobId { batch: id, index };
            self.jobs.insert(id, job);
            let place = match send_at {
                Some(due) => Place::Scheduled { due },
                None => Place::Ready { serial: self.next_serial() },
            };
            self.put(id, place, |_| {});
        }
        self.ledger.accepted += u64::from(count);
    }

    pub(super) fn replay(
        &mut self,
        key: &Idempotency,
        now: Timestamp,
    ) -> Result<Option<Accepted>, EnqueueError> {
        self.forget(now, usize::MAX);
        match self.idempotency.get(&key.key) {
            None => Ok(None),
            Some(known) if known.fingerprint == key.fingerprint => {
                Ok(Some(Accepted { replayed: true, ..known.answer }))
            }
            Some(_) => Err(EnqueueError::KeyReuse),
        }
    }

    /// Forgets keys whose time is over, at most `limit`.
    pub(super) fn forget(&mut self, now: Timestamp, limit: usize) -> usize {
        let mut forgotten = 0;
        while forgotten < limit
            && let Some((until, key)) = self.forgets.first()
            && *until <= now
        {
            if self.idempotency.get(key).is_some_and(|known| known.until <= now) {
                self.idempotency.remove(key);
            }
            self.forgets.pop_first();
            forgotten += 1;
        }
        forgotten
    }

    /// How long a due time is away.
    pub(super) fn next_due(&self, now: Timestamp) -> Option<Duration> {
        let delayed = &self.delayed;
        let firsts =
            [&delayed.high, &delayed.normal, &delayed.bulk].map(|due| due.first().map(|(at, _)| *at));
        firsts.into_iter().flatten().min().map(|at| at.since(now))
    }
}
