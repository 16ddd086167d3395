//! Two APIs on one queue in Redis behind a load balancer, restarted one after the other under load: no request fails, and
//! every mail that was promised is sent once.
//!
//! The balancer runs with the configuration that is under `deploy/`, its ports changed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Map;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::load;
use crate::process::{free_port, signal};
use crate::sink::Sink;

/// What stands before the APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balancer {
    /// `deploy/nginx/emailer.conf`.
    Nginx,
    /// `deploy/haproxy/haproxy.cfg`.
    Haproxy,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Requests that were answered 202.
    pub accepted: u64,
    /// Answers by status, other than 202, and requests without an answer.
    pub failed: Vec<String>,
    /// Mails at the sink.
    pub sent: u64,
    /// Mails that came twice.
    pub doubled: u64,
}

/// How long a process may take to answer or to end.
const PATIENCE: Duration = Duration::from_secs(20);

struct Site {
    dir: TempDir,
    programs: PathBuf,
    redis_port: u16,
    sink_port: u16,
    children: Vec<Child>,
}

/// Runs it.
///
/// # Errors
/// When something cannot be started, or does not end.
pub async fn run(balancer: Balancer, programs: &Path, root: &Path) -> anyhow::Result<Outcome> {
    let sink = Sink::start(([127, 0, 0, 1], 0).into()).await?;
    let mut site = Site {
        dir: TempDir::new()?,
        programs: programs.to_owned(),
        redis_port: free_port()?,
        sink_port: sink.addr().port(),
        children: Vec::new(),
    };
    site.redis()?;
    let ports = [free_port()?, free_port()?];
    let mut apis = Vec::new();
    for port in ports {
        apis.push(site.program("emailer-api")?.env("SERVER_PORT", port.to_string()).spawn()?);
        ready(port, "/readyz").await?;
    }
    let worker = site.program("emailer-worker")?.env("WORKER_PORT", "0").spawn()?;
    site.children.push(worker);
    let front = free_port()?;
    site.balance(balancer, root, front, ports)?;
    ready(front, "/healthz").await?;

    let plan = load::Plan {
        url: format!("http://127.0.0.1:{front}/v1/send-event-email"),
        key: None,
        in_flight: 16,
        count: None,
        time: Some(Duration::from_secs(8)),
        rate: Some(400.0),
        recipients: 1,
        first_id: 0,
        body_size: 500,
        fields: Map::new(),
        idempotent: true,
    };
    let restarts = async {
        for (api, port) in apis.iter_mut().zip(ports) {
            sleep(Duration::from_millis(1_500)).await;
            end(api).await?;
            sleep(Duration::from_millis(800)).await;
            *api = site.program("emailer-api")?.env("SERVER_PORT", port.to_string()).spawn()?;
            ready(port, "/readyz").await?;
        }
        anyhow::Ok(())
    };
    let (loaded, restarted) = tokio::join!(load::run(&plan), restarts);
    restarted?;
    let (report, _) = loaded?;
    let accepted = report.status.get(&202).copied().unwrap_or(0);
    let mut failed: Vec<String> = report
        .status
        .iter()
        .filter(|(status, _)| **status != 202)
        .map(|(s, n)| format!("{n} × {s}"))
        .collect();
    if report.errors > 0 {
        failed.push(format!("{} × no answer", report.errors));
    }
    let begun = Instant::now();
    while sink.counts().messages < accepted && begun.elapsed() < PATIENCE {
        sleep(Duration::from_millis(50)).await;
    }
    // What came twice comes soon after.
    sleep(Duration::from_millis(500)).await;
    let counts = sink.counts();
    for mut child in apis.into_iter().chain(site.children) {
        end(&mut child).await?;
    }
    Ok(Outcome { accepted, failed, sent: counts.messages, doubled: counts.duplicates })
}

/// Asks for the end, and waits for it.
async fn end(child: &mut Child) -> anyhow::Result<()> {
    if child.id().is_some() {
        signal(child, "TERM").await?;
        tokio::time::timeout(PATIENCE, child.wait()).await.context("a process does not end")??;
    }
    Ok(())
}

async fn ready(port: u16, path: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::new();
    let begun = Instant::now();
    loop {
        let answer = client.get(format!("http://127.0.0.1:{port}{path}")).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            bail!("nothing good comes from port {port}");
        }
        sleep(Duration::from_millis(30)).await;
    }
}

impl Site {
    fn spawn(&mut self, mut command: Command, missing: &'static str) -> anyhow::Result<()> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        self.children.insert(0, command.spawn().context(missing)?);
        Ok(())
    }

    fn redis(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("redis-server");
        let port = self.redis_port.to_string();
        command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--dir"]);
        command.arg(self.dir.path());
        self.spawn(command, "redis-server; apt-get install -y redis-server")
    }

    fn program(&self, name: &str) -> anyhow::Result<Command> {
        let path = self.programs.join(name);
        ensure!(path.is_file(), "{}: not there", path.display());
        let mut command = Command::new(path);
        command
            .env_clear()
            .envs([("QUEUE_TYPE", "redis"), ("MAIL_FROM", "balance@sender.example")])
            .envs([("SMTP_HOST", "127.0.0.1"), ("SMTP_TLS", "none"), ("LOG_LEVEL", "ERROR")])
            .env("SMTP_PORT", self.sink_port.to_string())
            .env("REDIS_URL", format!("redis://127.0.0.1:{}", self.redis_port))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }

    /// Starts the balancer with the configuration that we ship, on our ports.
    fn balance(&mut self, balancer: Balancer, root: &Path, front: u16, apis: [u16; 2]) -> anyhow::Result<()> {
        let shipped = match balancer {
            Balancer::Nginx => "deploy/nginx/emailer.conf",
            Balancer::Haproxy => "deploy/haproxy/haproxy.cfg",
        };
        let mut text = std::fs::read_to_string(root.join(shipped)).context(shipped)?;
        for (port, ours) in [(8080, front), (8081, apis[0]), (8082, apis[1])] {
            let place = format!("127.0.0.1:{port}");
            ensure!(text.contains(&place), "{shipped} has no {place}");
            text = text.replace(&place, &format!("127.0.0.1:{ours}"));
        }
        let dir = self.dir.path().to_owned();
        let place = dir.join("balancer.conf");
        std::fs::write(&place, text)?;
        match balancer {
            Balancer::Haproxy => {
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(&place);
                self.spawn(command, "haproxy; apt-get install -y haproxy")
            }
            Balancer::Nginx => {
                let main = dir.join("nginx.conf");
                let mut paths = String::new();
                for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
                    // Writing to a string cannot fail.
                    writeln!(paths, "{kind}_temp_path {}/{kind};", dir.display()).ok();
                }
                let text = format!(
                    "daemon off; pid {0}/nginx.pid; error_log {0}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}include {1};\n}}\n",
                    dir.display(),
                    place.display()
                );
                std::fs::write(&main, text)?;
                let mut command = Command::new("nginx");
                command.arg("-c").arg(&main).arg("-p").arg(&dir).arg("-e").arg(dir.join("error.log"));
                self.spawn(command, "nginx; apt-get install -y nginx-light")
            }
        }
    }
}
