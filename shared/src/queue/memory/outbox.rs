//! The messages that the outbox transport kept.

use std::collections::{HashMap, VecDeque};

use crate::job::JobId;
use crate::queue::{KeptMessage, OUTBOX_BYTES, OUTBOX_MESSAGES};

/// The newest messages, bounded in number and size.
#[derive(Debug, Default)]
pub(super) struct Kept {
    messages: HashMap<JobId, KeptMessage>,
    /// Oldest first.
    order: VecDeque<JobId>,
    bytes: usize,
}

impl Kept {
    pub(super) fn keep(&mut self, message: KeptMessage) {
        let job = message.job;
        self.bytes += message.source.len();
        if let Some(before) = self.messages.insert(job, message) {
            self.bytes -= before.source.len();
            self.order.retain(|other| *other != job);
        }
        self.order.push_back(job);
        while self.order.len() > OUTBOX_MESSAGES || self.bytes > OUTBOX_BYTES {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some(gone) = self.messages.remove(&oldest) {
                self.bytes -= gone.source.len();
            }
        }
    }

    pub(super) fn newest(&self, limit: usize) -> Vec<KeptMessage> {
        self.order.iter().rev().take(limit).filter_map(|job| self.messages.get(job)).cloned().collect()
    }

    pub(super) fn of(&self, job: JobId) -> Option<KeptMessage> {
        self.messages.get(&job).cloned()
    }
}
