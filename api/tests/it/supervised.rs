//! What the service manager and `--health` hear of the API's program.

use std::process::Stdio;
use std::time::Duration;

use lab::manager::Manager;
use lab::process::{free_port, signal};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const WATCHDOG: Duration = Duration::from_millis(600);

/// The program with the memory queue and the outbox.
fn program(host: &str, port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emailer-api"));
    command
        .env_clear()
        .envs([("MAIL_TRANSPORT", "outbox"), ("API_KEYS", "test:secret"), ("LOG_LEVEL", "ERROR")])
        .env("SERVER_HOST", host)
        .env("SERVER_PORT", port.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// The exit code of `--health`, and what it prints.
async fn health(host: &str, port: u16) -> (Option<i32>, String) {
    let output = program(host, port).arg("--health").output().await.unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn api_serves_when_it_says_that_it_is_ready_lives_and_says_that_it_stops() {
    let dir = TempDir::new().unwrap();
    let manager = Manager::listen(&dir.path().join("notify")).unwrap();
    let port = free_port().unwrap();
    let mut child = program("127.0.0.1", port).envs(manager.environment(WATCHDOG)).spawn().unwrap();

    let told = manager.next(PATIENCE).await.unwrap();
    assert_eq!(told, ["READY=1", &format!("STATUS=ready at 127.0.0.1:{port}, delivery: outbox")]);
    let answer = reqwest::get(format!("http://127.0.0.1:{port}/readyz")).await.unwrap();
    assert_eq!(answer.status(), 200);
    let pauses = manager.beats(4, PATIENCE).await.expect("four beats and nothing else");
    assert!(pauses.iter().all(|pause| *pause < WATCHDOG), "{pauses:?}");

    signal(&child, "TERM").await.unwrap();
    let told = manager.next_but_beats(PATIENCE).await.unwrap();
    assert_eq!(told, ["STOPPING=1", "EXTEND_TIMEOUT_USEC=45000000", "STATUS=stopping: sending what is due"]);
    assert_eq!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().code(), Some(0));
}

#[tokio::test]
async fn health_is_0_while_the_program_lives_and_1_when_it_does_not() {
    for host in ["127.0.0.1", "localhost", "0.0.0.0", "::"] {
        let dir = TempDir::new().unwrap();
        let manager = Manager::listen(&dir.path().join("notify")).unwrap();
        let port = free_port().unwrap();
        let (code, found) = health(host, port).await;
        assert_eq!(code, Some(1), "{host}: {found}");
        assert!(found.starts_with("FAILED health: "), "{found}");

        let mut child = program(host, port).envs(manager.environment(WATCHDOG)).spawn().unwrap();
        assert_eq!(manager.next(PATIENCE).await.unwrap()[0], "READY=1");
        let (code, found) = health(host, port).await;
        assert_eq!(code, Some(0), "{host}: {found}");
        child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn health_of_a_program_that_hangs_is_1() {
    // A listener that accepts nothing: the connection is made, and no answer comes.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (code, found) = health("127.0.0.1", port).await;
    assert_eq!(
        (code, found.trim()),
        (Some(1), &*format!("FAILED health: 127.0.0.1:{port}: no answer in 3 s"))
    );
    let (code, _) = health("127.0.0.1", 0).await;
    assert_eq!(code, Some(1), "which port it took cannot be known");
}
