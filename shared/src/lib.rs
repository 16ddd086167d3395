//! The domain of Emailer, its settings and its queues: everything that the API and the worker have in
//! common. The domain's modules do no I/O and name no backend; see [`queue`] for the one interface that
//! three backends share.

pub mod address;
pub mod classify;
pub mod clock;
mod findings;
pub mod health;
pub mod job;
pub mod message;
pub mod metrics;
pub mod program;
pub mod queue;
pub mod reply;
pub mod retry;
pub mod settings;
pub mod shutdown;
pub mod supervisor;
pub mod telemetry;
pub mod template;
