//! What an operator wants to know of a database file: `signalpost doctor`. Only reads; the owner of the file may run.

use std::{collections::BTreeMap, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};
use signalpost_store::StoreError;

use crate::{failure::Outcome, open};

/// The schema that first had encrypted secrets.
const SEALED_SINCE: i64 = 5;

/// How the secrets of a file are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspection {
    /// Rows that are not encrypted.
    pub plain: u64,
    /// Rows that are encrypted, by the id of the key.
    pub sealed: BTreeMap<String, u64>,
}

/// Looks at the database in this file (or in `signalpost.db` in this folder). None: of a version before encryption. Blocks.
///
/// # Errors
/// The file cannot be read, or is no database of ours.
pub fn inspect(path: impl AsRef<Path>) -> Result<Option<Inspection>, StoreError> {
    let looked = || -> Outcome<Option<Inspection>> {
        let file = open::database_file(path.as_ref());
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version < SEALED_SINCE {
            return Ok(None);
        }
        let mut found = Inspection::default();
        let mut statement = connection.prepare(
            "SELECT sealed_by, count(*) FROM (
                 SELECT sealed_by FROM destinations
                 UNION ALL SELECT ingest_sealed_by FROM tenants WHERE ingest_sealed IS NOT NULL
             ) GROUP BY sealed_by",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let count = u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default();
            match row.get::<_, Option<String>>(0)? {
                Some(id) => drop(found.sealed.insert(id, count)),
                None => found.plain = count,
            }
        }
        Ok(Some(found))
    };
    looked().map_err(|failure| failure.0)
}
