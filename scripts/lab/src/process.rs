//! Processes of our own on this machine.

use std::net::TcpListener;

use anyhow::{Context, ensure};
use tokio::process::{Child, Command};

/// A port that nobody listens at now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Sends a signal to a process that we started.
///
/// # Errors
/// When it has ended.
pub async fn signal(child: &Child, name: &str) -> anyhow::Result<()> {
    let pid = child.id().context("the process has ended")?.to_string();
    let status = Command::new("kill").args(["-s", name, &pid]).status().await?;
    ensure!(status.success(), "kill -s {name} {pid}");
    Ok(())
}
