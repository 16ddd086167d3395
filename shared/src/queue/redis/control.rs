//! What people ask and order. All of it goes over the pool; none of it is needed to deliver mail.

use std::time::Duration;

use async_trait::async_trait;

use super::channel::Repeat;
use super::record::{self, BatchRow, JobRow};
use super::scripts::{self, Call, Script};
use super::{RedisQueue, durability, unreadable};
use crate::clock::Timestamp;
use crate::job::{BatchId, BatchRecord, JobId, JobRecord, Priority, Status};
use crate::queue::{
    ByPriority, Control, Durability, JobFilter, JobPage, LISTING_LOOKS_AT, Ledger, Ordered, Stats,
    Unavailable,
};

/// How many records one script looks at, at most.
const LOOKS_A_CALL: usize = 1_000;

/// Of a listing: records, their batches, looked at, looked at last, whether more are left.
type Piece = (Vec<JobRow>, Vec<BatchRow>, usize, String, u8);

impl RedisQueue {
    async fn order(&self, call: Call) -> Result<Ordered, Unavailable> {
        let (word, before, rows, batches): (String, String, Vec<JobRow>, Vec<BatchRow>) =
            self.api.call(&call, Repeat::Never).await?;
        let mut records = record::jobs(&rows, &batches)?;
        Ok(match word.as_str() {
            "done" => {
                Ordered::Done(Box::new(records.pop().ok_or_else(|| unreadable("an order without a record"))?))
            }
            "conflict" => Ordered::Conflict(
                Status::from_word(&before).ok_or_else(|| unreadable(format_args!("the state {before}")))?,
            ),
            "full" => Ordered::Full,
            _ => Ordered::Unknown,
        })
    }

    fn call_for(&self, script: &'static Script, id: impl std::fmt::Display) -> Call {
        Call::new(script, &self.keys).arg(id.to_string())
    }
}

/// The part of a filter that the script checks, from where to go on.
fn listing(call: Call, filter: &JobFilter, look: usize, limit: usize, after: Option<JobId>) -> Call {
    let (from, below) = match (after, filter.batch) {
        (Some(after), _) => (after.batch.to_string(), u64::from(after.index)),
        (None, Some(batch)) => (batch.to_string(), u64::from(u32::MAX)),
        (None, None) => (String::new(), 0),
    };
    let address = filter.recipient.as_deref().map_or_else(String::new, address_in_json);
    call.arg(look)
        .arg(limit)
        .arg(from)
        .arg(below)
        .arg(u8::from(filter.batch.is_some()))
        .arg(filter.status.map_or("", Status::as_str))
        .arg(filter.tag.as_deref().unwrap_or_default())
        .arg(address)
}

/// What the JSON of a recipient with this address contains, in lower case. Redis lowers ASCII only, and JSON escapes
/// some characters: then the domain has to do.
fn address_in_json(key: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    if key.chars().all(plain) {
        format!("\"{key}\"")
    } else {
        key.rsplit_once('@').map_or_else(String::new, |(_, domain)| format!("@{domain}\""))
    }
}

#[async_trait]
impl Control for RedisQueue {
    async fn job(&self, id: JobId) -> Result<Option<JobRecord>, Unavailable> {
        let call = self.call_for(&scripts::JOB, id);
        let (rows, batches): (Vec<JobRow>, Vec<BatchRow>) = self.api.call(&call, Repeat::Once).await?;
        Ok(record::jobs(&rows, &batches)?.pop())
    }

    async fn jobs(
        &self,
        filter: &JobFilter,
        limit: usize,
        after: Option<JobId>,
    ) -> Result<JobPage, Unavailable> {
        let mut page = JobPage::default();
        let (mut looked, mut after) = (0, after);
        if let (Some(batch), Some(position)) = (filter.batch, after) {
            match position.batch.cmp(&batch) {
                std::cmp::Ordering::Less => return Ok(page),
                std::cmp::Ordering::Equal => {}
                std::cmp::Ordering::Greater => after = None,
            }
        }
        while looked < LISTING_LOOKS_AT {
            let look = LOOKS_A_CALL.min(LISTING_LOOKS_AT - looked);
            let wanted = limit - page.jobs.len();
            let call = listing(Call::new(&scripts::JOBS, &self.keys), filter, look, wanted, after);
            let (rows, batches, looked_at, last, more): Piece = self.api.call(&call, Repeat::Once).await?;
            looked += looked_at;
            let found = record::jobs(&rows, &batches)?.into_iter().filter(|job| {
                let key = filter.recipient.as_ref();
                key.is_none_or(|key| job.recipient.mailbox.address.key() == *key)
            });
            page.jobs.extend(found);
            if more == 0 {
                return Ok(page);
            }
            after = Some(last.parse().map_err(unreadable)?);
            if page.jobs.len() >= limit {
                break;
            }
        }
        page.next = after;
        Ok(page)
    }

    async fn batch(&self, id: BatchId) -> Result<Option<BatchRecord>, Unavailable> {
        let call = self.call_for(&scripts::BATCH, id);
        let known: Vec<redis::Value> = self.api.call(&call, Repeat::Once).await?;
        if known.is_empty() {
            return Ok(None);
        }
        let (batch, states): (BatchRow, Vec<(String, u64)>) =
            redis::from_redis_value(redis::Value::Array(known)).map_err(unreadable)?;
        record::batch(&batch, &states).map(Some)
    }

    async fn cancel(&self, id: JobId) -> Result<Ordered, Unavailable> {
        self.order(self.call_for(&scripts::CANCEL, id)).await
    }

    async fn cancel_batch(&self, id: BatchId) -> Result<Option<u64>, Unavailable> {
        let call = self.call_for(&scripts::CANCEL_BATCH, id);
        let cancelled: i64 = self.api.call(&call, Repeat::Never).await?;
        Ok(u64::try_from(cancelled).ok())
    }

    async fn reschedule(&self, id: JobId, send_at: Timestamp) -> Result<Ordered, Unavailable> {
        let call = self
            .call_for(&scripts::RESCHEDULE, id)
            .arg(send_at.as_millis())
            .arg(self.limits.max_queue_size)
            .arg(format!("\"{send_at}\""));
        self.order(call).await
    }

    async fn requeue(&self, id: JobId) -> Result<Ordered, Unavailable> {
        let call = self.call_for(&scripts::REQUEUE, id).arg(self.limits.max_queue_size);
        self.order(call).await
    }

    async fn stats(&self) -> Result<Stats, Unavailable> {
        let call = Call::new(&scripts::STATS, &self.keys).arg(self.lease_ms());
        let (paused, counters, ready, oldest, workers): (u8, Vec<(String, i64)>, [u64; 3], [u64; 3], u64) =
            self.api.call(&call, Repeat::Once).await?;
        let mut stats = Stats {
            paused: paused == 1,
            ledger: Ledger::default(),
            states: ByPriority::default(),
            ready: by_priority(ready),
            oldest: by_priority(oldest.map(Duration::from_millis)),
            max_queue_size: self.limits.max_queue_size,
            workers,
        };
        for (field, count) in counters {
            // A count below zero would be a defect: it shows as a ledger that does not balance.
            let count = u64::try_from(count).unwrap_or(0);
            add(&mut stats, &field, count);
        }
        Ok(stats)
    }

    async fn set_paused(&self, paused: bool) -> Result<(), Unavailable> {
        let call = Call::new(&scripts::PAUSE, &self.keys).arg(u8::from(paused));
        self.api.call::<i64>(&call, Repeat::Once).await.map(drop)
    }

    async fn durability(&self) -> Result<Durability, Unavailable> {
        Ok(durability::Facts::read(&self.api).await?.durability())
    }
}

/// One field of `:counters`: `accepted`, or `<state>:<priority>`.
fn add(stats: &mut Stats, field: &str, count: u64) {
    if field == "accepted" {
        stats.ledger.accepted = count;
        return;
    }
    let Some((word, priority)) = field.split_once(':') else {
        return;
    };
    if let (Some(status), Some(priority)) = (Status::from_word(word), Priority::from_word(priority)) {
        *stats.ledger.of_mut(status) += count;
        if matches!(status, Status::Queued | Status::Scheduled | Status::Retrying | Status::Sending) {
            *stats.states.of_mut(priority).of_mut(status) = count;
        }
    }
}

const fn by_priority<T: Copy>([high, normal, bulk]: [T; 3]) -> ByPriority<T> {
    ByPriority { high, normal, bulk }
}
