//! `emailer-api`: the HTTP API, with the delivery workers in the same process where the queue is in memory.

use std::process::ExitCode;

use api::program;
use shared::program::{begin, ended};
use shared::settings::Program;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ABOUT: &str =
    "The HTTP API of Emailer. With queue.type = memory it delivers, too: one program does the whole job.";

#[tokio::main]
async fn main() -> ExitCode {
    match begin(Program::Api, "emailer-api", ABOUT) {
        Ok(begun) => ended(Box::pin(program::run(begun)).await),
        Err(code) => code,
    }
}
