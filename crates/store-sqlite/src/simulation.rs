//! For the simulation only: the store's own code and SQL, on a database in memory, without a thread.
//!
//! A call runs whole where it is awaited, so one sequence of calls gives one sequence of results. Triggers note every
//! change of events, deliveries and attempts, also of those that one transaction makes one after the other: nothing
//! that happens between two looks is missed. It shows nothing of durability: there is no disk.

mod audit;
mod breaks;
mod listen;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use signalpost_core::{Clock, Entropy};
use signalpost_store::StoreError;
use tokio::sync::watch;

pub use self::{
    audit::{Rest, Rule, Unfinished},
    listen::Change,
};
use crate::{
    Inner, SqliteStore,
    dispatchers::Dispatchers,
    failure::Outcome,
    open,
    readers::Readers,
    writer::{Work, Writer},
};

/// What stands in for the threads.
#[derive(Debug)]
pub(crate) struct Inline(Mutex<Work>);

impl Inline {
    /// The connection. A panic within a job is caught there, so a poisoned lock is still good.
    pub(crate) fn work(&self) -> MutexGuard<'_, Work> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a read in a transaction of its own.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Connection) -> Outcome<T>) -> Outcome<T> {
        let work = self.work();
        let transaction = work.connection.unchecked_transaction()?;
        read(&transaction)
    }
}

/// What the simulation sees of a store beside its port.
#[derive(Debug, Clone)]
pub struct Inspector {
    inline: Arc<Inline>,
}

impl SqliteStore {
    /// A store in memory whose calls run where they are awaited, and what looks into it.
    ///
    /// # Errors
    /// SQLite does not work here at all.
    pub fn open_in_memory_inline(
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<(Self, Inspector), StoreError> {
        let opened = || -> Outcome<(Self, Inspector)> {
            let connection = open::in_memory()?;
            listen::start(&connection)?;
            let (moved, changes) = watch::channel(0);
            let work = Work::new(connection, Arc::clone(&clock), entropy, moved, None);
            let inline = Arc::new(Inline(Mutex::new(work)));
            let inspector = Inspector { inline: Arc::clone(&inline) };
            let (readers, lists) = (Readers::inline(Arc::clone(&inline)), Readers::inline(Arc::clone(&inline)));
            let writer = Writer::inline(inline);
            let dispatchers = Dispatchers::default();
            let inner = Inner {
                writer,
                readers,
                lists,
                clock,
                changes,
                dispatchers,
                inherited: None,
                _database: None,
                _lock: None,
            };
            Ok((Self { inner: Arc::new(inner) }, inspector))
        };
        opened().map_err(|failure| failure.0)
    }
}

impl Inspector {
    /// What changed since the last call, in order.
    ///
    /// # Errors
    /// A row cannot be read: a bug.
    pub fn changes(&self) -> Result<Vec<Change>, StoreError> {
        listen::take(&self.inline.work().connection).map_err(|failure| failure.0)
    }

    /// Rules of the tables among each other that are broken now, in words. Reads everything.
    ///
    /// # Errors
    /// A row cannot be read: a bug.
    pub fn audit(&self) -> Result<Vec<(Rule, String)>, StoreError> {
        let work = self.inline.work();
        audit::broken(&work.connection, work.clock.now()).map_err(|failure| failure.0)
    }

    /// Breaks a promise: the second of some lane is due now, as if it were the first. Whether there was one.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn promote_a_follower(&self) -> Result<bool, StoreError> {
        let work = self.inline.work();
        breaks::promote_a_follower(&work.connection, work.clock.now()).map_err(|failure| failure.0)
    }

    /// Breaks a promise: the first of some lane is never due. Whether there was one.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn drop_a_head(&self) -> Result<bool, StoreError> {
        breaks::drop_a_head(&self.inline.work().connection).map_err(|failure| failure.0)
    }

    /// What is not finished, and does not wait for a person.
    ///
    /// # Errors
    /// A row cannot be read: a bug.
    pub fn rest(&self) -> Result<Rest, StoreError> {
        audit::rest(&self.inline.work().connection).map_err(|failure| failure.0)
    }
}
