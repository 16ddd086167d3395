//! The memory queue, on tokio's clock: paused, and moved by the cases.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shared::clock::{Clock, Timestamp, TokioClock};
use shared::queue::conformance::{Harness, suite};
use shared::queue::memory::MemoryQueue;
use shared::queue::{Limits, Queue};

struct Memory {
    clock: TokioClock,
}

impl Memory {
    #[expect(clippy::unused_async, reason = "the suite awaits a harness: others connect")]
    async fn start() -> Self {
        tokio::time::pause();
        Self { clock: TokioClock::new(Timestamp::from_millis(1_795_000_000_000)) }
    }
}

#[async_trait]
impl Harness for Memory {
    async fn open(&self, limits: Limits, handles: usize) -> Vec<Arc<dyn Queue>> {
        let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new(limits, Arc::new(self.clock)));
        vec![queue; handles]
    }

    async fn pass(&self, time: Duration) {
        tokio::time::advance(time).await;
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn unit(&self) -> Duration {
        Duration::from_mins(1)
    }
}

suite!(Memory::start());
