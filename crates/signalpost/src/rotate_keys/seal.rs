//! Encrypting what is not encrypted with the newest key, row by row, beside whoever uses the store.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use futures::{StreamExt as _, stream};
use signalpost_core::{Entropy, Kept, Sealed, TenantId};
use signalpost_runtime::Shutdown;
use signalpost_store::{Store, StoreError, tenants::SealedRow};
use signalpost_vault::{KeyRing, OpenError, Place};

/// So many rows are read at once; between two batches it can be stopped.
const BATCH: usize = 250;

/// So many of them are written at once.
const AT_ONCE: usize = 16;

/// Is told how far it is.
pub trait Watch: Sync {
    /// So many rows are to be encrypted.
    fn begins(&self, rows: u64);
    /// So many more were looked at.
    fn moves(&self, rows: u64);
}

/// Tells nobody.
pub struct Quiet;

impl Watch for Quiet {
    fn begins(&self, _rows: u64) {}
    fn moves(&self, _rows: u64) {}
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Sealing {
    /// Rows that were encrypted.
    pub sealed: u64,
    /// Rows that do not open with the keys that are set; they stay as they are.
    pub unopened: Vec<(Row, OpenError)>,
    /// Rows that are still not encrypted with the newest key.
    pub left: u64,
    /// It was told to stop.
    pub stopped: bool,
}

/// A row, as it is told to people.
#[derive(Debug, Clone, Copy)]
pub struct Row(SealedRow);

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            SealedRow::Destination(id) => write!(f, "the secrets of {id}"),
            SealedRow::Ingest(id) => write!(f, "the ingest secret of {id}"),
        }
    }
}

/// Marks the store as one whose secrets are encrypted, and encrypts them all with the newest key.
///
/// A row that changes meanwhile is met again in a further round: there are rounds for as long as each gets further.
///
/// # Errors
/// The store is away. What was done stays done.
pub async fn seal(
    store: &dyn Store,
    vault: &KeyRing,
    entropy: &dyn Entropy,
    watch: &dyn Watch,
    shutdown: &Shutdown,
) -> Result<Sealing, StoreError> {
    // First: what is written from now on is encrypted, so that the end comes nearer.
    store.mark_sealed().await?;
    let mut all = Sealing { left: store.count_unsealed(vault.newest()).await?, ..Sealing::default() };
    watch.begins(all.left);
    loop {
        let before = all.sealed;
        all.unopened.clear();
        round(store, vault, entropy, watch, shutdown, &mut all).await?;
        all.left = store.count_unsealed(vault.newest()).await?;
        let open = all.left.saturating_sub(all.unopened.len() as u64);
        if all.stopped || open == 0 || all.sealed == before {
            return Ok(all);
        }
    }
}

/// Every row once.
async fn round(
    store: &dyn Store,
    vault: &KeyRing,
    entropy: &dyn Entropy,
    watch: &dyn Watch,
    shutdown: &Shutdown,
    all: &mut Sealing,
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        if shutdown.is_draining() {
            all.stopped = true;
            return Ok(());
        }
        let rows = store.unsealed(vault.newest(), after, BATCH).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = Some(last.0);
        let sealed = AtomicU64::new(0);
        let mut written = stream::iter(&rows)
            .map(|(row, tenant, kept)| {
                let sealed = &sealed;
                async move {
                    let again = match again(vault, entropy, *row, *tenant, kept) {
                        Ok(again) => again,
                        Err(error) => return Ok(Some((Row(*row), error))),
                    };
                    if store.reseal(*row, kept, &again).await? {
                        sealed.fetch_add(1, Ordering::Relaxed);
                        watch.moves(1);
                    }
                    Ok::<_, StoreError>(None)
                }
            })
            .buffer_unordered(AT_ONCE);
        while let Some(row) = written.next().await {
            all.unopened.extend(row?);
        }
        drop(written);
        all.sealed += sealed.into_inner();
    }
}

/// The same, encrypted with the newest key.
fn again(
    vault: &KeyRing,
    entropy: &dyn Entropy,
    row: SealedRow,
    tenant: TenantId,
    kept: &Kept,
) -> Result<Sealed, OpenError> {
    match (row, kept) {
        (SealedRow::Destination(id), kept) => {
            let secrets = vault.destination(tenant, id, kept)?;
            Ok(vault.seal_destination(entropy, tenant, id, &secrets))
        }
        (SealedRow::Ingest(id), Kept::Sealed(sealed)) => {
            let plain = vault.open(Place::Ingest(id), sealed)?;
            Ok(vault.seal(entropy, Place::Ingest(id), &plain))
        }
        // No store keeps one so.
        (SealedRow::Ingest(_), Kept::Plain { .. }) => Err(OpenError::Malformed),
    }
}
