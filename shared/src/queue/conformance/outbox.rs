//! Messages that are kept instead of sent: the newest, and no more than there is room for.

use std::time::Duration;

use super::Harness;
use super::bench::{Bench, must, some};
use crate::job::{BatchId, JobId};
use crate::queue::{KeptMessage, OUTBOX_BYTES, OUTBOX_MESSAGES};

impl Bench<'_> {
    async fn keep(&self, job: JobId, source: String) -> KeptMessage {
        let message = KeptMessage {
            job,
            at: self.harness.now(),
            from: "shop@sender.example".to_owned(),
            to: vec!["user@example.com".to_owned()],
            source,
        };
        must(self.handles[0].keep(message.clone()).await);
        // Their order is by time.
        self.harness.pass(Duration::from_millis(2)).await;
        message
    }

    async fn kept_jobs(&self, limit: usize) -> Vec<JobId> {
        must(self.handles[1].kept(limit).await).into_iter().map(|message| message.job).collect()
    }
}

fn some_job() -> JobId {
    JobId { batch: BatchId::generate(), index: 0 }
}

/// A message is found by its job, and in the list.
pub async fn kept_messages_come_newest_first(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    assert!(bench.kept_jobs(10).await.is_empty());
    let jobs = [some_job(), some_job(), some_job()];
    for job in jobs {
        let message = bench.keep(job, format!("Subject: {job}\r\n\r\nHello\r\n")).await;
        assert_eq!(must(bench.handles[1].kept_message(job).await), Some(message));
    }
    assert_eq!(bench.kept_jobs(10).await, [jobs[2], jobs[1], jobs[0]]);
    assert_eq!(bench.kept_jobs(2).await, [jobs[2], jobs[1]]);
    assert_eq!(must(bench.queue.kept_message(some_job()).await), None);
}

/// A job has one message, the last.
pub async fn second_message_of_a_job_takes_the_place_of_the_first(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let (job, other) = (some_job(), some_job());
    bench.keep(job, "first".to_owned()).await;
    bench.keep(other, "other".to_owned()).await;
    bench.keep(job, "second".to_owned()).await;
    assert_eq!(bench.kept_jobs(10).await, [job, other]);
    assert_eq!(some(must(bench.queue.kept_message(job).await), "message").source, "second");
}

/// The oldest make way.
pub async fn outbox_keeps_a_bounded_number(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let jobs: Vec<_> = (0..OUTBOX_MESSAGES + 3).map(|_| some_job()).collect();
    for job in &jobs {
        bench.keep(*job, "Hello".to_owned()).await;
    }
    let newest: Vec<_> = jobs.iter().rev().take(OUTBOX_MESSAGES).copied().collect();
    assert_eq!(bench.kept_jobs(usize::MAX).await, newest);
    assert_eq!(must(bench.queue.kept_message(jobs[2]).await), None);
}

/// The same for their size.
pub async fn outbox_keeps_a_bounded_size(harness: &dyn Harness) {
    let bench = Bench::new(harness).await;
    let jobs: Vec<_> = (0..5).map(|_| some_job()).collect();
    for job in &jobs {
        bench.keep(*job, "x".repeat(OUTBOX_BYTES / 3)).await;
    }
    assert_eq!(bench.kept_jobs(10).await, [jobs[4], jobs[3], jobs[2]]);
}
