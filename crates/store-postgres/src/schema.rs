//! The schema and its version.

use std::time::Duration;

use signalpost_store::StoreError;
use sqlx::{
    migrate::{MigrateError, Migrator},
    postgres::PgPoolOptions,
};

use crate::{error::Failure, partitions, pools};

static MIGRATOR: Migrator = sqlx::migrate!("../../migrations/postgres");

/// How many days ahead a migration makes partitions.
const DAYS_AHEAD: u32 = 7;

/// How long a connection is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes or upgrades the schema, and the partitions for the next days.
pub(crate) async fn migrate(url: &str) -> Result<(), StoreError> {
    let options = pools::parse(url)?;
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECT_TIMEOUT).connect_lazy_with(options);
    let migrated = MIGRATOR.run(&pool).await.map_err(|error| match error {
        MigrateError::Execute(error) => StoreError::from(Failure::from(error)),
        error => StoreError::Internal(format!("migration failed: {error}")),
    });
    if migrated.is_ok() {
        let mut connection = pool.acquire().await.map_err(Failure::from)?;
        partitions::prepare(&mut connection, DAYS_AHEAD).await?;
    }
    pool.close().await;
    migrated
}

/// The schema that this version was written for.
fn expected() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Whether this version works on that schema: on its own, and on newer ones, which only add to it.
pub(crate) fn judge(version: Option<i64>) -> Result<(), Failure> {
    match version {
        None => Err(missing()),
        Some(version) if version < expected() => Err(Failure::Inconsistent(format!(
            "the schema is version {version}, version {} is needed: run `signalpost migrate`",
            expected()
        ))),
        Some(_) => Ok(()),
    }
}

pub(crate) fn missing() -> Failure {
    Failure::Inconsistent("the database has no schema yet: run `signalpost migrate`".to_owned())
}
