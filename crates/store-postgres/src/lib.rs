//! The store port on PostgreSQL 15 or later.
//!
//! How it works, once for all modules:
//! - Batches travel as arrays (`unnest`), one statement per table and batch. A method is one transaction, tried again a few
//!   times where the database aborted it for the sake of another (`transaction`).
//! - Locks are taken in one order everywhere: idempotency keys, deliveries, destinations, lanes, rows of `waiting`, rows of
//!   `queues`, tenants, rows of `failing`; API keys and the audit log alone; of each kind sorted by key; a dead letter after its delivery. The feed takes rows of `waiting` with SKIP LOCKED only.
//! - Who changes a row of `waiting` has locked its delivery. Two exceptions: the feed, what gives a lease back, and resuming a
//!   destination change the due time of rows that nobody else has locked; and who has locked a lane gives its first member
//!   its turn (`lanes`), of which nobody else changes the row before that. So `state = waiting` and "has a row in `waiting`"
//!   always mean the same.
//! - Statements on partitioned tables name the ids that they touch (`= ANY`) and are planned for their arguments, so that
//!   they open the partitions of those ids only (`pools`).
//! - Times are the database's (`statement_timestamp()`); durations come from the caller.

mod changes;
mod dispatch;
mod dispatchers;
mod due;
mod error;
mod failing;
mod health;
mod holds;
mod ids;
mod ingest;
mod inspect;
mod lanes;
mod manage;
mod partitions;
mod pools;
mod queues;
mod read;
mod rows;
mod schedule;
mod schema;
mod selection;
mod tenants;
mod time;
mod transaction;
mod waiting;

use std::{fmt, sync::Arc};

pub use inspect::{Inspection, Secrets, inspect, inspect_secrets};
pub use pools::PostgresSettings;
use signalpost_core::Entropy;
use signalpost_store::{Changes, StoreError};
use sqlx::PgPool;

/// The store on PostgreSQL. Cheap to share behind an `Arc`; dropping it ends its background task.
pub struct PostgresStore {
    /// The hot path alone: it must not wait behind the others.
    hot: PgPool,
    /// The dispatcher's and retry's work, and changes by people.
    main: PgPool,
    /// Lists and single reads of the API: few connections, bounded statements.
    reads: PgPool,
    settings: PostgresSettings,
    /// For the ids of deliveries that the store itself creates (replays, fan-outs).
    entropy: Arc<dyn Entropy>,
    changes: Changes,
    watcher: tokio::task::JoinHandle<()>,
}

impl PostgresStore {
    /// A store on the database of that URL. Connections are opened when they are needed, so this succeeds while the
    /// database is away, too; ask [`signalpost_store::Health::check`] to know. Must be called within a runtime.
    ///
    /// # Errors
    /// `Internal`: the URL is not one of PostgreSQL.
    pub async fn connect(url: &str, settings: PostgresSettings, entropy: Arc<dyn Entropy>) -> Result<Self, StoreError> {
        let options = pools::parse(url)?;
        let (changes, watcher) = changes::watch(options.clone(), &settings);
        Ok(Self {
            hot: pools::hot(options.clone(), &settings),
            main: pools::main(options.clone(), &settings),
            reads: pools::reads(options, &settings),
            settings,
            entropy,
            changes,
            watcher,
        })
    }

    /// Makes or upgrades the schema of the database of that URL, and the partitions for the next days. Several may do it
    /// at once.
    ///
    /// # Errors
    /// The database is away, or a migration failed.
    pub async fn migrate(url: &str) -> Result<(), StoreError> {
        schema::migrate(url).await
    }

    /// Closes all connections. Calls that come later fail as unavailable.
    pub async fn close(&self) {
        self.watcher.abort();
        self.hot.close().await;
        self.main.close().await;
        self.reads.close().await;
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("settings", &self.settings).finish_non_exhaustive()
    }
}
