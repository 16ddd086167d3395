//! The queues against real servers.

mod redis_access;
mod redis_faults;
mod redis_measure;
mod redis_promises;
mod redis_queue;
mod redis_server;
mod redis_topology;
mod redis_walk;
