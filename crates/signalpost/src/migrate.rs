//! `signalpost migrate`: brings what is durable to the state that this version works on. May be run again at any time.

use std::path::PathBuf;

use anyhow::Context as _;
use signalpost_config::{Kind, Settings};
use signalpost_wiring::Failure;

use crate::data_dir::DataDir;

/// Make or upgrade schema and topics
///
/// With SIGNALPOST_DATABASE_URL set: the schema in PostgreSQL and the topics in Kafka (a build with the feature
/// `cluster`). Without, or with --data-dir: the SQLite file of the data directory, which `dev` and `standalone` also do by themselves.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A TOML file with settings [env: SIGNALPOST_CONFIG]
    #[arg(long)]
    config: Option<PathBuf>,
    /// The data directory, for SQLite [env: SIGNALPOST_DATA_DIR] [default: ./signalpost-data]
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// Migrates, and says what it did.
pub async fn run(args: Args) -> Result<(), Failure> {
    let mut settings = signalpost_config::load(Kind::Tool, args.config.as_deref())?;
    // What is said on the command line is what is meant, whatever else is set.
    if let Some(data_dir) = args.data_dir {
        settings.storage.data_dir = data_dir;
        sqlite(&settings).await
    } else if settings.storage.database_url.is_some() || settings.kafka.brokers.is_some() {
        cluster(&settings).await
    } else {
        sqlite(&settings).await
    }
}

async fn sqlite(settings: &Settings) -> Result<(), Failure> {
    let data_dir = DataDir::open(&settings.storage.data_dir)?;
    let file = data_dir.database();
    let shown = file.display().to_string();
    let (clock, entropy) = (signalpost_runtime::SystemClock::new(), signalpost_runtime::SystemEntropy);
    let opened = tokio::task::spawn_blocking(move || {
        signalpost_store_sqlite::SqliteStore::open(file, std::sync::Arc::new(clock), std::sync::Arc::new(entropy))
    });
    opened.await.context("the migration could not run")?.with_context(|| format!("cannot migrate {shown}"))?;
    println!("{shown} is up to date");
    Ok(())
}

#[cfg(not(feature = "cluster"))]
async fn cluster(_settings: &Settings) -> Result<(), Failure> {
    Err(Failure::setting(
        "this build knows no PostgreSQL and Kafka; `cargo build --release -p signalpost --features cluster` makes one that does",
    ))
}

#[cfg(feature = "cluster")]
async fn cluster(settings: &Settings) -> Result<(), Failure> {
    signalpost_cluster::migrate::run(settings).await
}
