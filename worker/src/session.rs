//! One connection and the messages that go over it, one after another.
//!
//! A message costs one round trip where the relay allows it: the next one's envelope goes behind the final dot of the
//! one before. What always holds: no content goes out without a confirmed lease and, where `on_ambiguous` is `hold`,
//! a mark; every delivery that is taken is settled or, when its lease is lost, let go of.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use shared::classify::{Cause, Failure, Meaning, classify};
use shared::job::OnAmbiguous;
use shared::queue::{Settlement, Verdict};
use shared::reply::{LastReply, Reply, Stage};
use tokio::time::Instant;

use crate::compose::{Composer, Letter, NotBuilt};
use crate::decide::{Case, verdict};
use crate::dispatch::{Dispatch, Next};
use crate::lease::{Held, Leases};
use crate::metrics::{ConnectionMeter, Meters, Outcome, Phase};
use crate::relay::{NotOpen, Relay};
use crate::settle::Settler;
use crate::smtp::{Connection, Connector};
use crate::{Deps, Drain, metrics};

/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(25);

/// How old a connection may be.
const AGE: Duration = Duration::from_mins(10);

/// A relay that takes longer for an answer is far away.
const FAR: Duration = Duration::from_millis(2);

/// How long a session waits for a job that is just being claimed, at most: the relay waits for content meanwhile.
const LONGEST_LOOK: Duration = Duration::from_millis(20);

/// What all sessions share.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) deps: Deps,
    pub(crate) relay: Arc<Relay>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) settler: Arc<Settler>,
    pub(crate) composer: Arc<Composer>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) jobs: Arc<Dispatch<Held>>,
}

/// A delivery with its message.
pub(crate) struct Item {
    pub(crate) held: Held,
    pub(crate) letter: Letter,
}

impl Desk {
    /// Whether a soft stop wants what has not gone out back in the queue.
    fn hands_back(&self) -> bool {
        self.deps.drain == Drain::HandBack && self.deps.shutdown.is_stopping()
    }

    /// Composes a delivery's message, or settles it where that is not to be sent.
    pub(crate) fn prepare(&self, held: Held) -> Option<Item> {
        if held.lost.is_cancelled() {
            return None;
        }
        let delivery = &held.delivery;
        if delivery.marked && delivery.on_ambiguous == OnAmbiguous::Hold {
            metrics::ambiguous(OnAmbiguous::Hold);
            let detail = "its worker died after the content began to go out; the relay may have it";
            self.settle(held, Verdict::Hold, None, detail);
            return None;
        }
        if self.hands_back() || self.relay.is_paused() {
            let why = if self.relay.is_paused() { "the relay is paused" } else { "the worker stops" };
            self.settle(held, Verdict::Release, None, why);
            return None;
        }
        // Whatever a message does to a library ends that message, and not the session.
        let composed = catch_unwind(AssertUnwindSafe(|| self.composer.compose(delivery)));
        match composed.unwrap_or_else(|_| Err(NotBuilt::panicked())) {
            Ok(letter) => Some(Item { held, letter }),
            Err(not_built) => {
                tracing::error!(job = %delivery.job, reason = %not_built.reason, "failed: {not_built}");
                self.meters.attempt(Outcome::NotBuilt);
                self.settle(held, Verdict::Fail(not_built.reason), None, &not_built.message);
                None
            }
        }
    }

    /// Hands back what waits for a session, where the worker stops and others send it: the sessions may wait long for
    /// their relay.
    pub(crate) fn release_waiting(&self) {
        while self.hands_back()
            && let Some(held) = self.jobs.try_next()
        {
            drop(self.prepare(held));
        }
    }

    pub(crate) fn sent(&self, held: Held, reply: Option<LastReply>) {
        self.meters.attempt(Outcome::Sent);
        self.relay.took_one();
        self.meters.sent_after(held.delivery.accepted_at, self.deps.clock.now());
        tracing::debug!(job = %held.delivery.job, attempt = held.delivery.attempt, "sent");
        self.settle(held, Verdict::Sent, reply, "");
    }

    pub(crate) fn settle(&self, held: Held, verdict: Verdict, reply: Option<LastReply>, detail: &str) {
        let settlement = Settlement {
            job: held.delivery.job,
            receipt: held.delivery.receipt,
            attempt: held.delivery.attempt,
            verdict,
            relay: reply.is_some().then(|| self.relay.name().to_owned()),
            reply,
            detail: detail.to_owned(),
        };
        self.settler.settle(held, settlement);
    }

    /// Settles a delivery that failed, and tells the relay's state what that says of it.
    async fn failed(&self, item: Item, failure: &Failure, meaning: Meaning) {
        let Item { held, .. } = item;
        let reply = failure.last_reply();
        self.meters.attempt(Outcome::of(meaning, failure.stage));
        match meaning {
            Meaning::RelayDown => self.relay.down(reply.clone()).await,
            Meaning::Throttled { wait } => self.relay.throttle(wait, reply.clone()).await,
            Meaning::Ambiguous => metrics::ambiguous(held.delivery.on_ambiguous),
            _ => {}
        }
        let delivery = &held.delivery;
        let case = Case {
            attempt: delivery.attempt,
            max_attempts: delivery.max_attempts,
            on_ambiguous: delivery.on_ambiguous,
            retry: &self.deps.settings.retry,
        };
        let verdict = verdict(meaning, case, rand::random());
        log(&held, verdict, &reply);
        let detail = if meaning == Meaning::Ambiguous { "the relay may have the message" } else { "" };
        self.settle(held, verdict, Some(reply), detail);
    }

    /// The outbox transport: keeps messages instead of sending them.
    pub(crate) async fn keep_all(self) {
        while let Next::Item(held) = self.jobs.next(None).await {
            let Some(item) = self.prepare(held) else { continue };
            let _busy = self.meters.busy();
            match self.confirm(&item).await {
                Ok(()) => {}
                Err(End::HandBack(why)) => {
                    self.settle(item.held, Verdict::Release, None, why);
                    continue;
                }
                Err(_) => continue,
            }
            let message = shared::queue::KeptMessage {
                job: item.held.delivery.job,
                at: self.deps.clock.now(),
                from: item.letter.from.as_str().to_owned(),
                to: vec![item.letter.to.as_str().to_owned()],
                source: item.letter.source,
            };
            match self.deps.queue.keep(message).await {
                Ok(()) => {
                    let reply = LastReply::heard(Stage::Dot, &Reply::new(250, "kept in the outbox"));
                    self.sent(item.held, Some(reply));
                }
                Err(error) => {
                    tracing::warn!(%error, "the outbox takes no message");
                    self.settle(item.held, Verdict::Release, None, "the outbox takes no message");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

fn log(held: &Held, verdict: Verdict, reply: &LastReply) {
    let delivery = &held.delivery;
    let (job, attempt, of) = (delivery.job, delivery.attempt, delivery.max_attempts);
    match verdict {
        Verdict::Retry { delay } => tracing::warn!(
            %job, attempt, of, retry.after_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), %reply,
            "not sent yet: will be tried again",
        ),
        Verdict::Fail(reason) => tracing::error!(%job, attempt, of, %reason, %reply, "failed"),
        Verdict::Hold => tracing::error!(%job, attempt, %reply, "held: the relay may have the message"),
        Verdict::Release => tracing::info!(%job, %reply, "back to the queue, at no cost"),
        Verdict::Sent => {}
    }
}

/// How an attempt at one message ended.
enum End {
    Sent(Reply),
    Failed(Failure),
    /// Nothing of the content has gone out, and it shall not now.
    HandBack(&'static str),
    /// The lease is lost, and nothing has gone out.
    Lost,
}

/// A connection to the relay, made when it is needed.
pub(crate) struct Line {
    desk: Desk,
    connector: Connector,
    open: Option<Open>,
}

struct Open {
    connection: Connection,
    meter: ConnectionMeter,
    since: Instant,
    used: Instant,
    /// How long the last answer to a final dot took.
    answer_took: Duration,
}

impl Line {
    pub(crate) fn new(desk: Desk, connector: Connector) -> Self {
        Self { desk, connector, open: None }
    }

    /// Sends until no more jobs come.
    pub(crate) async fn run(mut self) {
        // A message whose envelope went out behind the final dot of the one before.
        let mut ahead: Option<Item> = None;
        loop {
            let item = match ahead.take() {
                Some(item) => item,
                None => match self.next().await {
                    Some(item) => item,
                    None => break,
                },
            };
            ahead = self.deliver(item).await;
        }
        self.close().await;
    }

    async fn next(&mut self) -> Option<Item> {
        loop {
            let held = match self.desk.jobs.try_next() {
                Some(held) => held,
                None => match self.wait().await {
                    Next::Item(held) => held,
                    Next::Idle => {
                        self.close().await;
                        continue;
                    }
                    Next::Closed => return None,
                },
            };
            if let Some(item) = self.desk.prepare(held) {
                return Some(item);
            }
        }
    }

    async fn wait(&mut self) -> Next<Held> {
        if let Some(open) = &mut self.open {
            open.meter.set_busy(false);
        }
        self.desk.jobs.next(self.open.as_ref().map(|open| open.used + IDLE)).await
    }

    async fn close(&mut self) {
        if let Some(open) = self.open.take()
            && open.connection.is_usable()
        {
            open.connection.quit().await;
        }
    }

    /// Sends one message, with the second tries that cost nothing, and settles it. Returns the one whose envelope went
    /// out behind it.
    async fn deliver(&mut self, item: Item) -> Option<Item> {
        let _busy = self.desk.meters.busy();
        let mut ahead = None;
        let (mut reconnected, mut sequential) = (false, false);
        loop {
            let end = self.attempt(&item, &mut ahead, sequential).await;
            if self.open.as_ref().is_some_and(|open| !open.connection.is_usable()) {
                self.open = None;
            }
            let failure = match end {
                End::Sent(reply) => {
                    self.desk.sent(item.held, Some(LastReply::heard(Stage::Dot, &reply)));
                    return ahead;
                }
                End::HandBack(why) => {
                    self.desk.settle(item.held, Verdict::Release, None, why);
                    return ahead;
                }
                End::Lost => return ahead,
                End::Failed(failure) => failure,
            };
            let from_requested = item.held.delivery.content.from_requested;
            let meaning = classify(&failure, from_requested);
            match meaning {
                Meaning::Reconnect if !reconnected => reconnected = true,
                Meaning::OurFault if !sequential => sequential = true,
                _ => {
                    let meaning = meaning.after_two_tries(&failure, from_requested);
                    self.desk.failed(item, &failure, meaning).await;
                    return ahead;
                }
            }
            // Once more, on a new connection.
            self.open = None;
        }
    }

    async fn attempt(&mut self, item: &Item, ahead: &mut Option<Item>, sequential: bool) -> End {
        if let Err(end) = self.desk.may_begin(item).await {
            if let Some(open) = self.open.as_mut().filter(|open| open.connection.is_begun()) {
                open.connection.abandon();
            }
            return end;
        }
        if let Err(end) = self.connect(sequential).await {
            return end;
        }
        let Some(open) = &mut self.open else {
            return End::HandBack("there is no connection");
        };
        let began = Instant::now();
        let envelope = tokio::select! {
            biased;
            envelope = open.connection.envelope(&item.letter) => Some(envelope),
            () = item.held.lost.cancelled() => None,
            () = self.desk.deps.handing_back() => None,
        };
        match envelope {
            Some(Ok(())) => self.desk.meters.took(Phase::Envelope, began.elapsed()),
            Some(Err(failure)) => return End::Failed(failure),
            None => {
                open.connection.abandon();
                let lost = item.held.lost.is_cancelled();
                return if lost { End::Lost } else { End::HandBack("the worker stops") };
            }
        }
        if ahead.is_none() && open.connection.looks_ahead() && !self.desk.hands_back() {
            *ahead = self.desk.look_ahead(open.answer_took).await;
        }
        if let Err(end) = self.desk.may_go_out(item).await {
            open.connection.abandon();
            return end;
        }
        let began = Instant::now();
        let handed = tokio::select! {
            biased;
            handed = open.connection.content(&item.letter, ahead.as_ref().map(|next| &next.letter)) => handed,
            () = self.desk.deps.shutdown.over() => Err(stopped_at_the_dot()),
        };
        open.used = Instant::now();
        match handed {
            Ok(reply) => {
                open.answer_took = began.elapsed();
                self.desk.meters.took(Phase::Reply, open.answer_took);
                End::Sent(reply)
            }
            Err(failure) => End::Failed(failure),
        }
    }

    /// Makes sure of a connection: the one there is, where it is fresh, else a new one.
    async fn connect(&mut self, sequential: bool) -> Result<(), End> {
        if let Some(open) = &mut self.open {
            let is_fresh = open.connection.is_begun()
                || (open.used.elapsed() < IDLE
                    && open.since.elapsed() < AGE
                    && !open.connection.is_spent()
                    && !open.connection.stirred());
            if is_fresh {
                open.meter.set_busy(true);
                return Ok(());
            }
            self.close().await;
        }
        let connection = tokio::select! {
            biased;
            () = self.desk.deps.handing_back() => return Err(End::HandBack("the worker stops")),
            connection = self.desk.relay.open(&self.connector) => connection,
        };
        let mut connection = match connection {
            Ok(connection) => connection,
            Err(NotOpen::Paused) => return Err(End::HandBack("the relay is paused")),
            Err(NotOpen::Failed(failure)) => return Err(End::Failed(failure)),
        };
        if sequential {
            connection.be_sequential();
        }
        let mut meter = self.desk.meters.connection();
        meter.set_busy(true);
        let now = Instant::now();
        self.open = Some(Open { connection, meter, since: now, used: now, answer_took: Duration::ZERO });
        Ok(())
    }
}

/// The content may have gone out. The connection whose future was dropped says itself that it is not usable.
fn stopped_at_the_dot() -> Failure {
    let detail = "stopped while waiting for the reply to the final dot".into();
    Failure { stage: Stage::Dot, cause: Cause::TimedOut, stale: false, detail }
}

impl Desk {
    /// The look before the envelope goes out, or before its replies are read.
    async fn may_begin(&self, item: &Item) -> Result<(), End> {
        if self.relay.is_paused() {
            Err(End::HandBack("the relay is paused"))
        } else {
            self.confirm(item).await
        }
    }

    /// Whether the job is still ours. A stop does not wait for a queue that does not answer.
    async fn confirm(&self, item: &Item) -> Result<(), End> {
        tokio::select! {
            is_ours = self.leases.confirm(item.held.delivery.job) => is_ours.then_some(()).ok_or(End::Lost),
            () = self.deps.shutdown.over() => Err(End::HandBack("the worker stops")),
        }
    }

    /// The next item, for its envelope to go behind a final dot. One that is just being claimed is worth waiting for
    /// where the relay is far away: not to have it costs a round trip.
    async fn look_ahead(&self, answer_took: Duration) -> Option<Item> {
        let held = match self.jobs.try_next() {
            Some(held) => held,
            None if answer_took < FAR => return None,
            None => match self.jobs.next_ahead((answer_took / 10).min(LONGEST_LOOK)).await {
                Next::Item(held) => held,
                Next::Idle | Next::Closed => return None,
            },
        };
        self.prepare(held)
    }

    /// The last look before content goes out: the lease is fresh and, where it must be, the queue knows.
    async fn may_go_out(&self, item: &Item) -> Result<(), End> {
        let job = item.held.delivery.job;
        self.confirm(item).await?;
        if item.held.delivery.on_ambiguous == OnAmbiguous::Hold {
            match self.leases.mark(job).await {
                Ok(true) => {}
                Ok(false) => return Err(End::Lost),
                Err(error) => {
                    tracing::warn!(%job, %error, "not sent: the queue could not be told that the content goes out");
                    return Err(End::HandBack("the queue could not be told that the content goes out"));
                }
            }
        }
        Ok(())
    }
}
