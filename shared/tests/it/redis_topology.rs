//! The queue on a Cluster and behind Sentinels, each for real, and a failover of each under load.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shared::job::JobId;
use shared::queue::redis::RedisQueue;
use shared::queue::{Consumer, Control, Intake, Verdict};

use crate::redis_queue::settlement;
use crate::redis_server::{PATIENCE, Server, batch_of, connect, consumer, free_port, limits, until};

/// Three masters with a replica each.
pub(crate) struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..6 {
            let options = [
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "2000",
                "--repl-diskless-sync-delay",
                "0",
            ];
            nodes.push(Server::start(&options).await);
        }
        let places: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let created = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(&places)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .unwrap();
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
        let cluster = Self { nodes };
        until("all nodes serve and replicate", async || {
            let mut well = 0;
            for node in &cluster.nodes {
                let info: String = node.run_command(&["CLUSTER", "INFO"]).await;
                let replication: String = node.run_command(&["INFO", "replication"]).await;
                let linked =
                    replication.contains("role:master") || replication.contains("master_link_status:up");
                well += usize::from(info.contains("cluster_state:ok") && linked);
            }
            well == cluster.nodes.len()
        })
        .await;
        cluster
    }

    pub(crate) fn url(&self) -> String {
        // Two of them, neither of which need have the queue's slot.
        let urls: Vec<String> = self.nodes.iter().take(2).map(Server::url).collect();
        urls.join(",")
    }

    /// The nodes of a role that hold keys.
    async fn holding(&self, role: &str) -> Vec<&Server> {
        let mut holding = Vec::new();
        for node in &self.nodes {
            let info: String = node.run_command(&["INFO", "replication"]).await;
            let size: u64 = node.run_command(&["DBSIZE"]).await;
            if info.contains(role) && size > 0 {
                holding.push(node);
            }
        }
        holding
    }
}

#[tokio::test]
async fn on_a_cluster_all_keys_are_in_one_slot() {
    let cluster = Cluster::start().await;
    let queue = connect(&cluster.url(), limits()).await;
    live_through_everything(&queue).await;
    let holding = cluster.holding("role:master").await;
    assert_eq!(holding.len(), 1);
    let keys: Vec<String> = holding[0].run_command(&["KEYS", "*"]).await;
    let mut slots = Vec::new();
    for key in &keys {
        let slot: u64 = holding[0].run_command(&["CLUSTER", "KEYSLOT", key]).await;
        slots.push(slot);
    }
    slots.dedup();
    assert_eq!(slots.len(), 1, "{keys:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_failover_under_load_loses_nothing() {
    let cluster = Cluster::start().await;
    let queue = Arc::new(connect(&cluster.url(), limits()).await);
    queue.enqueue(batch_of(1)).await.unwrap();
    let load = Load::start(&queue);
    load.until_accepted(50).await;
    // Ordered by a person: the replica waits until it has everything.
    let mut replicas = Vec::new();
    until("the replica has keys", async || {
        replicas = cluster.holding("role:slave").await;
        !replicas.is_empty()
    })
    .await;
    // A Redis that finds no time for it gives a failover up after 5 s, and has to be told again.
    let mut ordered: Option<Instant> = None;
    until("the replica is master", async || {
        let info: String = replicas[0].run_command(&["INFO", "replication"]).await;
        let is_master = info.contains("role:master");
        if !is_master && ordered.is_none_or(|at| at.elapsed() > Duration::from_secs(6)) {
            let _: String = replicas[0].run_command(&["CLUSTER", "FAILOVER"]).await;
            ordered = Some(Instant::now());
        }
        is_master
    })
    .await;
    load.until_accepted(100).await;
    let (accepted, sent) = load.stop().await;
    let ledger = queue.stats().await.unwrap().ledger;
    assert!(ledger.balances(), "{ledger:?}");
    for job in &accepted {
        assert!(queue.job(*job).await.unwrap().is_some(), "{job} was accepted and is gone");
    }
    assert!(sent > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_cluster_master_is_followed_under_load() {
    let mut cluster = Cluster::start().await;
    let queue = Arc::new(connect(&cluster.url(), limits()).await);
    let early = queue.enqueue(batch_of(20)).await.unwrap().batch;
    let port = cluster.holding("role:master").await[0].port;
    let master = cluster.nodes.iter().position(|node| node.port == port).unwrap();
    until_replicated(&cluster.nodes[master], 1).await;
    let load = Load::start(&queue);
    load.until_accepted(50).await;
    drop(cluster.nodes.remove(master));
    // Answers that are on their way may still come; then nothing, until the replica is master.
    load.until_accepted(100).await;
    load.stop().await;
    let late = queue.enqueue(batch_of(1)).await.unwrap().batch;
    for batch in [early, late] {
        assert!(queue.batch(batch).await.unwrap().is_some(), "{batch}");
    }
    assert_eq!(cluster.holding("role:master").await.len(), 1);
    let ledger = queue.stats().await.unwrap().ledger;
    assert!(ledger.balances(), "{ledger:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_that_writes_at_once_loses_nothing_that_was_accepted() {
    let mut server = Server::start(&[]).await;
    let queue = Arc::new(connect(&server.url(), limits()).await);
    let load = Load::start(&queue);
    for _ in 0..3 {
        load.until_accepted(30).await;
        server.kill_and_restart().await;
    }
    load.until_accepted(30).await;
    let (accepted, sent) = load.stop().await;
    for job in &accepted {
        assert!(queue.job(*job).await.unwrap().is_some(), "{job} was accepted and is gone");
    }
    let ledger = queue.stats().await.unwrap().ledger;
    assert!(ledger.balances(), "{ledger:?}");
    // A batch whose answer was lost may have been accepted beside the ones that were told so.
    assert!(ledger.accepted >= accepted.len() as u64);
    assert!(sent > 0 && ledger.sent >= sent);
}

/// A master, two replicas and three Sentinels.
struct Fleet {
    servers: Vec<Server>,
    sentinels: Vec<Server>,
}

impl Fleet {
    async fn start() -> Self {
        let master = Server::start(&["--repl-diskless-sync-delay", "0"]).await;
        let port = master.port.to_string();
        let mut servers = vec![master];
        for _ in 0..2 {
            let options = ["--replicaof", &format!("127.0.0.1 {port}"), "--repl-diskless-sync-delay", "0"];
            servers.push(Server::start(&options).await);
        }
        let sentinels: Vec<Server> = (0..3).map(|_| sentinel(&port)).collect();
        let fleet = Self { servers, sentinels };
        for sentinel in &fleet.sentinels {
            sentinel.wait_until_it_answers(&[]).await;
            until("the Sentinels know each other and the replicas", async || {
                let state: String = sentinel.run_command(&["INFO", "sentinel"]).await;
                state.contains("slaves=2,sentinels=3")
            })
            .await;
        }
        fleet
    }

    fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
        format!("redis+sentinel://{}/main", hosts.join(","))
    }
}

fn sentinel(master_port: &str) -> Server {
    let port = free_port();
    let settings = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master_port} 2\n\
         sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n"
    );
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("sentinel.conf");
    std::fs::write(&file, settings).unwrap();
    Server::spawn_in(dir, "redis-sentinel", port, &[file.to_str().unwrap()])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_failover_under_load_is_followed() {
    let mut fleet = Fleet::start().await;
    let queue = Arc::new(connect(&fleet.url(), limits()).await);
    let early = queue.enqueue(batch_of(20)).await.unwrap().batch;
    until_replicated(&fleet.servers[0], 2).await;
    let load = Load::start(&queue);
    load.until_accepted(50).await;
    // What was accepted in the very last moment may be lost with its master, as the README says.
    drop(fleet.servers.remove(0));
    let mut new_master = None;
    until("a replica is master", async || {
        for server in &fleet.servers {
            // Sentinel cuts the connections of the server that it makes a master.
            let info: Option<String> = server.try_command(&["INFO", "replication"]).await;
            if info.is_some_and(|info| info.contains("role:master")) {
                new_master = Some(server);
            }
        }
        new_master.is_some()
    })
    .await;
    load.until_accepted(100).await;
    load.stop().await;
    let late = queue.enqueue(batch_of(1)).await.unwrap().batch;
    for batch in [early, late] {
        assert!(queue.batch(batch).await.unwrap().is_some(), "{batch}");
    }
    let ledger = queue.stats().await.unwrap().ledger;
    assert!(ledger.balances(), "{ledger:?}");
    let keys: u64 = new_master.unwrap().run_command(&["DBSIZE"]).await;
    assert!(keys > 0);
}

/// Waits until so many replicas have everything.
async fn until_replicated(master: &Server, replicas: u64) {
    let mut connection = master.connection().await;
    // WAIT speaks of what its own connection wrote, and of all that was written before.
    let write = redis::cmd("HSET").arg("{emailer}:meta").arg("v").arg(1).to_owned();
    write.exec_async(&mut connection).await.unwrap();
    let have: u64 = redis::cmd("WAIT").arg(replicas).arg(20_000).query_async(&mut connection).await.unwrap();
    assert!(have >= replicas, "{have} replicas have everything");
}

/// Accepts and sends without pause, and goes on whatever fails.
struct Load {
    stop: Arc<AtomicBool>,
    accepted: Arc<std::sync::Mutex<Vec<JobId>>>,
    tasks: (tokio::task::JoinHandle<()>, tokio::task::JoinHandle<u64>),
}

impl Load {
    fn start(queue: &Arc<RedisQueue>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let accepted = Arc::new(std::sync::Mutex::new(Vec::new()));
        let accepting = {
            let (queue, stop, accepted) = (Arc::clone(queue), Arc::clone(&stop), Arc::clone(&accepted));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let batch = batch_of(1);
                    if let Ok(answer) = queue.enqueue(batch).await {
                        let job = JobId { batch: answer.batch, index: 0 };
                        accepted.lock().unwrap().push(job);
                    }
                }
            })
        };
        let sending = {
            let (queue, stop) = (Arc::clone(queue), Arc::clone(&stop));
            tokio::spawn(async move {
                let me = consumer("load");
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    let Ok(jobs) = queue.claim(&me, 2).await else {
                        continue;
                    };
                    let settlements: Vec<_> = jobs.iter().map(|job| settlement(job, Verdict::Sent)).collect();
                    while !settlements.is_empty() && queue.settle(&me, &settlements).await.is_err() {}
                    sent += settlements.len() as u64;
                    if jobs.is_empty() {
                        drop(queue.ready(&me, Duration::from_millis(50)).await);
                    }
                }
                sent
            })
        };
        Self { stop, accepted, tasks: (accepting, sending) }
    }

    /// Waits until so many more were accepted.
    async fn until_accepted(&self, more: usize) {
        let wanted = self.accepted.lock().unwrap().len() + more;
        until("the load goes on", async || self.accepted.lock().unwrap().len() >= wanted).await;
    }

    async fn stop(self) -> (Vec<JobId>, u64) {
        self.stop.store(true, Ordering::Relaxed);
        tokio::time::timeout(PATIENCE, self.tasks.0).await.unwrap().unwrap();
        let sent = tokio::time::timeout(PATIENCE, self.tasks.1).await.unwrap().unwrap();
        (std::mem::take(&mut *self.accepted.lock().unwrap()), sent)
    }
}

/// Every operation once: what is forbidden, or touches a key of another slot, shows.
pub(crate) async fn live_through_everything(queue: &RedisQueue) {
    crate::redis_queue::accept_of_every_kind(queue).await;
    crate::redis_queue::deliver_in_every_way(queue).await;
    crate::redis_queue::order_everything(queue).await;
}
