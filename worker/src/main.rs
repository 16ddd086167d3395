//! `emailer-worker`: claims jobs from a queue that several processes share, and sends them.

use std::process::ExitCode;

use shared::settings::Program;
use worker::program;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ABOUT: &str =
    "Claims jobs from a queue that several processes share, sends them, acks them. Any number may run.";

#[tokio::main]
async fn main() -> ExitCode {
    let begun = match shared::program::begin(Program::Worker, "emailer-worker", ABOUT) {
        Ok(begun) => begun,
        Err(code) => return code,
    };
    match Box::pin(program::run(begun)).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(shared::program::FAILED)
        }
    }
}
