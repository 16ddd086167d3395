//! `emailer-worker`: claims jobs from a queue that several processes share, and sends them.

use std::process::ExitCode;

use shared::program::{begin, ended};
use shared::settings::Program;
use worker::program;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ABOUT: &str =
    "Claims jobs from a queue that several processes share, sends them, acks them. Any number may run.";

#[tokio::main]
async fn main() -> ExitCode {
    match begin(Program::Worker, "emailer-worker", ABOUT) {
        Ok(begun) => ended(Box::pin(program::run(begun)).await),
        Err(code) => code,
    }
}
