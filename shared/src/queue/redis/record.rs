//! From what the scripts show of jobs and batches to the domain's records.

use std::collections::HashMap;
use std::str::FromStr;

use super::stored::{Facts, read_facts, read_reply};
use super::unreadable;
use crate::clock::Timestamp;
use crate::job::{BatchRecord, JobId, JobRecord, Reason, Status, TimelineEntry};
use crate::queue::{Unavailable, attempt_in_words};

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

    fn facts(&self) -> Result<Facts, Unavailable> {
        read_facts(self.text("facts")?).ok_or_else(|| unreadable("facts of a batch"))
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
    let facts = Fields(&batch.1).facts()?;
    let text = |field: &str| row.1.get(field).or_else(|| long.get(field));
    let status = short.word("state", Status::from_word)?;
    let attempts = short.number("attempts")?;
    let send_at = facts.send_at_with(short.maybe("send_at")?);
    let due = matches!(status, Status::Scheduled | Status::Retrying).then_some(row.4);
    #[expect(clippy::cast_possible_truncation, reason = "a score is a whole number of milliseconds")]
    let next_attempt_at = due.flatten().map(|ms| Timestamp::from_millis(ms as i64));
    let read_last = |text: &String| read_reply(text).ok_or_else(|| unreadable("a last reply"));
    let mut record = JobRecord {
        id,
        recipient: read(text("recipient").ok_or_else(|| unreadable("a job without a recipient"))?)?,
        status,
        reason: row.1.get("reason").and_then(|word| Reason::from_word(word)),
        priority: facts.priority,
        attempts,
        max_attempts: facts.max_attempts,
        accepted_at: facts.accepted,
        send_at,
        next_attempt_at,
        last_reply: text("reply").map(read_last).transpose()?,
        relay: text("relay").cloned(),
        message_domain: Fields(&batch.1).text("domain")?.to_owned(),
        tags: label(batch, "tags")?.unwrap_or_default(),
        metadata: label(batch, "metadata")?,
        timeline: Vec::new(),
    };
    record.timeline = timeline(&record, &row.3, short.maybe("since")?, short.maybe("sent_at")?)?;
    Ok(record)
}

/// Acceptance is not stored with each job: it is the batch's. That a job is being sent, and that it was sent as most
/// are, is in its hash.
fn timeline(
    record: &JobRecord,
    entries: &[String],
    sending_since: Option<i64>,
    sent_at: Option<i64>,
) -> Result<Vec<TimelineEntry>, Unavailable> {
    let happened = |at, event: &str, detail| TimelineEntry { at, event: event.to_owned(), detail };
    let mut timeline = vec![happened(record.accepted_at, "accepted", String::new())];
    for entry in entries {
        timeline.push(read(entry)?);
    }
    let attempt = if sent_at.is_some() { record.attempts } else { record.attempts + 1 };
    timeline.extend(
        sending_since.map(|ms| happened(Timestamp::from_millis(ms), "sending", format!("attempt {attempt}"))),
    );
    timeline.extend(sent_at.map(|ms| {
        let detail = attempt_in_words(attempt, record.last_reply.as_ref(), "");
        happened(Timestamp::from_millis(ms), "sent", detail)
    }));
    let surplus = timeline.len().saturating_sub(crate::job::TIMELINE_LIMIT);
    timeline.drain(..surplus);
    Ok(timeline)
}

pub(super) fn batch(row: &BatchRow, states: &[(String, u64)]) -> Result<BatchRecord, Unavailable> {
    let facts = Fields(&row.1).facts()?;
    let mut statuses = [0; Status::ALL.len()];
    for (count, status) in statuses.iter_mut().zip(Status::ALL) {
        *count = states.iter().filter(|(state, _)| state == status.as_str()).map(|(_, n)| n).sum();
    }
    Ok(BatchRecord {
        id: row.0.parse().map_err(unreadable)?,
        accepted_at: facts.accepted,
        count: facts.count,
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
