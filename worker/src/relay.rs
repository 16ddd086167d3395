//! Whether a relay can take mail: paused by whoever finds that it cannot, probed without a job, known to the fleet.
//!
//! What always holds: while a relay is paused no session opens a connection to it and nothing is claimed for it; the
//! first connection after a start or a pause logs in alone; no job pays for a relay that is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use shared::classify::{Failure, Meaning, classify};
use shared::clock::Clock;
use shared::queue::{ConsumerId, PauseCause, Queue, RelayPause};
use shared::reply::LastReply;
use shared::settings::Smtp;
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Meters, Phase};
use crate::smtp::{Connection, Connector};

/// The pause before the first probe.
const FIRST_PROBE: Duration = Duration::from_secs(5);

/// How often the fleet's knowledge is read.
const LOOK: Duration = Duration::from_secs(1);

/// A relay, as this process knows it.
pub(crate) struct Relay {
    smtp: Arc<Smtp>,
    me: ConsumerId,
    queue: Arc<dyn Queue>,
    clock: Arc<dyn Clock>,
    meters: Arc<Meters>,
    pause: watch::Sender<Option<RelayPause>>,
    /// A pause that the board has not been told yet.
    untold: AtomicBool,
    /// Wakes the watch: there is a new pause.
    paused_now: Notify,
    /// Whether a connection has logged in since the start or the last pause.
    proven: AtomicBool,
    /// Pauses since the relay took a message.
    pauses: AtomicU32,
    /// Held by the connection that logs in alone.
    alone: Mutex<()>,
}

/// Why there is no connection.
pub(crate) enum NotOpen {
    /// The relay is paused.
    Paused,
    /// It could not be opened.
    Failed(Failure),
}

impl Relay {
    pub(crate) fn new(
        smtp: Arc<Smtp>,
        me: ConsumerId,
        queue: Arc<dyn Queue>,
        clock: Arc<dyn Clock>,
        meters: Arc<Meters>,
    ) -> Self {
        meters.relay_up(true);
        Self {
            smtp,
            me,
            queue,
            clock,
            meters,
            pause: watch::Sender::new(None),
            untold: AtomicBool::new(false),
            paused_now: Notify::new(),
            proven: AtomicBool::new(false),
            pauses: AtomicU32::new(0),
            alone: Mutex::new(()),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.smtp.name
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.pause.borrow().is_some()
    }

    /// Ends when the relay can take mail.
    pub(crate) async fn usable(&self) {
        let mut pause = self.pause.subscribe();
        // The sender lives as long as `self`, so that waiting cannot fail.
        drop(pause.wait_for(Option::is_none).await);
    }

    /// Opens a connection: the first one alone, so that a wrong password is tried once and not once per connection.
    pub(crate) async fn open(&self, connector: &Connector) -> Result<Connection, NotOpen> {
        if self.is_paused() {
            return Err(NotOpen::Paused);
        }
        if self.proven.load(Ordering::Acquire) {
            return self.open_now(connector).await;
        }
        let _alone = self.alone.lock().await;
        if self.is_paused() {
            return Err(NotOpen::Paused);
        }
        let connection = self.open_now(connector).await;
        // Said before the next one may try: a wrong password is tried once.
        if let Err(NotOpen::Failed(failure)) = &connection
            && classify(failure, false) == Meaning::RelayDown
        {
            self.down(failure.last_reply()).await;
        }
        self.proven.store(connection.is_ok(), Ordering::Release);
        connection
    }

    async fn open_now(&self, connector: &Connector) -> Result<Connection, NotOpen> {
        let began = Instant::now();
        let connection = connector.open().await.map_err(NotOpen::Failed)?;
        self.meters.took(Phase::Connect, began.elapsed());
        Ok(connection)
    }

    /// The relay cannot be used: it is paused and probed.
    pub(crate) async fn down(&self, reply: LastReply) {
        // One that answers probes and then refuses every message is left alone for longer each time.
        let probes = if self.is_paused() {
            self.pauses.load(Ordering::Relaxed).saturating_sub(1)
        } else {
            self.pauses.fetch_add(1, Ordering::Relaxed)
        };
        self.pause(PauseCause::Down, self.before_probe(probes), probes, reply).await;
    }

    /// The pause before a probe, when so many have been in vain.
    fn before_probe(&self, probes: u32) -> Duration {
        FIRST_PROBE.saturating_mul(2u32.saturating_pow(probes.min(16))).min(self.smtp.probe_max)
    }

    /// The relay has taken a message.
    pub(crate) fn took_one(&self) {
        if self.pauses.load(Ordering::Relaxed) > 0 {
            self.pauses.store(0, Ordering::Relaxed);
        }
    }

    /// The relay wants us to slow down.
    pub(crate) async fn throttle(&self, wait: Duration, reply: LastReply) {
        self.pause(PauseCause::Throttled, wait, 0, reply).await;
    }

    async fn pause(&self, cause: PauseCause, wait: Duration, probes: u32, reply: LastReply) {
        let now = self.clock.now();
        let first = RelayPause { since: now, until: now + wait, probes, cause, reply: reply.clone() };
        let was_open = self.pause.send_replace(Some(first)).is_none();
        self.proven.store(false, Ordering::Release);
        self.meters.relay_up(cause == PauseCause::Throttled);
        if was_open {
            match cause {
                PauseCause::Down => tracing::error!(
                    relay = self.name(), %reply, pause.secs = wait.as_secs(),
                    "the relay cannot be used: its jobs wait and cost no attempt; it is probed",
                ),
                PauseCause::Throttled => tracing::warn!(
                    relay = self.name(), %reply, pause.secs = wait.as_secs(),
                    "the relay asks to slow down: its jobs wait and cost no attempt",
                ),
            }
        }
        match self.queue.pause_relay(self.name(), cause, wait, probes, reply).await {
            Ok(pause) => {
                self.untold.store(false, Ordering::Release);
                self.pause.send_replace(Some(pause));
            }
            Err(error) => {
                self.untold.store(true, Ordering::Release);
                tracing::warn!(relay = self.name(), %error, "the fleet is not told of the pause yet");
            }
        }
        self.paused_now.notify_one();
    }

    fn resume(&self) {
        if self.pause.send_replace(None).is_some() {
            self.meters.relay_up(true);
            tracing::info!(relay = self.name(), "the relay is in use again");
        }
    }

    /// Follows what the fleet knows of the relay and probes it when that is due, until the worker is done.
    pub(crate) async fn watch(self: Arc<Self>, connector: Connector, done: CancellationToken) {
        loop {
            tokio::select! {
                () = self.look(&connector) => {}
                () = done.cancelled() => return,
            }
            // A pause that is over, and still there, is another process' to end: it probes.
            let left = self.pause.borrow().as_ref().map(|pause| pause.until.since(self.clock.now()));
            let left = left.filter(|left| !left.is_zero());
            let wait = left.unwrap_or(LOOK).clamp(Duration::from_millis(10), LOOK);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.paused_now.notified() => {}
                () = done.cancelled() => return,
            }
        }
    }

    async fn look(&self, connector: &Connector) {
        let here = self.pause.borrow().clone();
        if let (true, Some(pause)) = (self.untold.load(Ordering::Acquire), &here) {
            let left = pause.until.since(self.clock.now());
            return self.pause(pause.cause, left, pause.probes, pause.reply.clone()).await;
        }
        match self.queue.relay_pause(self.name()).await {
            Ok(None) => self.resume(),
            Ok(Some(pause)) => {
                let is_over = pause.until <= self.clock.now();
                self.learn(&pause);
                if is_over {
                    self.end_pause(connector, &pause).await;
                }
            }
            // What this process knows stands until the board can be read.
            Err(error) => tracing::debug!(%error, "the fleet's knowledge of the relay cannot be read"),
        }
    }

    /// Takes over what another process found.
    fn learn(&self, pause: &RelayPause) {
        if self.pause.send_replace(Some(pause.clone())).is_none() {
            self.proven.store(false, Ordering::Release);
            self.meters.relay_up(pause.cause == PauseCause::Throttled);
            tracing::warn!(relay = self.name(), reply = %pause.reply, "another worker has paused the relay");
        }
    }

    async fn end_pause(&self, connector: &Connector, pause: &RelayPause) {
        let lease = self.smtp.connect_timeout + 4 * self.smtp.command_timeout;
        match self.queue.take_probe(self.name(), &self.me, lease).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return tracing::debug!(%error, "no probe while the queue does not answer"),
        }
        if pause.cause == PauseCause::Down
            && let Err(failure) = connector.probe().await
        {
            return self.probe_failed(pause, &failure).await;
        }
        match self.queue.resume_relay(self.name()).await {
            Ok(()) => self.resume(),
            Err(error) => {
                tracing::warn!(relay = self.name(), %error, "the relay answers; the fleet is told later");
            }
        }
    }

    async fn probe_failed(&self, pause: &RelayPause, failure: &Failure) {
        let probes = pause.probes.saturating_add(1);
        let doubled = self.before_probe(probes);
        let wait = match classify(failure, false) {
            Meaning::Throttled { wait } => wait.max(doubled),
            _ => doubled,
        };
        tracing::warn!(
            relay = self.name(), reply = %failure.last_reply(), probes, next_probe.secs = wait.as_secs(),
            "the relay still cannot be used",
        );
        self.pause(PauseCause::Down, wait, probes, failure.last_reply()).await;
    }
}
