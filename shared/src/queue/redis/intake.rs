//! Acceptance: batches that arrive together share a round trip, and a lone one does not wait for others.
//!
//! While one call is on its way, later batches gather; the next call takes them all. Each is accepted or refused on
//! its own. A call whose answer is lost is repeated until the deadline of its batches: a batch id that is known
//! changes nothing.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use redis::{ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::channel::{Channel, Repeat, is_lost, unavailable};
use super::keys::Keys;
use super::scripts::{self, Call};
use super::{RedisQueue, stored};
use crate::message::Body;
use crate::queue::{Accepted, EnqueueError, Idempotency, Intake, Limits, NewBatch, Unavailable};
use crate::template::Bundle;

/// How long an answer is tried for before the caller is told that the batch may have been queued.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// Content over this size travels on a connection of its own before the batch does: through a script it would stall
/// everybody else.
const LARGE: usize = 64 * 1024;

/// How long content that was stored ahead waits for its batch.
const STORED_AHEAD: Duration = Duration::from_mins(1);

/// Jobs in one call, and so in one batch, at most.
pub(super) const JOBS_A_CALL: usize = 1_000;

/// How many bundles are remembered as stored.
const KNOWN_BUNDLES: usize = 1_000;

/// The batches that wait for the next call.
pub(super) struct Gathering {
    waiting: Mutex<Vec<Waiting>>,
    /// Held while a call is on its way.
    flight: tokio::sync::Mutex<()>,
    channel: Channel,
    keys: Keys,
    limits: Limits,
    /// Templates that need not be sent along, as far as we know.
    known_bundles: Mutex<HashSet<String>>,
}

struct Waiting {
    args: Vec<Vec<u8>>,
    jobs: usize,
    deadline: Instant,
    answer: oneshot::Sender<Result<Answer, Unavailable>>,
}

/// What the script says of a batch.
enum Answer {
    Accepted(Accepted),
    Refused(EnqueueError),
    NeedsContent,
    NeedsBundle,
}

impl Gathering {
    pub(super) fn new(channel: Channel, keys: Keys, limits: Limits) -> Self {
        Self {
            waiting: Mutex::default(),
            flight: tokio::sync::Mutex::default(),
            channel,
            keys,
            limits,
            known_bundles: Mutex::default(),
        }
    }

    /// One batch through the next call.
    async fn submit(
        self: &Arc<Self>,
        args: Vec<Vec<u8>>,
        jobs: usize,
        deadline: Instant,
    ) -> Result<Answer, Unavailable> {
        let (answer, answered) = oneshot::channel();
        lock(&self.waiting).push(Waiting {
            args,
            jobs,
            deadline,
            answer,
        });
        // A task of its own, since the caller may go away while others' batches are on their way with its.
        tokio::spawn(Arc::clone(self).fly());
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(no_answer()),
        }
    }

    /// Sends what has gathered, unless an earlier call has taken it.
    async fn fly(self: Arc<Self>) {
        let _flight = self.flight.lock().await;
        let taken = self.take();
        if !taken.is_empty() {
            self.deliver(taken).await;
        }
    }

    fn take(&self) -> Vec<Waiting> {
        let mut waiting = lock(&self.waiting);
        let mut jobs = 0;
        let fitting = waiting
            .iter()
            .take_while(|w| {
                jobs += w.jobs;
                jobs <= JOBS_A_CALL
            })
            .count();
        let fitting = fitting.max(1).min(waiting.len());
        let mut taken: Vec<Waiting> = waiting.drain(..fitting).collect();
        taken.retain(|w| !w.answer.is_closed());
        taken
    }

    async fn deliver(&self, mut batches: Vec<Waiting>) {
        let mut pause = Duration::from_millis(20);
        loop {
            batches.retain(|w| !w.answer.is_closed() && w.deadline > Instant::now());
            if batches.is_empty() {
                return;
            }
            match self.send(&batches).await {
                Ok(answers) => {
                    for (batch, answer) in batches.into_iter().zip(answers) {
                        give(batch, Ok(answer));
                    }
                    return;
                }
                Err(e) if may_pass(&e) => {
                    tracing::debug!(error = %unavailable("enqueue", &e), "enqueue is repeated");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                Err(e) if batches.len() == 1 || e.code() == Some("OOM") => {
                    for batch in batches {
                        give(batch, Err(unavailable("enqueue", &e)));
                    }
                    return;
                }
                // One of them is not digestible: each for itself.
                Err(_) => {
                    for batch in batches {
                        let sent = self.send(std::slice::from_ref(&batch)).await;
                        let answer = sent
                            .map_err(|e| unavailable("enqueue", &e))
                            .and_then(|mut answers| answers.pop().ok_or_else(no_answer));
                        give(batch, answer);
                    }
                    return;
                }
            }
        }
    }

    async fn send(&self, batches: &[Waiting]) -> Result<Vec<Answer>, RedisError> {
        let mut call = Call::new(&scripts::ENQUEUE, &self.keys)
            .arg(self.limits.max_queue_size)
            .arg(self.limits.max_scheduled)
            .arg(batches.len());
        for batch in batches {
            for arg in &batch.args {
                call.push(arg.as_slice());
            }
        }
        let answers: Vec<Vec<Value>> = self.channel.try_call(&call, Repeat::Once).await?;
        answers
            .iter()
            .zip(batches)
            .map(|(a, b)| read_answer(a, b.jobs))
            .collect()
    }
}

fn give(batch: Waiting, answer: Result<Answer, Unavailable>) {
    // A caller that went away has no use for it.
    drop(batch.answer.send(answer));
}

fn no_answer() -> Unavailable {
    Unavailable {
        message: "enqueue: no answer in time; the batch may have been queued".to_owned(),
    }
}

/// Whether the same call may succeed soon.
fn may_pass(e: &RedisError) -> bool {
    is_lost(e)
        || e.is_io_error()
        || matches!(
            e.kind(),
            ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::TryAgain)
        )
}

fn read_answer(answer: &[Value], jobs: usize) -> Result<Answer, RedisError> {
    let number = |i: usize| answer.get(i).map_or(Ok(0), u64::from_redis_value_ref);
    let word = answer
        .first()
        .map_or(Ok(String::new()), String::from_redis_value_ref)?;
    Ok(match word.as_str() {
        "ok" => Answer::Accepted(Accepted {
            batch: answer
                .get(1)
                .map_or(Ok(String::new()), String::from_redis_value_ref)?
                .parse()
                .map_err(|_| RedisError::from((ErrorKind::UnexpectedReturnType, "not a batch id")))?,
            count: u32::try_from(number(2)?).unwrap_or(u32::MAX),
            scheduled: number(3)? == 1,
            replayed: number(4)? == 1,
        }),
        "full" => Answer::Refused(EnqueueError::Full {
            used: number(1)?,
            max: number(2)?,
        }),
        "schedule_full" => Answer::Refused(EnqueueError::ScheduleFull {
            used: number(1)?,
            max: number(2)?,
        }),
        "too_large" => Answer::Refused(EnqueueError::TooLarge {
            count: jobs as u64,
            max: number(1)?,
        }),
        "key_reuse" => Answer::Refused(EnqueueError::KeyReuse),
        "need_content" => Answer::NeedsContent,
        "need_bundle" => Answer::NeedsBundle,
        _ => return Err((ErrorKind::UnexpectedReturnType, "not an answer of enqueue").into()),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The template's sources, and the name that the content gives them.
fn template(batch: &NewBatch) -> Option<(&str, &Bundle)> {
    match &batch.content.body {
        Body::Template { bundle, .. } => Some((&bundle.0, batch.bundle.as_deref()?)),
        Body::Html(_) => None,
    }
}

fn json_or_nothing(value: &impl Serialize, nothing: bool) -> Result<Vec<u8>, serde_json::Error> {
    if nothing {
        Ok(Vec::new())
    } else {
        serde_json::to_vec(value)
    }
}

/// The arguments of a batch, in the order of `enqueue.lua`.
fn arguments(batch: &NewBatch, content: &[u8], bundle: &[u8]) -> Result<Vec<Vec<u8>>, serde_json::Error> {
    let text = |t: &str| t.as_bytes().to_vec();
    let idempotency = batch.idempotency.as_ref();
    let template = template(batch).map(|(hash, _)| hash).unwrap_or_default();
    let mut args = vec![
        text(&batch.id.to_string()),
        text(batch.priority.as_str()),
        batch
            .send_at
            .map(|at| text(&at.as_millis().to_string()))
            .unwrap_or_default(),
        text(batch.on_ambiguous.as_str()),
        text(&batch.max_attempts.to_string()),
        text(&batch.expire_after.as_millis().to_string()),
        text(batch.content.from.address.domain()),
        json_or_nothing(&batch.tags, batch.tags.is_empty())?,
        json_or_nothing(&batch.metadata, batch.metadata.is_none())?,
        content.to_vec(),
        text(template),
        bundle.to_vec(),
        idempotency.map(|i| text(&i.key)).unwrap_or_default(),
        idempotency.map(|i| text(&i.fingerprint)).unwrap_or_default(),
        text(&idempotency.map_or(0, |i| i.keep.as_millis()).to_string()),
        text(&batch.recipients.len().to_string()),
    ];
    for recipient in &batch.recipients {
        args.push(serde_json::to_vec(recipient)?);
    }
    Ok(args)
}

impl RedisQueue {
    /// Stores content ahead of its batch, to vanish unless the batch comes. Content that a batch has made lasting
    /// stays so.
    async fn store_ahead(&self, batch: &NewBatch, content: &[u8]) -> Result<(), Unavailable> {
        let key = self.keys.content(batch.id);
        let ms = u64::try_from(STORED_AHEAD.as_millis()).unwrap_or(u64::MAX);
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(content).arg("NX").arg("PX").arg(ms);
        let fresh: Option<String> = self.bulk.command(&set).await?;
        if fresh.is_none() {
            let mut prolong = redis::cmd("PEXPIRE");
            prolong.arg(&key).arg(ms).arg("XX");
            self.bulk.command::<i64>(&prolong).await?;
        }
        Ok(())
    }

    async fn try_enqueue(&self, batch: &NewBatch, deadline: Instant) -> Result<Accepted, EnqueueError> {
        let content = stored::content(&batch.content).map_err(not_json)?;
        let bundle = template(batch);
        let large = content.len() > LARGE;
        let inline: &[u8] = if large { &[] } else { &content };
        let known = |hash: &str| lock(&self.gathering.known_bundles).contains(hash);
        let mut send_bundle = bundle.is_some_and(|(hash, _)| !known(hash));
        if large {
            self.store_ahead(batch, &content).await?;
        }
        loop {
            let sources = match (bundle, send_bundle) {
                (Some((_, bundle)), true) => stored::bundle(bundle).map_err(not_json)?,
                _ => Vec::new(),
            };
            let args = arguments(batch, inline, &sources).map_err(not_json)?;
            match self
                .gathering
                .submit(args, batch.recipients.len(), deadline)
                .await?
            {
                Answer::Accepted(accepted) => {
                    if let Some((hash, _)) = bundle {
                        let mut known = lock(&self.gathering.known_bundles);
                        if known.len() >= KNOWN_BUNDLES {
                            known.clear();
                        }
                        known.insert(hash.to_owned());
                    }
                    return Ok(accepted);
                }
                Answer::Refused(refusal) => return Err(refusal),
                Answer::NeedsContent => self.store_ahead(batch, &content).await?,
                Answer::NeedsBundle => send_bundle = true,
            }
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "handed to `map_err`")]
fn not_json(e: serde_json::Error) -> Unavailable {
    Unavailable {
        message: format!("the batch cannot be written as JSON: {e}"),
    }
}

#[async_trait]
impl Intake for RedisQueue {
    async fn enqueue(&self, batch: NewBatch) -> Result<Accepted, EnqueueError> {
        if batch.recipients.len() > JOBS_A_CALL {
            return Err(EnqueueError::TooLarge {
                count: batch.recipients.len() as u64,
                max: JOBS_A_CALL as u64,
            });
        }
        let deadline = Instant::now() + DEADLINE;
        tokio::time::timeout_at(deadline, self.try_enqueue(&batch, deadline))
            .await
            .unwrap_or_else(|_| Err(no_answer().into()))
    }

    async fn replay(&self, idempotency: &Idempotency) -> Result<Option<Accepted>, EnqueueError> {
        let mut get = redis::cmd("GET");
        get.arg(self.keys.idempotency(&idempotency.key));
        let Some(text) = self.api.command::<Option<Vec<u8>>>(&get).await? else {
            return Ok(None);
        };
        let first: stored::StoredAnswer = stored::read(&text).map_err(not_json)?;
        if first.fingerprint != idempotency.fingerprint {
            return Err(EnqueueError::KeyReuse);
        }
        Ok(Some(Accepted {
            batch: first.batch,
            count: first.count,
            scheduled: first.scheduled,
            replayed: true,
        }))
    }
}
