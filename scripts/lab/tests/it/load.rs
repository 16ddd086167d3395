//! The load, against a server that keeps what it is asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lab::load::{self, Plan};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came: its head in lower case, and its body.
type Seen = Arc<Mutex<Vec<(String, Value)>>>;

struct Api {
    addr: SocketAddr,
    seen: Seen,
}

impl Api {
    /// Answers with these statuses in turn, each after the time given.
    async fn start(statuses: &'static [u16], after: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Seen::default();
        let keep = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&keep), statuses, after));
            }
        });
        Self { addr, seen }
    }

    fn plan(&self) -> Plan {
        Plan {
            url: format!("http://{}/v1/send-event-email", self.addr),
            key: None,
            in_flight: 4,
            count: Some(20),
            time: None,
            rate: None,
            recipients: 3,
            first_id: 100,
            body_size: 500,
            fields: Map::new(),
            idempotent: false,
        }
    }
}

async fn serve(socket: TcpStream, seen: Seen, statuses: &'static [u16], after: Duration) -> Option<()> {
    let mut socket = BufReader::new(socket);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if socket.read_line(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        let head = head.to_ascii_lowercase();
        let length = head.split_once("content-length: ")?.1.lines().next()?.parse().ok()?;
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.ok()?;
        tokio::time::sleep(after).await;
        let status = {
            let mut seen = seen.lock().unwrap();
            seen.push((head, serde_json::from_slice(&body).unwrap()));
            statuses[(seen.len() - 1) % statuses.len()]
        };
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}");
        socket.write_all(answer.as_bytes()).await.ok()?;
    }
}

#[tokio::test]
async fn each_recipient_is_asked_for_once() {
    let api = Api::start(&[202], Duration::ZERO).await;
    let (report, asked) = load::run(&api.plan()).await.unwrap();

    assert_eq!((report.requests, report.errors), (20, 0));
    let seen = api.seen.lock().unwrap();
    let mut recipients: Vec<&str> = seen
        .iter()
        .flat_map(|(_, body)| body["recipients"].as_array().unwrap())
        .map(|recipient| recipient.as_str().unwrap())
        .collect();
    recipients.sort_unstable();
    let expected: Vec<String> = (100..160).map(|id| format!("b{id}@example.com")).collect();
    assert_eq!(recipients, expected);
    let mut logged: Vec<u64> = asked.iter().map(|asked| asked.id).collect();
    logged.sort_unstable();
    assert_eq!(logged, (100..160).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_request_has_a_page_the_fields_the_key_and_an_idempotency_key_of_its_own() {
    let api = Api::start(&[202], Duration::ZERO).await;
    let Value::Object(fields) = json!({"on_ambiguous": "hold"}) else {
        unreachable!("it is written as an object")
    };
    let plan = Plan { key: Some("secret".into()), idempotent: true, fields, ..api.plan() };
    load::run(&plan).await.unwrap();

    let seen = api.seen.lock().unwrap();
    let mut keys: Vec<&str> = Vec::new();
    for (head, body) in seen.iter() {
        assert!(body["body"].as_str().unwrap().len() >= 500);
        assert!(!body["subject"].as_str().unwrap().is_empty());
        assert_eq!(body["on_ambiguous"], "hold");
        assert!(head.contains("authorization: bearer secret\r\n"), "{head}");
        keys.extend(head.lines().filter(|line| line.starts_with("idempotency-key: ")));
    }
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 20);
}

#[tokio::test]
async fn answers_are_counted_by_status() {
    let api = Api::start(&[202, 503], Duration::ZERO).await;
    let (report, asked) = load::run(&api.plan()).await.unwrap();
    assert_eq!(report.status, [(202, 10), (503, 10)].into());
    assert_eq!(asked.iter().filter(|asked| asked.status == 503).count(), 30);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_for_each_request() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let api = Api::start(&[202], Duration::ZERO).await;
    let plan = Plan { url: format!("http://{nobody}/"), ..api.plan() };
    let (report, asked) = load::run(&plan).await.unwrap();
    assert_eq!((report.requests, report.errors), (0, 20));
    assert!(asked.iter().all(|asked| asked.status == 0));
}

#[tokio::test]
async fn a_stall_counts_for_every_request_that_it_held_up() {
    // One connection, an answer takes 20 ms, a request is meant to start each ms: the last one waits for all others.
    let api = Api::start(&[202], Duration::from_millis(20)).await;
    let plan = Plan { in_flight: 1, count: Some(10), rate: Some(1000.0), ..api.plan() };
    let (report, _) = load::run(&plan).await.unwrap();
    assert_eq!(report.requests, 10);
    assert!(report.max_ms >= 190.0, "{}", report.max_ms);
    assert!(report.p50_ms >= 90.0, "{}", report.p50_ms);
}

#[tokio::test]
async fn a_plan_without_an_end_is_refused() {
    let api = Api::start(&[202], Duration::ZERO).await;
    let plan = Plan { count: None, rate: Some(1.0), ..api.plan() };
    assert!(load::run(&plan).await.is_err());
}
