//! Stopping softly, then hard.
//!
//! The soft stop asks: take no new work, end what is begun. The hard stop comes after `shutdown.timeout`: let go.
//! Whoever spawns tasks tracks them, so that a program ends when all have ended.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The two stops, and the tasks that they stop. Clones are the same stops.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    soft: CancellationToken,
    hard: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Not stopping.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the soft stop.
    pub fn stop(&self) {
        self.soft.cancel();
    }

    /// Whether the soft stop has been asked for.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Ends when the soft stop is asked for.
    pub async fn stopping(&self) {
        self.soft.cancelled().await;
    }

    /// Whether the time for an orderly end is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.hard.is_cancelled()
    }

    /// Ends when the time for an orderly end is over.
    pub async fn over(&self) {
        self.hard.cancelled().await;
    }

    /// Spawns a task that [`Shutdown::drain`] waits for.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// Stops softly, waits for the tasks at most `timeout`, then stops hard and waits for them once more: after the
    /// hard stop a task ends at once. Returns whether the soft stop was enough.
    pub async fn drain(&self, timeout: Duration) -> bool {
        self.stop();
        self.tasks.close();
        let in_time = tokio::time::timeout(timeout, self.tasks.wait()).await.is_ok();
        self.hard.cancel();
        self.tasks.wait().await;
        in_time
    }
}
