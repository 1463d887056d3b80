//! What an operator wants to know of a PostgreSQL: `signalpost doctor`.

use std::collections::BTreeMap;

use signalpost_core::Timestamp;
use signalpost_store::StoreError;
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use crate::{error::Failure, pools, time::Time};

/// What the server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// As it shows it.
    pub version: String,
    /// The number before the dot.
    pub major_version: u32,
    /// How many connections it takes, of everybody.
    pub max_connections: u32,
    /// Its time.
    pub now: Timestamp,
}

/// How the secrets of a database are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Secrets {
    /// Rows that are not encrypted.
    pub plain: u64,
    /// Rows that are encrypted, by the id of the key.
    pub sealed: BTreeMap<String, u64>,
}

/// Counts them. The caller bounds the time.
///
/// # Errors
/// The server is away, or its schema is of a version before encryption.
pub async fn inspect_secrets(url: &str) -> Result<Secrets, StoreError> {
    let mut connection = pools::parse(url)?.connect().await.map_err(Failure::from)?;
    let rows = sqlx::query(
        "SELECT sealed_by, count(*) FROM (
             SELECT sealed_by FROM destinations
             UNION ALL SELECT ingest_sealed_by FROM tenants WHERE ingest_sealed IS NOT NULL
         ) kept GROUP BY sealed_by",
    )
    .fetch_all(&mut connection)
    .await
    .map_err(Failure::from)?;
    let mut found = Secrets::default();
    for row in rows {
        let count = u64::try_from(row.try_get::<i64, _>(1).map_err(Failure::from)?).unwrap_or_default();
        match row.try_get::<Option<String>, _>(0).map_err(Failure::from)? {
            Some(id) => drop(found.sealed.insert(id, count)),
            None => found.plain = count,
        }
    }
    connection.close().await.map_err(Failure::from)?;
    Ok(found)
}

/// Asks the server once; needs no schema. The caller bounds the time.
///
/// # Errors
/// It is away or does not let us in, or the URL is none of PostgreSQL.
pub async fn inspect(url: &str) -> Result<Inspection, StoreError> {
    let mut connection = pools::parse(url)?.connect().await.map_err(Failure::from)?;
    let row = sqlx::query(
        "SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number, \
         current_setting('max_connections')::int AS connections, clock_timestamp() AS now",
    )
    .fetch_one(&mut connection)
    .await
    .map_err(Failure::from)?;
    let number = |name: &str| row.try_get::<i32, _>(name).map(i32::unsigned_abs).map_err(Failure::from);
    let inspection = Inspection {
        version: row.try_get("version").map_err(Failure::from)?,
        major_version: number("number")? / 10_000,
        max_connections: number("connections")?,
        now: row.try_get::<Time, _>("now").map_err(Failure::from)?.0,
    };
    connection.close().await.map_err(Failure::from)?;
    Ok(inspection)
}
