//! What the API counts. Handles are made once, for each of the server's threads: counting is an atomic addition.
//!
//! Names, buckets and the recorder are in [`shared::metrics`].

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::http::{Method, StatusCode};
use metrics::{Counter, Histogram, counter, gauge, histogram};
use shared::job::{Priority, Status};
use shared::queue::{Queue, Stats};

/// The handles of one route, in one of the server's threads.
pub(crate) struct RouteMeters {
    pattern: &'static str,
    seconds: Histogram,
    /// One for each method and status that has been answered: a handful.
    answers: RefCell<Vec<(&'static str, StatusCode, Counter)>>,
}

impl RouteMeters {
    /// `pattern` is the label: it names no id.
    pub(crate) fn new(pattern: &'static str) -> Self {
        let seconds = histogram!("emailer_http_request_seconds", "route" => pattern);
        Self { pattern, seconds, answers: RefCell::default() }
    }

    pub(crate) fn pattern(&self) -> &'static str {
        self.pattern
    }

    /// A request was answered.
    pub(crate) fn answered(&self, method: &Method, status: StatusCode, time: Duration) {
        self.seconds.record(time);
        let method = word(method);
        let mut answers = self.answers.borrow_mut();
        let known = answers.iter().find(|(m, s, _)| (*m, *s) == (method, status));
        if let Some((_, _, counter)) = known {
            counter.increment(1);
            return;
        }
        let counter = counter!(
            "emailer_http_requests_total",
            "route" => self.pattern, "method" => method, "status" => status.as_str().to_owned(),
        );
        counter.increment(1);
        answers.push((method, status, counter));
    }
}

/// A method as a label: what a client makes up is not one.
fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// What is counted of jobs.
pub(crate) struct JobMeters {
    accepted: Counter,
    cancelled: Counter,
}

impl JobMeters {
    pub(crate) fn new() -> Self {
        let cancelled = counter!(
            "emailer_jobs_finished_total", "status" => Status::Cancelled.as_str(), "reason" => "",
        );
        Self { accepted: counter!("emailer_jobs_accepted_total"), cancelled }
    }

    /// Jobs were promised.
    pub(crate) fn accepted(&self, jobs: u32) {
        self.accepted.increment(u64::from(jobs));
    }

    /// Jobs ended by a person's word.
    pub(crate) fn cancelled(&self, jobs: u64) {
        self.cancelled.increment(jobs);
    }
}

/// How often the queue is asked, at most, whoever scrapes.
const READ_EVERY: Duration = Duration::from_secs(1);

/// The queue's gauges, read at most once a second.
#[derive(Default)]
pub(crate) struct QueueGauges {
    read_at: Mutex<Option<Instant>>,
}

impl QueueGauges {
    pub(crate) async fn refresh(&self, queue: &dyn Queue) {
        if !self.take_turn(Instant::now()) {
            return;
        }
        match queue.stats().await {
            Ok(stats) => set(&stats),
            Err(error) => tracing::warn!(%error, "the queue's gauges are old"),
        }
    }

    fn take_turn(&self, now: Instant) -> bool {
        let mut read_at = self.read_at.lock().unwrap_or_else(PoisonError::into_inner);
        if read_at.is_some_and(|at| now.duration_since(at) < READ_EVERY) {
            return false;
        }
        *read_at = Some(now);
        true
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_is_read_at_most_once_a_second() {
        let gauges = QueueGauges::default();
        let now = Instant::now();
        let turns = [0, 400, 999, 1_000, 1_500, 2_000, 5_000];
        let taken = turns.map(|after| gauges.take_turn(now + Duration::from_millis(after)));
        assert_eq!(taken, [true, false, false, true, false, true, true]);
    }

    #[test]
    fn method_that_a_client_makes_up_is_no_label() {
        assert_eq!(word(&Method::from_bytes(b"BREW").unwrap()), "other");
        assert_eq!(word(&Method::PATCH), "PATCH");
    }
}
