//! The sink, over TCP.

use lab::sink::{Counts, Sink};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MESSAGE: &str = "MAIL FROM:<a@x.org>\r\nRCPT TO:<b1@x.org>\r\nRCPT TO:<b2@x.org>\r\nDATA\r\n\
Message-ID: <m1@x.org>\r\n\r\nHello\r\n.\r\n";

async fn say(addr: std::net::SocketAddr, what: &str) -> String {
    let mut client = TcpStream::connect(addr).await.unwrap();
    client.write_all(what.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn started() -> Sink {
    Sink::start(([127, 0, 0, 1], 0).into()).await.unwrap()
}

#[tokio::test]
async fn what_comes_is_counted_and_a_second_time_is_a_duplicate() {
    let sink = started().await;
    say(sink.addr(), &format!("EHLO me\r\n{MESSAGE}QUIT\r\n")).await;
    say(sink.addr(), &format!("EHLO me\r\n{MESSAGE}QUIT\r\n")).await;

    let counts = sink.counts();
    assert_eq!((counts.messages, counts.connections, counts.duplicates), (2, 2, 2));
    assert!(counts.first_ns > 0 && counts.first_ns <= counts.last_ns);
    let arrivals: Vec<_> =
        sink.arrivals().into_iter().map(|arrival| (arrival.recipient, arrival.message_id)).collect();
    let once = ["b1@x.org", "b2@x.org"].map(|to| (to.to_owned(), "m1@x.org".to_owned()));
    assert_eq!(arrivals, [once.clone(), once].concat());
}

#[tokio::test]
async fn a_reset_forgets_all_but_open_connections() {
    let sink = started().await;
    let mut open = TcpStream::connect(sink.addr()).await.unwrap();
    open.write_all(format!("EHLO me\r\n{MESSAGE}NOOP\r\n").as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    while !answers.ends_with(b"taken\r\n250 2.0.0 Ok\r\n") {
        assert_ne!(open.read_buf(&mut answers).await.unwrap(), 0);
    }

    sink.reset();

    let expected = Counts { open: 1, peak: 1, ..Counts::default() };
    assert_eq!(sink.counts(), expected);
    assert!(sink.arrivals().is_empty());
}

#[tokio::test]
async fn the_control_port_tells_the_counts_and_the_log() {
    let sink = started().await;
    say(sink.addr(), &format!("{MESSAGE}QUIT\r\n")).await;
    let control = free_port();
    let serving = sink.serve_control(control);
    let asking = async {
        while TcpStream::connect(control).await.is_err() {
            tokio::task::yield_now().await;
        }
        let ask = |what: &'static str| say_http(control, what);
        (ask("GET / ").await, ask("GET /log ").await, ask("GET /else ").await)
    };
    let (counts, log, unknown) = tokio::select! {
        answers = asking => answers,
        ended = serving => panic!("the control port ended: {ended:?}"),
    };
    assert!(counts.contains("\"messages\":1"), "{counts}");
    assert!(log.contains("b2@x.org ") && log.contains(" m1@x.org\n"), "{log}");
    assert!(unknown.starts_with("HTTP/1.1 404"), "{unknown}");
}

async fn say_http(addr: std::net::SocketAddr, what: &str) -> String {
    say(addr, &format!("{what}HTTP/1.1\r\n\r\n")).await
}

fn free_port() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
