//! Where Redis is: one server, a master that Sentinels know, or the master of a Cluster that holds the queue's slot.
//!
//! All keys of a queue are in one slot, so that in each topology the queue is on exactly one server, which may change.
//! This module finds that server; it keeps no connection. A hidden retry by a client library could run a claim twice
//! and lose the first answer, so none is used.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError};
use redis::{ErrorKind, ServerErrorKind, aio::MultiplexedConnection};

/// Opening a connection, name lookup, TLS and login included.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The wait for a reply. The client library's own default of 500 ms is shorter than a busy server's pause for a fork.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(3);

/// What `REDIS_URL` says.
pub(super) struct Address {
    /// Whom to ask: the server itself, Sentinels, or nodes of a Cluster.
    seeds: Vec<ConnectionInfo>,
    topology: Topology,
    /// Which of them is asked first.
    first: AtomicUsize,
}

enum Topology {
    Node,
    /// The master's name, and how its servers are reached: TLS and login, but for the place.
    Sentinel {
        master: String,
        server: Box<ConnectionInfo>,
    },
    /// A key of the queue's slot.
    Cluster {
        key: String,
    },
}

/// A `REDIS_URL` that cannot be used. Never shows the URL, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not one of redis://[user:password@]host:port[/db], rediss://… for TLS, several of these with commas between them \
     for a Cluster, redis+sentinel://[user:password@]host:port,…/master: {0}"
)]
pub struct InvalidUrl(String);

impl Address {
    /// Parses `REDIS_URL`; `key` is one of the queue's keys.
    pub(super) fn parse(url: &str, key: &str) -> Result<Self, InvalidUrl> {
        for (scheme, plain) in [("redis+sentinel://", "redis://"), ("rediss+sentinel://", "rediss://")] {
            if let Some(rest) = url.strip_prefix(scheme) {
                return Self::parse_sentinel(plain, rest);
            }
        }
        let seeds = url.split(',').map(|part| server(part.trim())).collect::<Result<Vec<_>, _>>()?;
        let topology = if seeds.len() > 1 {
            if seeds.iter().any(|seed| seed.redis_settings().db() != 0) {
                return Err(InvalidUrl("a Cluster has no database other than 0".into()));
            }
            Topology::Cluster { key: key.into() }
        } else {
            Topology::Node
        };
        Ok(Self { seeds, topology, first: AtomicUsize::new(0) })
    }

    /// `[user:password@]host:port,…/master`. The login is the servers'; the Sentinels are asked without one.
    fn parse_sentinel(scheme: &str, rest: &str) -> Result<Self, InvalidUrl> {
        let (places, master) = rest
            .rsplit_once('/')
            .filter(|(_, master)| !master.is_empty())
            .ok_or_else(|| InvalidUrl("the master's name is missing behind the Sentinels".into()))?;
        let (login, hosts) = places.rsplit_once('@').unwrap_or(("", places));
        let seeds = hosts
            .split(',')
            .map(|host| match host.trim() {
                h if h.contains(':') && !h.ends_with(']') => server(&format!("{scheme}{h}")),
                h => server(&format!("{scheme}{h}:26379")),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let login = if login.is_empty() { String::new() } else { format!("{login}@") };
        Ok(Self {
            seeds,
            topology: Topology::Sentinel {
                master: master.to_owned(),
                server: Box::new(server(&format!("{scheme}{login}localhost"))?),
            },
            first: AtomicUsize::new(0),
        })
    }

    /// Asks another seed first from now on: one that is cut off from the others still answers, and names a server that
    /// takes no writes.
    pub(super) fn distrust(&self) {
        self.first.fetch_add(1, Ordering::Relaxed);
    }

    /// The server that takes writes for the queue now.
    pub(super) async fn master(&self) -> Result<ConnectionInfo, RedisError> {
        match &self.topology {
            Topology::Node => Ok(self.seeds[0].clone()),
            Topology::Sentinel { master, server } => {
                let mut ask = redis::cmd("SENTINEL");
                ask.arg("get-master-addr-by-name").arg(master);
                let (host, port): (String, u16) = self.ask_seeds(&ask, |reply, _| reply).await?;
                Ok(at(server, host, port))
            }
            Topology::Cluster { key } => self.slot_master(key).await,
        }
    }

    async fn slot_master(&self, key: &str) -> Result<ConnectionInfo, RedisError> {
        let slot: i64 = self.ask_seeds(redis::cmd("CLUSTER").arg("KEYSLOT").arg(key), |slot, _| slot).await?;
        let (ranges, asked): (Vec<redis::Value>, ConnectionInfo) =
            self.ask_seeds(redis::cmd("CLUSTER").arg("SLOTS"), |ranges, seed| (ranges, seed.clone())).await?;
        for range in ranges {
            // First slot, last slot, master, replicas; of a server the host, the port, its id and more.
            let redis::Value::Array(range) = range else {
                continue;
            };
            let [first, last, master, ..] = range.as_slice() else {
                continue;
            };
            let (first, last): (i64, i64) = (from(first)?, from(last)?);
            let redis::Value::Array(master) = master else {
                continue;
            };
            if let ([host, port, ..], true) = (master.as_slice(), (first..=last).contains(&slot)) {
                // A node that does not know its own name leaves it out: it is the one that was asked.
                let host: Option<String> = from(host)?;
                let host = host.filter(|h| !h.is_empty() && h != "?");
                return Ok(at(&asked, host.unwrap_or_else(|| host_of(&asked)), from(port)?));
            }
        }
        Err((ErrorKind::Server(ServerErrorKind::ClusterDown), "no node serves the queue's slot").into())
    }

    /// The first answer that one of the seeds gives.
    async fn ask_seeds<T: redis::FromRedisValue, R>(
        &self,
        question: &redis::Cmd,
        take: impl Fn(T, &ConnectionInfo) -> R,
    ) -> Result<R, RedisError> {
        let mut failure = RedisError::from((ErrorKind::Client, "no server is named"));
        let first = self.first.load(Ordering::Relaxed) % self.seeds.len().max(1);
        for seed in self.seeds[first..].iter().chain(&self.seeds[..first]) {
            let answer =
                async { question.query_async::<T>(&mut open(seed, Some(REPLY_TIMEOUT)).await?).await };
            match answer.await {
                Ok(answer) => return Ok(take(answer, seed)),
                Err(e) => failure = e,
            }
        }
        Err(failure)
    }

    /// A connection to the server that takes writes for the queue now.
    pub(super) async fn connect(
        &self,
        reply_timeout: Option<Duration>,
    ) -> Result<MultiplexedConnection, RedisError> {
        open(&self.master().await?, reply_timeout).await
    }
}

/// Opens a connection. A `reply_timeout` of `None` is for a blocking command, whose caller has a limit of its own.
async fn open(
    server: &ConnectionInfo,
    reply_timeout: Option<Duration>,
) -> Result<MultiplexedConnection, RedisError> {
    let config = settings(reply_timeout);
    let opening = Client::open(server.clone())?;
    tokio::time::timeout(CONNECT_TIMEOUT, opening.get_multiplexed_async_connection_with_config(&config))
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
}

/// The timeouts of a connection.
pub(super) fn settings(reply_timeout: Option<Duration>) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(reply_timeout)
}

fn server(url: &str) -> Result<ConnectionInfo, InvalidUrl> {
    if !(url.starts_with("redis://") || url.starts_with("rediss://")) {
        return Err(InvalidUrl("the scheme is another".into()));
    }
    url.into_connection_info().map_err(|e| InvalidUrl(e.to_string()))
}

/// The same login and protection at another place.
fn at(server: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let addr = match server.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    server.clone().set_addr(addr)
}

fn host_of(server: &ConnectionInfo) -> String {
    match server.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
        _ => String::new(),
    }
}

fn from<T: redis::FromRedisValue>(value: &redis::Value) -> Result<T, RedisError> {
    Ok(T::from_redis_value_ref(value)?)
}

#[expect(clippy::missing_fields_in_debug, reason = "whom it asks first is no part of where it is")]
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.topology {
            Topology::Node => "one server",
            Topology::Sentinel { .. } => "Sentinel",
            Topology::Cluster { .. } => "Cluster",
        };
        let hosts: Vec<String> = self.seeds.iter().map(|s| s.addr().to_string()).collect();
        f.debug_struct("Address").field("kind", &kind).field("seeds", &hosts).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topology_is_read_from_its_url() {
        for (url, expected) in [
            ("redis://u:secret@h:1/2", r#"Address { kind: "one server", seeds: ["h:1"] }"#),
            ("rediss://h", r#"Address { kind: "one server", seeds: ["h:6379"] }"#),
            ("redis://a:1, redis://b:2", r#"Address { kind: "Cluster", seeds: ["a:1", "b:2"] }"#),
            (
                "redis+sentinel://u:secret@a,b:2/main",
                r#"Address { kind: "Sentinel", seeds: ["a:26379", "b:2"] }"#,
            ),
        ] {
            assert_eq!(format!("{:?}", Address::parse(url, "{q}:").unwrap()), expected);
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for url in [
            "http://u:secret@h",
            "redis://u:secret@h:port",
            "redis+sentinel://u:secret@h:1",
            "redis+sentinel://u:secret@h:1/",
            "redis://u:secret@a:1/1,redis://b:1",
            "",
        ] {
            let error = Address::parse(url, "{q}:").unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
