//! The jobs that a claim can take now, by priority, each in the order in which they became ready.
//!
//! Of twelve picks, `high` comes first in eight, `normal` in three, `bulk` in one; what has no job passes its pick
//! on, the most urgent first. So high overtakes and bulk never starves, in any twelve picks, without chance.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::job::{JobId, Priority};
use crate::queue::ByPriority;

use Priority::{Bulk, High, Normal};

/// Who picks first. `high` never waits for more than one pick of another.
const FIRST_PICK: [Priority; 12] = [
    High, High, Normal, High, High, Normal, High, High, Bulk, High, Normal, High,
];

/// The ready jobs.
#[derive(Default)]
pub(super) struct Ready {
    lines: ByPriority<Line>,
    next_turn: u64,
    picks: usize,
}

#[derive(Default)]
struct Line {
    jobs: BTreeMap<u64, JobId>,
    /// How many were accepted at each time: the oldest is not the first in line once there are retries.
    accepted: BTreeMap<Timestamp, u32>,
}

impl Ready {
    /// Adds a job at the end of its line. Returns its turn.
    pub(super) fn push(&mut self, priority: Priority, accepted_at: Timestamp, job: JobId) -> u64 {
        let turn = self.next_turn;
        self.next_turn += 1;
        let line = self.lines.of_mut(priority);
        line.jobs.insert(turn, job);
        *line.accepted.entry(accepted_at).or_default() += 1;
        turn
    }

    /// Takes the job of a turn out.
    pub(super) fn remove(&mut self, priority: Priority, accepted_at: Timestamp, turn: u64) {
        let line = self.lines.of_mut(priority);
        if line.jobs.remove(&turn).is_none() {
            return;
        }
        if let Some(count) = line.accepted.get_mut(&accepted_at) {
            *count -= 1;
            if *count == 0 {
                line.accepted.remove(&accepted_at);
            }
        }
    }

    /// The job whose pick it is. It stays until it is removed.
    pub(super) fn pick(&mut self) -> Option<JobId> {
        let first = FIRST_PICK[self.picks % FIRST_PICK.len()];
        let job = [first, High, Normal, Bulk]
            .into_iter()
            .find_map(|priority| self.lines.of(priority).jobs.first_key_value())
            .map(|(_, job)| *job)?;
        self.picks = (self.picks + 1) % FIRST_PICK.len();
        Some(job)
    }

    pub(super) fn is_empty(&self) -> bool {
        Priority::ALL.iter().all(|p| self.len(*p) == 0)
    }

    pub(super) fn len(&self, priority: Priority) -> usize {
        self.lines.of(priority).jobs.len()
    }

    /// When the oldest ready job was accepted.
    pub(super) fn oldest(&self, priority: Priority) -> Option<Timestamp> {
        let line = self.lines.of(priority);
        line.accepted.first_key_value().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::BatchId;

    #[test]
    fn twelve_picks_are_shared_eight_three_one() {
        let mut ready = Ready::default();
        let batch = BatchId::generate();
        let at = Timestamp::from_millis(1);
        for priority in Priority::ALL {
            for index in 0..24 {
                ready.push(*priority, at, JobId { batch, index });
            }
        }
        let before = Priority::ALL.iter().map(|p| ready.len(*p)).collect::<Vec<_>>();
        for _ in 0..12 {
            // Equal ids in each line: the line that got shorter tells whose pick it was.
            let first = FIRST_PICK[ready.picks];
            ready.pick().unwrap();
            let turn = *ready.lines.of(first).jobs.first_key_value().unwrap().0;
            ready.remove(first, at, turn);
        }
        let taken: Vec<_> = Priority::ALL
            .iter()
            .zip(before)
            .map(|(p, n)| n - ready.len(*p))
            .collect();
        assert_eq!(taken, [8, 3, 1]);
    }

    #[test]
    fn oldest_is_by_acceptance_and_not_by_turn() {
        let mut ready = Ready::default();
        let batch = BatchId::generate();
        let [old, new] = [1, 2].map(Timestamp::from_millis);
        ready.push(High, new, JobId { batch, index: 0 });
        let turn = ready.push(High, old, JobId { batch, index: 1 });
        assert_eq!(ready.oldest(High), Some(old));
        ready.remove(High, old, turn);
        assert_eq!(ready.oldest(High), Some(new));
    }
}
