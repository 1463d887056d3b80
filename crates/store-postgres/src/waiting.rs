//! The table `waiting`: how deliveries come into it and out of it, other than by what decides them one by one.

use std::collections::{BTreeMap, HashMap};

use signalpost_core::{
    DeliveryId, DeliveryState, Destination, DestinationId, Entropy, Event, EventId, Guarantee, LaneId, TenantId,
    Timestamp, WaitReason, ordering::LaneKeys,
};
use sqlx::{PgConnection, postgres::PgRow};
use uuid::Uuid;

use crate::{
    error::Failure,
    ids::uuids,
    lanes::{LaneKey, Lanes},
    partitions,
    queues::QueueChanges,
    rows::{guarantee_number, id, lane_uuid, named, optional_time},
};

/// A delivery that is born waiting: due now, or behind the others of its lane.
#[derive(Debug, Clone)]
pub(crate) struct Newborn {
    pub(crate) id: DeliveryId,
    pub(crate) tenant_id: TenantId,
    pub(crate) destination_id: DestinationId,
    pub(crate) event_id: EventId,
    pub(crate) event_type: String,
    pub(crate) guarantee: Guarantee,
    pub(crate) lane: Option<LaneId>,
    /// A replay: what it sends again, and the place that had in its lane.
    pub(crate) replay_of: Option<(DeliveryId, Option<i64>)>,
    /// It is born now, and not with its event.
    pub(crate) is_born_now: bool,
}

impl Newborn {
    /// With a new id of its event's millisecond; born with its event, at least once, without a lane.
    pub(crate) fn new(
        tenant_id: TenantId,
        destination_id: DestinationId,
        event_id: EventId,
        event_type: String,
        entropy: &dyn Entropy,
    ) -> Self {
        let id = DeliveryId::new(event_id.created_at(), entropy);
        let (guarantee, lane, replay_of) = (Guarantee::default(), None, None);
        Self { id, tenant_id, destination_id, event_id, event_type, guarantee, lane, replay_of, is_born_now: false }
    }

    /// The first one of an event for a destination, made long after it, as the destination is now.
    pub(crate) fn late(destination: &Destination, event: &Event, entropy: &dyn Entropy) -> Self {
        let new = Self::new(destination.tenant_id, destination.id, event.id, event.event_type.clone(), entropy);
        let lane = LaneKeys::new(event).lane(&destination.spec.ordering);
        Self { guarantee: destination.spec.guarantee, lane, is_born_now: true, ..new }
    }

    fn lane_key(&self) -> Option<LaneKey> {
        self.lane.map(|lane| (self.destination_id, lane))
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

/// What waits of these deliveries does so no longer, and is counted out of its queues; how many those were.
pub(crate) async fn leave(
    transaction: &mut PgConnection,
    deliveries: Vec<Uuid>,
    queues: &mut QueueChanges,
) -> Result<usize, Failure> {
    let rows = sqlx::query("DELETE FROM waiting WHERE delivery_id = ANY($1) RETURNING tenant_id, destination_id")
        .bind(deliveries)
        .fetch_all(transaction)
        .await?;
    for row in &rows {
        queues.removed(id(row, "tenant_id")?, id(row, "destination_id")?);
    }
    Ok(rows.len())
}

/// Creates deliveries in `waiting`. Those of a lane join it in the order given; one that sends the dead letter again that
/// blocks its lane takes its place, and the lane goes on.
pub(crate) async fn create(transaction: &mut PgConnection, mut newborn: Vec<Newborn>) -> Result<(), Failure> {
    if newborn.is_empty() {
        return Ok(());
    }
    let mut lanes = Lanes::default();
    let places = places(transaction, &newborn, &mut lanes).await?;
    newborn.sort_unstable_by_key(|delivery| delivery.id);
    sqlx::query(
        "WITH born AS (
             INSERT INTO deliveries (id, tenant_id, destination_id, event_id, event_type, replay_of, lane, lane_seq,
                                     guarantee, born_at, state)
             SELECT i.id, i.tenant_id, i.destination_id, i.event_id, i.event_type, i.replay_of, i.lane, i.lane_seq,
                    i.guarantee, CASE WHEN i.is_born_now THEN statement_timestamp() END, $11
             FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::uuid[], $7::uuid[],
                         $8::bigint[], $9::smallint[], $10::bool[])
                  AS i(id, tenant_id, destination_id, event_id, event_type, replay_of, lane, lane_seq, guarantee,
                       is_born_now)
         )
         INSERT INTO waiting (delivery_id, tenant_id, destination_id, event_id, lane, lane_seq, due_at, reason)
         SELECT i.*, CASE WHEN i.lane IS NULL THEN statement_timestamp() ELSE 'infinity' END,
                CASE WHEN i.lane IS NULL THEN $12 ELSE $13 END
         FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $7::uuid[], $8::bigint[])
              AS i(delivery_id, tenant_id, destination_id, event_id, lane, lane_seq)",
    )
    .bind(newborn.iter().map(|delivery| delivery.id.uuid()).collect::<Vec<_>>())
    .bind(newborn.iter().map(|delivery| delivery.tenant_id.uuid()).collect::<Vec<_>>())
    .bind(newborn.iter().map(|delivery| delivery.destination_id.uuid()).collect::<Vec<_>>())
    .bind(newborn.iter().map(|delivery| delivery.event_id.uuid()).collect::<Vec<_>>())
    .bind(newborn.iter().map(|delivery| delivery.event_type.as_str()).collect::<Vec<_>>())
    .bind(newborn.iter().map(|delivery| delivery.replay_of.map(|(id, _)| id.uuid())).collect::<Vec<Option<Uuid>>>())
    .bind(newborn.iter().map(|delivery| delivery.lane.map(lane_uuid)).collect::<Vec<_>>())
    .bind(newborn.iter().map(|delivery| places.get(&delivery.id).copied()).collect::<Vec<_>>())
    .bind(newborn.iter().map(|delivery| guarantee_number(delivery.guarantee)).collect::<Vec<_>>())
    .bind(newborn.iter().map(|delivery| delivery.is_born_now).collect::<Vec<_>>())
    .bind(DeliveryState::Waiting as i16)
    .bind(WaitReason::Turn as i16)
    .bind(WaitReason::Lane as i16)
    .execute(&mut *transaction)
    .await?;
    let mut changes = QueueChanges::default();
    for delivery in &newborn {
        match delivery.lane {
            None => changes.added(delivery.tenant_id, delivery.destination_id, 0),
            Some(_) => changes.followed(delivery.tenant_id, delivery.destination_id),
        }
    }
    lanes.settle(transaction, false, &mut changes).await?;
    changes.apply(transaction).await
}

/// The places in their lanes.
async fn places(
    transaction: &mut PgConnection,
    newborn: &[Newborn],
    lanes: &mut Lanes,
) -> Result<HashMap<DeliveryId, i64>, Failure> {
    let mut added = BTreeMap::<LaneKey, i64>::new();
    for key in newborn.iter().filter_map(Newborn::lane_key) {
        *added.entry(key).or_default() += 1;
    }
    let mut joined = lanes.join(transaction, &added).await?;
    for joined in joined.values_mut() {
        joined.places.reverse();
    }
    let mut places = HashMap::new();
    for delivery in newborn {
        let Some(key) = delivery.lane_key() else { continue };
        let Some(joined) = joined.get_mut(&key) else { continue };
        let next = joined.places.pop();
        let place = match (delivery.replay_of, joined.blocked_by) {
            (Some((old, Some(place))), Some(blocking)) if old == blocking => {
                lanes.unblock(key);
                Some(place)
            }
            _ => next,
        };
        let place = place.ok_or_else(|| Failure::Inconsistent(format!("no place in its lane for {}", delivery.id)))?;
        places.insert(delivery.id, place);
    }
    Ok(places)
}

/// Sends ended deliveries again: links each to its new delivery and takes it off the dead letters. The caller has
/// locked them, and decided. `newborn` carries their ids in `replay_of`; it is in the order in which lanes are joined.
pub(crate) async fn replay(transaction: &mut PgConnection, newborn: Vec<Newborn>) -> Result<(), Failure> {
    // Retention may have begun with that day.
    partitions::hold(transaction, newborn.iter().map(|delivery| delivery.id.created_at())).await?;
    let mut links: Vec<(Uuid, Uuid)> =
        newborn.iter().filter_map(|delivery| Some((delivery.replay_of?.0.uuid(), delivery.id.uuid()))).collect();
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
    partitions::hold(transaction, letters.iter().map(|letter| letter.created_at())).await?;
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
