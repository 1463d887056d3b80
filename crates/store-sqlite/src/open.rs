//! Opening the database file: one process at a time, the schema of this version.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, params};
use signalpost_core::{Timestamp, WaitReason};
use signalpost_store::StoreError;

use crate::failure::{Failure, Outcome};

/// The migrations in their order; the schema's version is how many of them have run.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/sqlite/0001_initial.sql"),
    include_str!("../../../migrations/sqlite/0002_lanes.sql"),
    include_str!("../../../migrations/sqlite/0003_circuits.sql"),
    include_str!("../../../migrations/sqlite/0004_replay_pace.sql"),
    include_str!("../../../migrations/sqlite/0005_tenants.sql"),
];

/// The version of the schema that this build works on.
pub(crate) const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;

/// The file to use for `path`: itself, or a file of the usual name where it is a folder.
pub(crate) fn database_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("signalpost.db") } else { path.to_owned() }
}

/// Makes sure that no other process uses this database: a lock on a file beside it, which the system drops with the
/// process, however that ends. SQLite's own locks would let two of them in, and each would deliver everything.
pub(crate) fn lock(file: &Path) -> Result<File, StoreError> {
    let cannot = |error: std::io::Error| StoreError::Unavailable(format!("cannot lock {}: {error}", file.display()));
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(cannot)?;
    }
    let mut name = file.as_os_str().to_owned();
    name.push(".lock");
    let lock = private(&name).map_err(cannot)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Unavailable(format!(
            "{} is in use by another Signalpost process; stop it, or use another data directory",
            file.display()
        ))),
        Err(TryLockError::Error(error)) => Err(cannot(error)),
    }
}

/// Opens, or makes, a file that only its owner may read: it holds signing secrets.
fn private(path: impl AsRef<Path>) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The file itself.
pub(crate) fn database(file: &Path) -> Result<File, StoreError> {
    private(file).map_err(|error| StoreError::Unavailable(format!("cannot open {}: {error}", file.display())))
}

/// The connection that writes, with the schema brought up to this version.
pub(crate) fn writer(file: &Path) -> Outcome<Connection> {
    database(file)?;
    let mut connection = Connection::open_with_flags(file, flags(OpenFlags::SQLITE_OPEN_READ_WRITE))?;
    connection.busy_timeout(Duration::from_secs(5))?;
    // The page size holds only in a file that is still empty. A commit writes every page that it touched, of some ten b-trees:
    // pages half as large as before cost a sixth less of a processor for each event (docs/performance.md). Sub-journals of
    // savepoints stay in memory. Checkpoints are made elsewhere; the log keeps its length, as growing a file makes flushes
    // dearer. What is deleted or replaced within a page is overwritten; pages that are freed, pages that rows were moved out
    // of, and the log keep what was there until they are used again. Who must be sure rewrites the file:
    // `SqliteStore::rewrite`.
    connection.execute_batch(
        "PRAGMA page_size = 8192;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -16384;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA secure_delete = FAST;
         PRAGMA journal_size_limit = 67108864;",
    )?;
    connection.set_prepared_statement_cache_capacity(256);
    migrate(&mut connection)?;
    Ok(connection)
}

/// The connection that makes checkpoints.
pub(crate) fn checkpointer(file: &Path) -> Outcome<Connection> {
    let connection = Connection::open_with_flags(file, flags(OpenFlags::SQLITE_OPEN_READ_WRITE))?;
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA cache_size = -1024;")?;
    Ok(connection)
}

/// Writes the database anew, without what was deleted or replaced, and empties the log.
pub(crate) fn rewrite(connection: &Connection) -> Outcome<()> {
    // The copy is as large as the database: not in memory.
    connection.execute_batch("PRAGMA temp_store = FILE; VACUUM")?;
    let busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy {
        return Err(Failure(StoreError::Unavailable("the database file is used by another program".into())));
    }
    Ok(())
}

/// A database in memory, with the schema of this version.
#[cfg(feature = "simulation")]
pub(crate) fn in_memory() -> Outcome<Connection> {
    let mut connection = Connection::open_in_memory()?;
    connection.execute_batch("PRAGMA temp_store = MEMORY;")?;
    connection.set_prepared_statement_cache_capacity(512);
    migrate(&mut connection)?;
    Ok(connection)
}

/// Frees what the process before this one held: the lock on the file tells that it is gone, and with it what it was fed or
/// handed over, the requests that it had out, and its circuits. All of that is due now, and of each request its deadline has
/// passed. A hold that a destination asked for stays.
pub(crate) fn release(connection: &mut Connection, now: Timestamp) -> Outcome<()> {
    let transaction = connection.transaction()?;
    let (now, in_flight, circuit) = (now.as_micros(), WaitReason::InFlight as u8, WaitReason::Circuit as u8);
    transaction.execute(
        "UPDATE queues SET next_due = max(min(next_due, ?1), hold_until)
         WHERE destination_id IN (SELECT destination_id FROM waiting WHERE leased = 1 OR reason IN (?2, ?3))",
        params![now, in_flight, circuit],
    )?;
    let released = transaction.execute(
        "UPDATE waiting SET due_at = min(due_at, ?1), leased = 0 WHERE leased = 1 OR reason IN (?2, ?3)",
        params![now, in_flight, circuit],
    )?;
    transaction.execute(
        "UPDATE queues SET trial = NULL, hold_until = 0, paced_until = 0, next_due = min(next_due, ?1)
         WHERE trial IS NOT NULL",
        [now],
    )?;
    transaction.commit()?;
    if released > 0 {
        tracing::info!(deliveries = released, "taken back from the process before this one");
    }
    Ok(())
}

/// A connection that reads.
pub(crate) fn reader(file: &Path, cache_kib: u32) -> Outcome<Connection> {
    let connection = Connection::open_with_flags(file, flags(OpenFlags::SQLITE_OPEN_READ_WRITE))?;
    connection.busy_timeout(Duration::from_secs(5))?;
    let cache = format!("PRAGMA cache_size = -{cache_kib};");
    connection.execute_batch(&format!("PRAGMA query_only = 1; PRAGMA temp_store = MEMORY; {cache}"))?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

/// Each connection is used by one thread at a time, so SQLite needs no mutex of its own.
fn flags(access: OpenFlags) -> OpenFlags {
    access | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn migrate(connection: &mut Connection) -> Outcome<()> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    let Some(missing) = MIGRATIONS.get(done..) else {
        return Err(Failure::internal(format!(
            "the database has schema version {found}, this build of Signalpost knows versions up to {SCHEMA_VERSION}; \
             use the newer build"
        )));
    };
    for (version, migration) in (found + 1..).zip(missing) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}
