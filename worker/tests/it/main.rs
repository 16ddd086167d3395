//! The worker against a scripted relay.

mod delivery;
mod support;
