//! Start times at a fixed rate.

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{Mutex, mpsc};

use crate::clock::now_ns;

/// The start of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    /// Its ordinal, from 0.
    pub(super) index: u64,
    /// When it was meant to be.
    pub(super) at: Instant,
    /// The same in nanoseconds since 1970.
    pub(super) at_ns: u64,
}

/// Hands out start times when they have come.
pub(super) struct Pace {
    starts: Mutex<mpsc::UnboundedReceiver<Start>>,
}

impl Pace {
    /// Starts the clock for so many requests. It has a thread of its own: a thread sleeps more exactly than the
    /// runtime's timer, whose grain is 1 ms.
    pub(super) fn start(rate: f64, requests: u64) -> anyhow::Result<Self> {
        anyhow::ensure!(rate.is_finite() && rate > 0.0, "rate {rate}: a number over 0 is expected");
        let period = Duration::try_from_secs_f64(1.0 / rate).context("the rate is too low")?;
        let (sender, starts) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let mut at = Instant::now();
            for index in 0..requests {
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                let late = u64::try_from(at.elapsed().as_nanos()).unwrap_or(0);
                let at_ns = now_ns().saturating_sub(late);
                if sender.send(Start { index, at, at_ns }).is_err() {
                    return;
                }
                at += period;
            }
        });
        Ok(Self { starts: Mutex::new(starts) })
    }

    /// Waits for the next start; none when all have been.
    pub(super) async fn next(&self) -> Option<Start> {
        self.starts.lock().await.recv().await
    }
}
