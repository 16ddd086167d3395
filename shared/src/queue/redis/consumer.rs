//! Handing jobs out and taking their ends, over one connection that carries short scripts only.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use redis::{FromRedisValue, ParsingError, Value, from_redis_value};

use super::channel::Repeat;
use super::content::{Shared, Wanted};
use super::scripts::{self, Call};
use super::stored::{Facts, read_facts};
use super::{RedisQueue, stored, unreadable};
use crate::job::{BatchId, JobId, POISON_RECLAIMS, Priority, Reason};
use crate::queue::{
    Consumer, ConsumerId, Delivery, Maintenance, Receipt, Reclaimed, Settled, Settlement, Unavailable,
    Verdict,
};

/// Items in one call at most.
const ITEMS_A_CALL: usize = 1_000;

/// More than an entry can have been reclaimed: the factor by which a receipt holds both.
const RECLAIMS: u64 = POISON_RECLAIMS as u64 + 1;

/// How much of each kind of work one `maintain` does.
const MAINTAINED_AT_ONCE: u32 = 100;

/// How long after it was sent a reclaim may still run. One that lay in the socket of a stopped server for longer would
/// find that every lease has run out, though all workers live.
const RECLAIM_VALID: Duration = Duration::from_secs(2);

/// Which priority gets the first pick: high 8, normal 3, bulk 1 of twelve, as evenly spread as can be. Every twelve
/// picks in a row hold one of bulk, so that it never starves.
const PICKS: [Priority; 12] = {
    use Priority::{Bulk, High, Normal};
    [High, High, Normal, High, High, Bulk, High, High, Normal, High, High, Normal]
};

/// A job as it was handed out (`lua/delivery.lua`).
struct DeliveryRow {
    job: JobId,
    /// Stream id.
    sid: String,
    recipient: Option<Vec<u8>>,
    /// Where it came along.
    content: Option<Vec<u8>>,
    /// Of a batch of one job.
    facts: Option<String>,
    template: Option<String>,
    attempts: u32,
    reclaims: u32,
    marked: bool,
    own_send_at: Option<i64>,
}

impl FromRedisValue for DeliveryRow {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let Value::Array(fields) = value else {
            return Err("a delivery that is no list".into());
        };
        let mut fields = fields.into_iter();
        let mut next = || fields.next().unwrap_or(Value::Nil);
        let job = String::from_redis_value(next())?;
        Ok(Self {
            job: job.parse().map_err(|_| "a delivery without a job's id")?,
            sid: from_redis_value(next())?,
            recipient: from_redis_value(next())?,
            content: from_redis_value(next())?,
            facts: from_redis_value(next())?,
            template: from_redis_value(next())?,
            attempts: from_redis_value::<Option<_>>(next())?.unwrap_or_default(),
            reclaims: from_redis_value::<Option<_>>(next())?.unwrap_or_default(),
            marked: from_redis_value::<Option<u8>>(next())? == Some(1),
            own_send_at: from_redis_value(next())?,
        })
    }
}

/// See `lua/delivery.lua`.
type BatchRow = (String, String, Option<String>);

/// Paused, last ids, time to the next due job, deliveries, their batches.
type Claimed = (u8, Option<[String; 4]>, i64, Vec<DeliveryRow>, Vec<BatchRow>);

impl RedisQueue {
    /// How many of the next `max` picks begin with each priority.
    fn picks(&self, max: usize) -> [usize; 3] {
        let start = self.picked.fetch_add(max, Ordering::Relaxed);
        let mut picks = [0; 3];
        for i in 0..max {
            picks[PICKS[start.wrapping_add(i) % PICKS.len()] as usize] += 1;
        }
        picks
    }

    /// Deliveries from what a script told, with their content. A job whose content is gone has mostly been ended by
    /// somebody else meanwhile, and is left out; one that is still ours can never be sent, and fails.
    async fn deliveries(
        &self,
        me: &ConsumerId,
        mut rows: Vec<DeliveryRow>,
        batches: Vec<BatchRow>,
    ) -> Result<Vec<Delivery>, Unavailable> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let along: HashMap<BatchId, Vec<u8>> =
            rows.iter_mut().filter_map(|row| Some((row.job.batch, row.content.take()?))).collect();
        let mut wanted = Vec::with_capacity(rows.len());
        let mut facts = HashMap::with_capacity(rows.len());
        for row in &mut rows {
            if let Some(text) = row.facts.take() {
                facts.insert(row.job.batch, read_facts(&text));
                wanted.push(Wanted { batch: row.job.batch, template: row.template.take() });
            }
        }
        for (id, text, template) in batches {
            let batch: BatchId = id.parse().map_err(unreadable)?;
            facts.insert(batch, read_facts(&text));
            wanted.push(Wanted { batch, template });
        }
        let mut shared = self.contents.fetch(&self.bulk, &self.keys, &wanted, &along).await?;
        wanted.retain(|wanted| !shared.contains_key(&wanted.batch));
        if !wanted.is_empty() {
            // That connection only reads, so that it would not notice that its server is no master any more. The one of
            // the scripts would.
            shared.extend(self.contents.fetch(&self.worker, &self.keys, &wanted, &along).await?);
        }
        let mut deliveries = Vec::with_capacity(rows.len());
        let mut broken = Vec::new();
        for row in rows {
            let job = row.job;
            let facts = facts.get(&job.batch).and_then(Option::as_ref);
            match facts.and_then(|facts| delivery(&row, facts, shared.get(&job.batch)?)) {
                Some(delivery) => deliveries.push(delivery),
                None => broken.push((job, receipt(&row).unwrap_or(Receipt(0, 0)), row.attempts + 1)),
            }
        }
        if !broken.is_empty() {
            self.fail_broken(me, broken).await?;
        }
        Ok(deliveries)
    }

    async fn fail_broken(
        &self,
        me: &ConsumerId,
        broken: Vec<(JobId, Receipt, u32)>,
    ) -> Result<(), Unavailable> {
        let ids: Vec<JobId> = broken.iter().map(|(job, ..)| *job).collect();
        let gone: HashSet<JobId> = self.extend(me, &ids).await?.into_iter().collect();
        let settlements: Vec<Settlement> = broken
            .into_iter()
            .filter(|(job, ..)| !gone.contains(job))
            .map(|(job, receipt, attempt)| {
                tracing::error!(job.id = %job, "the content of a job is missing or cannot be read: it fails");
                Settlement {
                    job,
                    receipt,
                    attempt,
                    verdict: Verdict::Fail(Reason::Render),
                    relay: None,
                    reply: None,
                    detail: "its content is missing or cannot be read".to_owned(),
                }
            })
            .collect();
        self.settle(me, &settlements).await.map(drop)
    }

    async fn not_held(
        &self,
        script: &'static scripts::Script,
        me: &ConsumerId,
        jobs: &[JobId],
    ) -> Result<Vec<JobId>, Unavailable> {
        let mut lost = Vec::new();
        for part in jobs.chunks(ITEMS_A_CALL) {
            let mut call = Call::new(script, &self.keys).arg(&*me.0);
            for job in part {
                call.push(job.to_string());
            }
            let ids: Vec<String> = self.worker.call(&call, Repeat::Once).await?;
            for id in ids {
                lost.push(id.parse().map_err(unreadable)?);
            }
        }
        Ok(lost)
    }

    /// Whether leases say anything: idle time counts the time that Redis was down, so that after an outage every
    /// live worker's jobs could be taken. One whole lease of replies in time has to pass first.
    async fn may_reclaim(&self) -> bool {
        self.worker.unbroken_for().await.is_some_and(|unbroken| unbroken >= self.limits.lease)
    }
}

/// Names a hand-out: an entry of the stream, and how often it has been taken over. A job that comes back to the stream
/// is a new entry of it.
fn receipt(row: &DeliveryRow) -> Option<Receipt> {
    let (ms, seq) = row.sid.split_once('-')?;
    let seq: u64 = seq.parse().ok()?;
    Some(Receipt(ms.parse().ok()?, seq.checked_mul(RECLAIMS)? + u64::from(row.reclaims)))
}

/// A receipt in the script's words.
fn receipt_text(Receipt(ms, seq): Receipt) -> String {
    format!("{ms}-{}/{}", seq / RECLAIMS, seq % RECLAIMS)
}

fn delivery(row: &DeliveryRow, facts: &Facts, shared: &Shared) -> Option<Delivery> {
    Some(Delivery {
        job: row.job,
        receipt: receipt(row)?,
        recipient: serde_json::from_slice(row.recipient.as_deref()?).ok()?,
        priority: facts.priority,
        attempt: row.attempts + 1,
        max_attempts: facts.max_attempts,
        reclaims: row.reclaims,
        marked: row.marked,
        on_ambiguous: facts.on_ambiguous,
        accepted_at: facts.accepted,
        send_at: facts.send_at_with(row.own_send_at),
        content: Arc::clone(&shared.content),
        bundle: shared.bundle.clone(),
    })
}

/// The arguments of a settlement, in the order of `settle.lua`.
fn push_settlement(call: &mut Call, settlement: &Settlement) -> Result<(), Unavailable> {
    // What a job's record tells of its sending in any case is not told twice.
    let is_told =
        settlement.verdict == Verdict::Sent && settlement.reply.is_some() && settlement.detail.is_empty();
    let detail = if is_told { Ok(String::new()) } else { serde_json::to_string(&settlement.in_words()) };
    let detail = detail.map_err(unreadable)?;
    let reply = settlement.reply.as_ref().map(stored::reply).transpose().map_err(unreadable)?;
    let (verdict, extra) = match settlement.verdict {
        Verdict::Sent => ("sent", String::new()),
        Verdict::Retry { delay } => ("retry", delay.as_millis().to_string()),
        Verdict::Release => ("release", String::new()),
        Verdict::Fail(reason) => ("fail", reason.as_str().to_owned()),
        Verdict::Hold => ("hold", String::new()),
    };
    call.push(settlement.job.to_string());
    call.push(receipt_text(settlement.receipt));
    call.push(settlement.attempt);
    call.push(verdict);
    call.push(extra);
    call.push(settlement.relay.as_deref().unwrap_or_default());
    call.push(reply.unwrap_or_default());
    call.push(detail);
    Ok(())
}

#[async_trait]
impl Consumer for RedisQueue {
    async fn claim(&self, me: &ConsumerId, max: usize) -> Result<Vec<Delivery>, Unavailable> {
        let max = max.min(ITEMS_A_CALL);
        if max == 0 {
            return Ok(Vec::new());
        }
        let [high, normal, bulk] = self.picks(max);
        let call = Call::new(&scripts::CLAIM, &self.keys).arg(&*me.0).arg(high).arg(normal).arg(bulk);
        let (paused, last, due, rows, batches): Claimed = self.worker.call(&call, Repeat::Never).await?;
        let due = u64::try_from(due).ok().map(Duration::from_millis);
        self.wake.claimed(me, last, due, paused == 1);
        self.deliveries(me, rows, batches).await
    }

    async fn ready(&self, me: &ConsumerId, at_most: Duration) -> Result<(), Unavailable> {
        self.wake.wait(me, at_most, &self.worker).await
    }

    async fn extend(&self, me: &ConsumerId, jobs: &[JobId]) -> Result<Vec<JobId>, Unavailable> {
        self.not_held(&scripts::EXTEND, me, jobs).await
    }

    async fn mark(&self, me: &ConsumerId, jobs: &[JobId]) -> Result<Vec<JobId>, Unavailable> {
        self.not_held(&scripts::MARK, me, jobs).await
    }

    async fn settle(&self, me: &ConsumerId, settlements: &[Settlement]) -> Result<Vec<Settled>, Unavailable> {
        let mut results = Vec::with_capacity(settlements.len());
        for part in settlements.chunks(ITEMS_A_CALL) {
            let mut call = Call::new(&scripts::SETTLE, &self.keys).arg(&*me.0);
            for settlement in part {
                push_settlement(&mut call, settlement)?;
            }
            // A lost answer is not asked for again here: a repetition would answer `lost` to what it had done.
            let words: Vec<String> = self.worker.call(&call, Repeat::Never).await?;
            for word in words {
                results.push(match word.as_str() {
                    "done" => Settled::Done,
                    "late" => Settled::Late,
                    _ => Settled::Lost,
                });
            }
        }
        Ok(results)
    }

    async fn reclaim(&self, me: &ConsumerId, max: usize) -> Result<Reclaimed, Unavailable> {
        let max = max.min(ITEMS_A_CALL);
        // Also opens the connection, so that its age begins to count.
        let (seconds, micros): (u64, u64) = self.worker.command(&redis::cmd("TIME")).await?;
        if max == 0 || !self.may_reclaim().await {
            return Ok(Reclaimed::default());
        }
        let valid_until = u128::from(seconds) * 1000 + u128::from(micros / 1000) + RECLAIM_VALID.as_millis();
        let call = Call::new(&scripts::RECLAIM, &self.keys)
            .arg(&*me.0)
            .arg(self.lease_ms())
            .arg(max)
            .arg(POISON_RECLAIMS)
            .arg(valid_until.to_string());
        let (rows, batches, poisoned): (Vec<DeliveryRow>, Vec<BatchRow>, Vec<String>) =
            self.worker.call(&call, Repeat::Never).await?;
        let poisoned = poisoned.iter().map(|id| id.parse().map_err(unreadable)).collect::<Result<_, _>>()?;
        Ok(Reclaimed { deliveries: self.deliveries(me, rows, batches).await?, poisoned })
    }

    async fn held_by(&self, me: &ConsumerId) -> Result<Vec<Delivery>, Unavailable> {
        let call = Call::new(&scripts::HELD, &self.keys).arg(&*me.0);
        let (rows, batches): (Vec<DeliveryRow>, Vec<BatchRow>) =
            self.worker.call(&call, Repeat::Once).await?;
        self.deliveries(me, rows, batches).await
    }

    async fn heartbeat(&self, me: &ConsumerId) -> Result<(), Unavailable> {
        let call = Call::new(&scripts::HEARTBEAT, &self.keys).arg(&*me.0);
        self.worker.call::<i64>(&call, Repeat::Once).await.map(drop)
    }

    async fn leave(&self, me: &ConsumerId) -> Result<(), Unavailable> {
        self.wake.forget(me);
        let call = Call::new(&scripts::LEAVE, &self.keys).arg(&*me.0);
        self.worker.call::<i64>(&call, Repeat::Once).await.map(drop)
    }

    async fn maintain(&self) -> Result<Maintenance, Unavailable> {
        let limits = &self.limits;
        let call = Call::new(&scripts::MAINTAIN, &self.keys)
            .arg(MAINTAINED_AT_ONCE)
            .arg(super::millis(limits.retention))
            .arg(super::millis(limits.failed_retention))
            .arg(limits.retain)
            .arg(self.lease_ms());
        let (promoted, expired, removed, next): (u64, Vec<String>, u64, i64) =
            self.worker.call(&call, Repeat::Never).await?;
        Ok(Maintenance {
            promoted,
            expired: expired.iter().map(|id| id.parse().map_err(unreadable)).collect::<Result<_, _>>()?,
            removed,
            next_due: u64::try_from(next).ok().map(Duration::from_millis),
        })
    }
}
