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

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Context as _;

pub use cluster::{Cluster, ClusterSpec, Ground, Kind, Own, Service};
pub use kafka::Kafka;
pub use postgres::Postgres;
pub use process::Process;
pub use redis::Redis;

/// Ports below those that systems give to who asks for any (Linux from 32768, others from 49152): what is started with one
/// of these finds it free, however many connections are made meanwhile, and finds it again after a restart.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// A port of 127.0.0.1 that was free a moment ago. Each is given once by a process, and others begin elsewhere.
///
/// # Errors
/// There is none.
pub fn free_port() -> anyhow::Result<u16> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    /// How many ports lie between those of two processes that are started one after the other.
    const APART: u32 = 131;
    let all = u32::from(PORTS.end - PORTS.start);
    for _ in 0..all {
        let place = std::process::id().wrapping_mul(APART).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % all;
        let port = PORTS.start + u16::try_from(place)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    TcpListener::bind("127.0.0.1:0")
        .context("no free port on 127.0.0.1")?
        .local_addr()
        .map(|at| at.port())
        .map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::{PORTS, free_port};

    #[test]
    fn each_port_is_given_once_and_is_none_that_the_system_gives() -> anyhow::Result<()> {
        let ports = (0..50).map(|_| free_port()).collect::<Result<std::collections::BTreeSet<_>, _>>()?;
        assert_eq!(ports.len(), 50);
        assert!(ports.iter().all(|port| PORTS.contains(port)), "{ports:?}");
        Ok(())
    }
}
