//! Redis servers of a test's own: on free ports, with their data in memory, ended with the test.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what starts servers for tests fails like a test")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use serde_json::{Map, Value, json};
use shared::address::{Address, Mailbox};
use shared::job::{BatchId, OnAmbiguous, Priority, Recipient};
use shared::message::{Body, Content, PlainPart};
use shared::queue::redis::{ConnectError, RedisQueue};
use shared::queue::{ConsumerId, Limits, NewBatch};
use shared::settings;
use tempfile::TempDir;

/// How long a server may take until it answers, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A port that nobody listens at now, and whose Cluster port (10,000 above) is a port as well.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < 50_000 {
            return port;
        }
    }
}

/// A running `redis-server` or `redis-sentinel`.
pub(crate) struct Server {
    pub(crate) port: u16,
    dir: TempDir,
    program: &'static str,
    args: Vec<String>,
    child: Child,
}

impl Server {
    /// A server with an append-only file, and `options` on top.
    pub(crate) async fn start(options: &[&str]) -> Self {
        let port = free_port();
        let port_text = port.to_string();
        let mut all = vec![
            "--port",
            &port_text,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ];
        all.extend(options);
        let server = Self::spawn("redis-server", port, &all);
        server.wait_until_it_answers(&[]).await;
        server
    }

    fn spawn(program: &'static str, port: u16, args: &[&str]) -> Self {
        let memory = PathBuf::from("/dev/shm");
        let dir = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        Self::spawn_in(dir.unwrap(), program, port, args)
    }

    pub(crate) fn spawn_in(dir: TempDir, program: &'static str, port: u16, args: &[&str]) -> Self {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let child = Self::run(program, &dir, &args);
        Self { port, dir, program, args, child }
    }

    /// Kills the server, and starts it again with what it had on disk.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::run(self.program, &self.dir, &self.args);
        self.wait_until_it_answers(&[]).await;
    }

    fn run(program: &str, dir: &TempDir, args: &[String]) -> Child {
        Command::new(program)
            .args(args)
            .args(["--dir", dir.path().to_str().unwrap(), "--logfile", "log"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{program}: {e}; apt-get install -y redis-server redis-sentinel"))
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the server.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// A plain connection, for looking behind the queue's back.
    pub(crate) async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
    }

    /// Runs a command that a server in the middle of a failover may not answer.
    pub(crate) async fn try_command<T: redis::FromRedisValue>(&self, words: &[&str]) -> Option<T> {
        let client = redis::Client::open(self.url()).ok()?;
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.ok()
    }

    /// Runs a command, which must succeed.
    pub(crate) async fn run_command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut cmd = redis::cmd(words[0]);
        cmd.arg(&words[1..]);
        cmd.query_async(&mut self.connection().await).await.unwrap()
    }

    pub(crate) async fn wait_until_it_answers(&self, login: &[&str]) {
        let client = redis::Client::open(self.url()).unwrap();
        until("the server answers", async || {
            let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
                return false;
            };
            let mut cmd = redis::cmd("PING");
            if let [user, password] = login {
                cmd = redis::cmd("AUTH");
                cmd.arg(user).arg(password);
            }
            cmd.query_async::<String>(&mut connection).await.is_ok()
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until something holds that no event tells of.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn limits() -> Limits {
    Limits {
        max_queue_size: 100_000,
        max_scheduled: 100_000,
        lease: Duration::from_mins(1),
        retention: Duration::from_hours(24),
        failed_retention: Duration::from_hours(168),
        retain: 100_000,
    }
}

pub(crate) async fn try_connect(url: &str, limits: Limits) -> Result<RedisQueue, ConnectError> {
    RedisQueue::connect(&told(url), "emailer", limits).await
}

fn told(url: &str) -> settings::Redis {
    settings::Redis { url: SecretString::from(url), allow_unsafe: false }
}

pub(crate) async fn connect(url: &str, limits: Limits) -> RedisQueue {
    try_connect(url, limits).await.unwrap()
}

/// Another queue on the same server.
pub(crate) async fn connect_to(url: &str, name: &str, limits: Limits) -> RedisQueue {
    RedisQueue::connect(&told(url), name, limits).await.unwrap()
}

pub(crate) fn batch_of(recipients: usize) -> NewBatch {
    let address = |local: &str| Address::parse(&format!("{local}@example.org")).unwrap();
    NewBatch {
        id: BatchId::generate(),
        priority: Priority::Normal,
        send_at: None,
        on_ambiguous: OnAmbiguous::Resend,
        max_attempts: 4,
        expire_after: Duration::from_hours(24),
        tags: Vec::new(),
        metadata: None,
        content: Arc::new(Content {
            from: Mailbox::new(address("sender")),
            from_requested: false,
            reply_to: None,
            subject: Some("Subject".to_owned()),
            body: Body::Html("<p>body</p>".to_owned()),
            text: PlainPart::Made,
            headers: Vec::new(),
        }),
        bundle: None,
        recipients: (0..recipients)
            .map(|n| Recipient {
                mailbox: Mailbox::new(address(&format!("recipient.number.{n}"))),
                data: None,
            })
            .collect(),
        idempotency: None,
    }
}

pub(crate) fn metadata(key: &str, value: &str) -> Map<String, Value> {
    json!({ key: value }).as_object().unwrap().clone()
}

pub(crate) fn consumer(name: &str) -> ConsumerId {
    ConsumerId(name.into())
}
