//! A random walk through all operations, with what Redis holds looked over on the way: every job is in one place, the
//! counters are what a scan finds, and nothing is kept that nobody needs.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use redis::aio::MultiplexedConnection;
use shared::clock::{Clock, SystemClock};
use shared::job::{JobId, OnAmbiguous, Priority, Reason};
use shared::queue::redis::RedisQueue;
use shared::queue::{Consumer, ConsumerId, Control, Delivery, Intake, Limits, NewBatch, Verdict};

use crate::redis_queue::{sent, settlement, templated};
use crate::redis_server::{Server, batch_of, connect, consumer};

const STEPS: usize = 1_000;
const LEASE: Duration = Duration::from_millis(20);

#[tokio::test]
async fn every_job_is_in_one_place_and_counted_there_whatever_is_done() {
    for seed in [1, 2, 3] {
        let done = look_over_a_walk(seed, STEPS).await;
        assert_eq!(done.len(), 13, "not everything was done: {done:?}");
    }
}

/// Goes a walk; returns what was done on it.
pub(crate) async fn look_over_a_walk(seed: u64, steps: usize) -> BTreeSet<&'static str> {
    {
        let server = Server::start(&["--appendonly", "no"]).await;
        let limits = Limits {
            max_queue_size: 60,
            max_scheduled: 30,
            lease: LEASE,
            retention: Duration::from_millis(400),
            failed_retention: Duration::from_millis(600),
            retain: 40,
        };
        let mut walk = Walk {
            queue: connect(&server.url(), limits).await,
            chance: StdRng::seed_from_u64(seed),
            consumers: ["a", "b", "c"].map(consumer),
            jobs: Vec::new(),
            deliveries: Vec::new(),
            done: BTreeSet::new(),
        };
        let mut redis = server.connection().await;
        // Makes the groups, which are asked below.
        walk.queue.claim(&consumer("a"), 1).await.unwrap();
        for step in 0..steps {
            let did = walk.step().await;
            if step % 10 == 0 {
                look_over(&mut redis, &walk.queue, &format!("seed {seed}, step {step}, after {did}")).await;
            }
        }
        walk.done
    }
}

struct Walk {
    queue: RedisQueue,
    chance: StdRng,
    consumers: [ConsumerId; 3],
    jobs: Vec<JobId>,
    /// All that were ever handed out, so that zombies and replays come up.
    deliveries: Vec<Delivery>,
    done: BTreeSet<&'static str>,
}

impl Walk {
    async fn step(&mut self) -> &'static str {
        let me = self.consumers.choose(&mut self.chance).unwrap().clone();
        let job = self.jobs.iter().rev().take(60).collect::<Vec<_>>();
        let job = job.choose(&mut self.chance).map(|job| **job);
        let roll = self.chance.random_range(0..100);
        let did = match (roll, job) {
            (0..20, _) | (_, None) => self.enqueue().await,
            (20..40, _) => {
                let max = self.chance.random_range(1..6);
                let claimed = self.queue.claim(&me, max).await.unwrap();
                self.deliveries.extend(claimed);
                "claim"
            }
            (40..65, _) => self.settle(&me).await,
            (65..70, Some(job)) => {
                self.queue.extend(&me, &[job]).await.unwrap();
                "extend"
            }
            (70..74, Some(job)) => {
                self.queue.mark(&me, &[job]).await.unwrap();
                "mark"
            }
            (74..80, _) => {
                tokio::time::sleep(LEASE).await;
                let reclaimed = self.queue.reclaim(&me, 3).await.unwrap();
                self.deliveries.extend(reclaimed.deliveries);
                "reclaim"
            }
            (80..88, _) => {
                self.queue.maintain().await.unwrap();
                "maintain"
            }
            (88..90, Some(job)) => {
                self.queue.cancel(job).await.unwrap();
                "cancel"
            }
            (90..91, Some(job)) => {
                self.queue.cancel_batch(job.batch).await.unwrap();
                "cancel_batch"
            }
            (91..94, Some(job)) => {
                self.queue.requeue(job).await.unwrap();
                "requeue"
            }
            (94..97, Some(job)) => {
                let at = SystemClock.now() + Duration::from_millis(self.chance.random_range(0..50));
                self.queue.reschedule(job, at).await.unwrap();
                "reschedule"
            }
            (97..98, _) => {
                self.queue.set_paused(true).await.unwrap();
                "pause"
            }
            _ => {
                self.queue.set_paused(false).await.unwrap();
                "resume"
            }
        };
        self.done.insert(did);
        did
    }

    async fn enqueue(&mut self) -> &'static str {
        // Most batches are of one job, and most jobs are sent, as it is in life.
        let mut batch = batch_of(if self.chance.random() { 1 } else { self.chance.random_range(1..5) });
        if self.chance.random() {
            batch = templated(batch);
        }
        let later = SystemClock.now() + Duration::from_millis(self.chance.random_range(1..60));
        let batch = NewBatch {
            priority: *Priority::ALL.choose(&mut self.chance).unwrap(),
            on_ambiguous: if self.chance.random() { OnAmbiguous::Hold } else { OnAmbiguous::Resend },
            send_at: self.chance.random_bool(0.3).then_some(later),
            expire_after: Duration::from_millis(self.chance.random_range(50..1_000)),
            ..batch
        };
        if let Ok(accepted) = self.queue.enqueue(batch).await {
            let batch = accepted.batch;
            self.jobs.extend((0..accepted.count).map(|index| JobId { batch, index }));
        }
        "enqueue"
    }

    async fn settle(&mut self, me: &ConsumerId) -> &'static str {
        let recent = self.deliveries.iter().rev().take(25).collect::<Vec<_>>();
        let delay = Duration::from_millis(self.chance.random_range(0..40));
        let verdicts = [
            Verdict::Sent,
            Verdict::Retry { delay },
            Verdict::Retry { delay: Duration::from_secs(5) },
            Verdict::Release,
            Verdict::Fail(Reason::Permanent),
            Verdict::Fail(Reason::Suppressed),
            Verdict::Hold,
        ];
        let settlements: Vec<_> = (0..self.chance.random_range(1..4))
            .filter_map(|_| {
                let delivery = recent.choose(&mut self.chance)?;
                if self.chance.random() {
                    return Some(sent(delivery));
                }
                Some(settlement(delivery, *verdicts.choose(&mut self.chance)?))
            })
            .collect();
        self.queue.settle(me, &settlements).await.unwrap();
        "settle"
    }
}

async fn ask<T: redis::FromRedisValue>(redis: &mut MultiplexedConnection, words: &[&str]) -> T {
    let mut cmd = redis::cmd(words[0]);
    cmd.arg(&words[1..]);
    cmd.query_async(redis).await.unwrap()
}

/// What Redis holds, as one moment shows it: nothing else is done meanwhile.
async fn look_over(redis: &mut MultiplexedConnection, queue: &RedisQueue, when: &str) {
    let ledger = queue.stats().await.unwrap().ledger;
    assert!(ledger.balances(), "{when}: {ledger:?}");
    let said = said_by_jobs(redis, when).await;
    let found = found_in_indexes(redis, when).await;
    assert_eq!(said.places, found, "{when}");
    check_counters(redis, &said, when).await;
    check_shared(redis, &said, when).await;
}

type Places = BTreeMap<&'static str, BTreeSet<String>>;

fn key(name: &str) -> String {
    format!("{{emailer}}:{name}")
}

async fn ids(redis: &mut MultiplexedConnection, kind: &str) -> BTreeSet<String> {
    let prefix = key(&format!("{kind}:"));
    let keys: Vec<String> = ask(redis, &["KEYS", &format!("{prefix}*")]).await;
    keys.iter().map(|key| key[prefix.len()..].to_owned()).collect()
}

async fn hash(redis: &mut MultiplexedConnection, name: &str) -> HashMap<String, String> {
    ask(redis, &["HGETALL", &key(name)]).await
}

/// What the jobs' own records say.
#[derive(Default)]
struct Said {
    batches: HashMap<String, HashMap<String, String>>,
    jobs: BTreeSet<String>,
    places: Places,
    /// By state and priority.
    counted: BTreeMap<String, u64>,
    /// Jobs that need the content, by batch.
    needing: BTreeMap<String, u64>,
    records: BTreeMap<String, u64>,
}

async fn said_by_jobs(redis: &mut MultiplexedConnection, when: &str) -> Said {
    let mut said = Said { jobs: ids(redis, "job").await, ..Said::default() };
    for id in ids(redis, "batch").await {
        let batch = hash(redis, &format!("batch:{id}")).await;
        said.batches.insert(id, batch);
    }
    for id in said.jobs.clone() {
        let job = hash(redis, &format!("job:{id}")).await;
        // Of a batch of one job that is gone.
        if job.keys().eq(["gone"]) {
            said.jobs.remove(&id);
            continue;
        }
        let batch_id = id.split('-').next().unwrap().to_owned();
        // A batch of one job is in the job's hash.
        let shared = if job.contains_key("facts") { &job } else { &said.batches[&batch_id] };
        let priority = shared["facts"].split(' ').nth(1).unwrap().to_owned();
        if job.contains_key("facts") {
            said.batches.entry(batch_id.clone()).or_default().extend(job.clone());
        }
        let state = job["state"].as_str();
        let place = match (state, job.contains_key("sid")) {
            ("sending", true) => "pending",
            ("queued" | "retrying", true) => "ready",
            ("scheduled" | "retrying", false) => "delayed",
            // What it was in the stream says nothing any more.
            ("sent" | "cancelled" | "suppressed", _) => "ended",
            ("failed", _) => "failed",
            ("held", _) => "held",
            other => panic!("{when}: {id} is {other:?}"),
        };
        let entry = job.get("sid").filter(|_| matches!(place, "pending" | "ready"));
        let named = entry.map_or_else(|| id.clone(), |sid| format!("{id} {sid}"));
        said.places.entry(place).or_default().insert(named);
        if place == "delayed" && priority == "high" {
            said.places.entry("urgent").or_default().insert(id.clone());
        }
        *said.counted.entry(format!("{state}:{priority}")).or_default() += 1;
        *said.needing.entry(batch_id.clone()).or_default() += u64::from(place != "ended");
        *said.records.entry(batch_id).or_default() += 1;
    }
    said
}

async fn found_in_indexes(redis: &mut MultiplexedConnection, when: &str) -> Places {
    let mut found = Places::new();
    for place in ["delayed", "urgent", "ended", "failed", "held"] {
        found.insert(place, ask(redis, &["ZRANGE", &key(place), "0", "-1"]).await);
    }
    for priority in Priority::ALL {
        let stream = key(&format!("ready:{priority}"));
        let entries: Vec<(String, HashMap<String, String>)> =
            ask(redis, &["XRANGE", &stream, "-", "+"]).await;
        // The group is made when something is first taken from the stream.
        let groups: Vec<redis::Value> =
            if entries.is_empty() { Vec::new() } else { ask(redis, &["XINFO", "GROUPS", &stream]).await };
        let pending: Vec<(String, String, u64, u64)> = if groups.is_empty() {
            Vec::new()
        } else {
            ask(redis, &["XPENDING", &stream, "workers", "-", "+", "10000"]).await
        };
        let pending: BTreeSet<String> = pending.into_iter().map(|entry| entry.0).collect();
        for (sid, fields) in &entries {
            let place = if pending.contains(sid) { "pending" } else { "ready" };
            found.entry(place).or_default().insert(format!("{} {sid}", fields["job"]));
        }
        let in_stream = |sid: &String| entries.iter().any(|(id, _)| id == sid);
        assert!(pending.iter().all(in_stream), "{when}: pending without an entry");
    }
    found.retain(|_, ids| !ids.is_empty());
    found
}

async fn check_counters(redis: &mut MultiplexedConnection, said: &Said, when: &str) {
    for (field, count) in hash(redis, "counters").await {
        let count: u64 = count.parse().unwrap();
        let scanned = said.counted.get(&field).copied().unwrap_or(0);
        // Ended jobs stay counted when their records are gone.
        let removable = ["accepted", "sent:", "failed:", "cancelled:", "suppressed:"];
        let may_be_more = removable.iter().any(|prefix| field.starts_with(prefix));
        assert!(
            count == scanned || (may_be_more && count > scanned),
            "{when}: {field} is {count}, found {scanned}"
        );
    }
}

/// Content and templates are there as long as they are needed, and no longer.
async fn check_shared(redis: &mut MultiplexedConnection, said: &Said, when: &str) {
    let contents = ids(redis, "content").await;
    let mut templates = 0;
    // One that is only remembered has no facts.
    for (id, batch) in said.batches.iter().filter(|(_, batch)| batch.contains_key("facts")) {
        let needing = said.needing.get(id).copied().unwrap_or(0);
        if !batch.contains_key("state") {
            assert_eq!(batch["refs"], needing.to_string(), "{when}: {id}");
            assert_eq!(batch["records"], said.records[id].to_string(), "{when}: {id}");
        }
        assert_eq!(contents.contains(id), needing > 0, "{when}: content of {id}");
        templates += u64::from(needing > 0 && batch.contains_key("template"));
    }
    for id in contents.iter().filter(|id| !said.batches.contains_key(*id)) {
        // Stored ahead of a batch that may still come.
        let ttl: i64 = ask(redis, &["PTTL", &key(&format!("content:{id}"))]).await;
        assert!(ttl > 0, "{when}: content of {id}, which is not known");
    }
    let counted = hash(redis, "templates").await.get("5eed").map_or(0, |n| n.parse().unwrap());
    assert_eq!(counted, templates, "{when}");
    assert_eq!(ids(redis, "template").await.len() as u64, u64::from(templates > 0), "{when}");
    for kind in ["timeline", "detail"] {
        assert!(ids(redis, kind).await.is_subset(&said.jobs), "{when}: {kind} of no job");
    }
}
