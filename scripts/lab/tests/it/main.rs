//! The lab's tools against each other: what measures must be right itself.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

mod load;
mod readme;
mod sink;
mod wire;
