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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use signalpost_core::{Destination, DestinationId, Secret};
    use signalpost_runtime::{SystemClock, SystemEntropy};
    use signalpost_store_sqlite::SqliteStore;
    use tempfile::TempDir;

    use super::*;

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    fn ring(ids: &[&str]) -> KeyRing {
        KeyRing::parse(&ids.iter().map(|id| format!("{id}:{KEY}")).collect::<Vec<_>>().join(",")).unwrap()
    }

    fn store() -> (Arc<dyn Store>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy));
        (Arc::new(SqliteStore::open(folder.path(), clock, entropy).unwrap()), folder)
    }

    /// Stored, with that secret, encrypted with that ring or not at all.
    async fn add(store: &dyn Store, vault: Option<&KeyRing>, secret: &str) -> DestinationId {
        let now = store.check().await.unwrap();
        let (tenant_id, id) = (TenantId::DEFAULT, DestinationId::new(now, &SystemEntropy));
        let secrets = signalpost_core::DestinationSecrets::signing(Secret::new(secret));
        let spec = json!({"name": secret, "url": "https://example.com/", "event_types": ["*"]});
        let destination = Destination::new(
            id,
            tenant_id,
            serde_json::from_value(spec).unwrap(),
            match vault {
                Some(vault) => Kept::Sealed(vault.seal_destination(&SystemEntropy, tenant_id, id, &secrets)),
                None => Kept::plain(secret),
            },
            now,
        );
        store.create_destination(&destination).await.unwrap();
        id
    }

    async fn opens(store: &dyn Store, vault: &KeyRing, id: DestinationId) -> String {
        let found = store.destination(TenantId::DEFAULT, id).await.unwrap().unwrap();
        vault.destination(TenantId::DEFAULT, id, &found.secrets).unwrap().current.reveal().to_owned()
    }

    #[tokio::test]
    async fn what_is_plain_or_older_is_encrypted_with_the_newest() {
        let (store, _folder) = store();
        let (old, both, new) = (ring(&["old"]), ring(&["new", "old"]), ring(&["new"]));
        let plain = add(&*store, None, "one").await;
        let older = add(&*store, Some(&old), "two").await;
        add(&*store, Some(&new), "three").await;
        for sealed in [2, 0] {
            let done = seal(&*store, &both, &SystemEntropy, &Quiet, &Shutdown::new()).await.unwrap();
            assert_eq!((done.sealed, done.left, done.stopped, done.unopened.len()), (sealed, 0, false, 0));
        }
        assert_eq!(store.sealing_keys().await.unwrap(), ["new"]);
        assert_eq!(opens(&*store, &new, plain).await, "one");
        assert_eq!(opens(&*store, &new, older).await, "two");
    }

    #[tokio::test]
    async fn what_does_not_open_is_told_and_the_rest_is_done() {
        let (store, _folder) = store();
        let lost = add(&*store, Some(&ring(&["lost"])), "one").await;
        add(&*store, None, "two").await;
        let done = seal(&*store, &ring(&["new"]), &SystemEntropy, &Quiet, &Shutdown::new()).await.unwrap();
        assert_eq!((done.sealed, done.left), (1, 1));
        let told: Vec<_> = done.unopened.iter().map(|(row, error)| format!("{row}: {error}")).collect();
        assert_eq!(told, [format!("the secrets of {lost}: it is sealed with the key `lost`, which is not set")]);
        assert_eq!(opens(&*store, &ring(&["lost"]), lost).await, "one");
    }

    /// Stops after the first row.
    struct Stopping(Shutdown);

    impl Watch for Stopping {
        fn begins(&self, rows: u64) {
            assert_eq!(rows, BATCH as u64 + 10);
        }

        fn moves(&self, _rows: u64) {
            self.0.drain();
        }
    }

    #[tokio::test]
    async fn it_stops_between_batches_and_goes_on_where_it_was() {
        let (store, _folder) = store();
        let new = ring(&["new"]);
        for number in 0..BATCH + 10 {
            add(&*store, None, &number.to_string()).await;
        }
        let shutdown = Shutdown::new();
        let done = seal(&*store, &new, &SystemEntropy, &Stopping(shutdown.clone()), &shutdown).await.unwrap();
        assert_eq!((done.sealed, done.left, done.stopped), (BATCH as u64, 10, true));
        let done = seal(&*store, &new, &SystemEntropy, &Quiet, &Shutdown::new()).await.unwrap();
        assert_eq!((done.sealed, done.left, done.stopped), (10, 0, false));
    }
}
