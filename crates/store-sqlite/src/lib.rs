//! The store port on one SQLite file, for standalone.
//!
//! Who does what: one thread owns the only connection that writes and commits in groups ([`writer`]); another one brings
//! what is committed from the log into the file ([`checkpoints`]); a few connections read ([`readers`]); a lock on a file
//! keeps every other process out ([`open`]).
//!
//! What a committed transaction means: WAL with `synchronous = FULL`, so the log is flushed before any caller is
//! answered. It does not protect against a disk that lies about flushes.
//!
//! The port asks for arrays instead of a statement per item. That is about round trips, and here there are none: a cached
//! statement run per row inside the one transaction is the fastest that SQLite has.

mod births;
mod checkpoints;
mod claims;
mod columns;
mod deliveries;
mod destinations;
mod dispatch;
mod dispatchers;
mod failing;
mod failure;
mod feed;
mod holds;
mod ingest;
mod inspect;
mod lanes;
mod leftovers;
mod manage;
mod open;
mod outcomes;
mod read;
mod readers;
mod replays;
mod retention;
mod rows;
mod schedule;
mod selection;
#[cfg(feature = "simulation")]
pub mod simulation;
mod statements;
mod tenants;
#[cfg(test)]
mod tests;
mod tx;
mod writer;

use std::{fs::File, path::Path, sync::Arc};

use async_trait::async_trait;
pub use inspect::{Inspection, inspect};
use rusqlite::Connection;
use signalpost_core::{Clock, DeliveryId, Entropy, Timestamp};
use signalpost_store::{Changes, Health, StoreError};
use tokio::sync::watch;

use crate::{
    checkpoints::Checkpoints,
    dispatchers::Dispatchers,
    failure::Outcome,
    readers::Readers,
    tx::Tx,
    writer::{Work, Writer},
};

/// What a disk that refused something must take before it counts as good again.
const PROBE_BYTES: i64 = 256 * 1024;

/// The store. Clones are handles of the same one; dropping the last one waits for what was handed in.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

/// Dropped in this order: first the writer finishes, last the lock goes.
#[derive(Debug)]
struct Inner {
    writer: Writer,
    readers: Readers,
    /// For what may take long: nothing else waits behind it.
    lists: Readers,
    clock: Arc<dyn Clock>,
    changes: Changes,
    dispatchers: Dispatchers,
    /// The newest delivery of the processes before this one, which may be newer than now: a clock may go back.
    inherited: Option<DeliveryId>,
    /// See [`checkpoints::Checkpoints::start`]. None: the database is in memory.
    _database: Option<Arc<File>>,
    _lock: Option<File>,
}

impl SqliteStore {
    /// Opens the database in this file (or in `signalpost.db` in this folder), makes it where it is not there yet,
    /// brings its schema up to date, and makes due what was leased to the process before this one. Blocks for as long as that takes.
    ///
    /// # Errors
    /// `Unavailable`: another process uses it, or the file cannot be opened. `Internal`: it is no database of ours, or a
    /// newer version made it.
    pub fn open(path: impl AsRef<Path>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Self, StoreError> {
        let file = open::database_file(path.as_ref());
        let lock = open::lock(&file)?;
        let opened = || -> Outcome<Inner> {
            let mut connection = open::writer(&file)?;
            open::release(&mut connection, clock.now())?;
            let inherited = leftovers::newest(&connection)?;
            let (readers, lists) = (Readers::open(&file, 16 * 1024)?, Readers::open(&file, 4 * 1024)?);
            let (moved, changes) = watch::channel(0);
            let database = Arc::new(open::database(&file)?);
            let checkpoints = Checkpoints::start(&file, Arc::clone(&database))?;
            let work = Work::new(connection, Arc::clone(&clock), entropy, moved, Some(checkpoints));
            let writer = Writer::start(work)?;
            let dispatchers = Dispatchers::default();
            Ok(Inner {
                writer,
                readers,
                lists,
                clock: Arc::clone(&clock),
                changes,
                dispatchers,
                inherited,
                _database: Some(database),
                _lock: Some(lock),
            })
        };
        Ok(Self { inner: Arc::new(opened().map_err(|failure| failure.0)?) })
    }

    /// Writes the database in this file (or in `signalpost.db` in this folder) anew, such that nothing is left in it of what was
    /// deleted or replaced: secrets of before they were encrypted, or encrypted with a key that is retired. Nothing else may use
    /// it meanwhile. Takes as long as copying it, and as much space again. The file system may keep what stood in blocks that
    /// the file no longer has; so do copies of the file.
    ///
    /// # Errors
    /// `Unavailable`: another process uses it, or the disk is full; then it is as before. `Internal`: it is no database of ours.
    pub fn rewrite(path: impl AsRef<Path>) -> Result<(), StoreError> {
        let file = open::database_file(path.as_ref());
        let _lock = open::lock(&file)?;
        open::writer(&file).and_then(|connection| open::rewrite(&connection)).map_err(|failure| failure.0)
    }

    /// Runs `work` in the writer's next transaction. It may run twice; what it wrote the first time is taken back before.
    async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Tx<'_>) -> Outcome<T> + Send + 'static,
    {
        self.inner.writer.write(work).await
    }

    /// Runs `read` on what is committed now.
    async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Outcome<T> + Send + 'static,
    {
        self.inner.readers.read(read).await
    }

    /// The same for lists, counts and samples: on connections of their own, as each of them may take seconds and be asked for
    /// by anybody.
    async fn list<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Outcome<T> + Send + 'static,
    {
        self.inner.lists.read(read).await
    }

    /// Writes, and takes back, as much as a usual group of events: whether it would be taken.
    async fn probe(&self) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO marks (name, value) VALUES ('probe', zeroblob(?1))";
        self.write(move |tx| tx.execute(sql, [PROBE_BYTES])).await?;
        self.write(|tx| tx.execute("DELETE FROM marks WHERE name = 'probe'", [])).await?;
        self.inner.writer.is_taken();
        Ok(())
    }

    /// The store's time.
    fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }
}

#[async_trait]
impl Health for SqliteStore {
    async fn check(&self) -> Result<Timestamp, StoreError> {
        let version: i64 =
            self.read(|connection| Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)).await?;
        if version != open::SCHEMA_VERSION {
            return Err(StoreError::Internal(format!("the schema has version {version}")));
        }
        if self.inner.writer.is_refused() {
            self.probe().await?;
        }
        Ok(self.now())
    }
}
