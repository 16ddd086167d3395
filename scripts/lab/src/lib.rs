//! What the tests and the scripts measure and break things with. Never shipped.
//!
//! [`load`] asks, [`sink`] takes the mail, [`wire`] lies between two programs and makes the way long, narrow or
//! broken: for measurements and for faults, as a library and as subcommands of the binary `lab`. [`relay`] is the
//! SMTP server of the tests: it answers what it is told to.

mod clock;
mod control;
pub mod load;
pub mod relay;
pub mod sink;
pub mod wire;
