//! The table `waiting`: how deliveries come into it, other than by an outcome.

use signalpost_core::{
    DeliveryId, DeliveryState, DestinationId, Entropy, EventId, TenantId, Timestamp, WaitReason, id::Id,
};
use sqlx::{PgConnection, postgres::PgRow};
use uuid::Uuid;

use crate::{
    error::Failure,
    ids::uuids,
    partitions,
    queues::QueueChanges,
    rows::{id, named, optional_time},
};

/// A delivery that is born waiting, due now.
#[derive(Debug, Clone)]
pub(crate) struct Newborn {
    pub(crate) id: DeliveryId,
    pub(crate) tenant_id: TenantId,
    pub(crate) destination_id: DestinationId,
    pub(crate) event_id: EventId,
    pub(crate) event_type: String,
    pub(crate) replay_of: Option<DeliveryId>,
}

impl Newborn {
    /// With a new id of its event's millisecond.
    pub(crate) fn new(
        tenant_id: TenantId,
        destination_id: DestinationId,
        event_id: EventId,
        event_type: String,
        entropy: &dyn Entropy,
    ) -> Self {
        let id = DeliveryId::new(event_id.created_at(), entropy);
        Self { id, tenant_id, destination_id, event_id, event_type, replay_of: None }
    }
}

/// Anchors those of the deliveries that are still `Queued`: due now. Gives how many.
pub(crate) async fn anchor(transaction: &mut PgConnection, ids: &mut Vec<DeliveryId>) -> Result<usize, Failure> {
    ids.sort_unstable();
    ids.dedup();
    let ids = uuids(ids.iter().copied());
    let rows = sqlx::query(
        "WITH anchored AS (
             UPDATE deliveries SET state = $2
             WHERE id = ANY($1) AND state = $3
             RETURNING id, tenant_id, destination_id, event_id
         )
         INSERT INTO waiting (delivery_id, tenant_id, destination_id, event_id, due_at, reason)
         SELECT id, tenant_id, destination_id, event_id, statement_timestamp(), $4 FROM anchored
         RETURNING tenant_id, destination_id",
    )
    .bind(ids)
    .bind(DeliveryState::Waiting as i16)
    .bind(DeliveryState::Queued as i16)
    .bind(WaitReason::Turn as i16)
    .fetch_all(&mut *transaction)
    .await?;
    let mut changes = QueueChanges::default();
    for row in &rows {
        changes.added(id(row, "tenant_id")?, id(row, "destination_id")?, 0);
    }
    changes.apply(transaction).await?;
    Ok(rows.len())
}

/// Creates deliveries in `waiting`, due now.
pub(crate) async fn create(transaction: &mut PgConnection, mut newborn: Vec<Newborn>) -> Result<(), Failure> {
    if newborn.is_empty() {
        return Ok(());
    }
    newborn.sort_unstable_by_key(|delivery| delivery.id);
    sqlx::query(
        "WITH born AS (
             INSERT INTO deliveries (id, tenant_id, destination_id, event_id, event_type, replay_of, state)
             SELECT i.*, $7 FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::uuid[]) AS i
         )
         INSERT INTO waiting (delivery_id, tenant_id, destination_id, event_id, due_at, reason)
         SELECT i.*, statement_timestamp(), $8 FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[]) AS i",
    )
    .bind(newborn.iter().map(|delivery| delivery.id.uuid()).collect::<Vec<_>>())
    .bind(newborn.iter().map(|delivery| delivery.tenant_id.uuid()).collect::<Vec<_>>())
    .bind(newborn.iter().map(|delivery| delivery.destination_id.uuid()).collect::<Vec<_>>())
    .bind(newborn.iter().map(|delivery| delivery.event_id.uuid()).collect::<Vec<_>>())
    .bind(newborn.iter().map(|delivery| delivery.event_type.as_str()).collect::<Vec<_>>())
    .bind(newborn.iter().map(|delivery| delivery.replay_of.map(Id::uuid)).collect::<Vec<Option<Uuid>>>())
    .bind(DeliveryState::Waiting as i16)
    .bind(WaitReason::Turn as i16)
    .execute(&mut *transaction)
    .await?;
    let mut changes = QueueChanges::default();
    for delivery in &newborn {
        changes.added(delivery.tenant_id, delivery.destination_id, 0);
    }
    changes.apply(transaction).await
}

/// Sends ended deliveries again: links each to its new delivery and takes it off the dead letters. The caller has
/// locked them, and decided. `newborn` carries their ids in `replay_of`.
pub(crate) async fn replay(transaction: &mut PgConnection, newborn: Vec<Newborn>) -> Result<(), Failure> {
    let mut links: Vec<(Uuid, Uuid)> =
        newborn.iter().filter_map(|delivery| Some((delivery.replay_of?.uuid(), delivery.id.uuid()))).collect();
    links.sort_unstable();
    let (old, new): (Vec<Uuid>, Vec<Uuid>) = links.into_iter().unzip();
    sqlx::query(
        "WITH gone AS (DELETE FROM dead_letters WHERE delivery_id = ANY($1))
         UPDATE deliveries d SET replayed_by = i.replayed_by FROM unnest($1::uuid[], $2::uuid[]) AS i(id, replayed_by)
         WHERE d.id = i.id AND d.id = ANY($1)",
    )
    .bind(old)
    .bind(new)
    .execute(&mut *transaction)
    .await?;
    create(transaction, newborn).await
}

/// Stores the events of dead letters again from their copies, where they are gone with their partitions.
pub(crate) async fn restore_events(transaction: &mut PgConnection, letters: &[DeliveryId]) -> Result<(), Failure> {
    partitions::ensure_for(&mut *transaction, letters.iter().map(|letter| letter.created_at())).await?;
    sqlx::query(
        "INSERT INTO events (id, tenant_id, type, uid, source, meta, data)
         SELECT event_id, tenant_id, event_type, uid, source, meta, data FROM dead_letters l
         WHERE delivery_id = ANY($1) AND NOT EXISTS (SELECT FROM events e WHERE e.id = l.event_id)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(uuids(letters.iter().copied()))
    .execute(transaction)
    .await?;
    Ok(())
}

/// When a delivery is due, and why it waits, of the columns `due_at` and `wait_reason` of a left join.
pub(crate) fn waiting_of(row: &PgRow) -> Result<Option<(Timestamp, WaitReason)>, Failure> {
    let Some(due) = optional_time(row, "due_at")? else { return Ok(None) };
    Ok(Some((due, named(row, "wait_reason", WaitReason::from_number)?)))
}
