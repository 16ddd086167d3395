//! `emailer-worker`: claims jobs from a queue that several processes share, and sends them.

use std::process::ExitCode;

use shared::program::{begin, refuse};
use shared::settings::Backend;

const ABOUT: &str =
    "Claims jobs from a queue that several processes share, sends them, acks them. Any number may run.";

fn main() -> ExitCode {
    match begin("emailer-worker", ABOUT) {
        Err(code) => code,
        Ok(begun) => match begun.settings.queue.backend {
            Backend::Memory => refuse(
                &"queue.type = memory: the memory queue lives inside emailer-api, which delivers its jobs itself; \
                  there is nothing for a worker to claim. Run emailer-api alone.",
            ),
        },
    }
}
