//! `emailer-api`: the HTTP API, with the delivery workers in the same process where the queue is in memory.

use std::process::ExitCode;

use api::program;
use shared::settings::Program;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ABOUT: &str =
    "The HTTP API of Emailer. With queue.type = memory it delivers, too: one program does the whole job.";

#[tokio::main]
async fn main() -> ExitCode {
    let begun = match shared::program::begin(Program::Api, "emailer-api", ABOUT) {
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
