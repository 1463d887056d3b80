//! `dev` and `standalone`: API, dispatcher and retry in one process, on SQLite, with bus and limits in memory.
//!
//! `dev` is as durable; it adds an inbox to send to, loopback as a place that deliveries may reach, and a terminal that
//! tells of every attempt.

mod attempts;
mod greeting;
mod watch;
mod wiring;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use signalpost_config::{Kind, LogFilter, Settings, address};
use signalpost_core::{Entropy, Secret};
use signalpost_runtime::Shutdown;
use signalpost_store::Store;
use signalpost_wiring::{Failure, Process, keys, listen, settings as to};
use tokio::time::Instant;

use crate::{
    data_dir::DataDir,
    rotate_keys::{Quiet, seal},
    terminal::Printer,
};

/// What the command line may set, before the environment and the file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen [env: SIGNALPOST_LISTEN] [default: 127.0.0.1:8080]
    #[arg(long, value_parser = address)]
    listen: Option<SocketAddr>,
    /// Where everything lives [env: SIGNALPOST_DATA_DIR] [default: ./signalpost-data]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// A TOML file with settings [env: SIGNALPOST_CONFIG]
    #[arg(long)]
    config: Option<PathBuf>,
}

impl Args {
    fn settings(&self, kind: Kind) -> Result<Settings, Failure> {
        let mut settings = signalpost_config::load(kind, self.config.as_deref())?;
        if let Some(listen) = self.listen {
            settings.service.listen = listen;
        }
        if let Some(data_dir) = &self.data_dir {
            settings.storage.data_dir.clone_from(data_dir);
        }
        // The terminal of `dev` tells of attempts; `info` would tell everything twice.
        let log_is_set = std::env::var_os("SIGNALPOST_LOG").is_some_and(|log| !log.is_empty());
        if kind == Kind::Dev && settings.telemetry.log.as_str() == "info" && !log_is_set {
            settings.telemetry.log = LogFilter::warn();
        }
        Ok(settings)
    }
}

/// Opens the database with everything that is secret in it encrypted with the newest key: of a version before encryption, or after a
/// new key was set. Nobody else uses it, so the start is the time for it.
async fn sealed_store(
    settings: &Settings,
    data_dir: &DataDir,
    process: &Process,
    shutdown: &Shutdown,
) -> Result<Arc<dyn Store>, Failure> {
    let vault = to::vault(settings)?;
    let store = wiring::store(data_dir, process).await?;
    keys::check(&vault, &store.sealing_keys().await.context("the database")?)?;
    if store.is_sealed().await.context("the database")?
        && store.count_unsealed(vault.newest()).await.context("the database")? == 0
    {
        return Ok(store);
    }
    let entropy = process.entropy.as_ref();
    let sealing = seal(&*store, &vault, entropy, &Quiet, shutdown).await.context("secrets could not be encrypted")?;
    tracing::info!(rows = sealing.sealed, left = sealing.left, key = vault.newest(), "encrypted what is secret");
    for (row, error) in &sealing.unopened {
        tracing::error!(%row, %error, "cannot be read, and is not used");
    }
    // What was there before is still in the log, which closing empties.
    drop(store);
    wiring::store(data_dir, process).await
}

/// The operator's keys, and those of secrets at rest into the settings: as they are set, else from the data directory, which makes them
/// once. Where all are set it gets no file of keys.
fn take_keys(settings: &mut Settings, data_dir: &DataDir, entropy: &dyn Entropy) -> Result<Vec<String>, Failure> {
    let set = settings.service.admin_keys.reveal().to_vec();
    let made = match &settings.storage.encryption_keys {
        None => {
            let made = data_dir.keys(entropy)?;
            settings.storage.encryption_keys = Some(Secret::new(made.encryption_keys));
            made.admin_key
        }
        Some(_) if set.is_empty() => data_dir.admin_key(entropy)?,
        Some(_) => return Ok(set),
    };
    Ok(if set.is_empty() { vec![made] } else { set })
}

/// Runs until it is told to stop.
pub async fn run(kind: Kind, args: Args, shutdown: Shutdown) -> Result<(), Failure> {
    let mut settings = args.settings(kind)?;
    let process = Process::start(&settings, kind.as_str())?;
    let defaults = to::destination_defaults(&settings)?;
    let began = process.clock.elapsed();
    // Before anything is made: of a port that is taken no folder with keys of its own is left.
    let listener = listen::bind(settings.service.listen, "SIGNALPOST_LISTEN").await?;
    let data_dir = DataDir::open(&settings.storage.data_dir)?;
    let keys = take_keys(&mut settings, &data_dir, process.entropy.as_ref())?;
    let store = sealed_store(&settings, &data_dir, &process, &shutdown).await?;
    let dev = kind == Kind::Dev;
    let printer = if dev { Some(Printer::start().map_err(anyhow::Error::from)?) } else { None };
    let mut standalone =
        wiring::Standalone::start(&settings, &process, store, &keys, defaults, listener, printer).await?;
    let greeting = greeting::Greeting {
        address: standalone.address,
        key: &keys[0],
        data_dir: data_dir.path(),
        made_by_us: settings.service.admin_keys.reveal().is_empty(),
        took: process.clock.elapsed().saturating_sub(began),
    };
    standalone.say(if dev { greeting.dev() } else { greeting.standalone() });
    tokio::select! {
        biased;
        () = shutdown.draining() => {}
        failure = standalone.failed() => return Err(failure),
    }
    standalone.say("stopping; a second signal (Ctrl-C) stops at once".to_owned());
    standalone.drain(Instant::now() + settings.service.drain).await
}
