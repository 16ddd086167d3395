//! Idempotency keys: what was answered to which request, for as long as it is to be remembered.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::queue::{Accepted, EnqueueError, Idempotency};

/// The keys.
#[derive(Default)]
pub(super) struct Keys {
    answers: HashMap<Arc<str>, Answer>,
    by_end: BTreeSet<(Timestamp, Arc<str>)>,
}

struct Answer {
    fingerprint: Box<str>,
    accepted: Accepted,
    until: Timestamp,
}

impl Keys {
    /// The answer to a key, if it is still remembered.
    pub(super) fn find(
        &self,
        wanted: &Idempotency,
        now: Timestamp,
    ) -> Result<Option<Accepted>, EnqueueError> {
        match self.answers.get(wanted.key.as_str()) {
            Some(answer) if answer.until <= now => Ok(None),
            Some(answer) if *answer.fingerprint != *wanted.fingerprint => Err(EnqueueError::KeyReuse),
            Some(answer) => Ok(Some(answer.accepted)),
            None => Ok(None),
        }
    }

    /// Remembers an answer, in the place of one that is over.
    pub(super) fn remember(&mut self, new: Idempotency, accepted: Accepted, until: Timestamp) {
        let key: Arc<str> = new.key.into();
        let answer = Answer {
            fingerprint: new.fingerprint.into(),
            accepted,
            until,
        };
        if let Some(over) = self.answers.insert(Arc::clone(&key), answer) {
            self.by_end.remove(&(over.until, Arc::clone(&key)));
        }
        self.by_end.insert((until, key));
    }

    /// Forgets at most `max` keys whose time is over. Returns how many.
    pub(super) fn forget(&mut self, now: Timestamp, max: usize) -> usize {
        let mut forgotten = 0;
        while forgotten < max && self.by_end.first().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, key)) = self.by_end.pop_first() {
                self.answers.remove(&key);
            }
            forgotten += 1;
        }
        forgotten
    }
}
