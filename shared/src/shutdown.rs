//! Stopping softly, then hard.
//!
//! The soft stop asks: take no new work, end what is begun. The hard stop comes after `shutdown.timeout`: let go.
//! Whoever spawns tasks tracks them, so that a program ends when all have ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The two stops, and the tasks that they stop. Clones are the same stops.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Shared by those who promise something now; the soft stop waits for them.
    promising: Arc<RwLock<()>>,
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

    /// Held by whoever gives a promise that this process alone can keep: a soft stop begins before it or after it. None:
    /// it has begun.
    pub async fn promise(&self) -> Option<RwLockReadGuard<'_, ()>> {
        let promise = self.promising.read().await;
        (!self.is_stopping()).then_some(promise)
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
        let end = Instant::now() + timeout;
        // Whoever promises takes no longer than a queue takes to answer.
        let promised = tokio::time::timeout_at(end, self.promising.write()).await;
        self.stop();
        drop(promised);
        self.tasks.close();
        let in_time = tokio::time::timeout_at(end, self.tasks.wait()).await.is_ok();
        self.hard.cancel();
        self.tasks.wait().await;
        in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn promise_is_given_before_the_stop_or_not_at_all() {
        let shutdown = Shutdown::new();
        let promise = shutdown.promise().await.unwrap();
        let stopping = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.drain(Duration::from_secs(9)).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!shutdown.is_stopping(), "it stopped while a promise was being given");
        drop(promise);
        assert!(stopping.await.unwrap());
        assert!(shutdown.promise().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn stop_does_not_wait_for_ever_for_a_promise() {
        let shutdown = Shutdown::new();
        let _promise = shutdown.promise().await.unwrap();
        shutdown.drain(Duration::from_secs(9)).await;
        assert!(shutdown.is_stopping());
    }
}
