//! The batches that arrive together share a call, and a lone one does not wait for others.
//!
//! While calls are on their way, later batches gather; the next call takes them all. Each is accepted or refused on
//! its own. A call whose answer is lost is repeated until the deadline of its batches: a batch id that is known
//! changes nothing.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::channel::{Channel, Repeat, is_lost, unavailable};
use super::keys::Keys;
use super::scripts::{self, Args, Call};
use crate::job::BatchId;
use crate::queue::{Accepted, EnqueueError, Limits, Unavailable};

/// Jobs in one call, and so in one batch, at most.
pub(super) const JOBS_A_CALL: usize = 1_000;

/// Bytes in one call, at most, unless a batch alone has more: Redis serves nobody else meanwhile.
const BYTES_A_CALL: usize = 4 * 1024 * 1024;

/// Room for a key.
const KEY_BYTES: usize = 64;

/// Calls on their way at once: while Redis runs one, the next is written.
const CALLS_AT_ONCE: usize = 2;

/// So many batches that wait make a call of their own beside one that is on its way.
const WORTH_A_CALL: usize = 16;

/// How long a queue that had no room is taken to have none.
const FULL: Duration = Duration::from_secs(1);

/// The batches that wait for the next call.
pub(super) struct Gathering {
    line: Mutex<Line>,
    channel: Channel,
    keys: Keys,
    limits: Limits,
    /// Templates that need not be sent along, as far as we know.
    pub(super) known_bundles: Mutex<HashSet<String>>,
    /// When the queue last had no room.
    full: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Line {
    waiting: Vec<Waiting>,
    /// Tasks that carry what waits, call after call.
    carriers: usize,
}

/// Lets another task carry on where one has ended before its time.
struct Relief<'a> {
    gathering: &'a Gathering,
    is_due: bool,
}

impl Drop for Relief<'_> {
    fn drop(&mut self) {
        if self.is_due {
            lock(&self.gathering.line).carriers -= 1;
        }
    }
}

/// A batch as the script takes it.
pub(super) struct Prepared {
    pub(super) id: BatchId,
    pub(super) args: Args,
    pub(super) jobs: usize,
    /// The content of a plain one (`lua/enqueue.lua`), which is set beside the script: through it, it would cost more
    /// than all the rest.
    pub(super) plain: Option<Vec<u8>>,
}

impl Prepared {
    fn bytes(&self) -> usize {
        self.args.bytes() + self.plain.as_ref().map_or(0, Vec::len)
    }
}

struct Waiting {
    batch: Prepared,
    deadline: Instant,
    answer: oneshot::Sender<Result<Answer, Unavailable>>,
}

/// What the script says of a batch.
pub(super) enum Answer {
    Accepted(Accepted),
    Refused(EnqueueError),
    NeedsContent,
    NeedsBundle,
}

impl Gathering {
    pub(super) fn new(channel: Channel, keys: Keys, limits: Limits) -> Self {
        Self {
            line: Mutex::default(),
            channel,
            keys,
            limits,
            known_bundles: Mutex::default(),
            full: Mutex::default(),
        }
    }

    /// Whether the queue had no room a moment ago. Content then goes with its batch through the script, which refuses it
    /// before anything is written: beside it, all that is refused would be written and removed again.
    pub(super) fn was_full(&self) -> bool {
        lock(&self.full).is_some_and(|at| at.elapsed() < FULL)
    }

    /// One batch through the next call. The caller keeps the time.
    pub(super) async fn submit(
        self: &Arc<Self>,
        batch: Prepared,
        deadline: Instant,
    ) -> Result<Answer, Unavailable> {
        let is_one = batch.jobs == 1;
        let (answer, answered) = oneshot::channel();
        let is_carrier_wanted = {
            let mut line = lock(&self.line);
            line.waiting.push(Waiting { batch, deadline, answer });
            let is_wanted =
                line.carriers == 0 || (line.carriers < CALLS_AT_ONCE && line.waiting.len() >= WORTH_A_CALL);
            line.carriers += usize::from(is_wanted);
            is_wanted
        };
        if is_carrier_wanted {
            // A task of its own, since the caller may go away while others' batches are on their way with its.
            tokio::spawn(Arc::clone(self).carry());
        }
        let answer = answered.await.unwrap_or_else(|_| Err(no_answer()));
        // Where several find no room, one may.
        if is_one && matches!(answer, Ok(Answer::Refused(EnqueueError::Full { .. }))) {
            *lock(&self.full) = Some(Instant::now());
        }
        answer
    }

    /// Carries what has gathered, until nothing waits.
    async fn carry(self: Arc<Self>) {
        let mut relief = Relief { gathering: &self, is_due: true };
        while let Some(taken) = self.take() {
            self.deliver(taken).await;
        }
        relief.is_due = false;
    }

    /// What goes with the next call; none: nothing waits, and this carrier is done.
    fn take(&self) -> Option<Vec<Waiting>> {
        let mut line = lock(&self.line);
        if line.waiting.is_empty() {
            line.carriers -= 1;
            return None;
        }
        let (mut jobs, mut bytes) = (0, 0);
        let fitting = line
            .waiting
            .iter()
            .take_while(|w| {
                jobs += w.batch.jobs;
                bytes += w.batch.bytes();
                jobs <= JOBS_A_CALL && bytes <= BYTES_A_CALL
            })
            .count();
        let mut taken: Vec<Waiting> = line.waiting.drain(..fitting.max(1)).collect();
        drop(line);
        // The script takes the plain ones first.
        taken.sort_by_key(|w| w.batch.plain.is_none());
        Some(taken)
    }

    async fn deliver(&self, mut batches: Vec<Waiting>) {
        // A connection that died while it was idle is noticed by the next call only: that one is repeated at once.
        let mut pause = Duration::ZERO;
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
                    pause = (pause * 2).clamp(Duration::from_millis(20), Duration::from_secs(1));
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
        let plain: Vec<_> =
            batches.iter().filter_map(|w| Some((w.batch.id, w.batch.plain.as_ref()?))).collect();
        let mut call = Call::new(&scripts::ENQUEUE, &self.keys)
            .arg(self.limits.max_queue_size)
            .arg(self.limits.max_scheduled)
            .arg(plain.len());
        for waiting in batches {
            call.extend(&waiting.batch.args);
        }
        let bytes = plain.iter().map(|(_, content)| content.len() + KEY_BYTES).sum();
        let mut contents = Cmd::with_capacity(1 + 2 * plain.len(), bytes);
        contents.arg("MSET");
        for (id, content) in &plain {
            contents.arg(self.keys.content(*id)).arg(content);
        }
        let answers: Vec<Value> = if plain.is_empty() {
            self.channel.try_call(&call, Repeat::Never).await?
        } else {
            self.channel.try_both(&contents, &call).await?
        };
        answers.iter().zip(batches).map(|(answer, w)| read_answer(answer, &w.batch)).collect()
    }
}

fn give(batch: Waiting, answer: Result<Answer, Unavailable>) {
    // A caller that went away has no use for it.
    drop(batch.answer.send(answer));
}

pub(super) fn no_answer() -> Unavailable {
    Unavailable { message: "enqueue: no answer in time; the batch may have been queued".to_owned() }
}

/// Whether the same call may succeed soon.
fn may_pass(e: &RedisError) -> bool {
    is_lost(e)
        || e.is_io_error()
        || matches!(
            e.kind(),
            ErrorKind::Server(
                ServerErrorKind::BusyLoading | ServerErrorKind::TryAgain | ServerErrorKind::ExecAbort
            )
        )
}

fn read_answer(answer: &Value, batch: &Prepared) -> Result<Answer, RedisError> {
    let Value::Array(answer) = answer else {
        let count = u32::try_from(batch.jobs).unwrap_or(u32::MAX);
        return Ok(Answer::Accepted(Accepted { batch: batch.id, count, scheduled: false, replayed: false }));
    };
    let number = |i: usize| answer.get(i).map_or(Ok(0), u64::from_redis_value_ref);
    let word = answer.first().map_or(Ok(String::new()), String::from_redis_value_ref)?;
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
        "full" => Answer::Refused(EnqueueError::Full { used: number(1)?, max: number(2)? }),
        "schedule_full" => Answer::Refused(EnqueueError::ScheduleFull { used: number(1)?, max: number(2)? }),
        "too_large" => Answer::Refused(EnqueueError::TooLarge { count: batch.jobs as u64, max: number(1)? }),
        "key_reuse" => Answer::Refused(EnqueueError::KeyReuse),
        "key_unreadable" => Answer::Refused(EnqueueError::Unavailable(Unavailable {
            message: "what was answered to the idempotency key cannot be read".to_owned(),
        })),
        "need_content" => Answer::NeedsContent,
        "need_bundle" => Answer::NeedsBundle,
        _ => return Err((ErrorKind::UnexpectedReturnType, "not an answer of enqueue").into()),
    })
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
