//! Acceptance: a batch as the enqueue script takes it, and content that is too large for a script.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::gathering::{Answer, JOBS_A_CALL, Prepared, lock, no_answer};
use super::scripts::Args;
use super::{RedisQueue, stored};
use crate::message::Body;
use crate::queue::{Accepted, EnqueueError, Idempotency, Intake, NewBatch, Unavailable};
use crate::template::Bundle;

/// How long an answer is tried for before the caller is told that the batch may have been queued.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// Content over this size travels on a connection of its own before the batch does: through a script it would stall
/// everybody else.
const LARGE: usize = 64 * 1024;

/// Up to this length a value leaves a hash a listpack (`lua/state.lua`).
const SHORT: usize = 64;

/// How many arguments a plain batch has.
const PLAIN_ARGS: usize = 7;

/// How long content that was stored ahead waits for its batch.
const STORED_AHEAD: Duration = Duration::from_mins(1);

/// How many bundles are remembered as stored.
const KNOWN_BUNDLES: usize = 1_000;

/// The template's sources, and the name that the content gives them.
fn template(batch: &NewBatch) -> Option<(&str, &Bundle)> {
    match &batch.content.body {
        Body::Template { bundle, .. } => Some((&bundle.0, batch.bundle.as_deref()?)),
        Body::Html(_) => None,
    }
}

/// A batch of one job with nothing to it, which is all that most are, as the script takes it. None: it is not such a one.
fn plain(batch: &NewBatch, content: &[u8]) -> Result<Option<Args>, serde_json::Error> {
    let NewBatch { bundle: None, send_at: None, idempotency: None, metadata: None, .. } = batch else {
        return Ok(None);
    };
    let [recipient] = &batch.recipients[..] else { return Ok(None) };
    let domain = batch.content.from.address.domain();
    if !batch.tags.is_empty() || content.len() > LARGE || domain.len() > SHORT {
        return Ok(None);
    }
    let recipient = serde_json::to_vec(recipient)?;
    if recipient.len() > SHORT {
        return Ok(None);
    }
    let mut args = head(batch, content.len());
    args.push(&recipient);
    Ok(Some(args))
}

/// What the arguments of all batches begin with.
fn head(batch: &NewBatch, size: usize) -> Args {
    let expire_after = super::millis(batch.expire_after);
    // Enough for a plain one.
    let mut args = Args::with_capacity(PLAIN_ARGS, PLAIN_ARGS * SHORT);
    args.push_shown(batch.id);
    args.push(batch.priority.as_str().as_bytes());
    args.push_shown(stored::facts(batch, expire_after));
    args.push_shown(expire_after);
    args.push(batch.content.from.address.domain().as_bytes());
    args.push_shown(size);
    args
}

/// The arguments of a batch that is not plain, in the order of `enqueue.lua`.
fn arguments(
    batch: &NewBatch,
    size: usize,
    content: &[u8],
    bundle: &[u8],
) -> Result<Args, serde_json::Error> {
    let mut args = head(batch, size);
    args.push(content);
    args.push_shown(batch.recipients.len());
    match batch.send_at {
        Some(at) => args.push_shown(at.as_millis()),
        None => args.push(&[]),
    }
    if batch.tags.is_empty() {
        args.push(&[]);
    } else {
        args.push_json(&batch.tags)?;
    }
    match &batch.metadata {
        Some(metadata) => args.push_json(metadata)?,
        None => args.push(&[]),
    }
    args.push(template(batch).map(|(hash, _)| hash).unwrap_or_default().as_bytes());
    args.push(bundle);
    match &batch.idempotency {
        Some(idempotency) => {
            args.push(idempotency.key.as_bytes());
            args.push(idempotency.fingerprint.as_bytes());
            args.push_shown(idempotency.keep.as_millis());
        }
        None => args.push(&[]),
    }
    for recipient in &batch.recipients {
        args.push_json(recipient)?;
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

    /// A batch that is not plain.
    async fn enqueue_other(
        &self,
        batch: &NewBatch,
        content: &[u8],
        deadline: Instant,
    ) -> Result<Accepted, EnqueueError> {
        let (id, jobs) = (batch.id, batch.recipients.len());
        let bundle = template(batch);
        let large = content.len() > LARGE;
        let inline: &[u8] = if large { &[] } else { content };
        let known = |hash: &str| lock(&self.gathering.known_bundles).contains(hash);
        let mut send_bundle = bundle.is_some_and(|(hash, _)| !known(hash));
        if large {
            self.store_ahead(batch, content).await?;
        }
        loop {
            let sources = match (bundle, send_bundle) {
                (Some((_, bundle)), true) => stored::bundle(bundle).map_err(not_json)?,
                _ => Vec::new(),
            };
            let args = arguments(batch, content.len(), inline, &sources).map_err(not_json)?;
            match self.gathering.submit(Prepared { id, args, jobs, plain: None }, deadline).await? {
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
                Answer::NeedsContent => self.store_ahead(batch, content).await?,
                Answer::NeedsBundle => send_bundle = true,
            }
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "handed to `map_err`")]
fn not_json(e: serde_json::Error) -> Unavailable {
    Unavailable { message: format!("the batch cannot be written as JSON: {e}") }
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
        let content = stored::content(&batch.content).map_err(not_json)?;
        let args =
            if self.gathering.was_full() { None } else { plain(&batch, &content).map_err(not_json)? };
        let answer = if let Some(args) = args {
            let prepared = Prepared { id: batch.id, args, jobs: 1, plain: Some(content) };
            let answer = tokio::time::timeout_at(deadline, self.gathering.submit(prepared, deadline)).await;
            answer.map(|answer| match answer? {
                Answer::Accepted(accepted) => Ok(accepted),
                Answer::Refused(refusal) => Err(refusal),
                Answer::NeedsContent | Answer::NeedsBundle => Err(no_answer().into()),
            })
        } else {
            // Of its own in memory: what is mostly not needed would else be moved about with each request.
            let other = Box::pin(self.enqueue_other(&batch, &content, deadline));
            tokio::time::timeout_at(deadline, other).await
        };
        answer.unwrap_or_else(|_| Err(no_answer().into()))
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
