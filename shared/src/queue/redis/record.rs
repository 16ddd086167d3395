//! From what the scripts show of jobs and batches to the domain's records.

use std::collections::HashMap;
use std::str::FromStr;

use super::unreadable;
use crate::clock::Timestamp;
use crate::job::{BatchRecord, JobId, JobRecord, Priority, Reason, Status, TimelineEntry};
use crate::queue::Unavailable;

/// Job id, its hash, its long texts, its history, the time at which it is due.
pub(super) type JobRow = (String, HashMap<String, String>, HashMap<String, String>, Vec<String>, Option<f64>);

/// Batch id, its hash, its long texts.
pub(super) type BatchRow = (String, HashMap<String, String>, HashMap<String, String>);

/// A hash, read field by field.
struct Fields<'a>(&'a HashMap<String, String>);

impl Fields<'_> {
    fn text(&self, field: &'static str) -> Result<&str, Unavailable> {
        self.0.get(field).map(String::as_str).ok_or_else(|| unreadable(format_args!("{field} is missing")))
    }

    fn maybe<T: FromStr>(&self, field: &'static str) -> Result<Option<T>, Unavailable> {
        self.0
            .get(field)
            .map(|text| text.parse().map_err(|_| unreadable(format_args!("{field} is not a number"))))
            .transpose()
    }

    fn number<T: FromStr + Default>(&self, field: &'static str) -> Result<T, Unavailable> {
        Ok(self.maybe(field)?.unwrap_or_default())
    }

    fn time(&self, field: &'static str) -> Result<Timestamp, Unavailable> {
        self.number(field).map(Timestamp::from_millis)
    }

    fn word<T>(&self, field: &'static str, read: impl Fn(&str) -> Option<T>) -> Result<T, Unavailable> {
        read(self.text(field)?).ok_or_else(|| unreadable(format_args!("{field} is not known")))
    }
}

/// The records of all rows, whose batches are among `batches`.
pub(super) fn jobs(rows: &[JobRow], batches: &[BatchRow]) -> Result<Vec<JobRecord>, Unavailable> {
    rows.iter()
        .map(|row| {
            let id: JobId = row.0.parse().map_err(unreadable)?;
            let batch = id.batch.to_string();
            let batch =
                batches.iter().find(|b| b.0 == batch).ok_or_else(|| unreadable("a job without a batch"))?;
            job(id, row, batch)
        })
        .collect()
}

fn job(id: JobId, row: &JobRow, batch: &BatchRow) -> Result<JobRecord, Unavailable> {
    let (short, long) = (Fields(&row.1), &row.2);
    let shared = Fields(&batch.1);
    let text = |field: &str| row.1.get(field).or_else(|| long.get(field));
    let status = short.word("state", Status::from_word)?;
    let accepted_at = shared.time("accepted")?;
    let attempts = short.number("attempts")?;
    let send_at = match short.maybe("send_at")? {
        None => shared.maybe("send_at")?,
        // A batch's time that was moved to the past is none.
        own => own.filter(|ms: &i64| *ms > 0),
    };
    let due = matches!(status, Status::Scheduled | Status::Retrying).then_some(row.4);
    #[expect(clippy::cast_possible_truncation, reason = "a score is a whole number of milliseconds")]
    let next_attempt_at = due.flatten().map(|ms| Timestamp::from_millis(ms as i64));
    Ok(JobRecord {
        id,
        recipient: read(text("recipient").ok_or_else(|| unreadable("a job without a recipient"))?)?,
        status,
        reason: row.1.get("reason").and_then(|word| Reason::from_word(word)),
        priority: shared.word("priority", Priority::from_word)?,
        attempts,
        max_attempts: shared.number("max_attempts")?,
        accepted_at,
        send_at: send_at.map(Timestamp::from_millis),
        next_attempt_at,
        last_reply: text("reply").map(|json| read(json)).transpose()?,
        relay: text("relay").cloned(),
        message_domain: shared.text("domain")?.to_owned(),
        tags: label(batch, "tags")?.unwrap_or_default(),
        metadata: label(batch, "metadata")?,
        timeline: timeline(accepted_at, &row.3, short.maybe("since")?, attempts)?,
    })
}

/// Acceptance is not stored with each job: it is the batch's. That a job is being sent is in its hash.
fn timeline(
    accepted_at: Timestamp,
    entries: &[String],
    sending_since: Option<i64>,
    attempts: u32,
) -> Result<Vec<TimelineEntry>, Unavailable> {
    let plain = |at, event: &str| TimelineEntry { at, event: event.to_owned(), detail: String::new() };
    let mut timeline = vec![plain(accepted_at, "accepted")];
    for entry in entries {
        timeline.push(read(entry)?);
    }
    timeline.extend(sending_since.map(|ms| TimelineEntry {
        detail: format!("attempt {}", attempts + 1),
        ..plain(Timestamp::from_millis(ms), "sending")
    }));
    let surplus = timeline.len().saturating_sub(crate::job::TIMELINE_LIMIT);
    timeline.drain(..surplus);
    Ok(timeline)
}

pub(super) fn batch(row: &BatchRow, states: &[(String, u64)]) -> Result<BatchRecord, Unavailable> {
    let fields = Fields(&row.1);
    let mut statuses = [0; Status::ALL.len()];
    for (count, status) in statuses.iter_mut().zip(Status::ALL) {
        *count = states.iter().filter(|(state, _)| state == status.as_str()).map(|(_, n)| n).sum();
    }
    Ok(BatchRecord {
        id: row.0.parse().map_err(unreadable)?,
        accepted_at: fields.time("accepted")?,
        count: fields.number("count")?,
        statuses,
        tags: label(row, "tags")?.unwrap_or_default(),
        metadata: label(row, "metadata")?,
    })
}

/// What the caller gave to have it back, where it gave some.
fn label<T: serde::de::DeserializeOwned>(batch: &BatchRow, field: &str) -> Result<Option<T>, Unavailable> {
    let json = batch.1.get(field).or_else(|| batch.2.get(field));
    json.map(|json| read(json)).transpose()
}

pub(super) fn read<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, Unavailable> {
    serde_json::from_str(json).map_err(unreadable)
}
