//! Starts what tests and trials need on this machine, without containers: PostgreSQL, Redis, a real Apache Kafka
//! and a whole Signalpost cluster. Each on a free port, with its data in a temporary folder of its own, stopped when it is
//! dropped (and, on Linux, when this process dies).
//!
//! Blocking on purpose: it is called before and beside an async runtime, never on a request path.

pub mod cluster;
pub mod kafka;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod requirements;

use std::net::TcpListener;

use anyhow::Context as _;

pub use cluster::{Cluster, ClusterSpec, Ground, Kind, Own, Service};
pub use kafka::Kafka;
pub use postgres::Postgres;
pub use process::Process;
pub use redis::Redis;

/// A port of 127.0.0.1 that was free a moment ago.
///
/// # Errors
/// There is none.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}
