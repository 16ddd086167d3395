//! The worker against a scripted relay.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is not as it must be")]

mod connection;
mod delivery;
mod meaning;
mod replies;
mod round_trips;
mod supervised;
mod support;
mod tls;
