//! Inserts what a group has decided to keep.

use std::collections::BTreeMap;

use signalpost_core::{DeliveryState, OutboxId, TenantId, WaitReason, id::Id};
use signalpost_store::ingest::{NewDelivery, NewEvent, Start};
use sqlx::PgConnection;
use uuid::Uuid;

use super::columns::{EventColumns, column};
use crate::{
    error::Failure,
    ids::pack,
    lanes::{Joined, LaneKey, Lanes},
    queues::QueueChanges,
    rows::{guarantee_number, lane_uuid},
};

/// Columns of the rows to insert.
#[derive(Default)]
struct Deliveries<'g> {
    ids: Vec<Uuid>,
    tenants: Vec<Uuid>,
    events: Vec<Uuid>,
    destinations: Vec<Uuid>,
    types: Vec<&'g str>,
    states: Vec<i16>,
    lanes: Vec<Option<Uuid>>,
    places: Vec<Option<i64>>,
    guarantees: Vec<Option<i16>>,
}

/// Of those deliveries that start in `waiting`.
#[derive(Default)]
struct Waiting {
    ids: Vec<Uuid>,
    tenants: Vec<Uuid>,
    destinations: Vec<Uuid>,
    events: Vec<Uuid>,
    reasons: Vec<i16>,
    lanes: Vec<Option<Uuid>>,
    places: Vec<Option<i64>>,
    /// Not before the others of its lane.
    follows: Vec<bool>,
}

/// One statement for events, deliveries, waiting rows, fan-outs and the outbox record; one for the queues where something
/// starts waiting; before them one for the lanes, where there are any.
pub(super) async fn insert(
    transaction: &mut PgConnection,
    outbox: OutboxId,
    events: &[&NewEvent],
) -> Result<(), Failure> {
    if events.is_empty() {
        return Ok(());
    }
    let mut deliveries = Deliveries::default();
    let mut waiting = Waiting::default();
    let mut changes = QueueChanges::default();
    let mut queued = Vec::new();
    let mut lanes = join_lanes(transaction, events).await?;
    for new in events {
        let event = &*new.event;
        for delivery in &new.deliveries {
            deliveries.ids.push(delivery.id.uuid());
            deliveries.tenants.push(event.tenant_id.uuid());
            deliveries.events.push(event.id.uuid());
            deliveries.destinations.push(delivery.destination_id.uuid());
            deliveries.types.push(&event.event_type);
            deliveries.guarantees.push(guarantee_number(delivery.guarantee));
            let place = lane_key(delivery).and_then(|key| lanes.get_mut(&key)).and_then(Places::next);
            deliveries.lanes.push(place.and(delivery.lane).map(lane_uuid));
            deliveries.places.push(place.map(|place| place.number));
            match (delivery.start, place) {
                (Start::Queued, None) => {
                    deliveries.states.push(DeliveryState::Queued as i16);
                    queued.push(delivery.id);
                }
                (start, place) => {
                    deliveries.states.push(DeliveryState::Waiting as i16);
                    waiting.push(new, delivery, start, place);
                    if place.is_some_and(|place| place.follows) {
                        changes.followed(event.tenant_id, delivery.destination_id);
                    } else {
                        changes.added(event.tenant_id, delivery.destination_id, 0);
                    }
                }
            }
        }
    }
    let fan_outs: Vec<&&NewEvent> = events.iter().filter(|new| !new.fan_out.is_empty()).collect();
    let columns = EventColumns::of(events)?;
    sqlx::query(
        "WITH stored AS (
             INSERT INTO events (id, tenant_id, type, uid, source, meta, data)
             SELECT i.id, i.tenant_id, i.type, i.uid, i.source, i.meta::jsonb, i.data
             FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[])
                  AS i(id, tenant_id, type, uid, source, meta, data)
         ), born AS (
             INSERT INTO deliveries (id, tenant_id, event_id, destination_id, event_type, state, lane, lane_seq, guarantee)
             SELECT * FROM unnest($8::uuid[], $9::uuid[], $10::uuid[], $11::uuid[], $12::text[], $13::smallint[],
                                  $24::uuid[], $25::bigint[], $26::smallint[])
         ), anchored AS (
             INSERT INTO waiting (delivery_id, tenant_id, destination_id, event_id, due_at, reason, lane, lane_seq)
             SELECT i.id, i.tenant_id, i.destination_id, i.event_id,
                    CASE WHEN i.follows THEN 'infinity' ELSE statement_timestamp() END, i.reason, i.lane, i.lane_seq
             FROM unnest($14::uuid[], $15::uuid[], $16::uuid[], $17::uuid[], $18::smallint[], $27::uuid[],
                         $28::bigint[], $29::bool[])
                  AS i(id, tenant_id, destination_id, event_id, reason, lane, lane_seq, follows)
         ), fanned AS (
             INSERT INTO fan_outs (event_id, tenant_id, destination_ids)
             SELECT * FROM unnest($19::uuid[], $20::uuid[], $21::bytea[])
         )
         INSERT INTO outbox (id, created_at, delivery_ids)
         SELECT $22, statement_timestamp(), $23 WHERE octet_length($23) > 0",
    )
    .bind(columns.ids)
    .bind(columns.tenants)
    .bind(columns.types)
    .bind(columns.uids)
    .bind(columns.sources)
    .bind(columns.metas)
    .bind(columns.data)
    .bind(deliveries.ids)
    .bind(deliveries.tenants)
    .bind(deliveries.events)
    .bind(deliveries.destinations)
    .bind(deliveries.types)
    .bind(deliveries.states)
    .bind(waiting.ids)
    .bind(waiting.tenants)
    .bind(waiting.destinations)
    .bind(waiting.events)
    .bind(waiting.reasons)
    .bind(column(&fan_outs, |new| new.event.id.uuid()))
    .bind(column(&fan_outs, |new| new.event.tenant_id.uuid()))
    .bind(column(&fan_outs, |new| pack(new.fan_out.iter().copied())))
    .bind(outbox.uuid())
    .bind(pack(queued))
    .bind(deliveries.lanes)
    .bind(deliveries.places)
    .bind(deliveries.guarantees)
    .bind(waiting.lanes)
    .bind(waiting.places)
    .bind(waiting.follows)
    .execute(&mut *transaction)
    .await?;
    changes.apply(transaction).await
}

impl Waiting {
    fn push(&mut self, new: &NewEvent, delivery: &NewDelivery, start: Start, place: Option<Place>) {
        let follows = place.is_some_and(|place| place.follows);
        let reason = match start {
            _ if follows => WaitReason::Lane,
            Start::Queued => WaitReason::Turn,
            Start::Waiting(reason) => reason,
        };
        self.ids.push(delivery.id.uuid());
        self.tenants.push(TenantId::uuid(new.event.tenant_id));
        self.destinations.push(delivery.destination_id.uuid());
        self.events.push(Id::uuid(new.event.id));
        self.reasons.push(reason as i16);
        self.lanes.push(place.and(delivery.lane).map(lane_uuid));
        self.places.push(place.map(|place| place.number));
        self.follows.push(follows);
    }
}

/// A place in a lane.
#[derive(Debug, Clone, Copy)]
struct Place {
    number: i64,
    /// Somebody is before it.
    follows: bool,
}

/// The places that a lane has given to this group, in order.
struct Places {
    numbers: std::vec::IntoIter<i64>,
    is_free: bool,
}

impl Places {
    fn next(&mut self) -> Option<Place> {
        let number = self.numbers.next()?;
        Some(Place { number, follows: !std::mem::take(&mut self.is_free) })
    }
}

fn lane_key(delivery: &NewDelivery) -> Option<LaneKey> {
    delivery.lane.map(|lane| (delivery.destination_id, lane))
}

/// Locks the lanes of the group, and takes places in them.
async fn join_lanes(
    transaction: &mut PgConnection,
    events: &[&NewEvent],
) -> Result<BTreeMap<LaneKey, Places>, Failure> {
    let mut added = BTreeMap::<LaneKey, i64>::new();
    for key in events.iter().flat_map(|new| &new.deliveries).filter_map(lane_key) {
        *added.entry(key).or_default() += 1;
    }
    let joined = Lanes::default().join(transaction, &added).await?;
    let places = |Joined { places, is_free, .. }| Places { numbers: places.into_iter(), is_free };
    Ok(joined.into_iter().map(|(key, joined)| (key, places(joined))).collect())
}
