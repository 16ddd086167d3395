//! Makes due jobs ready, fails expired ones, removes old records: a loop of its own, so that a retry never waits for
//! a free connection.

use std::sync::Arc;
use std::time::Duration;

use shared::job::{Reason, Status};
use shared::queue::Queue;
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// The longest pause between two rounds: a job that another process schedules is noticed no later.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Runs until the worker is done.
pub(crate) async fn run(queue: Arc<dyn Queue>, done: CancellationToken) {
    loop {
        let pause = match queue.maintain().await {
            Ok(did) => {
                for job in &did.expired {
                    tracing::warn!(%job, "failed: not sent within jobs.expire_after");
                    metrics::finished(Status::Failed, Some(Reason::Expired)).increment(1);
                }
                if did.promoted > 0 || !did.expired.is_empty() || did.removed > 0 {
                    Duration::ZERO
                } else {
                    did.next_due
                        .map_or(LONGEST_PAUSE, |due| due.clamp(Duration::from_millis(1), LONGEST_PAUSE))
                }
            }
            Err(error) => {
                tracing::warn!(%error, "scheduled mail and retries wait");
                LONGEST_PAUSE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = done.cancelled() => return,
        }
    }
}
