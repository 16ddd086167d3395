//! The queue's conformance suite on a Redis server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use shared::clock::{Clock, SystemClock, Timestamp};
use shared::queue::conformance::{Harness, suite};
use shared::queue::{Limits, Queue};

use crate::redis_server::{Server, connect_to};

pub(crate) struct Redis {
    server: Server,
    walk: Walk,
    /// Queues so far.
    opened: AtomicU32,
}

/// How the random walk is gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walk {
    pub(crate) seed: u64,
    pub(crate) walks: u64,
    pub(crate) steps: usize,
    pub(crate) unit: Duration,
}

impl Walk {
    /// Among the tests.
    pub(crate) const SHORT: Self = Self { seed: 1, walks: 2, steps: 250, unit: Duration::from_millis(150) };
}

impl Redis {
    pub(crate) async fn for_a_walk(walk: Walk) -> Self {
        let server = Server::start(&["--appendfsync", "no"]).await;
        Self { server, walk, opened: AtomicU32::new(0) }
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
        self.walk.unit
    }

    fn seed(&self) -> u64 {
        self.walk.seed
    }

    fn walks(&self) -> u64 {
        self.walk.walks
    }

    fn walk_steps(&self) -> usize {
        self.walk.steps
    }
}

suite!(Redis::for_a_walk(Walk::SHORT));
