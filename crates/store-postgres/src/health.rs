//! How the database is.

use async_trait::async_trait;
use signalpost_core::Timestamp;
use signalpost_store::{Health, StoreError};
use sqlx::{PgConnection, Row};

use crate::{PostgresStore, error::Failure, schema, time::Time, transaction::read};

#[async_trait]
impl Health for PostgresStore {
    async fn check(&self) -> Result<Timestamp, StoreError> {
        Ok(read!(self, main, |connection| check(connection))?)
    }
}

async fn check(connection: &mut PgConnection) -> Result<Timestamp, Failure> {
    let row = sqlx::query(
        "SELECT clock_timestamp() AS now, (SELECT max(version) FROM _sqlx_migrations WHERE success) AS version",
    )
    .fetch_one(connection)
    .await
    .map_err(|error| match Failure::from(error) {
        failure if failure.sqlstate().as_deref() == Some("42P01") => schema::missing(),
        failure => failure,
    })?;
    schema::judge(row.try_get("version")?)?;
    Ok(row.try_get::<Time, _>("now")?.0)
}
