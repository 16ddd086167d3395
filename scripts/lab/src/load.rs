//! HTTP load on the send route: keep-alive connections, one request in flight on each.
//!
//! Closed loop: each connection sends its next request when it has the answer to the last one. At a fixed rate,
//! each request has a time at which it is meant to start, and its latency counts from there: a stall counts for
//! every request that it held up. Every request has recipients of its own.

mod exchange;
mod pace;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::clock::now_ns;
use exchange::Connection;
use pace::{Pace, Start};

/// What to send, how much of it and how fast.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `http://host:port/path`.
    pub url: String,
    /// An API key.
    pub key: Option<String>,
    /// Requests in flight at most; as many connections.
    pub in_flight: usize,
    /// Requests at most.
    pub count: Option<u64>,
    /// For how long requests are started.
    pub time: Option<Duration>,
    /// Requests a second. None: as fast as answers come.
    pub rate: Option<f64>,
    /// Recipients in each request.
    pub recipients: u64,
    /// The first recipient is `b<first_id>@example.com`; the others count up from it.
    pub first_id: u64,
    /// The HTML body's size in bytes, at least.
    pub body_size: usize,
    /// Further fields of each request.
    pub fields: Map<String, Value>,
    /// Whether each request has an `Idempotency-Key`, so that a proxy may repeat it.
    pub idempotent: bool,
}

/// How it went. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "each is what its name says")]
pub struct Report {
    pub requests: u64,
    pub seconds: f64,
    pub per_second: f64,
    /// Answers by status.
    pub status: BTreeMap<u16, u64>,
    /// Requests without an answer.
    pub errors: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// One recipient of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Its number: the address is `b<id>@example.com`.
    pub id: u64,
    /// When the request was meant to start, in nanoseconds since 1970.
    pub start_ns: u64,
    /// The answer's status; 0 where none came.
    pub status: u16,
}

#[derive(Default)]
struct Outcome {
    started: u64,
    asked: Vec<Asked>,
    latencies: Vec<Duration>,
    status: BTreeMap<u16, u64>,
    errors: u64,
}

struct Run<'a> {
    plan: &'a Plan,
    server: SocketAddr,
    /// The request up to the length of its body.
    head: String,
    /// The body before and behind the list of recipients.
    body: (String, String),
    begin: Instant,
    pace: Option<Pace>,
    /// Never held over an await; the tasks share one thread.
    outcome: Mutex<Outcome>,
}

/// Puts the load on and waits for the last answer.
///
/// # Errors
/// When the URL cannot be used or names no host, or the plan has neither a count nor a time.
pub async fn run(plan: &Plan) -> anyhow::Result<(Report, Vec<Asked>)> {
    anyhow::ensure!(
        plan.count.is_some() || plan.time.is_some(),
        "a count or a time is needed, or it never ends"
    );
    let (host, path) = plan
        .url
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
        .with_context(|| format!("{}: http://host:port/path is expected", plan.url))?;
    let server = tokio::net::lookup_host(host)
        .await
        .with_context(|| format!("{host}: host:port is expected"))?
        .next()
        .with_context(|| format!("{host} has no address"))?;
    let begin = Instant::now();
    let run = Run {
        plan,
        server,
        head: head(plan, host, path),
        body: body(plan),
        begin,
        pace: plan.rate.map(|rate| Pace::start(rate, planned(plan, rate))).transpose()?,
        outcome: Mutex::default(),
    };
    futures::future::join_all((0..plan.in_flight.max(1)).map(|_| run.connection())).await;
    let seconds = begin.elapsed().as_secs_f64();
    let outcome = run.outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((outcome.report(seconds), outcome.asked))
}

/// How many requests a plan with a rate has.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of requests")]
fn planned(plan: &Plan, rate: f64) -> u64 {
    let by_time = plan.time.map(|time| (time.as_secs_f64() * rate) as u64);
    by_time.into_iter().chain(plan.count).min().unwrap_or(0)
}

impl Run<'_> {
    async fn connection(&self) {
        let mut connection = Connection::new(self.server);
        let mut request = String::new();
        while let Some(start) = self.next().await {
            self.write(start.index, &mut request);
            let status = connection.exchange(request.as_bytes()).await;
            self.note(&start, status.as_ref().copied().unwrap_or(0));
            if status.is_err() {
                // Nobody may be listening just now: no busy loop.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// When the next request starts; none when there are no more.
    async fn next(&self) -> Option<Start> {
        if let Some(pace) = &self.pace {
            return pace.next().await;
        }
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let over = self.plan.count.is_some_and(|count| outcome.started >= count)
            || self.plan.time.is_some_and(|time| self.begin.elapsed() >= time);
        if over {
            return None;
        }
        let index = outcome.started;
        outcome.started += 1;
        Some(Start { index, at: Instant::now(), at_ns: now_ns() })
    }

    fn ids(&self, index: u64) -> std::ops::Range<u64> {
        let first = self.plan.first_id + index * self.plan.recipients;
        first..first + self.plan.recipients
    }

    fn write(&self, index: u64, request: &mut String) {
        let mut list = String::new();
        for id in self.ids(index) {
            let comma = if list.is_empty() { "" } else { "," };
            // Writing to a string cannot fail.
            write!(list, "{comma}\"b{id}@example.com\"").ok();
        }
        let (before, behind) = &self.body;
        let length = before.len() + list.len() + behind.len();
        request.clear();
        request.push_str(&self.head);
        if self.plan.idempotent {
            let first = self.plan.first_id + index * self.plan.recipients;
            write!(request, "Idempotency-Key: lab-{}-{first}\r\n", std::process::id()).ok();
        }
        write!(request, "Content-Length: {length}\r\n\r\n{before}{list}{behind}").ok();
    }

    fn note(&self, start: &Start, status: u16) {
        let took = start.at.elapsed();
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.asked.extend(self.ids(start.index).map(|id| Asked { id, start_ns: start.at_ns, status }));
        if status == 0 {
            outcome.errors += 1;
        } else {
            outcome.latencies.push(took);
            *outcome.status.entry(status).or_default() += 1;
        }
    }
}

impl Outcome {
    fn report(&self, seconds: f64) -> Report {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let ms = |permille| quantile(&sorted, permille).as_secs_f64() * 1e3;
        #[expect(clippy::cast_precision_loss, reason = "a count of requests")]
        let per_second = sorted.len() as f64 / seconds;
        Report {
            requests: sorted.len() as u64,
            seconds,
            per_second,
            status: self.status.clone(),
            errors: self.errors,
            p50_ms: ms(500),
            p90_ms: ms(900),
            p99_ms: ms(990),
            max_ms: ms(1000),
        }
    }
}

/// By nearest rank; zero where there are none.
fn quantile(sorted: &[Duration], permille: usize) -> Duration {
    let rank = (sorted.len() * permille).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn head(plan: &Plan, host: &str, path: &str) -> String {
    let key = plan.key.as_ref().map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
    format!("POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{key}")
}

fn body(plan: &Plan) -> (String, String) {
    let mut fields = json!({"subject": "Your order has shipped", "body": html(plan.body_size)});
    if let Value::Object(fields) = &mut fields {
        fields.extend(plan.fields.clone());
    }
    let rest = fields.to_string();
    ("{\"recipients\":[".into(), format!("],{}", &rest[1..]))
}

/// An HTML page of at least this size, or the smallest that there is, in short lines.
fn html(size: usize) -> String {
    const END: &str = "</body></html>\n";
    let mut html = String::from("<html><body>\n<h1>Your order has shipped</h1>\n");
    let mut item = 0;
    while html.len() + END.len() < size {
        item += 1;
        writeln!(html, "<p class=\"row\">Item {item}: thank you for your order, it is on its way.</p>").ok();
    }
    html + END
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let sorted: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(quantile(&sorted, 500), Duration::from_millis(100));
        assert_eq!(quantile(&sorted, 990), Duration::from_millis(198));
        assert_eq!(quantile(&sorted, 1000), Duration::from_millis(200));
        assert_eq!(quantile(&[], 500), Duration::ZERO);
    }

    #[test]
    fn the_body_has_the_size_that_was_asked_for() {
        for size in [100, 2048, 20_000] {
            let html = html(size);
            assert!((size..size + 100).contains(&html.len()), "{size}: {}", html.len());
        }
    }
}
