//! `signalpost doctor`: looks at everything that Signalpost needs, and says what to do about what is missing.

mod here;
mod secrets;
mod start;

use std::{net::SocketAddr, path::PathBuf};

use signalpost_config::{Kind, Settings, address};
use signalpost_wiring::{Failure, Finding};

/// Check every dependency and limit, and say what to do
///
/// Looks at what is set: with SIGNALPOST_DATABASE_URL, SIGNALPOST_KAFKA_BROKERS or SIGNALPOST_REDIS_URL at a cluster (a
/// build with the feature `cluster`), else, or with --data-dir, at `dev` and `standalone`. Exit code 1 when something fails.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A TOML file with settings [env: SIGNALPOST_CONFIG]
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where `dev` and `standalone` listen [env: SIGNALPOST_LISTEN] [default: 127.0.0.1:8080]
    #[arg(long, value_parser = address)]
    listen: Option<SocketAddr>,
    /// The data directory of `dev` and `standalone` [env: SIGNALPOST_DATA_DIR] [default: ./signalpost-data]
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// Prints what was found.
pub async fn run(args: Args) -> Result<(), Failure> {
    let cluster = args.data_dir.is_none() && is_cluster(&signalpost_config::load(Kind::Tool, args.config.as_deref())?);
    // `standalone` has its own defaults; for a cluster the tool looks at what is set.
    let kind = if cluster { Kind::Tool } else { Kind::Standalone };
    let mut settings = signalpost_config::load(kind, args.config.as_deref())?;
    if let Some(data_dir) = args.data_dir {
        settings.storage.data_dir = data_dir;
    }
    if let Some(listen) = args.listen {
        settings.service.listen = listen;
    }
    let mut findings = vec![here::clock(), here::files(&settings)];
    findings.extend(start::settings(&settings));
    if cluster {
        findings.extend(of_cluster(&settings).await);
    } else {
        findings.extend(here::data_dir_and_port(&settings).await);
        findings.extend(secrets::of_directory(&settings));
    }
    for finding in &findings {
        println!("{finding}");
    }
    match findings.iter().filter(|finding| finding.is_bad()).count() {
        0 => Ok(()),
        bad => {
            println!("\n{bad} of {} checks failed", findings.len());
            Err(Failure::Told)
        }
    }
}

fn is_cluster(settings: &Settings) -> bool {
    let storage = &settings.storage;
    storage.database_url.is_some() || storage.redis_url.is_some() || settings.kafka.brokers.is_some()
}

#[cfg(not(feature = "cluster"))]
async fn of_cluster(_settings: &Settings) -> Vec<Finding> {
    let remedy = "cargo build --release -p signalpost --features cluster";
    vec![Finding::bad("cluster", "this build knows no PostgreSQL, Kafka and Redis", remedy)]
}

#[cfg(feature = "cluster")]
async fn of_cluster(settings: &Settings) -> Vec<Finding> {
    signalpost_cluster::diagnose::all(settings).await
}
