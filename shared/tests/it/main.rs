//! The queues: each through the conformance suite, and those on servers against real ones.

mod memory;
mod redis_access;
mod redis_conformance;
mod redis_faults;
mod redis_measure;
mod redis_promises;
mod redis_queue;
mod redis_server;
mod redis_topology;
mod redis_upgrade;
mod redis_walk;
