//! The processes that are broken, and what is asked of them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::{Fsync, Plan};
use crate::process::{free_port, signal};
use crate::sink::Sink;

/// A job that its worker has not renewed for so long is taken over.
pub(super) const LEASE: Duration = Duration::from_secs(2);

/// How long the relay takes to answer a final dot: so that kills find work in flight.
const REPLY_DELAY: Duration = Duration::from_millis(40);

/// How long a process may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The name of the queue.
const QUEUE: &str = "emailer";

pub(super) struct Fleet {
    plan: Plan,
    dir: PathBuf,
    /// Removes the folder at the end, unless it is kept.
    _dir: Option<TempDir>,
    redis_port: u16,
    api_port: u16,
    pub(super) sink: Sink,
    pub(super) http: reqwest::Client,
    redis: Option<Child>,
    api: Option<Child>,
    workers: Vec<Option<Child>>,
}

impl Fleet {
    pub(super) async fn start(plan: &Plan) -> anyhow::Result<Self> {
        let memory = Path::new("/dev/shm");
        let temporary = if memory.is_dir() { TempDir::new_in(memory)? } else { TempDir::new()? };
        let (dir, temporary) = match &plan.logs {
            Some(dir) => (dir.clone(), None),
            None => (temporary.path().to_owned(), Some(temporary)),
        };
        let sink = Sink::start(([127, 0, 0, 1], 0).into()).await?;
        sink.change(|faults| faults.delay = REPLY_DELAY);
        let mut fleet = Self {
            plan: plan.clone(),
            dir,
            _dir: temporary,
            redis_port: free_port()?,
            api_port: free_port()?,
            sink,
            http: reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?,
            redis: None,
            api: None,
            workers: Vec::new(),
        };
        fleet.start_redis().await?;
        let port = fleet.api_port.to_string();
        let api = fleet.program("emailer-api", "api.log")?.env("SERVER_PORT", port).spawn();
        fleet.api = Some(api.context("emailer-api")?);
        fleet.wait_for_api().await?;
        for index in 0..plan.workers {
            fleet.workers.push(None);
            fleet.start_worker(index)?;
        }
        Ok(fleet)
    }

    fn program(&self, name: &str, log: &str) -> anyhow::Result<Command> {
        let path = self.plan.programs.join(name);
        ensure!(path.is_file(), "{}: not there; cargo build --release makes it", path.display());
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join(log))?;
        let mut command = Command::new(path);
        let lease = format!("{}s", LEASE.as_secs());
        command
            .env_clear()
            .envs([("QUEUE_TYPE", "redis"), ("QUEUE_NAME", QUEUE), ("QUEUE_LEASE", &lease)])
            .envs([("MAIL_FROM", "chaos@sender.example"), ("SMTP_HOST", "127.0.0.1"), ("SMTP_TLS", "none")])
            // Nothing may fail for want of attempts, and waiting for retries is not what is tested.
            .envs([("RETRY_MAX_RETRIES", "100"), ("RETRY_BASE_DELAY", "300ms"), ("RETRY_MAX_DELAY", "2s")])
            .envs([("MAX_WORKERS", "10"), ("SHUTDOWN_TIMEOUT", "10s"), ("MAX_QUEUE_SIZE", "1000000")])
            .envs([("SMTP_PROBE_MAX", "1s"), ("JOBS_RETAIN", "10000000")])
            .env("SMTP_PORT", self.sink.addr().port().to_string())
            .env("REDIS_URL", format!("redis://127.0.0.1:{}", self.redis_port))
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .kill_on_drop(true);
        Ok(command)
    }

    // ------------------------------------------------------------------------------------------- Redis

    async fn start_redis(&mut self) -> anyhow::Result<()> {
        let port = self.redis_port.to_string();
        let child = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", self.plan.fsync.as_str(), "--logfile", "redis.log", "--dir"])
            .arg(&self.dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("redis-server; apt-get install -y redis-server")?;
        self.redis = Some(child);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Ok(mut redis) = self.redis().await
                && redis::cmd("PING").query_async::<String>(&mut redis).await.is_ok()
            {
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("redis-server does not answer");
    }

    pub(super) async fn redis(&self) -> anyhow::Result<MultiplexedConnection> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.redis_port))?;
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
    }

    /// Runs a command of an operator's.
    pub(super) async fn command(&self, words: &[&str]) -> anyhow::Result<redis::Value> {
        let mut cmd = redis::cmd(words.first().context("no command")?);
        cmd.arg(&words[1..]);
        Ok(cmd.query_async(&mut self.redis().await?).await?)
    }

    /// Ends Redis as it may be ended without a loss, and starts it with what it has on disk.
    pub(super) async fn restart_redis(&mut self) -> anyhow::Result<()> {
        let mut child = self.redis.take().context("Redis does not run")?;
        match self.plan.fsync {
            Fsync::Everysec => signal(&child, "TERM").await?,
            Fsync::Always => child.start_kill()?,
        }
        child.wait().await?;
        self.start_redis().await
    }

    /// Stops Redis and continues it.
    pub(super) async fn freeze_redis(&self, time: Duration) -> anyhow::Result<()> {
        let child = self.redis.as_ref().context("Redis does not run")?;
        signal(child, "STOP").await?;
        sleep(time).await;
        signal(child, "CONT").await
    }

    // ----------------------------------------------------------------------------------------- workers

    pub(super) fn start_worker(&mut self, index: usize) -> anyhow::Result<()> {
        let mut command = self.program("emailer-worker", &format!("worker{index}.log"))?;
        let child = command.env("WORKER_PORT", "0").spawn().context("emailer-worker")?;
        self.workers[index] = Some(child);
        Ok(())
    }

    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    pub(super) fn worker(&self, index: usize) -> anyhow::Result<&Child> {
        self.workers[index].as_ref().context("the worker does not run")
    }

    /// Kills a worker. Returns how many jobs it held, by the account of Redis.
    pub(super) async fn kill_worker(&mut self, index: usize) -> anyhow::Result<u64> {
        let mut child = self.workers[index].take().context("the worker does not run")?;
        let pid = child.id();
        child.start_kill()?;
        child.wait().await?;
        self.held_by(pid.unwrap_or_default()).await
    }

    /// How many jobs the process of this id holds: consumers are named `<host>-<pid>-<random>`.
    pub(super) async fn held_by(&self, pid: u32) -> anyhow::Result<u64> {
        let mut redis = self.redis().await?;
        let mut held = 0;
        for priority in ["high", "normal", "bulk"] {
            let mut cmd = redis::cmd("XPENDING");
            cmd.arg(format!("{{{QUEUE}}}:ready:{priority}")).arg("workers");
            // No group yet: nobody has claimed.
            let Ok(summary) = cmd.query_async::<Pending>(&mut redis).await else { continue };
            let mine = summary.3.unwrap_or_default().into_iter();
            let mine = mine.filter(|(name, _)| name.contains(&format!("-{pid}-")));
            held += mine.filter_map(|(_, count)| count.parse::<u64>().ok()).sum::<u64>();
        }
        Ok(held)
    }

    /// Starts what has been killed, and mends what was broken.
    pub(super) async fn mend(&mut self) -> anyhow::Result<()> {
        self.sink.change(|faults| (faults.cut_taken, faults.cut_untaken) = (0, 0));
        for index in 0..self.workers.len() {
            if self.workers[index].is_none() {
                self.start_worker(index)?;
            }
        }
        self.wait_for_api().await
    }

    // --------------------------------------------------------------------------------------------- API

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.api_port)
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.http.get(self.url(path)).send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    async fn wait_for_api(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.get("/readyz").await.is_err() {
            if begun.elapsed() > PATIENCE {
                bail!("emailer-api does not answer; its log:\n{}", self.log("api.log"));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    /// Waits until no job waits for anything but a person.
    pub(super) async fn run_dry(&self, at_most: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let ledger = self.get("/v1/queue").await.map(|queue| queue["ledger"].clone());
            let left = ledger.as_ref().map(|ledger| {
                ["queued", "scheduled", "retrying", "sending"]
                    .map(|state| ledger[state].as_u64().unwrap_or(1))
            });
            match left {
                Ok([0, 0, 0, 0]) => return Ok(()),
                _ if begun.elapsed() < at_most => sleep(Duration::from_millis(200)).await,
                _ => bail!("{ledger:?} after {at_most:?}"),
            }
        }
    }

    /// Waits until most of what waits has been sent.
    pub(super) async fn settle(&self, at_most: Duration) {
        // What is left does no harm: it is a pause between two parts of a run.
        self.run_dry(at_most).await.ok();
    }

    /// Ends everything, each in its order.
    pub(super) async fn stop(mut self) {
        for child in self.workers.iter_mut().flatten().chain(&mut self.api).chain(&mut self.redis) {
            // What has ended by itself cannot be ended again.
            signal(child, "TERM").await.ok();
            if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
                child.kill().await.ok();
            }
        }
    }
}

/// Count, first id, last id, count by consumer.
type Pending = (u64, Option<String>, Option<String>, Option<Vec<(String, String)>>);
