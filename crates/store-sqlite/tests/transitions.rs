//! `docs/state-machine.md` and the store name the same transitions, of states and of what a delivery waits for.
//!
//! Triggers note every transition that the whole suite of the port makes. Each must stand in the document, and each of the
//! document must have been made.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use rusqlite::{Connection, params};
use signalpost_core::{DeliveryState, DestinationId, TenantId, Timestamp, WaitReason};
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_store::{
    NEVER, Store,
    conformance::{Cut, Database, Factory, exercise},
};
use signalpost_store_sqlite::SqliteStore;
use tempfile::TempDir;

/// Of what, from, to: the numbers of states or reasons. -1: it was not there, or is not any more.
type Noted = BTreeSet<(String, i64, i64)>;

#[derive(Default)]
struct Watched(Arc<Mutex<Noted>>);

struct OneFile {
    file: PathBuf,
    store: SqliteStore,
    noted: Arc<Mutex<Noted>>,
    /// Removed last.
    _folder: TempDir,
}

impl OneFile {
    fn connection(&self) -> Connection {
        let connection = Connection::open(&self.file).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        connection
    }

    fn watch(&self) {
        let note = |what: &str, on: &str, when: &str, from: &str, to: &str| {
            format!(
                "CREATE TRIGGER {what}_{on} AFTER {on} ON {what} WHEN {when} BEGIN
                     INSERT INTO transitions SELECT '{what}', {from}, {to}
                         WHERE NOT EXISTS (SELECT 1 FROM transitions WHERE what = '{what}' AND a = {from} AND b = {to});
                 END;"
            )
        };
        // What follows in a lane has no due time, and nothing else has none.
        let follower = |on: &str| {
            let (never, lane) = (NEVER.as_micros(), WaitReason::Lane as u8);
            format!(
                "CREATE TRIGGER follower_{on} AFTER {on} ON waiting WHEN (new.due_at = {never}) <> (new.reason = {lane})
                 BEGIN INSERT INTO transitions SELECT 'lane', new.reason, new.due_at = {never}
                           WHERE NOT EXISTS (SELECT 1 FROM transitions WHERE what = 'lane'); END;"
            )
        };
        let sql = [
            "CREATE TABLE transitions (what TEXT, a INTEGER, b INTEGER);".to_owned(),
            note("deliveries", "INSERT", "true", "-1", "new.state"),
            note("deliveries", "UPDATE", "old.state <> new.state", "old.state", "new.state"),
            note("waiting", "INSERT", "true", "-1", "new.reason"),
            note(
                "waiting",
                "UPDATE",
                "old.reason <> new.reason OR old.due_at <> new.due_at OR old.leased <> new.leased",
                "old.reason",
                "new.reason",
            ),
            note("waiting", "DELETE", "true", "old.reason", "-1"),
            follower("INSERT"),
            follower("UPDATE"),
        ];
        self.connection().execute_batch(&sql.concat()).unwrap();
    }
}

impl Drop for OneFile {
    fn drop(&mut self) {
        let connection = self.connection();
        let mut statement = connection.prepare("SELECT what, a, b FROM transitions").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        self.noted.lock().unwrap().extend(rows.map(Result::unwrap));
    }
}

#[async_trait]
impl Factory for Watched {
    async fn database(&self) -> Box<dyn Database> {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("signalpost.db");
        let store = SqliteStore::open(&file, Arc::new(SystemClock::new()), Arc::new(SystemEntropy)).unwrap();
        let database = OneFile { file, store, noted: Arc::clone(&self.0), _folder: folder };
        database.watch();
        Box::new(database)
    }
}

#[async_trait]
impl Database for OneFile {
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

    async fn cut(&self, _when: Cut) -> Option<Arc<dyn Store>> {
        None
    }
}

/// A row of the document's tables: the transitions that it stands for.
type Rows = BTreeMap<String, BTreeSet<(i64, i64)>>;

/// The rows of the first table after this text that begins with the columns `from` and `to`.
fn rows(document: &str, heading: &str, number: &dyn Fn(&str) -> Option<i64>, all: &[i64]) -> Rows {
    let (_, after) = document.split_once(heading).unwrap();
    let lines =
        after.lines().skip_while(|line| !line.starts_with("| from | to |")).take_while(|line| line.starts_with('|'));
    let numbers = |cell: &str| -> Option<Vec<i64>> {
        match cell.trim() {
            "any" => Some(all.to_vec()),
            names => names.split(',').map(|name| number(name.trim())).collect(),
        }
    };
    let mut rows = Rows::new();
    for line in lines.skip(2) {
        let mut cells = line.trim_start_matches('|').split('|');
        let (from, to) = (cells.next().unwrap(), cells.next().unwrap().trim());
        let numbers = |cell: &str| numbers(cell).unwrap_or_else(|| panic!("{line}"));
        let from = numbers(from);
        let pairs = match to {
            "the same" => from.iter().map(|a| (*a, *a)).collect(),
            to => {
                let to = numbers(to);
                from.iter().flat_map(|a| to.iter().map(|b| (*a, *b))).collect()
            }
        };
        rows.insert(line.to_owned(), pairs);
    }
    assert!(rows.len() > 3, "no table behind {heading}");
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_document_and_the_store_agree() {
    let watched = Watched::default();
    exercise(&watched).await;
    let noted = watched.0.lock().unwrap();
    let of = |what: &str| -> BTreeSet<(i64, i64)> {
        noted.iter().filter(|(of, ..)| of == what).map(|(_, a, b)| (*a, *b)).collect()
    };
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/state-machine.md");
    let document = std::fs::read_to_string(path).unwrap();

    let state = |name: &str| match name {
        "–" => Some(-1),
        name => DeliveryState::ALL.into_iter().find(|state| format!("{state:?}") == name).map(|s| i64::from(s as u8)),
    };
    let reason = |name: &str| match name {
        "–" => Some(-1),
        name => WaitReason::ALL.iter().find(|reason| format!("{reason:?}") == name).map(|r| i64::from(*r as u8)),
    };
    let all_states: Vec<i64> = DeliveryState::ALL.iter().map(|state| i64::from(*state as u8)).collect();
    let all_reasons: Vec<i64> = WaitReason::ALL.iter().map(|reason| i64::from(*reason as u8)).collect();
    let states = rows(&document, "## Transitions", &state, &all_states);
    let waits = rows(&document, "## What it waits for", &reason, &all_reasons);
    for (what, made, rows) in [("states", of("deliveries"), states), ("reasons", of("waiting"), waits)] {
        let told: BTreeSet<(i64, i64)> = rows.values().flatten().copied().collect();
        let untold: Vec<_> = made.difference(&told).collect();
        assert!(untold.is_empty(), "of {what} the document does not tell {untold:?}");
        for (row, of_row) in rows {
            // From Waiting to Waiting is a transition of the second table.
            let unmade = of_row.iter().all(|pair| !made.contains(pair) && (what, *pair) != ("states", (1, 1)));
            assert!(!unmade, "of {what} the store never made: {row}");
        }
    }
    assert_eq!(
        of("lane"),
        BTreeSet::new(),
        "a due time without end stands for a follower in a lane, and for nothing else"
    );
}
