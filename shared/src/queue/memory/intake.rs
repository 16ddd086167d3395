//! Accepting batches: everything is checked before anything is written.

use std::time::Duration;

use crate::queue::{Accepted, EnqueueError, Idempotency};

use super::records::Batch;
use super::state::State;

impl State {
    /// Queues a batch whole or not at all.
    pub(super) fn enqueue(
        &mut self,
        mut batch: Box<Batch>,
        idempotency: Option<Idempotency>,
    ) -> Result<Accepted, EnqueueError> {
        let now = batch.accepted_at;
        if let Some(wanted) = &idempotency
            && let Some(first) = self.keys.find(wanted, now)?
        {
            // The same batch again is the same call again; another one is the same request again.
            let replayed = first.batch != batch.id;
            return Ok(Accepted { replayed, ..first });
        }
        if let Some(known) = self.batches.get(&batch.id) {
            return Ok(accepted(known));
        }
        self.check_place(&batch)?;

        let answer = accepted(&batch);
        if let Some(key) = idempotency {
            let keep_from = batch.job(0).and_then(|job| job.send_at).unwrap_or(now);
            let keep: Duration = key.keep;
            self.keys.remember(key, answer, keep_from + keep);
        }
        for n in 0..batch.count() {
            self.index.admit(&mut batch, n, now);
        }
        if batch.count() > 0 {
            self.batches.insert(batch.id, batch);
        }
        Ok(answer)
    }

    fn check_place(&self, batch: &Batch) -> Result<(), EnqueueError> {
        let (ledger, limits) = (&self.index.ledger, &self.index.limits);
        let count = u64::from(batch.count());
        let (used, max) = if batch.scheduled {
            (ledger.scheduled, limits.max_scheduled)
        } else {
            (ledger.used(), limits.max_queue_size)
        };
        if count > max {
            Err(EnqueueError::TooLarge { count, max })
        } else if used + count <= max {
            Ok(())
        } else if batch.scheduled {
            Err(EnqueueError::ScheduleFull { used, max })
        } else {
            Err(EnqueueError::Full { used, max })
        }
    }
}

fn accepted(batch: &Batch) -> Accepted {
    Accepted {
        batch: batch.id,
        count: batch.count(),
        scheduled: batch.scheduled,
        replayed: false,
    }
}
