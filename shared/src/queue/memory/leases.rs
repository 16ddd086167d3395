//! Who holds which job, and until when.

use std::collections::{BTreeSet, HashMap};

use crate::clock::Timestamp;
use crate::job::JobId;
use crate::queue::ConsumerId;

/// The leases: by job, by end and by holder, always in step.
#[derive(Default)]
pub(super) struct Leases {
    jobs: HashMap<JobId, Lease>,
    ends: BTreeSet<(Timestamp, JobId)>,
    holders: HashMap<ConsumerId, BTreeSet<JobId>>,
}

struct Lease {
    holder: ConsumerId,
    until: Timestamp,
}

impl Leases {
    /// Gives the job to a consumer, whoever held it before.
    pub(super) fn grant(&mut self, job: JobId, holder: &ConsumerId, until: Timestamp) {
        self.remove(job);
        self.ends.insert((until, job));
        match self.holders.get_mut(holder) {
            Some(jobs) => {
                jobs.insert(job);
            }
            None => {
                self.holders.insert(holder.clone(), BTreeSet::from([job]));
            }
        }
        let holder = holder.clone();
        self.jobs.insert(job, Lease { holder, until });
    }

    pub(super) fn remove(&mut self, job: JobId) {
        let Some(lease) = self.jobs.remove(&job) else {
            return;
        };
        self.ends.remove(&(lease.until, job));
        if let Some(jobs) = self.holders.get_mut(&lease.holder) {
            jobs.remove(&job);
            // A consumer that holds nothing leaves no trace.
            if jobs.is_empty() {
                self.holders.remove(&lease.holder);
            }
        }
    }

    pub(super) fn is_held_by(&self, job: JobId, who: &ConsumerId) -> bool {
        self.jobs.get(&job).is_some_and(|lease| lease.holder == *who)
    }

    /// Moves the end of a lease; false when the consumer does not hold the job.
    pub(super) fn extend(&mut self, job: JobId, who: &ConsumerId, until: Timestamp) -> bool {
        let Some(lease) = self.jobs.get_mut(&job).filter(|lease| lease.holder == *who) else {
            return false;
        };
        self.ends.remove(&(lease.until, job));
        self.ends.insert((until, job));
        lease.until = until;
        true
    }

    /// At most `max` jobs whose lease has run out, the longest first.
    pub(super) fn run_out(&self, now: Timestamp, max: usize) -> Vec<JobId> {
        let ended = self.ends.iter().take_while(|(until, _)| *until <= now);
        ended.map(|(_, job)| *job).take(max).collect()
    }

    pub(super) fn held_by(&self, who: &ConsumerId) -> impl Iterator<Item = JobId> {
        self.holders.get(who).into_iter().flatten().copied()
    }
}
