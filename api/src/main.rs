//! `emailer-api`: the HTTP API, with the delivery workers in the same process where the queue is in memory.

use std::process::ExitCode;

use api::program;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ABOUT: &str =
    "The HTTP API of Emailer. With queue.type = memory it delivers, too: one program does the whole job.";

#[tokio::main]
async fn main() -> ExitCode {
    let begun = match shared::program::begin("emailer-api", ABOUT) {
        Ok(begun) => begun,
        Err(code) => return code,
    };
    match program::run(begun).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(shared::program::FAILED)
        }
    }
}
