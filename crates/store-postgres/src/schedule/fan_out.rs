//! Expands large fan-outs.

use signalpost_core::{
    Entropy, EventId,
    id::{DestinationKind, Id},
};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{
    error::Failure,
    ids::unpack,
    rows::{id, json},
    waiting::{self, Newborn},
};

pub(super) async fn expand(
    transaction: &mut PgConnection,
    most: usize,
    entropy: &dyn Entropy,
) -> Result<usize, Failure> {
    let mut created = 0;
    while created < most {
        match expand_one(transaction, most - created, entropy).await? {
            None => break,
            Some(more) => created += more,
        }
    }
    Ok(created)
}

/// The next piece of the oldest fan-out that nobody else works on, without destinations that were deleted meanwhile.
async fn expand_one(
    transaction: &mut PgConnection,
    most: usize,
    entropy: &dyn Entropy,
) -> Result<Option<usize>, Failure> {
    let wanted = i32::try_from(most).unwrap_or(i32::MAX / 16).min(i32::MAX / 16);
    let row = sqlx::query(
        "SELECT f.event_id, f.tenant_id, substring(f.destination_ids FROM f.position * 16 + 1 FOR $1 * 16) AS piece,
                (SELECT e.type FROM events e WHERE e.id = f.event_id) AS event_type
         FROM fan_outs f ORDER BY f.event_id LIMIT 1 FOR UPDATE OF f SKIP LOCKED",
    )
    .bind(wanted)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let event_id: EventId = id(&row, "event_id")?;
    let tenant_id = id(&row, "tenant_id")?;
    let event_type: Option<String> = row.try_get("event_type")?;
    let event_type = event_type.ok_or_else(|| Failure::Inconsistent(format!("{event_id} fans out but is gone")))?;
    let piece: Vec<Uuid> = unpack::<DestinationKind>(row.try_get("piece")?).map(Id::uuid).collect();
    sqlx::query(
        "WITH moved AS (
             UPDATE fan_outs SET position = position + $2
             WHERE event_id = $1 AND (position + $2) * 16 < octet_length(destination_ids)
         )
         DELETE FROM fan_outs WHERE event_id = $1 AND (position + $2) * 16 >= octet_length(destination_ids)",
    )
    .bind(event_id.uuid())
    .bind(i32::try_from(piece.len()).unwrap_or(i32::MAX))
    .execute(&mut *transaction)
    .await?;
    let living = sqlx::query(
        "SELECT id, COALESCE(spec -> 'guarantee', '\"at_least_once\"')::text AS guarantee FROM destinations
         WHERE id = ANY($1) AND state <> 'deleted' ORDER BY id",
    )
    .bind(piece)
    .fetch_all(&mut *transaction)
    .await?;
    let newborn: Vec<Newborn> = living
        .iter()
        .map(|to| {
            let new = Newborn::new(tenant_id, id(to, "id")?, event_id, event_type.clone(), entropy);
            Ok(Newborn { guarantee: json(to, "guarantee")?, ..new })
        })
        .collect::<Result<_, Failure>>()?;
    let created = newborn.len();
    waiting::create(transaction, newborn).await?;
    Ok(Some(created))
}
