//! What an operator wants to know of a PostgreSQL: `signalpost doctor`.

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
