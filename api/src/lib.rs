//! The HTTP API of Emailer: takes mails, promises them, tells what became of them.
