//! From the queue to the relay and back: what each answer does to a job.

use std::sync::Arc;
use std::time::Duration;

use lab::relay::{Login, Relay, Script};
use shared::address::{Address, Mailbox};
use shared::clock::SystemClock;
use shared::job::{BatchId, JobId, JobRecord, OnAmbiguous, Priority, Reason, Recipient, Status};
use shared::message::{Body, Content, PlainPart};
use shared::queue::memory::MemoryQueue;
use shared::queue::{Control, Intake, JobFilter, Ledger, Limits, NewBatch, PauseCause, RelayBoard};
use shared::settings::{Settings, Smtp};
use shared::shutdown::Shutdown;
use worker::Drain;

use crate::support::{login, relay, smtp};

/// How long something may take: it is there at once, but on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The delay before a retry.
const DELAY: Duration = Duration::from_millis(60);

struct Bench {
    queue: Arc<MemoryQueue>,
    relay: Relay,
    shutdown: Shutdown,
    settings: Settings,
}

fn settings(smtp: Smtp) -> Settings {
    let env = [("MAIL_FROM", "sender@example.org")];
    let mut settings = Settings::load(
        shared::settings::Program::Api,
        env.map(|(name, value)| (name.to_owned(), value.to_owned())),
    )
    .unwrap();
    settings.retry.base_delay = DELAY;
    settings.retry.jitter = 0.0;
    settings.max_workers = 4;
    settings.smtp = smtp;
    settings
}

impl Bench {
    async fn start(script: Script) -> Self {
        Self::start_with(script, |_| {}).await
    }

    async fn start_with(script: Script, change: impl FnOnce(&mut Settings)) -> Self {
        let bench = Self::idle(script, change).await;
        bench.work(Drain::SendDue);
        bench
    }

    /// Without a worker.
    async fn idle(script: Script, change: impl FnOnce(&mut Settings)) -> Self {
        let relay = relay(script).await;
        let mut smtp = smtp(&relay);
        smtp.max_connections = 4;
        smtp.probe_max = Duration::from_millis(100);
        let mut settings = settings(smtp);
        change(&mut settings);
        Self { queue: queue(&settings), relay, shutdown: Shutdown::new(), settings }
    }

    fn work(&self, drain: Drain) {
        let deps = worker::Deps {
            settings: Arc::new(self.settings.clone()),
            queue: self.queue.clone(),
            clock: Arc::new(SystemClock),
            shutdown: self.shutdown.clone(),
            drain,
        };
        worker::start(&deps).unwrap();
    }

    async fn post(&self, to: &[impl AsRef<str>]) -> Vec<JobId> {
        self.post_with(to, |_| {}).await
    }

    async fn post_with(&self, to: &[impl AsRef<str>], change: impl FnOnce(&mut NewBatch)) -> Vec<JobId> {
        let mailbox = |local: &str| Mailbox::new(Address::parse(&format!("{local}@example.com")).unwrap());
        let mut batch = NewBatch {
            id: BatchId::generate(),
            priority: Priority::Normal,
            send_at: None,
            on_ambiguous: OnAmbiguous::Resend,
            max_attempts: 3,
            expire_after: Duration::from_hours(1),
            tags: Vec::new(),
            metadata: None,
            content: Arc::new(content(false)),
            bundle: None,
            recipients: to.iter().map(|to| Recipient { mailbox: mailbox(to.as_ref()), data: None }).collect(),
            idempotency: None,
        };
        change(&mut batch);
        let accepted = self.queue.enqueue(batch).await.unwrap();
        (0..accepted.count).map(|index| JobId { batch: accepted.batch, index }).collect()
    }

    async fn ledger(&self) -> Ledger {
        self.queue.stats().await.unwrap().ledger
    }

    async fn job(&self, id: JobId) -> JobRecord {
        self.queue.job(id).await.unwrap().unwrap()
    }

    /// The job once it is in a status.
    async fn when(&self, id: JobId, status: Status) -> JobRecord {
        self.until(&format!("a job is not {status}"), async |bench| {
            let job = bench.job(id).await;
            (job.status == status).then_some(job)
        })
        .await
    }

    async fn until<T>(&self, what: &str, look: impl AsyncFn(&Self) -> Option<T>) -> T {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self).await {
                return found;
            }
            if tokio::time::Instant::now() >= end {
                let ledger = self.ledger().await;
                let pause = self.queue.relay_pause("default").await.unwrap();
                let jobs = self.queue.jobs(&JobFilter::default(), 3, None).await.unwrap().jobs;
                let told: Vec<_> = jobs.iter().map(|job| &job.timeline).collect();
                panic!("{what}: {ledger:?} {pause:?} {told:#?}");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn paused(&self, cause: PauseCause) {
        self.until("the relay is not paused", async |bench| {
            bench.queue.relay_pause("default").await.unwrap().filter(|pause| pause.cause == cause)
        })
        .await;
    }
}

fn queue(settings: &Settings) -> Arc<MemoryQueue> {
    let limits = Limits { max_queue_size: 10_000, ..settings.queue.limits.clone() };
    Arc::new(MemoryQueue::new(limits, Arc::new(SystemClock)))
}

fn content(from_requested: bool) -> Content {
    Content {
        from: Mailbox::parse("sender@example.org").unwrap(),
        from_requested,
        reply_to: None,
        subject: Some("subject".into()),
        body: Body::Html("<p>hello</p>".into()),
        text: PlainPart::Made,
        headers: Vec::new(),
    }
}

#[tokio::test]
async fn accepted_message_is_sent_once_with_its_message_id() {
    let bench = Bench::start(Script::default()).await;
    let id = bench.post(&["bob"]).await[0];
    let job = bench.when(id, Status::Sent).await;
    assert_eq!((job.attempts, job.last_reply.unwrap().code), (1, Some(250)));
    let journal = bench.relay.journal();
    assert_eq!(journal.len(), 1);
    assert_eq!(journal[0].message_id.as_deref(), Some(format!("{id}@example.org").as_str()));
    assert_eq!(
        (journal[0].from.as_str(), journal[0].to.as_slice()),
        ("sender@example.org", ["bob@example.com".to_owned()].as_slice())
    );
}

#[tokio::test]
async fn deferred_reply_is_retried_after_its_delay() {
    for order in ["rcpt-450-1-x", "data-451-1-x", "dot-451-1-x"] {
        let bench = Bench::start(Script::default()).await;
        let id = bench.post(&[order]).await[0];
        let job = bench.when(id, Status::Sent).await;
        assert_eq!(job.attempts, 2, "{order}");
        let [_, retry, sent] = job.timeline.as_slice() else { panic!("{:?}", job.timeline) };
        assert_eq!((retry.event.as_str(), sent.event.as_str()), ("retrying", "sent"));
        assert!(sent.at.since(retry.at) >= DELAY, "{order}: {:?}", job.timeline);
        assert!(retry.detail.contains("45"), "{}", retry.detail);
    }
}

#[tokio::test]
async fn rejected_recipient_fails_at_once_and_the_others_go_on() {
    let bench = Bench::start(Script::default()).await;
    let ids = bench.post(&["rcpt-550-x", "dot-554-y", "bob"]).await;
    for id in &ids[..2] {
        let job = bench.when(*id, Status::Failed).await;
        assert_eq!((job.reason, job.attempts), (Some(Reason::Permanent), 1));
    }
    bench.when(ids[2], Status::Sent).await;
}

#[tokio::test]
async fn job_that_is_always_deferred_fails_when_its_attempts_are_spent() {
    let bench = Bench::start(Script::default()).await;
    for order in ["rcpt-450-x", "cut-rcpt", "cut-content", "cut-data"] {
        let id = bench.post(&[order]).await[0];
        let job = bench.when(id, Status::Failed).await;
        assert_eq!((job.reason, job.attempts), (Some(Reason::RetriesExhausted), 3), "{order}");
    }
    assert!(bench.relay.journal().is_empty());
}

#[tokio::test]
async fn lost_answer_to_the_dot_is_resent_with_the_same_message_id() {
    let bench = Bench::start(Script::default()).await;
    let id = bench.post(&["cut-taken"]).await[0];
    let job = bench.when(id, Status::Failed).await;
    assert_eq!((job.reason, job.attempts), (Some(Reason::RetriesExhausted), 3));
    let journal = bench.relay.journal();
    assert_eq!(journal.len(), 3, "each attempt may have arrived");
    assert!(
        journal.iter().all(|message| message.source == journal[0].source),
        "a receiver cannot tell the duplicates"
    );
}

#[tokio::test]
async fn lost_answer_to_the_dot_is_held_where_that_is_asked_for() {
    let bench = Bench::start(Script::default()).await;
    let id = bench.post_with(&["cut-taken"], |batch| batch.on_ambiguous = OnAmbiguous::Hold).await[0];
    let job = bench.when(id, Status::Held).await;
    assert_eq!((job.attempts, job.reason), (1, None));
    let other = bench.post(&["bob"]).await[0];
    bench.when(other, Status::Sent).await;
    assert_eq!(bench.relay.journal().len(), 2, "a held mail went out twice");
}

#[tokio::test]
async fn refused_login_pauses_the_relay_and_costs_no_attempt() {
    let script =
        Script { login: Some(Login::new("me", "secret")), login_refusals: u32::MAX, ..Script::default() };
    let bench = Bench::start_with(script, |settings| settings.smtp.credentials = login("me", "secret")).await;
    let ids = bench.post(&["a", "b", "c", "d", "e", "f", "g", "h"]).await;
    bench.paused(PauseCause::Down).await;
    let job = bench.until("a job is not back", async |bench| {
        let job = bench.job(ids[0]).await;
        (job.status == Status::Queued).then_some(job)
    });
    assert_eq!(job.await.attempts, 0);
    // A wrong password is tried by one connection at a time.
    assert_eq!(bench.relay.counts().peak, 1);
    bench.relay.change(|script| script.login_refusals = 0);
    for id in ids {
        assert_eq!(bench.when(id, Status::Sent).await.attempts, 1);
    }
    assert_eq!(bench.queue.relay_pause("default").await.unwrap(), None);
}

#[tokio::test]
async fn relay_that_is_not_there_is_waited_for() {
    let bench = Bench::start(Script::default()).await;
    let addr = bench.relay.addr();
    let Bench { queue, relay, shutdown, settings } = bench;
    relay.stop().await;
    let placeholder = Relay::start(Script::default()).await.unwrap();
    let mut bench = Bench { queue, relay: placeholder, shutdown, settings };
    let id = bench.post(&["bob"]).await[0];
    bench.paused(PauseCause::Down).await;
    let job = bench.job(id).await;
    assert_eq!(job.attempts, 0);
    bench.relay = Relay::start_at(addr, Script::default()).await.unwrap();
    assert_eq!(bench.when(id, Status::Sent).await.attempts, 1);
}

#[tokio::test]
async fn refused_configured_sender_is_the_relays_matter_and_a_requested_one_the_messages() {
    let refusal = Some("553 5.1.8 sender refused".to_owned());
    let bench = Bench::start(Script { sender_refusal: refusal, ..Script::default() }).await;
    let requested = bench.post_with(&["bob"], |batch| batch.content = Arc::new(content(true))).await[0];
    assert_eq!(bench.when(requested, Status::Failed).await.reason, Some(Reason::Permanent));
    let configured = bench.post(&["bob"]).await[0];
    bench.paused(PauseCause::Down).await;
    assert_eq!(bench.job(configured).await.attempts, 0);
    bench.relay.change(|script| script.sender_refusal = None);
    bench.when(configured, Status::Sent).await;
}

#[tokio::test]
async fn rate_text_makes_the_relay_wait_and_costs_no_attempt() {
    let refusal = Some("550 Sender frequency limited, try again in 1 seconds".to_owned());
    let bench = Bench::start(Script { sender_refusal: refusal, ..Script::default() }).await;
    let id = bench.post(&["bob"]).await[0];
    bench.paused(PauseCause::Throttled).await;
    assert_eq!(bench.job(id).await.attempts, 0);
    bench.relay.change(|script| script.sender_refusal = None);
    assert_eq!(bench.when(id, Status::Sent).await.attempts, 1);
}

#[tokio::test]
async fn connection_that_the_server_ends_costs_no_attempt() {
    let limit = Script { messages_per_connection: Some(3), ..Script::default() };
    let close = Script { afterwards: lab::relay::Afterwards::Close, ..Script::default() };
    let say = Script { afterwards: lab::relay::Afterwards::SayAndClose, ..Script::default() };
    for script in [limit, close, say] {
        let bench = Bench::start(script).await;
        let names: Vec<String> = (0..20).map(|n| format!("user{n}")).collect();
        for id in bench.post(&names).await {
            assert_eq!(bench.when(id, Status::Sent).await.attempts, 1);
        }
        assert_eq!(bench.relay.journal().len(), 20);
    }
}

#[tokio::test]
async fn connections_never_pass_their_cap_and_a_modest_load_keeps_one() {
    let bench = Bench::start_with(Script::default(), |settings| settings.smtp.max_connections = 3).await;
    for n in 0..10 {
        let id = bench.post(&[&format!("one{n}")]).await[0];
        bench.when(id, Status::Sent).await;
    }
    assert_eq!(bench.relay.counts().connections, 1);
    let names: Vec<String> = (0..300).map(|n| format!("user{n}")).collect();
    let ids = bench.post(&names).await;
    for id in ids {
        bench.when(id, Status::Sent).await;
    }
    let counts = bench.relay.counts();
    assert!(counts.peak <= 3, "{counts:?}");
    assert_eq!(counts.messages, 310);
}

#[tokio::test]
async fn worker_has_a_bounded_number_of_jobs_in_hand() {
    // Workers, connections, and jobs in hand: one ahead for each connection, and no more than four on top of that.
    for (workers, connections, in_hand) in [(2, 2, 4), (5, 2, 7), (8, 2, 10), (50, 2, 10), (3, 9, 6)] {
        let bench = Bench::start_with(Script::default(), |settings| {
            settings.max_workers = workers;
            settings.smtp.max_connections = connections;
        })
        .await;
        let names: Vec<String> = (0..15).map(|n| format!("mute-{n}")).collect();
        bench.post(&names).await;
        let what = format!("not {in_hand} in hand of {workers} workers and {connections} connections");
        bench.until(&what, async |bench| (bench.ledger().await.sending == in_hand).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(bench.ledger().await.sending, in_hand, "{workers} workers, {connections} connections");
    }
}

#[tokio::test]
async fn only_deliveries_that_run_are_told_as_busy() {
    let recorder = shared::metrics::recorder().unwrap();
    let _local = metrics::set_default_local_recorder(&recorder);
    let bench = Bench::start_with(Script::default(), |settings| settings.smtp.max_connections = 1).await;
    for id in bench.post(&["ann", "bob", "eve"]).await {
        bench.when(id, Status::Sent).await;
    }
    // The second one's envelope goes behind the first one's content, and waits with it.
    bench.post(&["mute", "joe"]).await;
    assert!(bench.relay.wait_until(|counts| counts.of("DATA") == 4).await);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bench.ledger().await.sending, 2);
    let told = recorder.handle().render();
    for gauge in ["emailer_workers_busy 1\n", "emailer_workers_max 1\n"] {
        assert!(told.contains(gauge), "{told}");
    }
}

#[tokio::test]
async fn message_costs_one_round_trip_when_the_next_one_waits() {
    let wire = Script { round_trip: Duration::from_millis(4), ..Script::default() };
    let bench = Bench::start_with(wire, |settings| {
        settings.smtp.max_connections = 1;
        settings.smtp.max_messages_per_connection = 1_000;
    })
    .await;
    let names: Vec<String> = (0..100).map(|n| format!("user{n}")).collect();
    let ids = bench.post(&names).await;
    for id in ids {
        bench.when(id, Status::Sent).await;
    }
    let counts = bench.relay.counts();
    assert_eq!((counts.messages, counts.connections), (100, 1));
    // Greeting, EHLO, two messages of two round trips, and one each; a few more where no next one was there in time.
    assert!(counts.round_trips <= 115, "{counts:?}");
}

#[tokio::test]
async fn no_attempt_is_made_before_send_at() {
    let bench = Bench::start(Script::default()).await;
    let at = shared::clock::Clock::now(&SystemClock) + Duration::from_millis(300);
    let id = bench.post_with(&["bob"], |batch| batch.send_at = Some(at)).await[0];
    assert_eq!(bench.job(id).await.status, Status::Scheduled);
    let job = bench.when(id, Status::Sent).await;
    assert!(job.timeline.last().unwrap().at >= at, "{:?}", job.timeline);
}

#[tokio::test]
async fn soft_stop_that_sends_what_is_due_leaves_nothing() {
    let bench = Bench::start(Script::default()).await;
    let names: Vec<String> = (0..200).map(|n| format!("user{n}")).collect();
    bench.post(&names).await;
    assert!(bench.shutdown.drain(PATIENCE).await);
    assert_eq!(bench.ledger().await.sent, 200);
    assert_eq!(bench.relay.journal().len(), 200);
}

#[tokio::test]
async fn soft_stop_that_hands_back_returns_what_has_not_gone_out() {
    let bench = Bench::idle(Script::default(), |settings| settings.max_workers = 1).await;
    bench.work(Drain::HandBack);
    // The first one keeps the only connection busy; the next ones wait behind it.
    let slow = bench.post(&["slow-400-x"]).await[0];
    bench.until("nothing is sending", async |bench| (bench.ledger().await.sending == 1).then_some(())).await;
    assert!(bench.relay.wait_until(|counts| counts.of("DATA") == 1).await);
    let waiting = bench.post(&["bob", "eve"]).await;
    assert!(bench.shutdown.drain(PATIENCE).await);
    assert_eq!(bench.job(slow).await.status, Status::Sent);
    for id in waiting {
        let job = bench.job(id).await;
        assert_eq!((job.status, job.attempts), (Status::Queued, 0));
    }
    assert_eq!(bench.queue.stats().await.unwrap().workers, 0, "the consumer is still listed");
}

#[tokio::test]
async fn soft_stop_hands_waiting_jobs_back_while_the_relay_is_silent() {
    let bench = Bench::idle(Script::default(), |settings| settings.smtp.max_connections = 1).await;
    bench.work(Drain::HandBack);
    bench.post(&["mute"]).await;
    assert!(bench.relay.wait_until(|counts| counts.of("DATA") == 1).await);
    let waiting = bench.post(&["ann", "bob", "eve", "joe"]).await;
    bench.until("not all are in hand", async |bench| (bench.ledger().await.sending == 5).then_some(())).await;
    let (shutdown, stop) = (bench.shutdown.clone(), tokio::time::Instant::now());
    let stopped = tokio::spawn(async move { shutdown.drain(PATIENCE / 2).await });
    bench
        .until("nothing is handed back", async |bench| {
            let ledger = bench.ledger().await;
            ((ledger.sending, ledger.queued) == (1, waiting.len() as u64)).then_some(())
        })
        .await;
    assert!(stop.elapsed() < PATIENCE / 4 && !stopped.is_finished(), "only when the relay had its time");
    stopped.abort();
}

#[tokio::test]
async fn hard_stop_at_the_dot_follows_on_ambiguous() {
    for (policy, status) in [(OnAmbiguous::Resend, Status::Retrying), (OnAmbiguous::Hold, Status::Held)] {
        let bench = Bench::start(Script::default()).await;
        let id = bench.post_with(&["mute"], |batch| batch.on_ambiguous = policy).await[0];
        assert!(bench.relay.wait_until(|counts| counts.of("DATA") == 1).await);
        bench
            .until("the content is not out", async |bench| (bench.ledger().await.sending == 1).then_some(()))
            .await;
        assert!(!bench.shutdown.drain(Duration::from_millis(300)).await);
        let job = bench.job(id).await;
        assert_eq!((job.status, job.attempts), (status, 1), "{policy}");
    }
}

#[tokio::test]
async fn message_that_cannot_be_built_fails_and_is_no_attempt() {
    let bench = Bench::start(Script { smtputf8: false, ..Script::default() }).await;
    let id = bench.post(&["用户"]).await[0];
    let job = bench.when(id, Status::Failed).await;
    assert_eq!(job.reason, Some(Reason::Permanent));
    let sources = std::collections::BTreeMap::from([("a.html".to_owned(), "{{ gone }}".to_owned())]);
    let bundle = shared::template::Bundle { template: "a.html".into(), sources };
    let body = Body::Template { bundle: bundle.hash(), data: serde_json::Map::new() };
    let id = bench
        .post_with(&["bob"], |batch| {
            batch.content = Arc::new(Content { body, ..content(false) });
            batch.bundle = Some(Arc::new(bundle));
        })
        .await[0];
    let job = bench.when(id, Status::Failed).await;
    assert_eq!((job.reason, job.attempts), (Some(Reason::Render), 0));
}

#[tokio::test]
async fn html_that_a_library_panics_on_is_sent_and_costs_no_session() {
    let bench = Bench::start(Script::default()).await;
    let html = "<table><tr><td>a</td></tr><tr><td>a</td><td colspan=2 rowspan=2>a</td></tr></table>";
    let body = || Body::Html(html.to_owned());
    // More than there are sessions.
    let odd = bench
        .post_with(&["a", "b", "c", "d", "e", "f"], |batch| {
            batch.content = Arc::new(Content { body: body(), ..content(false) });
        })
        .await;
    let good = bench.post(&["bob"]).await;
    for id in odd.into_iter().chain(good) {
        bench.when(id, Status::Sent).await;
    }
}

#[tokio::test]
async fn relay_that_answers_probes_and_refuses_the_sender_is_left_alone_for_longer_each_time() {
    let refusal = Some("550 5.7.1 Sender not permitted".to_owned());
    let script = Script { sender_refusal: refusal, ..Script::default() };
    let bench = Bench::start_with(script, |settings| settings.smtp.probe_max = Duration::from_mins(1)).await;
    let id = bench.post(&["bob"]).await[0];
    bench.paused(PauseCause::Down).await;
    let pause = bench.queue.relay_pause("default").await.unwrap().unwrap();
    assert_eq!((pause.probes, pause.until.since(pause.since)), (0, Duration::from_secs(5)));
    // As if the probe had found it well.
    bench.queue.resume_relay("default").await.unwrap();
    let again = bench
        .until("the relay is not paused again", async |bench| {
            let pause = bench.queue.relay_pause("default").await.unwrap()?;
            (pause.probes == 1).then_some(pause)
        })
        .await;
    assert_eq!(again.until.since(again.since), Duration::from_secs(10));
    assert_eq!(bench.job(id).await.attempts, 0);
    bench.relay.change(|script| script.sender_refusal = None);
    bench.queue.resume_relay("default").await.unwrap();
    bench.when(id, Status::Sent).await;
}
