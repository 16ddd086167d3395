//! The queues against the suite that all of them pass.

mod memory;
