//! What the tests and the scripts measure and break things with. Never shipped.

pub mod relay;
