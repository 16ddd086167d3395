//! The jobs that wait for a time: retries and scheduled ones, by priority and due time.
//!
//! They are kept apart by priority, so that a due `high` job is found at once behind any number of due `bulk` ones.

use std::collections::BTreeSet;

use crate::clock::Timestamp;
use crate::job::{JobId, Priority};
use crate::queue::ByPriority;

/// The waiting jobs.
#[derive(Default)]
pub(super) struct Delayed {
    lines: ByPriority<BTreeSet<(Timestamp, JobId)>>,
}

impl Delayed {
    pub(super) fn insert(&mut self, priority: Priority, due: Timestamp, job: JobId) {
        self.lines.of_mut(priority).insert((due, job));
    }

    pub(super) fn remove(&mut self, priority: Priority, due: Timestamp, job: JobId) {
        self.lines.of_mut(priority).remove(&(due, job));
    }

    /// The first job of a priority, if it is due.
    pub(super) fn due(&self, priority: Priority, now: Timestamp) -> Option<JobId> {
        let (due, job) = self.lines.of(priority).first()?;
        (*due <= now).then_some(*job)
    }

    /// When the next job is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let firsts = Priority::ALL.iter().filter_map(|p| self.lines.of(*p).first());
        firsts.map(|(due, _)| *due).min()
    }
}
