//! The messages that the outbox transport kept: the newest, within a number and a size.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::job::JobId;
use crate::queue::{KeptMessage, OUTBOX_BYTES, OUTBOX_MESSAGES};

/// The messages, oldest first.
#[derive(Default)]
pub(super) struct Kept {
    messages: VecDeque<Arc<KeptMessage>>,
    bytes: usize,
}

impl Kept {
    /// Keeps a message and drops the oldest ones that no longer fit; one that is larger than the whole is not kept.
    pub(super) fn keep(&mut self, message: KeptMessage) {
        if let Some(first) = self.messages.iter().position(|kept| kept.job == message.job) {
            self.bytes -= self.messages.remove(first).map_or(0, |kept| kept.source.len());
        }
        self.bytes += message.source.len();
        self.messages.push_back(Arc::new(message));
        while self.messages.len() > OUTBOX_MESSAGES || self.bytes > OUTBOX_BYTES {
            let Some(oldest) = self.messages.pop_front() else {
                break;
            };
            self.bytes -= oldest.source.len();
        }
    }

    pub(super) fn newest(&self, limit: usize) -> Vec<Arc<KeptMessage>> {
        self.messages.iter().rev().take(limit).cloned().collect()
    }

    pub(super) fn of(&self, job: JobId) -> Option<Arc<KeptMessage>> {
        self.messages.iter().find(|kept| kept.job == job).cloned()
    }
}
