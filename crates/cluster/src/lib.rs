//! The three services of a cluster: PostgreSQL, Kafka and Redis behind the ports of the same libraries that
//! `standalone` runs on SQLite. Wiring only.
//!
//! None of the three needs anything to be there when it starts: it comes up, tells at `/health/ready` what is missing,
//! and does its work as soon as that is there. Only settings that cannot be end it.

pub mod api;
pub mod connect;
pub mod diagnose;
pub mod dispatcher;
mod health;
pub mod migrate;
pub mod retry;

use std::path::PathBuf;

use signalpost_config::{Kind, Settings};
use signalpost_wiring::Failure;

/// The command line of each service. All else is set by environment or file.
#[derive(Debug, clap::Parser)]
#[command(version, about = "A service of a Signalpost cluster; see docs/configuration.md for its settings")]
pub struct Args {
    /// A TOML file with settings [env: SIGNALPOST_CONFIG]
    #[arg(long)]
    config: Option<PathBuf>,
}

impl Args {
    fn settings(&self, kind: Kind) -> Result<Settings, Failure> {
        Ok(signalpost_config::load(kind, self.config.as_deref())?)
    }
}
