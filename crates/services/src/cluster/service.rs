//! One of our services: a spec that can be started again, and its process while it runs.

use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::{
    Process,
    process::{Spec, port_answers},
};

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `signalpost-api`.
    Api,
    /// `signalpost-dispatcher`.
    Dispatcher,
    /// `signalpost-retry`.
    Retry,
}

impl Kind {
    /// Its name, as in that of its program.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Dispatcher => "dispatcher",
            Self::Retry => "retry",
        }
    }
}

/// One of our services.
#[derive(Debug)]
pub struct Service {
    pub(super) spec: Spec,
    /// The port of its API, or of its health and metrics.
    pub port: u16,
    /// None while it is stopped.
    pub process: Option<Process>,
}

impl Service {
    pub(super) fn start(spec: Spec, port: u16) -> anyhow::Result<Self> {
        let process = Some(spec.start()?);
        Ok(Self { spec, port, process })
    }

    /// What it is called, as in the name of its log: `dispatcher-0`.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for its drained end. Its exit code must be 0.
    ///
    /// # Errors
    /// It does not stop, or with another code.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let status = process.stop(Duration::from_secs(60))?;
        if !status.success() {
            bail!("{} ended with {status}; its log ends:\n{}", self.spec.name, process.log_tail());
        }
        Ok(())
    }

    /// Starts it again and waits until it listens.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process = Some(self.spec.start()?);
        self.wait_listening()
    }

    /// Waits until it listens.
    ///
    /// # Errors
    /// It ended.
    pub fn wait_listening(&mut self) -> anyhow::Result<()> {
        let port = self.port;
        let process = self.process.as_mut().context("it is stopped")?;
        process.wait_until(Duration::from_secs(30), || port_answers(port))
    }
}
