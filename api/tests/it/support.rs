//! A running API, and what its users do with it.

use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use api::{Deps, build};
use metrics_exporter_prometheus::PrometheusHandle;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use shared::clock::SystemClock;
use shared::queue::memory::MemoryQueue;
use shared::queue::{Consumer, ConsumerId, Queue, Settlement, Verdict};
use shared::settings::Settings;
use shared::shutdown::Shutdown;
use shared::template::TemplateStore;

pub(crate) struct App {
    pub(crate) base: String,
    pub(crate) queue: Arc<MemoryQueue>,
    pub(crate) shutdown: Shutdown,
    pub(crate) settings: Arc<Settings>,
    client: reqwest::Client,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// The code of a problem, and its faults as `pointer code`.
    pub(crate) fn problem(&self) -> (u16, &str, Vec<String>) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{:?}", self.body);
        assert_eq!(self.body["status"], self.status.as_u16());
        assert_eq!(self.body["request_id"].as_str().unwrap(), self.headers["x-request-id"]);
        let faults = self.body["errors"].as_array().unwrap().iter();
        let faults = faults.map(|fault| {
            assert!(!fault["message"].as_str().unwrap().is_empty());
            format!("{} {}", fault["pointer"].as_str().unwrap(), fault["code"].as_str().unwrap())
        });
        (self.status.as_u16(), self.body["code"].as_str().unwrap(), faults.collect())
    }
}

/// An API in front of a queue.
pub(crate) struct Served {
    pub(crate) base: String,
    pub(crate) shutdown: Shutdown,
    pub(crate) settings: Arc<Settings>,
}

/// Serves a queue; the templates are those of a folder, or those built in.
pub(crate) fn serve(settings: Settings, queue: Arc<dyn Queue>, templates: Option<&Path>) -> Served {
    let settings = Arc::new(settings);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = Shutdown::new();
    let deps = Deps {
        settings: Arc::clone(&settings),
        queue,
        templates: Arc::new(TemplateStore::open(templates, "en").unwrap()),
        clock: Arc::new(SystemClock),
        shutdown: shutdown.clone(),
        metrics: recorder(),
    };
    tokio::spawn(build(deps, listener).unwrap());
    Served { base, shutdown, settings }
}

/// Settings from the environment: a sender and the outbox, and what a test adds.
pub(crate) fn settings(env: &[(&str, &str)]) -> Settings {
    let mut all = vec![("MAIL_FROM", "Emailer <noreply@example.com>"), ("MAIL_TRANSPORT", "outbox")];
    all.extend(env);
    Settings::load(
        shared::settings::Program::Api,
        all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())),
    )
    .unwrap()
}

impl App {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(env: &[(&str, &str)]) -> Self {
        let settings = settings(env);
        let queue = Arc::new(MemoryQueue::new(settings.queue.limits.clone(), Arc::new(SystemClock)));
        Self::start_on(queue, env, None).await
    }

    /// Another process in front of a queue that others serve, too.
    #[expect(clippy::unused_async, reason = "needs the runtime")]
    pub(crate) async fn start_on(
        queue: Arc<MemoryQueue>,
        env: &[(&str, &str)],
        templates: Option<&Path>,
    ) -> Self {
        Self::of(serve(settings(env), queue.clone(), templates), queue)
    }

    pub(crate) fn of(Served { base, shutdown, settings }: Served, queue: Arc<MemoryQueue>) -> Self {
        Self { base, queue, shutdown, settings, client: reqwest::Client::new() }
    }

    /// Starts the workers in the same process, as the program does.
    pub(crate) fn work(&self) {
        let deps = worker::Deps {
            settings: Arc::clone(&self.settings),
            queue: Arc::clone(&self.queue) as Arc<dyn Queue>,
            clock: Arc::new(SystemClock),
            shutdown: self.shutdown.clone(),
            drain: worker::Drain::SendDue,
        };
        worker::start(&deps).unwrap();
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str) -> Answer {
        self.send(self.request(Method::POST, path)).await
    }

    pub(crate) async fn post_mail(&self, mail: &Value) -> Answer {
        self.send(self.request(Method::POST, "/v1/send-event-email").json(mail)).await
    }

    pub(crate) async fn post_raw(&self, body: impl Into<reqwest::Body>) -> Answer {
        let request =
            self.request(Method::POST, "/v1/send-event-email").header("content-type", "application/json");
        self.send(request.body(body)).await
    }

    pub(crate) async fn post_mail_with_key(&self, mail: &Value, key: &str) -> Answer {
        let request = self.request(Method::POST, "/v1/send-event-email").header("Idempotency-Key", key);
        self.send(request.json(mail)).await
    }

    /// Posts a plain mail; gives the id of its first job.
    pub(crate) async fn mail(&self, to: &str) -> String {
        let answer = self.post_mail(&plain(to)).await;
        assert_eq!(answer.status, 202, "{:?}", answer.body);
        answer.body["jobs"][0]["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn ledger(&self) -> Value {
        self.get("/v1/queue").await.body["ledger"].clone()
    }

    /// Takes the next job and ends it.
    pub(crate) async fn settle_next(&self, verdict: Verdict) {
        let me = ConsumerId::generate();
        let delivery = self.queue.claim(&me, 1).await.unwrap().remove(0);
        let settlement = Settlement {
            job: delivery.job,
            receipt: delivery.receipt,
            attempt: delivery.attempt,
            verdict,
            relay: None,
            reply: None,
            detail: String::new(),
        };
        self.queue.settle(&me, &[settlement]).await.unwrap();
    }

    pub(crate) async fn until_sent(&self, job: &str) -> Value {
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.get(&format!("/v1/jobs/{job}")).await;
            if answer.body["status"] == "sent" {
                return answer.body;
            }
            assert!(tokio::time::Instant::now() < end, "{:?}", answer.body);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// The recorder of the process, which all of its tests share.
fn recorder() -> PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| shared::metrics::install().unwrap()).clone()
}

pub(crate) fn plain(to: &str) -> Value {
    json!({"subject": "Hello", "recipients": [to], "body": "<p>Hi</p>"})
}

/// A plain mail with one more field, or another value for one; null takes it away.
pub(crate) fn plain_but(name: &str, value: Value) -> Value {
    let mut mail = plain("a@example.com");
    if value.is_null() {
        mail.as_object_mut().unwrap().remove(name);
    } else {
        mail[name] = value;
    }
    mail
}
