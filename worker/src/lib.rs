//! The delivery side of Emailer: claims jobs, composes and sends their messages, settles them.
//!
//! ```text
//!            permits        jobs                     settlements
//!  consumer ─────────► lease ─────► session × n ──────────────► settle
//!   claims   what fits  renewed     one connection each          flushed in batches, never dropped
//!                                        │
//!                                      relay   paused while it cannot take mail; probed without a job
//! ```
//! [`start`] runs it: in the worker's binary beside Redis, in the API's process beside the memory queue.

pub mod check;
pub mod compose;
mod consumer;
mod decide;
mod dispatch;
pub mod health;
mod lease;
mod maintain;
mod metrics;
pub mod program;
mod relay;
mod session;
mod settle;
pub mod smtp;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use shared::clock::Clock;
use shared::queue::{ConsumerId, Queue};
use shared::settings::{Settings, TransportKind};
use shared::shutdown::Shutdown;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::compose::Composer;
use crate::consumer::Consumer;
use crate::dispatch::Dispatch;
use crate::lease::Leases;
use crate::metrics::Meters;
use crate::relay::Relay;
use crate::session::{Desk, Line};
use crate::settle::Settler;
use crate::smtp::{Connector, ConnectorError};

/// How many deliveries are in hand for each connection, at most, beside the one that may be claimed ahead: a job in hand
/// is out of other workers' reach, and soon has to get its turn.
const IN_HAND: usize = 4;

/// What a worker stands on. The caller owns all of it.
#[derive(Clone)]
pub struct Deps {
    /// What it was told.
    pub settings: Arc<Settings>,
    /// Where its jobs come from.
    pub queue: Arc<dyn Queue>,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// When to stop. The worker's tasks are tracked by it.
    pub shutdown: Shutdown,
    /// What a soft stop means for jobs that are ready.
    pub drain: Drain,
}

impl Deps {
    /// Ends when a stop wants back in the queue what has not gone out.
    async fn handing_back(&self) {
        match self.drain {
            Drain::HandBack => self.shutdown.stopping().await,
            Drain::SendDue => self.shutdown.over().await,
        }
    }
}

/// What a soft stop means for jobs that are ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// Others will send them: stop claiming, hand back what has not gone out.
    HandBack,
    /// Nobody else will: go on sending what is due until the time is over.
    SendDue,
}

/// A running worker.
#[derive(Clone)]
pub struct Worker {
    settler: Arc<Settler>,
    leases: Arc<Leases>,
}

impl Worker {
    /// Whether it can do its work: the queue takes its settlements. Independent of the relay.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.settler.is_healthy()
    }

    /// How many jobs are in its hands.
    #[must_use]
    pub fn held(&self) -> usize {
        self.leases.len()
    }
}

/// Starts a worker: a few tasks, tracked by `deps.shutdown`.
///
/// # Errors
/// When the relay's settings cannot be used, such as an unreadable `smtp.ca_file`.
pub fn start(deps: &Deps) -> Result<Worker, ConnectorError> {
    let me = ConsumerId::generate();
    let Deps { settings, queue, clock, shutdown, .. } = deps;
    let smtp = Arc::new(settings.smtp.clone());
    let connector = match settings.mail.transport {
        TransportKind::Smtp => Some(Connector::try_new(Arc::clone(&smtp))?),
        TransportKind::Outbox => None,
    };
    let connections = settings.max_workers.min(smtp.max_connections).max(1);
    let meters = Arc::new(Meters::new(&smtp.name, connections));
    let leases = Arc::new(Leases::new(me.clone(), Arc::clone(queue), settings.queue.limits.lease));
    let settler = Settler::new(
        me.clone(),
        Arc::clone(queue),
        Arc::clone(&leases),
        Arc::clone(&meters),
        2 * connections,
    );
    let settler = Arc::new(settler);
    let relay = Relay::new(smtp, me.clone(), Arc::clone(queue), Arc::clone(clock), Arc::clone(&meters));
    let relay = Arc::new(relay);
    let done = CancellationToken::new();

    // Per connection one job being sent and one behind its final dot. Where more deliveries than connections are
    // allowed, more are in hand, so that a session need not wait for a claim.
    let permits = connections + settings.max_workers.min(IN_HAND * connections);
    let jobs = Arc::new(Dispatch::new());
    let desk = Desk {
        deps: deps.clone(),
        relay: Arc::clone(&relay),
        leases: Arc::clone(&leases),
        settler: Arc::clone(&settler),
        composer: Arc::new(Composer::default()),
        meters,
        jobs: Arc::clone(&jobs),
    };
    for _ in 0..connections {
        let desk = desk.clone();
        if let Some(connector) = connector.clone() {
            shutdown.spawn(again(move || Line::new(desk.clone(), connector.clone()).run()));
        } else {
            shutdown.spawn(again(move || desk.clone().keep_all()));
        }
    }
    if let Some(connector) = connector {
        shutdown.spawn(vital("relay", Arc::clone(&relay).watch(connector, done.clone())));
    }
    shutdown.spawn(vital("leases", lease::renew(Arc::clone(&leases), done.clone())));
    shutdown.spawn(vital("maintenance", maintain::run(Arc::clone(queue), done.clone())));
    shutdown.spawn(vital("settler", Arc::clone(&settler).run()));
    let consumer = Consumer {
        me: me.clone(),
        deps: deps.clone(),
        relay,
        leases: Arc::clone(&leases),
        settler: Arc::clone(&settler),
        permits: Arc::new(Semaphore::new(permits)),
        permits_in_all: permits,
        connections,
        jobs,
    };
    let end =
        End { me, deps: deps.clone(), settler: Arc::clone(&settler), leases: Arc::clone(&leases), done };
    let consume = async move {
        // The consumer may be waiting for its queue or for a permit.
        let at_the_stop = async {
            if desk.deps.drain == Drain::HandBack {
                desk.deps.shutdown.stopping().await;
                desk.release_waiting();
            }
        };
        tokio::join!(consumer.run(), at_the_stop);
        desk.release_waiting();
        end.close().await;
    };
    shutdown.spawn(vital("consumer", consume));
    Ok(Worker { settler, leases })
}

/// A session that panics loses its message to the next holder, and begins anew.
async fn again<F: Future<Output = ()>>(mut session: impl FnMut() -> F) {
    while AssertUnwindSafe(session()).catch_unwind().await.is_err() {
        tracing::error!("a session panicked: its job is taken over when its lease ends; it begins anew");
    }
}

/// A worker without this task would hold jobs and do nothing: it is better dead, and its jobs with others.
async fn vital(task: &str, run: impl Future<Output = ()>) {
    if AssertUnwindSafe(run).catch_unwind().await.is_err() {
        tracing::error!(task, "panicked: the process ends");
        std::process::abort();
    }
}

/// The last things: what was settled is told to the queue, the consumer is taken off its list.
struct End {
    me: ConsumerId,
    deps: Deps,
    settler: Arc<Settler>,
    leases: Arc<Leases>,
    done: CancellationToken,
}

/// How long the queue may take for the last settlements after a hard stop.
const LAST_FLUSH: Duration = Duration::from_secs(5);

impl End {
    async fn close(self) {
        let over = async {
            self.deps.shutdown.over().await;
            tokio::time::sleep(LAST_FLUSH).await;
        };
        tokio::select! {
            () = self.leases.all_settled() => {}
            () = over => {
                let (jobs, settlements) = (self.leases.len(), self.settler.waiting());
                tracing::error!(jobs, settlements, "stopped with jobs in hand; they return when their lease ends");
            }
        }
        self.done.cancel();
        self.settler.close();
        if let Err(error) = self.deps.queue.leave(&self.me).await {
            tracing::warn!(%error, "the consumer stays listed until its lease ends");
        }
    }
}
