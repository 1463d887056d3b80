//! What is encrypted, with which keys.
//!
//! What a row held before it was sealed again stays in old pages and in the log until `SqliteStore::rewrite`.

use rusqlite::{Connection, params};
use signalpost_core::{Kept, Sealed, TenantId};
use signalpost_store::{secrets, tenants::SealedRow};

use super::{count, sealed};
use crate::{
    columns::{id, key},
    failure::{Failure, Outcome},
    tx::Tx,
};

/// Rows of the table are read in the order of their ids, from where the last call stopped: all of them once, whatever is found.
pub(super) fn unsealed(
    connection: &Connection,
    newest: &str,
    after: Option<SealedRow>,
    most: usize,
) -> Outcome<Vec<(SealedRow, TenantId, Kept)>> {
    let mut found = Vec::new();
    if let None | Some(SealedRow::Destination(_)) = after {
        let after = match after {
            Some(SealedRow::Destination(after)) => key(after).to_vec(),
            _ => Vec::new(),
        };
        let mut statement = connection.prepare_cached(
            "SELECT id, tenant_id, spec, secret, sealed FROM destinations
             WHERE id > ?1 AND sealed_by IS NOT ?2 ORDER BY id LIMIT ?3",
        )?;
        let mut rows = statement.query(params![after, newest, limit(most)])?;
        while let Some(row) = rows.next()? {
            let spec = row.get_ref(2)?.as_str().map_err(Failure::internal)?;
            let (_, kept) = secrets::read(spec, row.get(3)?, row.get(4)?)?;
            found.push((SealedRow::Destination(id(row, 0)?), id(row, 1)?, kept));
        }
    }
    let after = match after {
        Some(SealedRow::Ingest(after)) => key(after).to_vec(),
        _ => Vec::new(),
    };
    let mut statement = connection.prepare_cached(
        "SELECT id, ingest_sealed FROM tenants
         WHERE id > ?1 AND ingest_sealed IS NOT NULL AND ingest_sealed_by IS NOT ?2 ORDER BY id LIMIT ?3",
    )?;
    let mut rows = statement.query(params![after, newest, limit(most - found.len())])?;
    while let Some(row) = rows.next()? {
        let tenant = id(row, 0)?;
        if let Some(sealed) = sealed(row, 1)? {
            found.push((SealedRow::Ingest(tenant), tenant, Kept::Sealed(sealed)));
        }
    }
    Ok(found)
}

fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

pub(super) fn count_unsealed(connection: &Connection, newest: &str) -> Outcome<u64> {
    let mut statement = connection.prepare_cached(
        "SELECT (SELECT count(*) FROM destinations WHERE sealed_by IS NOT ?1)
              + (SELECT count(*) FROM tenants WHERE ingest_sealed IS NOT NULL AND ingest_sealed_by IS NOT ?1)",
    )?;
    Ok(count(statement.query_row([newest], |row| row.get(0))?))
}

pub(super) fn reseal(tx: &Tx<'_>, row: SealedRow, old: &Kept, new: &Sealed) -> Outcome<bool> {
    match row {
        SealedRow::Destination(destination) => {
            let mut statement = tx.prepare("SELECT spec, secret, sealed FROM destinations WHERE id = ?1")?;
            let mut rows = statement.query([key(destination)])?;
            let Some(row) = rows.next()? else { return Ok(false) };
            let spec = row.get_ref(0)?.as_str().map_err(Failure::internal)?;
            let (spec, kept) = secrets::read(spec, row.get(1)?, row.get(2)?)?;
            if kept != *old {
                return Ok(false);
            }
            drop(rows);
            let kept = Kept::Sealed(new.clone());
            let columns = secrets::columns(&spec, &kept)?;
            tx.execute(
                "UPDATE destinations SET spec = ?2, secret = ?3, sealed = ?4, sealed_by = ?5 WHERE id = ?1",
                params![key(destination), columns.spec, columns.secret, columns.sealed, columns.sealed_by],
            )?;
            Ok(true)
        }
        SealedRow::Ingest(tenant) => {
            let Kept::Sealed(old) = old else { return Ok(false) };
            let resealed = tx.execute(
                "UPDATE tenants SET ingest_sealed = ?3, ingest_sealed_by = ?4 WHERE id = ?1 AND ingest_sealed = ?2",
                params![key(tenant), old.as_bytes(), new.as_bytes(), new.key_id()],
            )?;
            Ok(resealed > 0)
        }
    }
}

pub(super) fn keys(connection: &Connection) -> Outcome<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT sealed_by FROM destinations WHERE sealed_by IS NOT NULL
         UNION SELECT ingest_sealed_by FROM tenants WHERE ingest_sealed_by IS NOT NULL ORDER BY 1",
    )?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
