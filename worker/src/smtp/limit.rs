//! How many messages a relay lets go over one connection, as far as its refusals tell.

use std::sync::atomic::{AtomicU32, Ordering};

use shared::classify::is_message_limit;
use shared::reply::Reply;

/// A limit that is learned, shared by the connections of one relay. It only ever gets smaller.
#[derive(Debug)]
pub(super) struct MessageLimit {
    limit: AtomicU32,
    /// After how many messages the last 421 without a reason came.
    suspected: AtomicU32,
}

impl MessageLimit {
    pub(super) const fn unknown() -> Self {
        Self { limit: AtomicU32::new(u32::MAX), suspected: AtomicU32::new(u32::MAX) }
    }

    /// `u32::MAX`: unknown.
    pub(super) fn get(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// A connection in use that had carried as many messages was refused another one.
    pub(super) fn hear(&self, carried: u32, reply: &Reply) {
        if carried == 0 {
            return;
        }
        // A bare 421 may be a server that goes down: the same number twice is no chance.
        let is_limit = is_message_limit(reply)
            || (is_bare(reply) && self.suspected.swap(carried, Ordering::Relaxed) == carried);
        if is_limit && self.limit.fetch_min(carried, Ordering::Relaxed) > carried {
            tracing::info!(messages = carried, "the relay takes no more messages over one connection");
        }
    }
}

/// A 421 that may be about the number of messages: 4.3.2 is a server that goes down, 4.4.2 one that waited too long,
/// 4.7.0 one that does not like us.
fn is_bare(reply: &Reply) -> bool {
    reply.code == 421 && !reply.enhanced.is_some_and(|e| matches!((e.subject, e.detail), (3 | 4, 2) | (7, 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_learned_at_once_where_it_is_named_and_at_the_second_time_else() {
        let limit = MessageLimit::unknown();
        for (carried, text, learned) in [
            (9, "Bye", u32::MAX),
            (4, "Bye", u32::MAX),
            (4, "4.3.2 Service shutting down", u32::MAX),
            (4, "Bye", 4),
            (0, "4.4.5 Too many messages on this connection", 4),
            (3, "4.4.5 Too many messages on this connection", 3),
            (8, "4.4.5 Too many messages on this connection", 3),
        ] {
            limit.hear(carried, &Reply::new(421, text));
            assert_eq!(limit.get(), learned, "{carried} {text}");
        }
    }
}
