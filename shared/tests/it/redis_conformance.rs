//! The queue's conformance suite on a Redis server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shared::clock::{Clock, SystemClock, Timestamp};
use shared::queue::conformance::{Harness, suite};
use shared::queue::{Limits, Queue};

use crate::redis_server::{Server, connect};

struct Redis {
    server: Server,
}

impl Redis {
    async fn start() -> Self {
        Self {
            server: Server::start(&["--appendfsync", "no"]).await,
        }
    }
}

#[async_trait]
impl Harness for Redis {
    async fn open(&self, limits: Limits, handles: usize) -> Vec<Arc<dyn Queue>> {
        let mut queues: Vec<Arc<dyn Queue>> = Vec::new();
        for _ in 0..handles {
            queues.push(Arc::new(connect(&self.server.url(), limits.clone()).await));
        }
        queues
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    fn now(&self) -> Timestamp {
        // The server's clock is this machine's.
        SystemClock.now()
    }

    fn unit(&self) -> Duration {
        Duration::from_millis(150)
    }

    fn walk_steps(&self) -> usize {
        500
    }
}

suite!(Redis::start());
