//! All that the memory queue's lock guards: the batches with their jobs, the indexes, the idempotency keys.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::job::BatchId;
use crate::queue::Limits;

use super::idempotency::Keys;
use super::index::Index;
use super::records::Batch;

/// The queue. Its methods are spread over the modules by who calls them: `intake`, `consume`, `upkeep`, `control`.
pub(super) struct State {
    /// By id, so that a listing walks them by age.
    pub(super) batches: BTreeMap<BatchId, Box<Batch>>,
    pub(super) index: Index,
    pub(super) keys: Keys,
}

impl State {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            batches: BTreeMap::new(),
            index: Index::new(limits),
            keys: Keys::default(),
        }
    }

    /// Whether a claim can find something. Never while paused.
    pub(super) fn is_claimable(&self, now: Timestamp) -> bool {
        let index = &self.index;
        index.paused.is_none()
            && (!index.ready.is_empty() || index.delayed.next_due().is_some_and(|due| due <= now))
    }
}
