//! The store does what every store must, and makes no transition that is not told.

#![allow(clippy::unwrap_used, reason = "a test")]

mod transitions;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use rusqlite::{Connection, params};
use signalpost_core::{DestinationId, TenantId, Timestamp};
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_store::{
    Store,
    conformance::{Cut, Database, Factory, exercise_those},
};
use signalpost_store_sqlite::SqliteStore;
use tempfile::TempDir;
use transitions::Noted;

#[derive(Default)]
struct Files(Arc<Mutex<Noted>>);

struct OneFile {
    file: PathBuf,
    store: SqliteStore,
    noted: Arc<Mutex<Noted>>,
    /// Removed last.
    _folder: TempDir,
}

#[async_trait]
impl Factory for Files {
    async fn database(&self) -> Box<dyn Database> {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("signalpost.db");
        let store = SqliteStore::open(&file, Arc::new(SystemClock::new()), Arc::new(SystemEntropy)).unwrap();
        let database = OneFile { file, store, noted: Arc::clone(&self.0), _folder: folder };
        transitions::watch(&database.connection());
        Box::new(database)
    }
}

impl OneFile {
    fn connection(&self) -> Connection {
        let connection = Connection::open(&self.file).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        connection
    }
}

impl Drop for OneFile {
    fn drop(&mut self) {
        let noted = transitions::noted(&self.connection());
        self.noted.lock().unwrap().extend(noted);
    }
}

#[async_trait]
impl Database for OneFile {
    /// Only one process may use the file: handles are clones.
    async fn handle(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    async fn add_tenant(&self, id: TenantId, slug: &str) {
        let sql = "INSERT INTO tenants (id, slug, name, created_at) VALUES (?1, ?2, ?2, 0)";
        self.connection().execute(sql, params![id.uuid().into_bytes(), slug]).unwrap();
    }

    async fn make_room(&self, _at: Timestamp) {}

    async fn backdate_failures(&self, destination: DestinationId, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap();
        let sql = "UPDATE failing SET since = since - ?2 WHERE destination_id = ?1";
        self.connection().execute(sql, params![destination.uuid().into_bytes(), by]).unwrap();
    }

    async fn backdate_deletion(&self, tenant: TenantId, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap();
        let sql = "UPDATE tenants SET deleting_at = deleting_at - ?2 WHERE id = ?1";
        self.connection().execute(sql, params![tenant.uuid().into_bytes(), by]).unwrap();
    }

    async fn rows_of(&self, tenant: TenantId) -> BTreeMap<String, u64> {
        let connection = self.connection();
        let mut tables = connection
            .prepare(
                "SELECT m.name, max(c.name = 'tenant_id') FROM sqlite_master m JOIN pragma_table_info(m.name) c
                 WHERE m.type = 'table' AND c.name IN ('tenant_id', 'destination_id') GROUP BY m.name",
            )
            .unwrap();
        let tables = tables.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?))).unwrap();
        let tables: Vec<_> = tables.map(Result::unwrap).collect();
        let conditions = tables.into_iter().map(|(table, knows_tenant)| {
            let nowhere = "?1 = ?1 AND destination_id NOT IN (SELECT id FROM destinations)";
            (table, if knows_tenant { "tenant_id = ?1" } else { nowhere })
        });
        let count = |table: &str, condition: &str| -> u32 {
            let sql = format!("SELECT count(*) FROM {table} WHERE {condition}");
            connection.query_row(&sql, [tenant.uuid().into_bytes()], |row| row.get(0)).unwrap()
        };
        conditions
            .chain([("tenants".to_owned(), "id = ?1")])
            .map(|(table, condition)| (table.clone(), u64::from(count(&table, condition))))
            .filter(|(_, rows)| *rows > 0)
            .collect()
    }

    /// There is no connection.
    async fn cut(&self, _when: Cut) -> Option<Arc<dyn Store>> {
        None
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conforms() {
    // One case alone, to look at it: `SIGNALPOST_CASE=lanes::`.
    let case = std::env::var("SIGNALPOST_CASE").unwrap_or_default();
    let files = Files::default();
    exercise_those(&files, &case).await;
    if case.is_empty() {
        transitions::check(&files.0.lock().unwrap());
    }
}
