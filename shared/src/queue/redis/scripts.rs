//! The operations as Lua scripts: one file each, put behind the table of key names and the parts that it shares with
//! others.
//!
//! What always holds: an operation checks first and writes then, nothing can raise after its first write, an exact
//! replay is harmless, and the time is the server's. What `enqueue` refuses has its content removed, which was set
//! before it in the same transaction. All but `enqueue` and `keep` also run when Redis' memory is full
//! (`flags=allow-oom`), so that a full Redis can be drained.

use std::fmt;
use std::sync::LazyLock;

use redis::{Arg, Cmd, RedisWrite, ToRedisArgs};
use serde::Serialize;

use super::keys::{self, Keys};

/// One operation.
#[derive(Debug)]
pub(super) struct Script {
    /// The file's name.
    pub(super) name: &'static str,
    /// What the server runs.
    pub(super) text: String,
    /// The SHA-1 that the server knows it by.
    pub(super) sha: String,
}

impl Script {
    fn new(name: &'static str, parts: &[&str], source: &str) -> Self {
        // The first line, `#!lua …`, has to come first.
        let (shebang, body) = source.split_once('\n').unwrap_or((source, ""));
        let mut text = format!("{shebang}\n{}", keys::lua());
        for part in parts {
            text.push_str(part);
        }
        text.push_str(body);
        #[cfg(feature = "conformance")]
        let text = testing::with_defect(name, text);
        let sha = redis::Script::new(&text).get_hash().to_owned();
        Self { name, text, sha }
    }
}

/// Defects for tests that have to find them.
#[cfg(feature = "conformance")]
pub mod testing {
    use std::sync::OnceLock;

    static DEFECT: OnceLock<(String, String, String)> = OnceLock::new();

    /// Changes an operation's text in this process, once, before the operation is first used: `from`, which must be in
    /// it, becomes `to`. Later calls change nothing.
    pub fn plant(operation: &str, from: &str, to: &str) {
        DEFECT.get_or_init(|| (operation.to_owned(), from.to_owned(), to.to_owned()));
    }

    pub(super) fn with_defect(operation: &str, text: String) -> String {
        match DEFECT.get() {
            Some((planted, from, to)) if planted == operation => {
                assert!(text.contains(from.as_str()), "{operation} has no `{from}`");
                text.replace(from.as_str(), to)
            }
            _ => text,
        }
    }
}

macro_rules! scripts {
    ($($name:ident = $file:literal + [$($part:literal),*];)*) => {
        $(
            #[doc = concat!("See `lua/", $file, ".lua`.")]
            pub(super) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(
                $file,
                &[include_str!("lua/state.lua"), $(include_str!(concat!("lua/", $part, ".lua"))),*],
                include_str!(concat!("lua/", $file, ".lua")),
            ));
        )*

        /// All of them.
        #[cfg(test)]
        pub(super) fn all() -> Vec<&'static Script> {
            vec![$(&*$name),*]
        }
    };
}

scripts! {
    ENQUEUE = "enqueue" + [];
    CLAIM = "claim" + ["moves", "delivery", "promote"];
    HELD = "held" + ["delivery"];
    EXTEND = "extend" + [];
    MARK = "mark" + [];
    SETTLE = "settle" + ["moves"];
    RECLAIM = "reclaim" + ["moves", "delivery"];
    HEARTBEAT = "heartbeat" + [];
    LEAVE = "leave" + ["consumers"];
    MAINTAIN = "maintain" + ["moves", "consumers", "promote"];
    JOB = "job" + ["record"];
    JOBS = "jobs" + ["record"];
    BATCH = "batch" + ["record"];
    CANCEL = "cancel" + ["moves", "record", "order"];
    CANCEL_BATCH = "cancel_batch" + ["moves"];
    RESCHEDULE = "reschedule" + ["moves", "record", "order"];
    REQUEUE = "requeue" + ["moves", "record", "order"];
    STATS = "stats" + [];
    PAUSE = "pause" + [];
    RELAY_PAUSE = "relay_pause" + [];
    TAKE_PROBE = "take_probe" + [];
    KEEP = "keep" + [];
}

/// An operation with its arguments, ready to be sent as often as it takes.
#[derive(Debug, Clone)]
pub(super) struct Call {
    script: &'static Script,
    /// As sent when the server is thought to know the script.
    cmd: Cmd,
}

impl Call {
    pub(super) fn new(script: &'static Script, keys: &Keys) -> Self {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&script.sha).arg(1).arg(keys.prefix());
        Self { script, cmd }
    }

    pub(super) fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        self.push(arg);
        self
    }

    pub(super) fn push(&mut self, arg: impl ToRedisArgs) {
        self.cmd.arg(arg);
    }

    /// Arguments that were gathered before.
    pub(super) fn extend(&mut self, args: &Args) {
        self.cmd.reserve_space_for_args(args.iter().map(<[u8]>::len));
        args.iter().for_each(|arg| self.cmd.write_arg(arg));
    }

    pub(super) fn name(&self) -> &'static str {
        self.script.name
    }

    /// As sent when the server is thought to know the script.
    pub(super) fn by_sha(&self) -> &Cmd {
        &self.cmd
    }

    /// As sent when it does not: the server remembers it.
    pub(super) fn by_text(&self) -> Cmd {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(&self.script.text);
        simple(&self.cmd).skip(2).for_each(|arg| cmd.write_arg(arg));
        cmd
    }
}

/// Arguments of a call that is made later, in one piece of memory.
#[derive(Debug)]
pub(super) struct Args(Cmd);

impl Args {
    pub(super) fn with_capacity(args: usize, bytes: usize) -> Self {
        Self(Cmd::with_capacity(args, bytes))
    }

    pub(super) fn push(&mut self, arg: &[u8]) {
        self.0.write_arg(arg);
    }

    pub(super) fn push_shown(&mut self, arg: impl fmt::Display) {
        self.0.write_arg_fmt(arg);
    }

    pub(super) fn push_json(&mut self, arg: &impl Serialize) -> Result<(), serde_json::Error> {
        serde_json::to_writer(self.0.writer_for_next_arg(), arg)
    }

    pub(super) fn bytes(&self) -> usize {
        self.iter().map(<[u8]>::len).sum()
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        simple(&self.0)
    }
}

fn simple(cmd: &Cmd) -> impl Iterator<Item = &[u8]> {
    cmd.args_iter().filter_map(|arg| match arg {
        Arg::Simple(bytes) => Some(bytes),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_adds_data_is_refused_when_memory_is_full() {
        for script in all() {
            let refused = script.text.starts_with("#!lua\n");
            let allowed = script.text.starts_with("#!lua flags=allow-oom\n");
            assert_eq!(
                (refused, allowed),
                match script.name {
                    "enqueue" | "keep" => (true, false),
                    _ => (false, true),
                },
                "{}",
                script.name
            );
        }
    }

    #[test]
    fn every_operation_says_what_it_takes_and_returns() {
        for script in all() {
            for word in ["-- KEYS[1] ", "-- returns "] {
                assert!(script.text.contains(word), "{} lacks {word}", script.name);
            }
        }
    }
}
