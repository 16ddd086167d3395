//! What the delivery side counts, under the names that the README documents. Handles are made once: counting is an
//! atomic addition.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use shared::classify::Meaning;
use shared::clock::Timestamp;
use shared::job::{OnAmbiguous, Reason, Status};
use shared::queue::Verdict;
use shared::reply::Stage;

/// How an attempt ended: the label `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Sent,
    Deferred,
    Rejected,
    Ambiguous,
    Connection,
    Tls,
    Auth,
    Throttled,
    NotBuilt,
}

impl Outcome {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Sent, "sent"),
        (Self::Deferred, "deferred"),
        (Self::Rejected, "rejected"),
        (Self::Ambiguous, "ambiguous"),
        (Self::Connection, "connection"),
        (Self::Tls, "tls"),
        (Self::Auth, "auth"),
        (Self::Throttled, "throttled"),
        (Self::NotBuilt, "not_built"),
    ];

    /// What a failure counts as.
    pub(crate) fn of(meaning: Meaning, stage: Stage) -> Self {
        match (meaning, stage) {
            (Meaning::Ambiguous, _) => Self::Ambiguous,
            (Meaning::Throttled { .. }, _) => Self::Throttled,
            (Meaning::RelayDown, Stage::Tls) => Self::Tls,
            (Meaning::RelayDown, Stage::Connect | Stage::Greeting | Stage::Ehlo)
            | (Meaning::Reconnect, _) => Self::Connection,
            (Meaning::RelayDown, _) => Self::Auth,
            (Meaning::Deferred, _) => Self::Deferred,
            (Meaning::Rejected | Meaning::OurFault, _) => Self::Rejected,
        }
    }
}

/// A part of a delivery that is timed: the label `phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Connect, TLS and login together: a connection that is ready for its first message.
    Connect,
    /// MAIL, RCPT and DATA, up to the 354.
    Envelope,
    /// The content and the wait for the reply to the final dot.
    Reply,
}

/// The handles of one relay.
pub(crate) struct Meters {
    attempts: Vec<Counter>,
    retries: Counter,
    sent: Counter,
    seconds: [Histogram; 3],
    time_to_sent: Histogram,
    busy: Gauge,
    connections_idle: Gauge,
    connections_busy: Gauge,
    relay_up: Gauge,
}

impl Meters {
    /// `deliveries`: how many can run at once.
    pub(crate) fn new(relay: &str, deliveries: usize) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a number of connections")]
        gauge!("emailer_workers_max").set(deliveries as f64);
        let seconds = |phase: &'static str| histogram!("emailer_send_seconds", "relay" => relay.to_owned(), "phase" => phase);
        let connections = |state: &'static str| gauge!("emailer_smtp_connections", "relay" => relay.to_owned(), "state" => state);
        Self {
            attempts: Outcome::ALL
                .iter()
                .map(|(_, word)| {
                    counter!("emailer_attempts_total", "relay" => relay.to_owned(), "outcome" => *word)
                })
                .collect(),
            retries: counter!("emailer_retries_total", "relay" => relay.to_owned()),
            sent: finished(Status::Sent, None),
            seconds: [seconds("connect"), seconds("envelope"), seconds("reply")],
            time_to_sent: histogram!("emailer_time_to_sent_seconds"),
            busy: gauge!("emailer_workers_busy"),
            connections_idle: connections("idle"),
            connections_busy: connections("busy"),
            relay_up: gauge!("emailer_relay_up", "relay" => relay.to_owned()),
        }
    }

    pub(crate) fn attempt(&self, outcome: Outcome) {
        if let Some(counter) = self.attempts.get(outcome as usize) {
            counter.increment(1);
        }
    }

    pub(crate) fn took(&self, phase: Phase, time: Duration) {
        if let Some(histogram) = self.seconds.get(phase as usize) {
            histogram.record(time);
        }
    }

    pub(crate) fn sent_after(&self, accepted_at: Timestamp, now: Timestamp) {
        self.time_to_sent.record(now.since(accepted_at));
    }

    /// The queue has taken a settlement.
    pub(crate) fn settled(&self, verdict: &Verdict) {
        match verdict {
            Verdict::Sent => self.sent.increment(1),
            Verdict::Retry { .. } => self.retries.increment(1),
            Verdict::Release => {}
            Verdict::Fail(reason) => finished(Status::Failed, Some(*reason)).increment(1),
            Verdict::Hold => finished(Status::Held, None).increment(1),
        }
    }

    pub(crate) fn relay_up(&self, up: bool) {
        self.relay_up.set(if up { 1.0 } else { 0.0 });
    }

    /// Counts a delivery as running until it is let go of.
    pub(crate) fn busy(&self) -> Busy {
        self.busy.increment(1.0);
        Busy(self.busy.clone())
    }

    /// Counts a connection, as idle at first.
    pub(crate) fn connection(&self) -> ConnectionMeter {
        self.connections_idle.increment(1.0);
        ConnectionMeter {
            idle: self.connections_idle.clone(),
            busy: self.connections_busy.clone(),
            is_busy: false,
        }
    }
}

/// Counts an end that no settlement of this process brought: expired, poison.
pub(crate) fn finished(status: Status, reason: Option<Reason>) -> Counter {
    let reason = reason.map_or("", Reason::as_str);
    counter!("emailer_jobs_finished_total", "status" => status.as_str(), "reason" => reason)
}

/// Counts a message whose fate the relay left open.
pub(crate) fn ambiguous(policy: OnAmbiguous) {
    counter!("emailer_ambiguous_total", "policy" => policy.as_str()).increment(1);
}

/// A running delivery.
pub(crate) struct Busy(Gauge);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// An open connection.
pub(crate) struct ConnectionMeter {
    idle: Gauge,
    busy: Gauge,
    is_busy: bool,
}

impl ConnectionMeter {
    pub(crate) fn set_busy(&mut self, is_busy: bool) {
        if self.is_busy != is_busy {
            let (from, to) = if is_busy { (&self.idle, &self.busy) } else { (&self.busy, &self.idle) };
            from.decrement(1.0);
            to.increment(1.0);
            self.is_busy = is_busy;
        }
    }
}

impl Drop for ConnectionMeter {
    fn drop(&mut self) {
        if self.is_busy { &self.busy } else { &self.idle }.decrement(1.0);
    }
}
