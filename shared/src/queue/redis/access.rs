//! The least rights that the two programs need of Redis, as rules for `ACL SETUSER`.
//!
//! Redis checks the commands inside a script against the user who runs it, so that most of these are the scripts'.
//! On Redis 7.2 and newer `+client|setinfo` may be added: it names the program in `CLIENT LIST`.
//! On a Cluster add `+cluster|keyslot +cluster|slots`. The Sentinels are asked without a login, for
//! `SENTINEL get-master-addr-by-name` only.

/// What both programs do: connect, look at the set-up, run scripts, read and move jobs.
const BOTH: &[&str] = &[
    "config|get",
    "eval",
    "evalsha",
    "get",
    "hdel",
    "hget",
    "hgetall",
    "hincrby",
    "hmget",
    "hset",
    "hsetnx",
    "info",
    "lrange",
    "ltrim",
    "mget",
    "ping",
    "rpush",
    "time",
    "unlink",
    "unwatch",
    "xack",
    "xadd",
    "xdel",
    "xinfo|groups",
    "xlen",
    "xpending",
    "xrange",
    "xrevrange",
    "zadd",
    "zcard",
    "zrange",
    "zrem",
    "zrevrange",
];

/// What only the API does: accept, list, order, pause relays.
const API: &[&str] =
    &["del", "exec", "exists", "mset", "multi", "persist", "pexpire", "pexpireat", "set", "zcount", "zscore"];

/// What only a worker does: claim, wait, reclaim, promote, clean up, pause relays.
const WORKER: &[&str] = &[
    "del",
    "persist",
    "pexpire",
    "pexpireat",
    "xclaim",
    "xgroup|create",
    "xgroup|delconsumer",
    "xread",
    "xreadgroup",
    "zrangebyscore",
];

/// The rules for `emailer-api`, on one queue: `ACL SETUSER api on >password <rules>`.
#[must_use]
pub fn api_rules(queue: &str) -> String {
    rules(queue, API)
}

/// The rules for `emailer-worker`, on one queue: `ACL SETUSER worker on >password <rules>`.
#[must_use]
pub fn worker_rules(queue: &str) -> String {
    rules(queue, WORKER)
}

fn rules(queue: &str, own: &[&str]) -> String {
    let mut commands = [BOTH, own].concat();
    commands.sort_unstable();
    let commands: Vec<String> = commands.iter().map(|command| format!("+{command}")).collect();
    format!("resetchannels ~{{{queue}}}:* -@all {}", commands.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readmes_show_the_rules_of_the_code() {
        for readme in [include_str!("../../../../README.md"), include_str!("../../../../README.zh-CN.md")] {
            for (program, rules) in [("api    ", api_rules("emailer")), ("worker ", worker_rules("emailer"))]
            {
                let line = format!("{program} {rules}");
                assert!(readme.lines().any(|shown| shown == line), "not shown:\n{line}");
            }
        }
    }
}
