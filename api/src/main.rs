//! The HTTP API.

fn main() {}
