//! What the queue costs, as far as it is promised: memory for a queued job, time until a waiting consumer wakes up.
//! Speed is printed for the curious; how fast is fast enough depends on the machine.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::queue::{Consumer, Intake, NewBatch, Verdict};

use crate::redis_queue::settlement;
use crate::redis_server::{Server, batch_of, connect, consumer, limits};

/// Bytes of memory for a queued job, beside the content of its batch.
const PROMISED: usize = 900;

async fn used_memory(server: &Server) -> usize {
    let info: String = server.run_command(&["INFO", "memory"]).await;
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().to_owned();
    line.parse().unwrap()
}

/// Queues batches like this one, so many; returns the bytes a job.
async fn bytes_a_job(like: &NewBatch, batches: usize) -> usize {
    let server = Server::start(&["--appendonly", "no"]).await;
    let queue = connect(&server.url(), limits()).await;
    // The first one makes what every queue has once.
    queue.enqueue(NewBatch { id: shared::job::BatchId::generate(), ..like.clone() }).await.unwrap();
    let before = used_memory(&server).await;
    let all = (0..batches)
        .map(|_| queue.enqueue(NewBatch { id: shared::job::BatchId::generate(), ..like.clone() }));
    futures::future::try_join_all(all).await.unwrap();
    let content: usize = {
        let keys: Vec<String> = server.run_command(&["KEYS", "{emailer}:content:*"]).await;
        let length: usize = server.run_command(&["STRLEN", &keys[0]]).await;
        length * batches
    };
    (used_memory(&server).await - before - content) / (batches * like.recipients.len())
}

#[tokio::test]
async fn a_queued_job_takes_no_more_memory_than_promised() {
    let tagged = NewBatch {
        tags: vec!["welcome".to_owned(), "2026-11".to_owned()],
        metadata: Some(crate::redis_server::metadata("customer", "c-1234567890")),
        ..batch_of(1)
    };
    for (what, like, batches) in [
        ("alone", batch_of(1), 5_000),
        ("alone, with tags and metadata", tagged, 5_000),
        ("in batches of 10", batch_of(10), 500),
        ("in batches of 1,000", batch_of(1_000), 10),
    ] {
        let bytes = bytes_a_job(&like, batches).await;
        println!("memory of a job, {what}: {bytes} bytes");
        assert!(bytes <= PROMISED, "{what}: {bytes} bytes a job, promised are {PROMISED}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_consumer_wakes_up_at_once() {
    let server = Server::start(&["--appendfsync", "everysec"]).await;
    let queue = Arc::new(connect(&server.url(), limits()).await);
    let me = consumer("me");
    let mut took = Vec::new();
    for _ in 0..200 {
        assert!(queue.claim(&me, 1).await.unwrap().is_empty());
        let waiting = tokio::spawn({
            let (queue, me) = (Arc::clone(&queue), me.clone());
            async move {
                queue.ready(&me, Duration::from_secs(20)).await.unwrap();
                (Instant::now(), queue.claim(&me, 1).await.unwrap())
            }
        });
        tokio::task::yield_now().await;
        let asked = Instant::now();
        queue.enqueue(batch_of(1)).await.unwrap();
        let (woken, jobs) = waiting.await.unwrap();
        assert_eq!(jobs.len(), 1);
        queue.settle(&me, &[settlement(&jobs[0], Verdict::Sent)]).await.unwrap();
        took.push(woken.saturating_duration_since(asked));
    }
    took.sort_unstable();
    println!(
        "from the call of enqueue to the wake-up: median {:?}, p99 {:?}, worst {:?}",
        took[100], took[197], took[199]
    );
    // Half of what a lost wake-up would cost: the wait looks again only after a second.
    assert!(took[199] < Duration::from_millis(500), "{:?}", took[199]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_speed_is_printed() {
    let server = Server::start(&["--appendfsync", "everysec"]).await;
    let queue = connect(&server.url(), limits()).await;
    let me = consumer("me");
    let start = Instant::now();
    for _ in 0..20 {
        futures::future::try_join_all((0..200).map(|_| queue.enqueue(batch_of(1)))).await.unwrap();
    }
    println!("enqueue, 200 requests at a time: {:.0} jobs/s", 4_000.0 / start.elapsed().as_secs_f64());
    let start = Instant::now();
    for _ in 0..10 {
        queue.enqueue(batch_of(1_000)).await.unwrap();
    }
    println!("enqueue, batches of 1,000: {:.0} jobs/s", 10_000.0 / start.elapsed().as_secs_f64());
    let (start, mut ended) = (Instant::now(), 0);
    loop {
        let jobs = queue.claim(&me, 64).await.unwrap();
        if jobs.is_empty() {
            break;
        }
        let settlements: Vec<_> = jobs.iter().map(|job| settlement(job, Verdict::Sent)).collect();
        ended += queue.settle(&me, &settlements).await.unwrap().len();
    }
    assert_eq!(ended, 14_000);
    println!("claim and settle, 64 at a time: {:.0} jobs/s", 14_000.0 / start.elapsed().as_secs_f64());
}
