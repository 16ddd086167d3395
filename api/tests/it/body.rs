//! What a body may look like on the wire.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{App, plain, plain_but};

const PATH: &str = "/v1/send-event-email";

#[tokio::test]
async fn only_json_is_taken() {
    let app = App::start().await;
    let post = |kind: &str| app.request(Method::POST, PATH).header("content-type", kind);
    for (kind, status) in [
        ("application/json", 202),
        ("APPLICATION/JSON; charset=utf-8", 202),
        ("application/vnd.emailer+json", 202),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("json", 415),
        ("\u{e4}", 415),
    ] {
        let answer = app.send(post(kind).body(plain("a@b.c").to_string())).await;
        assert_eq!(answer.status, status, "{kind}: {:?}", answer.body);
    }
    let none = app.send(app.request(Method::POST, PATH).body(plain("a@b.c").to_string())).await;
    assert_eq!(none.problem(), (415, "unsupported_media_type", vec![]));
    let zipped = app.send(post("application/json").header("content-encoding", "gzip").body("x")).await;
    assert_eq!(zipped.problem(), (415, "unsupported_media_type", vec![]));
}

#[tokio::test]
async fn client_that_sends_too_much_gets_to_see_why() {
    let app = App::start_with(&[("SERVER_MAX_BODY", "1MiB")]).await;
    let fits = plain_but("body", json!("x".repeat(1024 * 1024 - 100)));
    assert_eq!(app.post_mail(&fits).await.status, 202);
    let large = plain_but("body", json!("x".repeat(3 * 1024 * 1024)));
    assert_eq!(app.post_mail(&large).await.problem(), (413, "too_large", vec![]));
    let mut stream = connect(&app).await;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..40 {
        stream.write_all(b"10000\r\n").await.unwrap();
        stream.write_all(" ".repeat(65_536).as_bytes()).await.unwrap();
        stream.write_all(b"\r\n").await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn body_may_come_in_pieces() {
    let app = App::start().await;
    let mail = plain("a@b.c").to_string();
    let mut stream = connect(&app).await;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        mail.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for byte in mail.as_bytes() {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
}

#[tokio::test]
async fn long_answers_are_compressed_for_who_asks() {
    let app = App::start().await;
    app.mail("a@b.c").await;
    let request = |path: &str| app.request(Method::GET, path).header("accept-encoding", "gzip");
    let response = request("/v1/jobs").send().await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert!(response.bytes().await.unwrap().starts_with(&[0x1f, 0x8b]));
    assert_eq!(app.get("/v1/jobs").await.headers.get("content-encoding"), None);
}

async fn connect(app: &App) -> TcpStream {
    let stream = TcpStream::connect(app.base.strip_prefix("http://").unwrap()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_string(&mut answer)).await;
    read.unwrap().unwrap();
    answer
}
