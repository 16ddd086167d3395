//! The queue's conformance suite on a Redis server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use shared::clock::{Clock, SystemClock, Timestamp};
use shared::queue::conformance::{Harness, suite};
use shared::queue::{Limits, Queue};

use crate::redis_server::{Server, connect_to};

struct Redis {
    server: Server,
    /// Queues so far.
    opened: AtomicU32,
}

impl Redis {
    async fn start() -> Self {
        let server = Server::start(&["--appendfsync", "no"]).await;
        Self { server, opened: AtomicU32::new(0) }
    }
}

#[async_trait]
impl Harness for Redis {
    async fn open(&self, limits: Limits, handles: usize) -> Vec<Arc<dyn Queue>> {
        let mut queues: Vec<Arc<dyn Queue>> = Vec::new();
        // Fresh and empty: a queue of its own on the server.
        let name = format!("queue{}", self.opened.fetch_add(1, Ordering::Relaxed));
        for _ in 0..handles {
            queues.push(Arc::new(connect_to(&self.server.url(), &name, limits.clone()).await));
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

    fn walks(&self) -> u64 {
        2
    }

    fn walk_steps(&self) -> usize {
        250
    }
}

suite!(Redis::start());
