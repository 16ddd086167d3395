//! Which backend the settings name, opened: the one place that knows all of them.

use std::sync::Arc;
use std::time::Duration;

use super::memory::MemoryQueue;
use super::redis::{ConnectError, RedisQueue};
use super::{Queue, Unavailable};
use crate::clock::Clock;
use crate::settings::{Backend, QueueSettings};

/// How often a server that does not answer is asked again at the start, and the pause in between: it may be starting,
/// too, and reading its files.
const ATTEMPTS: u32 = 30;
const PAUSE: Duration = Duration::from_secs(1);

/// Why there is no queue.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Redis.
    #[error(transparent)]
    Redis(#[from] ConnectError),
}

impl OpenError {
    /// Whether it may be there in a moment.
    const fn may_pass(&self) -> bool {
        matches!(self, Self::Redis(ConnectError::Unavailable(Unavailable { .. })))
    }
}

/// Opens the queue; waits half a minute for a server that does not answer, unless it is `at_once`.
///
/// # Errors
/// [`OpenError`].
pub async fn open(
    settings: &QueueSettings,
    clock: Arc<dyn Clock>,
    at_once: bool,
) -> Result<Arc<dyn Queue>, OpenError> {
    let mut left = if at_once { 0 } else { ATTEMPTS };
    loop {
        match attempt(settings, &clock).await {
            Err(error) if left > 0 && error.may_pass() => {
                tracing::warn!(%error, attempts.left = left, "waiting for the queue");
                left -= 1;
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}

async fn attempt(settings: &QueueSettings, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Queue>, OpenError> {
    let limits = settings.limits.clone();
    Ok(match &settings.backend {
        Backend::Memory => Arc::new(MemoryQueue::new(limits, Arc::clone(clock))),
        Backend::Redis(redis) => {
            Arc::new(Box::pin(RedisQueue::connect(redis, &settings.name, limits)).await?)
        }
    })
}
