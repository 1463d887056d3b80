//! The store port: everything durable.
//!
//! One trait per actor, so that a reader sees at once what an actor may do: [`IngestStore`] (the API's hot path),
//! [`ManageStore`], [`ReadStore`] and [`TenantStore`] (its management half), [`DispatchStore`] (the dispatcher), [`ScheduleStore`]
//! (retry). [`Store`] is all of them.
//!
//! Rules that hold for every method and every implementation:
//! - A method is one transaction, or says that it is none. When it returns `Ok`, what it did is on disk.
//! - A future that is dropped at any await leaves either all of it or nothing.
//! - Batches are arrays in one statement, never a statement per item. Rows are locked in the order of their ids.
//! - Time is the store's: due times are computed from the store's clock and a `Duration` from the caller.
//! - Everything carries its tenant. A management or read call gives the tenant first and sees nothing of others. The dispatcher's and
//!   retry's calls act for all tenants, and so do those of the operator: the list of tenants, sealing, pruning.
//! - A tenant that is being deleted is not there any more for those who look it up by slug or ask whether it exists, for its keys, and
//!   for new events and destinations. What is left of it can still be read until it is swept.
//! - `StoreError::Unavailable` means that nothing is known about the outcome: the caller repeats, and every method
//!   can be repeated.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod dispatch;
pub mod ingest;
#[cfg(feature = "layers")]
pub mod layers;
pub mod manage;
pub mod pace;
pub mod read;
pub mod schedule;
pub mod secrets;
pub mod tenants;

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
pub use dispatch::DispatchStore;
pub use ingest::IngestStore;
pub use manage::ManageStore;
pub use read::ReadStore;
pub use schedule::ScheduleStore;
use signalpost_core::Timestamp;
pub use tenants::TenantStore;

/// Everything durable.
pub trait Store: IngestStore + ManageStore + ReadStore + TenantStore + DispatchStore + ScheduleStore + Health {}

impl<S: IngestStore + ManageStore + ReadStore + TenantStore + DispatchStore + ScheduleStore + Health> Store for S {}

/// Why the store did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It is away, full, overloaded or too slow. What was asked for may or may not have happened. Answer: 503.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It refuses this data (a NUL in a text, a value out of range). A group that fails so is split until the culprit
    /// stands alone.
    #[error("the store refuses the data: {0}")]
    Data(String),
    /// A rule of ours is broken: a bug, or a schema that this version does not know.
    #[error("the store is inconsistent: {0}")]
    Internal(String),
}

/// How the store is.
#[async_trait]
pub trait Health: Debug + Send + Sync + 'static {
    /// Reads one row, and tells the store's time.
    ///
    /// # Errors
    /// It cannot be reached, its schema is not the one that this version works on, or it refused to write and still does.
    async fn check(&self) -> Result<Timestamp, StoreError>;
}

/// A signal that something about destinations changed: the number grows at each change that this process knows of.
/// PostgreSQL: by NOTIFY and by a poll; SQLite: at once. Economy and speed only: who needs certainty reads.
pub type Changes = tokio::sync::watch::Receiver<u64>;

/// How long a delivery that was fed to the bus stays leased to it.
pub const FEED_LEASE: Duration = Duration::from_secs(60);

/// How long a follower stays leased to the dispatcher that ended the delivery before it.
pub const HANDOVER_LEASE: Duration = Duration::from_secs(10);

/// The due time of what has none: a follower in its lane.
pub const NEVER: Timestamp = Timestamp::from_micros(i64::MAX);

/// How long a dispatcher counts as alive after its last heartbeat.
pub const HEARTBEAT_LIFE: Duration = Duration::from_secs(5);
