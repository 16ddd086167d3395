//! What the API measures, and the recorder behind `/metrics`.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::http::Method;
use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use shared::job::{Priority, Status};
use shared::queue::{Queue, Stats};

/// Seconds: from a local relay's millisecond to the ten minutes that a final dot may take.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// Installs the recorder of the process.
///
/// # Errors
/// When there is one already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = recorder()?.install_recorder()?;
    for (name, help) in DESCRIPTIONS {
        match *help {
            Kind::Counter(help) => metrics::describe_counter!(*name, help),
            Kind::Gauge(help) => metrics::describe_gauge!(*name, help),
            Kind::Histogram(help) => metrics::describe_histogram!(*name, help),
        }
    }
    Ok(handle)
}

fn recorder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS)
}

/// A recorder of its own, for a test.
///
/// # Errors
/// Never: the buckets are not empty.
pub fn for_test() -> Result<PrometheusHandle, BuildError> {
    Ok(recorder()?.build_recorder().handle())
}

enum Kind {
    Counter(&'static str),
    Gauge(&'static str),
    Histogram(&'static str),
}

const DESCRIPTIONS: &[(&str, Kind)] = &[
    ("emailer_jobs_accepted_total", Kind::Counter("Jobs that were promised with a 202")),
    ("emailer_jobs_finished_total", Kind::Counter("Jobs that ended, by status and reason")),
    ("emailer_attempts_total", Kind::Counter("Attempts to send, by relay and outcome")),
    ("emailer_retries_total", Kind::Counter("Retries that were put off, by relay")),
    ("emailer_ambiguous_total", Kind::Counter("Messages that the relay may have, by policy")),
    ("emailer_queue_jobs", Kind::Gauge("Jobs in the queue, by state and priority")),
    ("emailer_queue_oldest_seconds", Kind::Gauge("Since when the oldest ready job is accepted")),
    ("emailer_send_seconds", Kind::Histogram("Time of a delivery, by relay and phase")),
    ("emailer_time_to_sent_seconds", Kind::Histogram("From acceptance to the relay's 250")),
    ("emailer_smtp_connections", Kind::Gauge("Open connections, by relay and state")),
    ("emailer_relay_up", Kind::Gauge("Whether the relay can be used")),
    ("emailer_workers_busy", Kind::Gauge("Deliveries that run")),
    ("emailer_workers_max", Kind::Gauge("Deliveries that may run at once")),
    ("emailer_http_requests_total", Kind::Counter("Requests, by route, method and status")),
    ("emailer_http_request_seconds", Kind::Histogram("Time of a request, by route")),
];

/// Jobs were promised.
pub(crate) fn accepted(jobs: u32) {
    counter!("emailer_jobs_accepted_total").increment(u64::from(jobs));
}

/// A job ended by a person's word.
pub(crate) fn cancelled(jobs: u64) {
    counter!("emailer_jobs_finished_total", "status" => Status::Cancelled.as_str(), "reason" => "")
        .increment(jobs);
}

/// A request was answered.
pub(crate) fn answered(route: &str, method: &Method, status: u16, time: Duration) {
    let method = match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        _ => "other",
    };
    let labels = [("route", route.to_owned()), ("method", method.to_owned()), ("status", status.to_string())];
    counter!("emailer_http_requests_total", &labels).increment(1);
    histogram!("emailer_http_request_seconds", "route" => route.to_owned()).record(time);
}

/// The queue's gauges, read at most once a second.
#[derive(Default)]
pub(crate) struct QueueGauges {
    read_at: Mutex<Option<Instant>>,
}

impl QueueGauges {
    pub(crate) async fn refresh(&self, queue: &dyn Queue) {
        {
            let mut read_at = self.read_at.lock().unwrap_or_else(PoisonError::into_inner);
            if read_at.is_some_and(|at| at.elapsed() < Duration::from_secs(1)) {
                return;
            }
            *read_at = Some(Instant::now());
        }
        match queue.stats().await {
            Ok(stats) => set(&stats),
            Err(error) => tracing::warn!(%error, "the queue's gauges are old"),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn set(stats: &Stats) {
    for priority in Priority::ALL {
        let word = priority.as_str();
        for status in Status::ALL.iter().filter(|status| !status.is_final()) {
            let jobs = stats.states.of(*priority).of(*status);
            gauge!("emailer_queue_jobs", "state" => status.as_str(), "priority" => word).set(jobs as f64);
        }
        gauge!("emailer_queue_oldest_seconds", "priority" => word)
            .set(stats.oldest.of(*priority).as_secs_f64());
    }
}
