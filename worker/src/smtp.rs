//! One SMTP connection to a relay: opened, protected, logged in, used for one message after another.
//!
//! It stands on lettre's connection and commands, over a stream of our own ([`wire`]) that sets `TCP_NODELAY`, keeps a
//! deadline for every stage and makes irregular replies regular. Which message goes next, and what a failure means for
//! a job, is decided elsewhere.

mod connect;
mod connection;
mod ehlo;
mod limit;
mod replies;
mod tls;
mod wire;

pub use connect::{Connector, ConnectorError};
pub use connection::Connection;
