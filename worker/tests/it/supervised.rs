//! What the service manager hears of the worker, and of a program that is stuck.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use actix_web::{App, HttpServer, web};
use lab::manager::Manager;
use lab::process::{free_port, signal};
use shared::shutdown::Shutdown;
use shared::supervisor::Supervisor;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

/// Within this time a program must be heard of.
const WATCHDOG: Duration = Duration::from_millis(600);

fn worker(redis_port: u16, manager: &Manager) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emailer-worker"));
    command
        .env_clear()
        .envs([("QUEUE_TYPE", "redis"), ("MAIL_TRANSPORT", "outbox"), ("WORKER_PORT", "0")])
        .env("REDIS_URL", format!("redis://127.0.0.1:{redis_port}"))
        .envs(manager.environment(WATCHDOG))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Reads the log until a line has these words, and goes on reading so that the program can go on writing.
async fn logged(child: &mut Child, words: &str) {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let found = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(words) {
                return;
            }
        }
        panic!("the worker ended without {words:?} in its log");
    };
    timeout(PATIENCE, found).await.unwrap();
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
}

async fn exit_code(child: &mut Child) -> Option<i32> {
    timeout(PATIENCE, child.wait()).await.unwrap().unwrap().code()
}

#[tokio::test]
async fn worker_is_ready_only_when_it_has_its_queue_lives_and_says_that_it_stops() {
    let dir = TempDir::new().unwrap();
    let manager = Manager::listen(&dir.path().join("notify")).unwrap();
    let port = free_port().unwrap();
    let mut child = worker(port, &manager).spawn().unwrap();
    logged(&mut child, "waiting for the queue").await;
    assert_eq!(manager.next(Duration::from_millis(10)).await, None, "it has no queue yet");

    let _redis = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(dir.path())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("redis-server; apt-get install -y redis-server");
    let told = manager.next(PATIENCE).await.unwrap();
    assert_eq!(told[0], "READY=1");
    assert!(told[1].starts_with("STATUS=ready at 127.0.0.1:"), "{told:?}");
    let pauses = manager.beats(4, PATIENCE).await.expect("four beats and nothing else");
    assert!(pauses.iter().all(|pause| *pause < WATCHDOG), "{pauses:?}");

    signal(&child, "TERM").await.unwrap();
    let told = manager.next_but_beats(PATIENCE).await.unwrap();
    assert_eq!(told[..2], ["STOPPING=1", "EXTEND_TIMEOUT_USEC=45000000"], "30 s to drain, 15 s to end");
    assert_eq!(exit_code(&mut child).await, Some(0));
}

#[tokio::test]
async fn worker_that_waits_for_its_queue_ends_when_it_is_asked_to() {
    let dir = TempDir::new().unwrap();
    let manager = Manager::listen(&dir.path().join("notify")).unwrap();
    let mut child = worker(free_port().unwrap(), &manager).spawn().unwrap();
    logged(&mut child, "waiting for the queue").await;
    signal(&child, "TERM").await.unwrap();
    assert_eq!(exit_code(&mut child).await, Some(0));
}

/// How many times a program was heard of while `time` went by.
async fn heard(manager: &Manager, time: Duration) -> usize {
    let (end, mut count) = (Instant::now() + time, 0);
    while let Some(told) = manager.next(end.saturating_duration_since(Instant::now())).await {
        assert_eq!(told, ["WATCHDOG=1"]);
        count += 1;
    }
    count
}

/// A manager at a name of its own, in the abstract namespace.
fn manager(name: &str) -> (Manager, Supervisor) {
    let manager = Manager::listen_abstract(&format!("emailer-test-{name}-{}", std::process::id())).unwrap();
    let supervisor = Supervisor::named_by(manager.environment(Duration::from_millis(200)));
    (manager, supervisor)
}

#[tokio::test]
async fn stuck_runtime_is_not_heard_of() {
    let (manager, supervisor) = manager("runtime");
    let (block, blocked) = std::sync::mpsc::channel::<Duration>();
    thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.spawn(async move { supervisor.watch(|| async { true }).await });
        for time in blocked {
            let both: Vec<_> = (0..2).map(|_| runtime.spawn(async move { thread::sleep(time) })).collect();
            for one in both {
                runtime.block_on(one).unwrap();
            }
        }
    });
    assert!(heard(&manager, Duration::from_secs(1)).await >= 3);
    block.send(Duration::from_secs(3)).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    manager.forget();
    assert_eq!(heard(&manager, Duration::from_secs(2)).await, 0);
    assert!(heard(&manager, Duration::from_secs(3)).await >= 3, "it lives again");
}

#[tokio::test]
async fn program_whose_server_is_stuck_is_not_heard_of_until_it_stops() {
    let (manager, supervisor) = manager("server");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stick = || async {
        thread::sleep(Duration::from_secs(3));
        "unstuck"
    };
    let server = HttpServer::new(move || {
        App::new().route("/healthz", web::get().to(|| async { "ok" })).route("/stick", web::get().to(stick))
    });
    tokio::spawn(server.workers(1).disable_signals().listen(listener).unwrap().run());
    let shutdown = Shutdown::new();
    tokio::spawn(supervisor.attend(address, shutdown.clone()));
    assert!(heard(&manager, Duration::from_secs(1)).await >= 3);

    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut connection, b"GET /stick HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    manager.forget();
    assert_eq!(heard(&manager, Duration::from_secs(1)).await, 0);
    shutdown.stop();
    assert!(heard(&manager, Duration::from_secs(1)).await >= 3, "a drain is no fault");
}
