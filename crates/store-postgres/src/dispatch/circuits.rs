//! What circuits did, kept for people.

use std::collections::BTreeMap;

use signalpost_core::{CircuitRecord, DestinationId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    error::Failure,
    ids::uuids,
    rows::{id, optional_json, to_json},
};

/// Keeps records; one that is older than what is kept changes nothing, nor does one of a destination that is gone.
pub(super) async fn record(
    transaction: &mut PgConnection,
    records: &[(DestinationId, CircuitRecord)],
) -> Result<(), Failure> {
    let mut newest = BTreeMap::<DestinationId, &CircuitRecord>::new();
    for (destination, record) in records {
        newest
            .entry(*destination)
            .and_modify(|kept| {
                if age(record) >= age(kept) {
                    *kept = record;
                }
            })
            .or_insert(record);
    }
    let rows =
        sqlx::query("SELECT id, circuit::text AS circuit FROM destinations WHERE id = ANY($1) ORDER BY id FOR UPDATE")
            .bind(uuids(newest.keys().copied()))
            .fetch_all(&mut *transaction)
            .await?;
    let (mut ids, mut circuits) = (Vec::<Uuid>::new(), Vec::new());
    for row in &rows {
        let destination: DestinationId = id(row, "id")?;
        let kept: CircuitRecord = optional_json(row, "circuit")?.unwrap_or_default();
        if let Some(record) = newest.get(&destination).filter(|record| age(record) >= age(&kept)) {
            ids.push(destination.uuid());
            circuits.push(to_json(record)?);
        }
    }
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE destinations d SET circuit = i.circuit::jsonb, circuit_at = clock_timestamp()
         FROM unnest($1::uuid[], $2::text[]) AS i(id, circuit)
         WHERE d.id = i.id AND d.id = ANY($1)",
    )
    .bind(ids)
    .bind(circuits)
    .execute(transaction)
    .await?;
    Ok(())
}

fn age(record: &CircuitRecord) -> (u32, Option<signalpost_core::Timestamp>) {
    (record.trips, record.since)
}
