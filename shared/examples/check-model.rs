//! Walks at random through everything that the Redis queue does, on a real server, beside a model that knows what each
//! step must answer, and looks over what Redis holds: `scripts/check-model --help`.
//!
//! `--mutants` plants one defect after the other into the scripts: each has to be found.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for the developers, which fails like a test"
)]

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use shared::queue::conformance::walk::random_walk_keeps_every_promise;
use shared::queue::redis::testing::plant;

#[path = "../tests/it/redis_conformance.rs"]
mod redis_conformance;
#[expect(dead_code, unused_imports, reason = "the tests use the rest")]
#[path = "../tests/it/redis_queue.rs"]
mod redis_queue;
#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/it/redis_server.rs"]
mod redis_server;
#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/it/redis_walk.rs"]
mod redis_walk;

use redis_conformance::{Redis, Walk};

/// Checks the Redis queue against a model, step by step; needs redis-server
#[derive(Parser)]
struct Asked {
    /// Chooses the steps
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Steps of a walk; there are two, one beside the model and one with a look at all keys
    #[arg(long, default_value_t = 2_000)]
    steps: usize,
    /// Plants each of the known defects; fails where one is not found
    #[arg(long)]
    mutants: bool,
    /// Plants this one
    #[arg(long, hide = true)]
    defect: Option<usize>,
}

/// What is wrong, in which operation, instead of what.
const DEFECTS: &[(&str, &str, &str, &str)] = &[
    (
        "an end is taken of whoever held the job last",
        "settle",
        " and receipt == job.sid .. '/' .. string.format('%d', job.reclaims)",
        "",
    ),
    (
        "a late 250 is not taken",
        "settle",
        "if job.state == 'sent' then return 'lost' end",
        "if not mine then return 'lost' end",
    ),
    (
        "a retry does not wait",
        "settle",
        "make_wait(job, 'retrying', now + tonumber(delay))",
        "make_wait(job, 'retrying', now)",
    ),
    ("a failed job's content is not kept", "settle", "failed = true, held = true }", "held = true }"),
    ("a live worker's job is taken", "reclaim", "'IDLE', lease,", "'IDLE', 0,"),
    ("reclaims are not counted", "reclaim", "job.reclaims = job.reclaims + 1", "job.reclaims = job.reclaims"),
    ("a job is handed out and not counted so", "claim", "shift(job, 'sending')", "job.state = 'sending'"),
    (
        "a job that is being sent can be cancelled",
        "cancel",
        "job.state ~= 'retrying'",
        "job.state ~= 'retrying' and job.state ~= 'sending'",
    ),
    ("a requeued job keeps its attempts", "requeue", "job.attempts = 0", "job.attempts = job.attempts"),
    ("the limit is not kept", "enqueue", "used + b.count > max", "used > max"),
    ("the limit is not kept for plain batches", "enqueue", "used + plain > max_queue", "used > max_queue"),
    ("a repeated plain batch is queued again", "enqueue", "if not all_new or is_twice", "if is_twice"),
    ("what was refused leaves its content", "enqueue", "drop_unwanted_content(b.id) end", "end"),
    ("a plain job is handed out and not counted so", "claim", "count(priority, 'sending', first)", ""),
    ("a sent plain job's content is kept", "settle", "free_content(batch_id, h[6])", ""),
    ("a stranger's success leaves the queue as it was", "settle", "or h[5] ~= me or", "or"),
    (
        "what has changed of a job is passed over when it is handed out",
        "claim",
        "or h[3] or not facts or not recipient",
        "or not facts or not recipient",
    ),
];

#[tokio::main]
async fn main() -> ExitCode {
    let asked = Asked::parse();
    if asked.mutants {
        return mutants(&asked);
    }
    if let Some(number) = asked.defect {
        let (_, operation, from, to) = DEFECTS[number];
        plant(operation, from, to);
    }
    let mut walk = Walk::SHORT;
    (walk.seed, walk.walks, walk.steps, walk.unit) = (asked.seed, 1, asked.steps, Duration::from_millis(40));
    random_walk_keeps_every_promise(&Redis::for_a_walk(walk).await).await;
    println!("seed {}: {} steps, each answered as the model says", asked.seed, asked.steps);
    redis_walk::look_over_a_walk(asked.seed, asked.steps).await;
    println!("seed {}: {} steps, all keys as they must be", asked.seed, asked.steps);
    ExitCode::SUCCESS
}

/// How many walks a defect is looked for on: a clock that runs makes each another, and not every one comes by.
const SEEDS: u64 = 6;

/// What a walk with a defect says when it finds it.
fn found_by(defect: usize, seed: u64, steps: usize) -> Option<String> {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--seed", &seed.to_string(), "--steps", &steps.to_string(), "--defect", &defect.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    let found = said.lines().skip_while(|line| !line.contains("panicked at")).nth(1).unwrap_or_default();
    (!run.status.success()).then(|| found.to_owned())
}

fn mutants(asked: &Asked) -> ExitCode {
    let mut survivors = 0;
    for (number, (what, ..)) in DEFECTS.iter().enumerate() {
        let mut seeds = asked.seed..asked.seed + SEEDS;
        if let Some(found) = seeds.find_map(|seed| found_by(number, seed, asked.steps)) {
            println!("found      {what}: {}", found.chars().take(120).collect::<String>());
        } else {
            survivors += 1;
            println!("NOT FOUND  {what}");
        }
    }
    println!("{} of {} defects were found", DEFECTS.len() - survivors, DEFECTS.len());
    if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
