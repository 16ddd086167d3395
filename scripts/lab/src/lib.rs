//! What the tests and the scripts measure and break things with. Never shipped.
//!
//! [`chaos`] breaks a running fleet and counts every mail; [`balance`] restarts APIs behind a load balancer.
//! [`load`] asks, [`sink`] takes the mail, [`wire`] lies between two programs and makes the way long, narrow or
//! broken: for measurements and for faults, as a library and as subcommands of the binary `lab`. [`relay`] is the
//! SMTP server of the tests: it answers what it is told to; [`manager`] hears what a service manager would.

pub mod balance;
pub mod chaos;
mod clock;
mod control;
pub mod load;
pub mod manager;
pub mod process;
pub mod relay;
pub mod sink;
pub mod wire;
