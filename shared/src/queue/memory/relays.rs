//! What the process knows of its relays. A relay that is in use leaves no trace.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::queue::{ConsumerId, PauseCause, RelayPause};

/// The paused relays, by name.
#[derive(Default)]
pub(super) struct Relays {
    paused: HashMap<String, Paused>,
}

struct Paused {
    pause: RelayPause,
    /// Who probes, and until when nobody else does.
    probe: Option<(ConsumerId, Timestamp)>,
}

impl Relays {
    pub(super) fn pause_of(&mut self, relay: &str, now: Timestamp) -> Option<RelayPause> {
        let pause = &self.paused.get(relay)?.pause;
        if pause.cause == PauseCause::Throttled && pause.until <= now {
            self.paused.remove(relay);
            return None;
        }
        Some(pause.clone())
    }

    /// Pauses a relay, or makes its pause the longer one. A relay that is down keeps its `since`, is not turned into a
    /// throttled one, and a report with fewer failed probes than are known is an older one and changes nothing.
    pub(super) fn pause(&mut self, relay: &str, mut new: RelayPause, now: Timestamp) -> RelayPause {
        if let Some(known) = self.pause_of(relay, now) {
            match (known.cause, new.cause) {
                (PauseCause::Down, PauseCause::Throttled) => return known,
                (PauseCause::Down, PauseCause::Down) if new.probes < known.probes => return known,
                (PauseCause::Throttled, PauseCause::Down) => {}
                _ => {
                    new.since = known.since;
                    if new.probes == known.probes {
                        new.until = new.until.max(known.until);
                    }
                }
            }
        }
        let paused = Paused {
            pause: new.clone(),
            probe: None,
        };
        self.paused.insert(relay.to_owned(), paused);
        new
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
        let Some(paused) = self.paused.get_mut(relay) else {
            return false;
        };
        let taken = paused.probe.as_ref();
        let by_another = taken.is_some_and(|(who, until)| who != me && *until > now);
        let over = paused.pause.cause == PauseCause::Down && paused.pause.until <= now;
        if over && !by_another {
            paused.probe = Some((me.clone(), now + lease));
        }
        over && !by_another
    }
}
