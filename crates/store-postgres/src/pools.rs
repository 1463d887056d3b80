//! The connection pools, and how their sessions are set up.

use std::time::Duration;

use signalpost_store::StoreError;
use sqlx::{
    ConnectOptions, Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// How to use the database.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// Connections for writing. Few are enough: every hop is batched. Two of them are the hot path's alone (one, where
    /// there are fewer than four).
    pub max_connections: u32,
    /// Connections for the lists of the API.
    pub read_connections: u32,
    /// How long a call waits for a connection, a new one included. After that the store counts as unavailable.
    pub acquire_timeout: Duration,
    /// How long one transaction may take, and how long the database keeps one whose client fell silent.
    pub operation_timeout: Duration,
    /// How long one list may take.
    pub list_timeout: Duration,
    /// How often changes of destinations are looked for, besides NOTIFY.
    pub poll_interval: Duration,
    /// The largest `data` that the feed loads with a due delivery.
    pub inline_bytes: usize,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            max_connections: 10,
            read_connections: 4,
            acquire_timeout: Duration::from_millis(1_500),
            operation_timeout: Duration::from_secs(10),
            list_timeout: Duration::from_secs(5),
            poll_interval: Duration::from_millis(500),
            inline_bytes: 64 * 1024,
        }
    }
}

/// A connection that lay idle for longer is tried before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// Reads the URL, `sslmode` and all.
pub(crate) fn parse(url: &str) -> Result<PgConnectOptions, StoreError> {
    let options: PgConnectOptions = url.parse().map_err(|_| {
        StoreError::Internal("the database URL is not of the form postgres://user@host/name".to_owned())
    })?;
    Ok(options.application_name("signalpost").disable_statement_logging())
}

/// For writing: the dispatcher, retry, and people. Plans are made for the arguments at hand: that opens the partitions of the batch
/// only (a generic plan locks them all).
pub(crate) fn main(options: PgConnectOptions, settings: &PostgresSettings) -> PgPool {
    let connections = settings.max_connections.saturating_sub(of_hot(settings)).max(1);
    writing(options, connections, settings, "force_custom_plan")
}

/// For the few statements of the hot path alone: ingest, which commits one group at a time and looks up a few small things meanwhile, and
/// the outcomes of most deliveries. They are planned once for each connection, as planning would cost as much as doing: so they
/// insert, or name the partition themselves.
pub(crate) fn hot(options: PgConnectOptions, settings: &PostgresSettings) -> PgPool {
    writing(options, of_hot(settings), settings, "force_generic_plan")
}

fn of_hot(settings: &PostgresSettings) -> u32 {
    if settings.max_connections < 4 { 1 } else { 2 }
}

/// Statistics of partitions that fill up are always late, so plans that read a whole table are switched off; and statements
/// name their rows by `= ANY(ids)`, whose cost does not depend on statistics, never by a range alone. What the hot path
/// touches is young and in memory, so a look-up is cheap.
fn writing(options: PgConnectOptions, connections: u32, settings: &PostgresSettings, plans: &str) -> PgPool {
    let time = milliseconds(settings.operation_timeout);
    let options = options.options([
        ("synchronous_commit", "on"),
        ("plan_cache_mode", plans),
        ("enable_seqscan", "off"),
        ("enable_bitmapscan", "off"),
        ("enable_mergejoin", "off"),
        ("random_page_cost", "0.1"),
        ("jit", "off"),
        ("statement_timeout", time.as_str()),
        ("lock_timeout", "5000"),
        ("idle_in_transaction_session_timeout", time.as_str()),
    ]);
    pool(connections, settings).connect_lazy_with(options)
}

/// For reading, bounded in time.
pub(crate) fn reads(options: PgConnectOptions, settings: &PostgresSettings) -> PgPool {
    let time = milliseconds(settings.list_timeout);
    let options = options.options([
        ("default_transaction_read_only", "on"),
        ("plan_cache_mode", "force_custom_plan"),
        ("jit", "off"),
        ("statement_timeout", time.as_str()),
    ]);
    pool(settings.read_connections, settings).connect_lazy_with(options)
}

/// For LISTEN and its poll, which asks a table that grows a few times a second: as little as the writers may it read all of it.
pub(crate) fn watcher(options: PgConnectOptions, settings: &PostgresSettings) -> PgPool {
    let time = milliseconds(settings.list_timeout);
    let options = options.options([("enable_seqscan", "off"), ("jit", "off"), ("statement_timeout", time.as_str())]);
    pool(2, settings).max_lifetime(None).connect_lazy_with(options)
}

fn pool(connections: u32, settings: &PostgresSettings) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(settings.acquire_timeout)
        .idle_timeout(Duration::from_secs(600))
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > TRUSTED_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
}

fn milliseconds(duration: Duration) -> String {
    duration.as_millis().to_string()
}
