//! What a 202 is worth, as Redis itself is set up.

use std::collections::HashMap;

use super::channel::Channel;
use crate::queue::{Durability, Unavailable};

/// What Redis says of itself. A field is none where it will not say: managed services forbid `CONFIG`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    version: Option<String>,
    append_only: Option<bool>,
    fsync: Option<String>,
    pub(super) eviction: Option<String>,
    max_memory: Option<u64>,
    replicas: Option<u64>,
}

impl Facts {
    pub(super) async fn read(channel: &Channel) -> Result<Self, Unavailable> {
        let info: String = channel.command(&redis::cmd("INFO")).await?;
        let mut facts = Self::from_info(&info);
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg("append*").arg("maxmemory*");
        // Refused to users who may not ask; what INFO tells then has to do.
        if let Ok(config) = channel.command::<HashMap<String, String>>(&ask).await {
            facts.add_config(&config);
        }
        Ok(facts)
    }

    fn from_info(info: &str) -> Self {
        let fields: HashMap<&str, &str> =
            info.lines().filter_map(|line| line.trim().split_once(':')).collect();
        let number = |field: &str| fields.get(field).and_then(|n| n.parse().ok());
        let version = fields.get("valkey_version").or_else(|| fields.get("redis_version"));
        Self {
            version: version.map(|v| (*v).to_owned()),
            append_only: number("aof_enabled").map(|on| on == 1),
            fsync: None,
            eviction: fields.get("maxmemory_policy").map(|p| (*p).to_owned()),
            max_memory: number("maxmemory"),
            replicas: number("connected_slaves"),
        }
    }

    fn add_config(&mut self, config: &HashMap<String, String>) {
        if let Some(on) = config.get("appendonly") {
            self.append_only = Some(on == "yes");
        }
        self.fsync = config.get("appendfsync").cloned().or(self.fsync.take());
        self.eviction = config.get("maxmemory-policy").cloned().or(self.eviction.take());
        self.max_memory = config.get("maxmemory").and_then(|n| n.parse().ok()).or(self.max_memory);
    }

    /// The first number of the version.
    pub(super) fn major_version(&self) -> Option<u32> {
        self.version.as_deref()?.split('.').next()?.parse().ok()
    }

    pub(super) fn version(&self) -> &str {
        self.version.as_deref().unwrap_or("unknown")
    }

    pub(super) fn evicts(&self) -> bool {
        self.eviction.as_deref().is_some_and(|policy| policy != "noeviction")
    }

    pub(super) fn durability(&self) -> Durability {
        let logged = self.append_only == Some(true);
        let at_once = self.fsync.as_deref() == Some("always");
        let mut details = vec![match (self.append_only, self.fsync.as_deref()) {
            (Some(true), Some("always")) => {
                "append-only file, written to disk before each answer: nothing that was answered is lost"
                    .to_owned()
            }
            (Some(true), Some("everysec")) => {
                "append-only file, written to disk every second: a clean restart loses \
                                               nothing, a crash up to two seconds"
                    .to_owned()
            }
            (Some(true), Some("no")) => {
                "append-only file, written to disk when the system likes: a power loss may cost half a minute"
                    .to_owned()
            }
            (Some(true), _) => {
                "append-only file; how often it is written to disk cannot be read (CONFIG is forbidden)"
                    .to_owned()
            }
            (Some(false), _) => "no append-only file: a crash loses everything since the last snapshot; set \
                                 `appendonly yes`"
                .to_owned(),
            (None, _) => "whether there is an append-only file cannot be read".to_owned(),
        }];
        details.push(match self.eviction.as_deref() {
            Some("noeviction") => "nothing is evicted when memory is full".to_owned(),
            Some(policy) => format!(
                "jobs may be evicted when memory is full: maxmemory-policy is `{policy}`, set `noeviction`"
            ),
            None => "the eviction policy cannot be read".to_owned(),
        });
        details.push(match self.max_memory {
            Some(0) | None => "no memory limit is set".to_owned(),
            Some(bytes) => format!("memory limit {} MiB", bytes / 1024 / 1024),
        });
        details.push(match self.replicas {
            Some(0) | None => "no replica".to_owned(),
            Some(n) => {
                format!("replicas: {n}, written after the answer: a failover may lose the last moments")
            }
        });
        Durability { backend: "redis", survives_crash: logged && at_once && !self.evicts(), details }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(append_only: &str, fsync: &str, policy: &str) -> Facts {
        let mut facts = Facts::from_info("redis_version:7.0.15\r\naof_enabled:0\r\nconnected_slaves:1\r\n");
        facts.add_config(&HashMap::from([
            ("appendonly".to_owned(), append_only.to_owned()),
            ("appendfsync".to_owned(), fsync.to_owned()),
            ("maxmemory-policy".to_owned(), policy.to_owned()),
        ]));
        facts
    }

    #[test]
    fn only_a_log_on_disk_before_the_answer_survives_a_crash() {
        for (append_only, fsync, policy, survives) in [
            ("yes", "always", "noeviction", true),
            ("yes", "always", "allkeys-lru", false),
            ("yes", "everysec", "noeviction", false),
            ("no", "always", "noeviction", false),
        ] {
            let told = facts(append_only, fsync, policy).durability();
            assert_eq!(told.survives_crash, survives, "{told:?}");
            assert_eq!(told.details.len(), 4);
        }
    }

    #[test]
    fn without_config_the_rest_is_read_from_info() {
        let facts = Facts::from_info(
            "valkey_version:8.0.1\r\nredis_version:7.2.4\r\nmaxmemory_policy:volatile-ttl\r\n",
        );
        assert_eq!((facts.major_version(), facts.evicts()), (Some(8), true));
        assert!(!facts.durability().survives_crash);
    }
}
