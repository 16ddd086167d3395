//! The delivery side of Emailer: claims jobs, composes and sends their messages, settles them.
//!
//! `consumer` → `delivery` → `settle`. The binary runs it beside Redis; the API runs the same beside its
//! memory queue.

pub mod compose;
pub mod smtp;
