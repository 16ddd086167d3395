//! The metrics of both programs: their names, what they say, their buckets, and the recorder behind `/metrics`
//! (Prometheus text format 0.0.4).
//!
//! What is counted is counted where it happens, by the `metrics` macros and under these names. No label ever carries
//! an address, a job's id or a subject. A recorder gathers samples until it is asked: whoever installs one runs
//! [`upkeep`] beside it, so that a process that nobody scrapes does not grow.

use std::time::Duration;

use metrics::{KeyName, Recorder, SharedString, Unit};
pub use metrics_exporter_prometheus::PrometheusHandle;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusRecorder};

/// The content type of what is rendered.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How often gathered samples are put into their buckets.
const UPKEEP: Duration = Duration::from_secs(5);

/// Seconds of an HTTP request: from a memory queue's microseconds to a queue's deadline.
const REQUEST: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Seconds of a phase of a delivery: from a local relay's millisecond to the ten minutes that the reply to a final dot
/// may take (RFC 5321 §4.5.3.2.6).
const SEND: &[f64] = &[
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
    600.0,
];

/// Seconds from acceptance to the relay's 250: at once, behind a backlog, after retries, or when it was asked for.
const TO_SENT: &[f64] = &[
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 7_200.0,
    21_600.0, 86_400.0,
];

enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

use Kind::{Counter, Gauge, Histogram};

const METRICS: &[(&str, Kind, &str)] = &[
    ("emailer_jobs_accepted_total", Counter, "Jobs that were promised with a 202"),
    ("emailer_jobs_finished_total", Counter, "Jobs that ended, by status and reason"),
    ("emailer_attempts_total", Counter, "Attempts to send, by relay and outcome"),
    ("emailer_retries_total", Counter, "Attempts that were put off to a later one, by relay"),
    ("emailer_ambiguous_total", Counter, "Messages that the relay may or may not have, by policy"),
    ("emailer_queue_jobs", Gauge, "Jobs in the queue, by state and priority"),
    ("emailer_queue_oldest_seconds", Gauge, "Age of the oldest job that is ready, by priority"),
    ("emailer_send_seconds", Histogram(SEND), "Time of a delivery's phases, by relay and phase"),
    ("emailer_time_to_sent_seconds", Histogram(TO_SENT), "From acceptance to the relay's 250"),
    ("emailer_smtp_connections", Gauge, "Open connections, by relay and state"),
    ("emailer_relay_up", Gauge, "1 while the relay can be used, 0 while it is paused"),
    ("emailer_workers_busy", Gauge, "Deliveries that run in this process"),
    ("emailer_workers_max", Gauge, "Deliveries that may run at once in this process"),
    ("emailer_http_requests_total", Counter, "Requests, by route, method and status"),
    ("emailer_http_request_seconds", Histogram(REQUEST), "Time of a request, by route"),
];

/// A recorder that knows all metrics.
///
/// # Errors
/// Never in practice: no metric has an empty list of buckets.
pub fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for (name, kind, _) in METRICS {
        if let Histogram(buckets) = kind {
            builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets)?;
        }
    }
    let recorder = builder.build_recorder();
    for (name, kind, help) in METRICS {
        let (key, help) = (KeyName::from(*name), SharedString::from(*help));
        match kind {
            Counter => recorder.describe_counter(key, None, help),
            Gauge => recorder.describe_gauge(key, None, help),
            Histogram(_) => recorder.describe_histogram(key, Some(Unit::Seconds), help),
        }
    }
    Ok(recorder)
}

/// Makes a recorder the process's own. Before anything is counted: what was counted before is lost.
///
/// # Errors
/// [`NotInstalled`] when the process has one already.
pub fn install() -> Result<PrometheusHandle, NotInstalled> {
    let recorder = recorder().map_err(|error| NotInstalled(error.to_string()))?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|error| NotInstalled(error.to_string()))?;
    Ok(handle)
}

/// The process has a recorder already.
#[derive(Debug, thiserror::Error)]
#[error("the metrics cannot be recorded: {0}")]
pub struct NotInstalled(String);

/// Puts gathered samples into their buckets, again and again. Never ends: drop it to stop.
pub async fn upkeep(handle: &PrometheusHandle) {
    let mut turns = tokio::time::interval(UPKEEP);
    loop {
        turns.tick().await;
        handle.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_rendered_with_its_type_and_help() {
        let recorder = recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            for (name, kind, _) in METRICS {
                match kind {
                    Counter => metrics::counter!(*name).increment(1),
                    Gauge => metrics::gauge!(*name).set(1.0),
                    Histogram(_) => metrics::histogram!(*name).record(0.2),
                }
            }
        });
        let text = recorder.handle().render();
        for (name, kind, help) in METRICS {
            let word = match kind {
                Counter => "counter",
                Gauge => "gauge",
                Histogram(_) => "histogram",
            };
            assert!(text.contains(&format!("# TYPE {name} {word}\n")), "{name}: {text}");
            assert!(text.contains(&format!("# HELP {name} {help}\n")), "{name}: {text}");
        }
        assert!(text.contains("emailer_send_seconds_bucket{le=\"600\"} 1\n"), "{text}");
    }

    #[test]
    fn buckets_rise() {
        assert!([REQUEST, SEND, TO_SENT].iter().all(|buckets| buckets.is_sorted()));
    }
}
