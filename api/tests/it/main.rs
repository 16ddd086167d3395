//! The API over real HTTP, in front of a memory queue.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is not as it must be")]

mod accept;
mod access;
mod body;
mod idempotency;
mod jobs;
mod measure;
mod outage;
mod outbox;
mod refuse;
mod supervised;
mod support;
