//! The names of all keys of a queue, in one table that the code and the scripts share.
//!
//! Every name begins with `{<queue.name>}:`. The braces are a hash tag: on a Cluster all keys of a queue are in one
//! slot, so that one script can touch them all.

use std::sync::Arc;

use crate::job::{BatchId, JobId};

/// Keys of which a queue has one: name in the scripts, what follows the prefix.
const FIXED: &[(&str, &str)] = &[
    ("delayed", "delayed"),
    ("urgent", "urgent"),
    ("expiring", "expiring"),
    ("ended", "ended"),
    ("failed", "failed"),
    ("held", "held"),
    ("batches", "batches"),
    ("several", "several"),
    ("templates", "templates"),
    ("workers", "workers"),
    ("counters", "counters"),
    ("meta", "meta"),
    ("wake", "wake"),
    ("outbox", "outbox"),
];

/// Keys of which a queue has one for each thing: name of the function in the scripts, what stands before the id.
const KEYED: &[(&str, &str)] = &[
    ("job_key", "job:"),
    ("detail_key", "detail:"),
    ("timeline_key", "timeline:"),
    ("batch_key", "batch:"),
    ("labels_key", "labels:"),
    ("content_key", "content:"),
    ("template_key", "template:"),
    ("idem_key", "idem:"),
    ("relay_key", "relay:"),
    ("outbox_key", "outbox:"),
];

/// The three streams, in the order of their urgency: the key of the table `key.ready`, what follows the prefix.
const READY: &[(&str, &str)] = &[("high", "ready:high"), ("normal", "ready:normal"), ("bulk", "ready:bulk")];

/// The table as the scripts see it: `key.<fixed>`, `key.ready[priority]`, `<keyed>(id)`. `KEYS[1]` is the prefix.
pub(super) fn lua() -> String {
    let entries = |names: &[(&str, &str)]| {
        let entry = |(name, suffix): &(&str, &str)| format!("{name} = KEYS[1] .. '{suffix}'");
        names.iter().map(entry).collect::<Vec<_>>().join(", ")
    };
    let function = |(name, infix): &(&str, &str)| {
        format!("local function {name}(id) return KEYS[1] .. '{infix}' .. id end\n")
    };
    format!(
        "local key = {{ {}, ready = {{ {} }} }}\n{}",
        entries(FIXED),
        entries(READY),
        KEYED.iter().map(function).collect::<Vec<_>>().concat()
    )
}

/// The names of one queue's keys, as far as commands outside the scripts need them.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: Arc<str>,
}

impl Keys {
    pub(super) fn new(queue: &str) -> Self {
        Self { prefix: format!("{{{queue}}}:").into() }
    }

    /// What all names begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What the consumers wait at: the three streams of ready jobs, then the one that a resumed queue writes to.
    pub(super) fn waited_at(&self) -> [String; 4] {
        [
            format!("{}ready:high", self.prefix),
            format!("{}ready:normal", self.prefix),
            format!("{}ready:bulk", self.prefix),
            format!("{}wake", self.prefix),
        ]
    }

    pub(super) fn content(&self, batch: BatchId) -> String {
        format!("{}content:{batch}", self.prefix)
    }

    pub(super) fn template(&self, hash: &str) -> String {
        format!("{}template:{hash}", self.prefix)
    }

    pub(super) fn idempotency(&self, digest: &str) -> String {
        format!("{}idem:{digest}", self.prefix)
    }

    pub(super) fn relay(&self, name: &str) -> String {
        format!("{}relay:{name}", self.prefix)
    }

    pub(super) fn meta(&self) -> String {
        format!("{}meta", self.prefix)
    }

    pub(super) fn outbox(&self) -> String {
        format!("{}outbox", self.prefix)
    }

    pub(super) fn kept_message(&self, job: JobId) -> String {
        format!("{}outbox:{job}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_scripts_are_those_in_the_table() {
        let keys = Keys::new("mail");
        let batch = BatchId::generate();
        let table: Vec<String> =
            [FIXED, READY, KEYED].concat().iter().map(|(_, suffix)| format!("{{mail}}:{suffix}")).collect();
        let job = JobId { batch, index: 0 };
        let fixed = keys.waited_at().into_iter().chain([keys.outbox(), keys.meta()]);
        for name in fixed {
            assert!(table.contains(&name), "{name}");
        }
        for name in [
            keys.content(batch),
            keys.template("x"),
            keys.idempotency("x"),
            keys.relay("x"),
            keys.kept_message(job),
        ] {
            assert!(table.iter().any(|t| t.ends_with(':') && name.starts_with(t.as_str())), "{name}");
        }
    }
}
