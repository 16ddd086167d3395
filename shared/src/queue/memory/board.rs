//! What is known of the relays.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::queue::{ConsumerId, PauseCause, RelayPause};

/// The paused relays by name; one that is not here is in use.
#[derive(Debug, Default)]
pub(super) struct Board {
    paused: HashMap<String, Paused>,
}

#[derive(Debug)]
struct Paused {
    pause: RelayPause,
    /// Who probes, and until when nobody else does.
    probe: Option<(ConsumerId, Timestamp)>,
}

impl Board {
    pub(super) fn pause_of(&self, relay: &str) -> Option<RelayPause> {
        self.paused.get(relay).map(|paused| paused.pause.clone())
    }

    pub(super) fn pause(&mut self, relay: &str, mut pause: RelayPause) -> RelayPause {
        if let Some(before) = self.paused.get(relay).map(|paused| &paused.pause) {
            if before.cause == PauseCause::Down && pause.cause == PauseCause::Throttled {
                return before.clone();
            }
            if before.cause == pause.cause {
                pause.since = before.since;
                if pause.cause == PauseCause::Throttled {
                    // Of two waits the longer one holds.
                    pause.until = pause.until.max(before.until);
                }
            }
        }
        self.paused.insert(relay.to_owned(), Paused { pause: pause.clone(), probe: None });
        pause
    }

    pub(super) fn resume(&mut self, relay: &str) {
        self.paused.remove(relay);
    }

    pub(super) fn take_probe(
        &mut self,
        relay: &str,
        me: &ConsumerId,
        lease: Duration,
        now: Timestamp,
    ) -> bool {
        let Some(paused) = self.paused.get_mut(relay).filter(|paused| paused.pause.until <= now) else {
            return false;
        };
        if paused.probe.as_ref().is_some_and(|(who, until)| who != me && *until > now) {
            return false;
        }
        paused.probe = Some((me.clone(), now + lease));
        true
    }
}
