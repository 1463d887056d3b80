//! Secrets of before they were encrypted: read, sealed, and gone from the file when it was rewritten.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{path::Path, sync::Arc};

use rusqlite::{Connection, params};
use signalpost_core::{Clock as _, DestinationId, Kept, Sealed, TenantId};
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_store::{ReadStore as _, StoreError, TenantStore as _};
use signalpost_store_sqlite::SqliteStore;
use tempfile::TempDir;

const SECRET: &str = "whsec_planted";
const HEADER: &str = "planted-header-value";

fn open(file: &Path) -> SqliteStore {
    SqliteStore::open(file, Arc::new(SystemClock::new()), Arc::new(SystemEntropy)).unwrap()
}

/// As the version before wrote it.
fn destination(connection: &Connection, number: usize) -> DestinationId {
    let now = SystemClock::new().now();
    let id = DestinationId::new(now, &SystemEntropy);
    let spec = format!(
        r#"{{"url":"https://example.com/hook","event_types":["*"],"headers":{{"X-Key":"{HEADER}-{number}"}},"name":"{}"}}"#,
        "n".repeat(number % 700)
    );
    connection
        .execute(
            "INSERT INTO destinations (id, tenant_id, spec, secret, state, version, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, 'active', 1, ?5, ?5)",
            params![
                id.uuid().into_bytes(),
                TenantId::DEFAULT.uuid().into_bytes(),
                spec,
                format!("{SECRET}-{number}"),
                now.as_micros()
            ],
        )
        .unwrap();
    id
}

/// How often it stands in the files of that database.
fn planted(folder: &Path) -> usize {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    files.map(|bytes| [SECRET, HEADER].map(|text| count(&bytes, text.as_bytes())).iter().sum::<usize>()).sum()
}

fn count(bytes: &[u8], text: &[u8]) -> usize {
    bytes.windows(text.len()).filter(|window| *window == text).count()
}

#[tokio::test]
async fn nothing_is_left_of_what_was_not_encrypted() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("signalpost.db");
    drop(open(&file));
    let connection = Connection::open(&file).unwrap();
    let made: Vec<_> = (0..400).map(|number| destination(&connection, number)).collect();
    drop(connection);
    assert!(planted(folder.path()) >= 2 * made.len());

    let store = open(&file);
    assert_eq!(store.count_unsealed("k1").await.unwrap(), 400);
    let mut after = None;
    loop {
        let part = store.unsealed("k1", after, 100).await.unwrap();
        let Some(last) = part.last() else { break };
        after = Some(last.0);
        for (row, tenant, kept) in &part {
            assert_eq!(*tenant, TenantId::DEFAULT);
            let Kept::Plain { secret, headers } = kept else { panic!("{kept:?}") };
            assert!(secret.reveal().starts_with(SECRET) && headers["X-Key"].reveal().starts_with(HEADER));
            // Longer than what it replaces: rows move to other pages.
            let sealed = Sealed::new([b"\x01\x02k1".as_slice(), &[7; 300]].concat().into());
            assert!(store.reseal(*row, kept, &sealed).await.unwrap());
        }
    }
    assert_eq!(store.count_unsealed("k1").await.unwrap(), 0);
    let found = store.destination(TenantId::DEFAULT, made[1]).await.unwrap().unwrap();
    assert!(matches!(found.secrets, Kept::Sealed(_)) && found.spec.header_names.contains("X-Key"));
    assert!(planted(folder.path()) > 0, "the log and old pages still hold it");
    let used = SqliteStore::rewrite(&file);
    assert!(matches!(used, Err(StoreError::Unavailable(_))), "not while it is open: {used:?}");
    drop(store);
    SqliteStore::rewrite(folder.path()).unwrap();
    assert_eq!(planted(folder.path()), 0);
    assert_eq!(open(&file).destination(TenantId::DEFAULT, made[1]).await.unwrap(), Some(found));
}
