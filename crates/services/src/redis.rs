//! A Redis of our own.

use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::{
    free_port,
    process::{Process, Spec, find_program},
};

/// A running Redis without persistence. Stopped when dropped.
#[derive(Debug)]
pub struct Redis {
    /// The server process.
    pub process: Process,
    spec: Spec,
    port: u16,
    _folder: TempDir,
}

impl Redis {
    /// Starts one.
    ///
    /// # Errors
    /// Redis is not installed, or does not start.
    pub fn start() -> anyhow::Result<Self> {
        let program = find_program("redis-server").context("Redis is not installed (`redis-server` was not found)")?;
        let folder = tempfile::Builder::new().prefix("signalpost-redis-").tempdir()?;
        let port = free_port()?;
        let spec = Spec::new("redis", program, folder.path())
            .args(&["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--maxmemory", "256mb"])
            .args(&["--maxmemory-policy", "noeviction", "--port"])
            .arg(port.to_string());
        let process = spec.start()?;
        let mut redis = Self { process, spec, port, _folder: folder };
        redis.process.wait_for_port(port, Duration::from_secs(10))?;
        Ok(redis)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops it; what it held is gone.
    ///
    /// # Errors
    /// It does not stop.
    pub fn halt(&mut self) -> anyhow::Result<()> {
        self.process.kill().map(drop)
    }

    /// Starts it again on the same port, empty.
    ///
    /// # Errors
    /// It does not start.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.process = self.spec.start()?;
        self.process.wait_for_port(self.port, Duration::from_secs(10))
    }
}
