//! Requests at a rate, each repeated with its key until it is answered; and the ledger, twenty times a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::Plan;
use super::fleet::Fleet;

/// How often the ledger is read.
const SAMPLE: Duration = Duration::from_millis(50);

/// How long a request is repeated.
const ATTEMPTS: u32 = 400;

/// What was promised: the jobs by id, and whether each must never be sent twice.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) jobs: HashMap<String, bool>,
    /// Requests that nobody answered in the end.
    pub(super) given_up: u64,
    /// Answers that were refusals for good.
    pub(super) refused: Vec<String>,
}

/// What the ledger said.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pub(super) read: u64,
    /// Times when nothing was answered.
    pub(super) unanswered: u64,
    /// Those that did not balance.
    pub(super) unbalanced: Vec<Value>,
}

pub(super) struct Traffic {
    requests: JoinHandle<()>,
    sampling: JoinHandle<Samples>,
    asked: Arc<Mutex<Asked>>,
    enough_asked: CancellationToken,
    enough_sampled: CancellationToken,
    asker: Asker,
}

#[derive(Clone)]
struct Asker {
    http: reqwest::Client,
    url: String,
    asked: Arc<Mutex<Asked>>,
}

impl Traffic {
    pub(super) fn start(fleet: &Fleet, plan: &Plan) -> Self {
        let promised = Arc::<Mutex<Asked>>::default();
        let (enough_asked, enough_sampled) = (CancellationToken::new(), CancellationToken::new());
        let asker = Asker {
            http: fleet.http.clone(),
            url: fleet.url("/v1/send-event-email"),
            asked: Arc::clone(&promised),
        };
        let requests = tokio::spawn(ask(asker.clone(), plan.rate, plan.seed, enough_asked.clone()));
        let sampling =
            tokio::spawn(sample(fleet.http.clone(), fleet.url("/v1/queue"), enough_sampled.clone()));
        Self { requests, sampling, asked: promised, enough_asked, enough_sampled, asker }
    }

    /// Some requests at once, so that there is work while something is broken.
    pub(super) async fn ask_for_more(&self) {
        let mut requests = JoinSet::new();
        for n in 0..50 {
            requests
                .spawn(self.asker.clone().one(format!("more-{n}"), body(20, n % 2 == 0, None, "normal", n)));
        }
        requests.join_all().await;
    }

    /// Ends the requests; waits for the answers of those that are on their way.
    pub(super) async fn stop_asking(&self) -> Asked {
        self.enough_asked.cancel();
        while !self.requests.is_finished() {
            sleep(Duration::from_millis(20)).await;
        }
        std::mem::take(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn stop_sampling(self) -> Samples {
        self.enough_sampled.cancel();
        self.sampling.await.unwrap_or_default()
    }
}

async fn sample(http: reqwest::Client, url: String, enough: CancellationToken) -> Samples {
    let mut samples = Samples::default();
    let mut ticks = interval(SAMPLE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !enough.is_cancelled() {
        ticks.tick().await;
        let answer = async { http.get(&url).send().await?.error_for_status()?.json::<Value>().await };
        let Ok(queue) = answer.await else {
            samples.unanswered += 1;
            continue;
        };
        samples.read += 1;
        if !balances(&queue["ledger"]) {
            samples.unbalanced.push(queue["ledger"].clone());
        }
    }
    samples
}

/// accepted = the sum of the other nine.
fn balances(ledger: &Value) -> bool {
    let Some(counts) = ledger.as_object() else { return false };
    let sum: u64 =
        counts.iter().filter(|(name, _)| *name != "accepted").filter_map(|(_, n)| n.as_u64()).sum();
    counts.len() == 10 && counts["accepted"].as_u64() == Some(sum)
}

async fn ask(asker: Asker, rate: u32, seed: u64, enough: CancellationToken) {
    let mut chance = StdRng::seed_from_u64(seed ^ 0x007A_FF1C);
    let mut ticks = interval(Duration::from_secs(1) / rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut requests = JoinSet::new();
    let mut n = 0_u64;
    while !enough.is_cancelled() {
        ticks.tick().await;
        n += 1;
        let count = [1, 1, 1, 2, 5][chance.random_range(0..5)];
        let priority = ["high", "normal", "bulk"][chance.random_range(0..3)];
        let later = chance.random_bool(0.05).then(|| Duration::from_millis(chance.random_range(500..3_000)));
        let body = body(count, chance.random_bool(0.4), later, priority, n);
        requests.spawn(asker.clone().one(format!("{seed}-{n}"), body));
        while requests.try_join_next().is_some() {}
    }
    requests.join_all().await;
}

fn body(count: u64, hold: bool, later: Option<Duration>, priority: &str, n: u64) -> Value {
    let recipients: Vec<String> =
        (0..count).map(|r| format!("{priority}-{n}-{r}-{hold}@example.com")).collect();
    let mut body = json!({
        "subject": "Chaos",
        "recipients": recipients,
        "body": "<p>Counted</p>",
        "priority": priority,
        "on_ambiguous": if hold { "hold" } else { "resend" },
    });
    if let Some(later) = later {
        let at = jiff::Timestamp::now() + later;
        body["send_at"] = json!(at.to_string());
    }
    body
}

impl Asker {
    /// One request, until it is answered.
    async fn one(self, key: String, body: Value) {
        let is_hold = body["on_ambiguous"] == "hold";
        for _ in 0..ATTEMPTS {
            let request = self.http.post(&self.url).header("Idempotency-Key", &key).json(&body);
            let Ok(answer) = request.send().await else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            let status = answer.status();
            let text = answer.text().await.unwrap_or_default();
            if status == 202 {
                let accepted: Value = serde_json::from_str(&text).unwrap_or_default();
                let jobs = accepted["jobs"].as_array().cloned().unwrap_or_default();
                let ids = jobs.iter().filter_map(|job| job["id"].as_str()).map(|id| (id.to_owned(), is_hold));
                self.asked.lock().unwrap_or_else(PoisonError::into_inner).jobs.extend(ids);
                return;
            }
            if status != 503 {
                let refused = format!("{status}: {text}");
                self.asked.lock().unwrap_or_else(PoisonError::into_inner).refused.push(refused);
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).given_up += 1;
    }
}
