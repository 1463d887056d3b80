//! `signalpost rotate-keys`: encrypts everything that is secret in the store with the newest key.
//!
//! May be interrupted at any point and run again: each row is encrypted by itself, and all keys that are set open. In a cluster it
//! runs beside the services. A data directory has one owner, so there the server is stopped; a start of it does the
//! same, but makes no key ([`seal`] is what both do).

mod progress;
mod seal;

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use progress::Progress;
use signalpost_config::{Kind, Settings};
use signalpost_core::{Entropy, Secret};
use signalpost_runtime::{Shutdown, SystemClock, SystemEntropy};
use signalpost_store::Store;
use signalpost_store_sqlite::SqliteStore;
use signalpost_vault::KeyRing;
use signalpost_wiring::{Failure, keys, settings as to};

pub use seal::{Quiet, Sealing, seal};

use crate::data_dir::{self, DataDir};

/// Encrypt all secrets in the store with the newest key
///
/// A data directory, with the server stopped: makes a new key, puts it before the others in keys.toml, encrypts everything
/// with it, and writes the database file anew, which needs as much free space as the file has. Where
/// SIGNALPOST_ENCRYPTION_KEYS is set, its newest key is used and none is made.
///
/// A cluster (SIGNALPOST_DATABASE_URL is set, and no --data-dir; a build with the feature `cluster`), while services run: everything is encrypted with
/// the newest key of SIGNALPOST_ENCRYPTION_KEYS. Give a new key to all services behind the newest first, then before it, then run
/// this. On a database of a version before encryption it also begins the encryption: run it once no service of that
/// version is left.
///
/// May be interrupted and run again at any time. Exit code 1 when something was left.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A TOML file with settings [env: SIGNALPOST_CONFIG]
    #[arg(long)]
    config: Option<PathBuf>,
    /// The data directory of `dev` and `standalone` [env: SIGNALPOST_DATA_DIR] [default: ./signalpost-data]
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// Rotates, and says what came of it.
pub async fn run(args: Args, shutdown: Shutdown) -> Result<(), Failure> {
    let mut settings = signalpost_config::load(Kind::Tool, args.config.as_deref())?;
    // What is said on the command line is what is meant, whatever else is set.
    if let Some(data_dir) = args.data_dir {
        settings.storage.data_dir = data_dir;
        directory(settings, &shutdown).await
    } else if settings.storage.database_url.is_some() {
        cluster(&settings, &shutdown).await
    } else {
        directory(settings, &shutdown).await
    }
}

#[cfg(not(feature = "cluster"))]
async fn cluster(_settings: &Settings, _shutdown: &Shutdown) -> Result<(), Failure> {
    Err(Failure::setting(
        "this build knows no PostgreSQL; `cargo build --release -p signalpost --features cluster` makes one that does",
    ))
}

#[cfg(feature = "cluster")]
async fn cluster(settings: &Settings, shutdown: &Shutdown) -> Result<(), Failure> {
    let vault = to::vault(settings)?;
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let store: Arc<dyn Store> = signalpost_cluster::connect::postgres(settings, Arc::clone(&entropy)).await?;
    store.check().await.context("PostgreSQL")?;
    rotate(&*store, &vault, &*entropy, shutdown).await?;
    let kept = retired(&*store, &vault).await?;
    if !kept.is_empty() {
        println!(
            "nothing is encrypted any more with {}: take it out of SIGNALPOST_ENCRYPTION_KEYS {}",
            shown(&kept),
            until(settings)
        );
    }
    Ok(())
}

async fn directory(mut settings: Settings, shutdown: &Shutdown) -> Result<(), Failure> {
    let path = settings.storage.data_dir.clone();
    if !data_dir::database(&path).exists() {
        return Err(Failure::setting(format!(
            "there is no database in {}; give --data-dir, or set SIGNALPOST_DATA_DIR (or SIGNALPOST_DATABASE_URL for a cluster)",
            path.display()
        )));
    }
    let data_dir = DataDir::open(&path)?;
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let is_ours = settings.storage.encryption_keys.is_none();
    if is_ours {
        settings.storage.encryption_keys = Some(Secret::new(data_dir.keys(&*entropy)?.encryption_keys));
    }
    let store = open(&data_dir, &entropy).await?;
    let vault = to::vault(&settings)?;
    keys::check(&vault, &store.sealing_keys().await.context("the database")?)?;
    // An earlier run that was interrupted is finished with its key.
    let vault = if is_ours && is_done(&*store, &vault).await? {
        settings.storage.encryption_keys = Some(Secret::new(data_dir.add_encryption_key(&*entropy)?.encryption_keys));
        let vault = to::vault(&settings)?;
        println!("made the key {}, in {}", vault.newest(), data_dir::keys_file(&path).display());
        vault
    } else {
        vault
    };
    rotate(&*store, &vault, &*entropy, shutdown).await?;
    let kept = retired(&*store, &vault).await?;
    drop(store);
    let file = data_dir.database();
    let rewritten = tokio::task::spawn_blocking(move || SqliteStore::rewrite(file)).await;
    let rewritten = rewritten.context("the database could not be written anew")?;
    rewritten.context(
        "everything is encrypted, but the database file could not be written anew, and free parts of it may hold what was there \
         before; run this again",
    )?;
    println!("{} is written anew: nothing of before is left in it", data_dir.database().display());
    if !kept.is_empty() {
        let place = if is_ours { "keys.toml" } else { "SIGNALPOST_ENCRYPTION_KEYS" };
        println!("nothing is encrypted any more with {}: take it out of {place} {}", shown(&kept), until(&settings));
    }
    Ok(())
}

async fn open(data_dir: &DataDir, entropy: &Arc<dyn Entropy>) -> Result<Arc<dyn Store>, Failure> {
    let (file, entropy) = (data_dir.database(), Arc::clone(entropy));
    let shown = file.display().to_string();
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(file, Arc::new(SystemClock::new()), entropy));
    Ok(Arc::new(
        opened.await.context("the database could not be opened")?.with_context(|| format!("cannot open {shown}"))?,
    ))
}

/// Whether everything is encrypted with the newest key.
async fn is_done(store: &dyn Store, vault: &KeyRing) -> Result<bool, Failure> {
    let left = store.count_unsealed(vault.newest()).await.context("the store")?;
    Ok(left == 0)
}

/// Encrypts what is not, telling how far it is.
async fn rotate(store: &dyn Store, vault: &KeyRing, entropy: &dyn Entropy, shutdown: &Shutdown) -> Result<(), Failure> {
    let progress = Progress::new();
    let sealing = seal(store, vault, entropy, &progress, shutdown).await;
    progress.finish();
    let Sealing { sealed, unopened, left, stopped } = sealing.context("the store; run this again")?;
    println!("encrypted with {}: {sealed}", vault.newest());
    for (row, error) in &unopened {
        eprintln!("signalpost: {row}: {error}");
    }
    if stopped {
        eprintln!("signalpost: stopped before the end; left: {left}. Run this again");
        return Err(Failure::Told);
    }
    if left > 0 {
        eprintln!(
            "signalpost: left: {left}. {}",
            if unopened.is_empty() { "Services still write with another key" } else { "See above" }
        );
        return Err(Failure::Told);
    }
    Ok(())
}

/// The keys that are set and encrypt nothing.
async fn retired(store: &dyn Store, vault: &KeyRing) -> Result<Vec<String>, Failure> {
    let used = store.sealing_keys().await.context("the store")?;
    let idle = vault.ids().skip(1).filter(|id| !used.iter().any(|used| used == id));
    Ok(idle.map(str::to_owned).collect())
}

fn shown(ids: &[String]) -> String {
    ids.join(", ")
}

/// From when on a retired key is not needed.
fn until(settings: &Settings) -> String {
    format!(
        "in {} h, when the answers are gone that are kept for an Idempotency-Key; keep it elsewhere as long as backups of before",
        settings.ingest.idempotency.as_secs().div_ceil(3600)
    )
}
