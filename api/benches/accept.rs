//! What accepting a mail costs beside a bare route that parses the same JSON: `cargo bench -p api`.
//!
//! Both servers run in this process, one after the other, under the same client; the figure to watch is the ratio. A
//! mail is checked, put into the memory queue and promised. One request at a time on each connection is what clients
//! do; pipelined requests leave the system calls out, and show the rest.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, run by hand")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, HttpServer, web};
use api::{Deps, build};
use shared::clock::SystemClock;
use shared::queue::memory::MemoryQueue;
use shared::settings::Settings;
use shared::shutdown::Shutdown;
use shared::template::TemplateStore;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 4;
const WARM_UP: Duration = Duration::from_secs(1);
const TIME: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;

#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "what a bare route would parse")]
struct Mail {
    subject: String,
    recipients: Vec<String>,
    body: String,
}

#[actix_web::main]
async fn main() {
    let (bare, accept) = (start_bare(), start_api());
    for at_once in [1, 32] {
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let [bare, accept] = [(bare, "200"), (accept, "202")].map(|(address, status)| {
                move || {
                    measure(address, status, at_once, WARM_UP);
                    measure(address, status, at_once, TIME)
                }
            });
            let (bare, accept) = (web::block(bare).await.unwrap(), web::block(accept).await.unwrap());
            println!("{at_once:>2} at once: bare {bare:>7.0}/s, accept {accept:>7.0}/s");
            ratios.push(accept / bare);
        }
        ratios.sort_by(f64::total_cmp);
        println!("{at_once:>2} at once: median ratio {:.2}", ratios[ROUNDS / 2]);
    }
}

fn start_bare() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let route = async |_: web::Json<Mail>| HttpResponse::Ok().json(serde_json::json!({"ok": true}));
    let server = HttpServer::new(move || App::new().route("/v1/send-event-email", web::post().to(route)));
    actix_web::rt::spawn(server.tcp_nodelay(true).disable_signals().listen(listener).unwrap().run());
    address
}

fn start_api() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let env = [("MAIL_FROM", "noreply@example.com"), ("MAX_QUEUE_SIZE", "100000000")];
    let settings = Settings::load(
        shared::settings::Program::Api,
        env.map(|(name, value)| (name.to_owned(), value.to_owned())),
    )
    .unwrap();
    let clock = Arc::new(SystemClock);
    let deps = Deps {
        queue: Arc::new(MemoryQueue::new(settings.queue.limits.clone(), clock.clone())),
        settings: Arc::new(settings),
        templates: Arc::new(TemplateStore::open(None, "en").unwrap()),
        clock,
        shutdown: Shutdown::new(),
        metrics: shared::metrics::install().unwrap(),
    };
    actix_web::rt::spawn(build(deps, listener).unwrap());
    address
}

/// Requests a second, all answered with this status.
fn measure(address: SocketAddr, status: &'static str, at_once: usize, time: Duration) -> f64 {
    let began = Instant::now();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| std::thread::spawn(move || client(address, status, at_once, began + time)))
        .collect();
    let answered: u32 = clients.into_iter().map(|client| client.join().unwrap()).sum();
    f64::from(answered) / began.elapsed().as_secs_f64()
}

fn client(address: SocketAddr, status: &str, at_once: usize, end: Instant) -> u32 {
    let body = serde_json::json!({
        "subject": "Your order has been shipped", "recipients": ["wang.wei@example.com"],
        "body": format!("<html><body><p>{}</p></body></html>", "Hello! ".repeat(60)),
    })
    .to_string();
    let request = format!(
        "POST /v1/send-event-email HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let requests = request.repeat(at_once);
    let expected = format!("HTTP/1.1 {status}");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answered = 0;
    let (mut answers, mut chunk) = (Vec::new(), vec![0; 64 * 1024]);
    while Instant::now() < end {
        stream.write_all(requests.as_bytes()).unwrap();
        answers.clear();
        // An answer ends with its JSON's brace; a head shows that one is on its way.
        while answers.last() != Some(&b'}') || count(&answers, b"HTTP/1.1 ") < at_once {
            let read = stream.read(&mut chunk).unwrap();
            assert!(read > 0, "closed after {}", String::from_utf8_lossy(&answers));
            answers.extend_from_slice(&chunk[..read]);
        }
        let expected = count(&answers, expected.as_bytes());
        assert_eq!(expected, at_once, "{}", String::from_utf8_lossy(&answers));
        answered += u32::try_from(at_once).unwrap();
    }
    answered
}

fn count(text: &[u8], word: &[u8]) -> usize {
    text.windows(word.len()).filter(|window| *window == word).count()
}
