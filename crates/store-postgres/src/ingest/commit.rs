//! Inserts what a group has decided to keep.

use signalpost_core::{DeliveryState, DestinationId, OutboxId, TenantId, WaitReason, id::Id};
use signalpost_store::ingest::{NewEvent, Start};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{error::Failure, ids::pack, queues::QueueChanges, rows::to_json};

/// Columns of the rows to insert.
#[derive(Default)]
struct Deliveries<'g> {
    ids: Vec<Uuid>,
    tenants: Vec<Uuid>,
    events: Vec<Uuid>,
    destinations: Vec<Uuid>,
    types: Vec<&'g str>,
    states: Vec<i16>,
}

/// Of those deliveries that start in `waiting`.
#[derive(Default)]
struct Waiting {
    ids: Vec<Uuid>,
    tenants: Vec<Uuid>,
    destinations: Vec<Uuid>,
    events: Vec<Uuid>,
    reasons: Vec<i16>,
}

/// One statement for events, deliveries, waiting rows, fan-outs and the outbox record; one for the queues where something
/// starts waiting.
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
    for new in events {
        let event = &*new.event;
        for delivery in &new.deliveries {
            deliveries.ids.push(delivery.id.uuid());
            deliveries.tenants.push(event.tenant_id.uuid());
            deliveries.events.push(event.id.uuid());
            deliveries.destinations.push(delivery.destination_id.uuid());
            deliveries.types.push(&event.event_type);
            match delivery.start {
                Start::Queued => {
                    deliveries.states.push(DeliveryState::Queued as i16);
                    queued.push(delivery.id);
                }
                Start::Waiting(reason) => {
                    deliveries.states.push(DeliveryState::Waiting as i16);
                    waiting.push(new, delivery.id.uuid(), delivery.destination_id, reason);
                    changes.added(event.tenant_id, delivery.destination_id, 0);
                }
            }
        }
    }
    let fan_outs: Vec<&&NewEvent> = events.iter().filter(|new| !new.fan_out.is_empty()).collect();
    let metas = events.iter().map(|new| to_json(&new.event.meta)).collect::<Result<Vec<_>, _>>()?;
    sqlx::query(
        "WITH stored AS (
             INSERT INTO events (id, tenant_id, type, uid, source, meta, data)
             SELECT i.id, i.tenant_id, i.type, i.uid, i.source, i.meta::jsonb, i.data
             FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[])
                  AS i(id, tenant_id, type, uid, source, meta, data)
         ), born AS (
             INSERT INTO deliveries (id, tenant_id, event_id, destination_id, event_type, state)
             SELECT * FROM unnest($8::uuid[], $9::uuid[], $10::uuid[], $11::uuid[], $12::text[], $13::smallint[])
         ), anchored AS (
             INSERT INTO waiting (delivery_id, tenant_id, destination_id, event_id, due_at, reason)
             SELECT i.id, i.tenant_id, i.destination_id, i.event_id, statement_timestamp(), i.reason
             FROM unnest($14::uuid[], $15::uuid[], $16::uuid[], $17::uuid[], $18::smallint[])
                  AS i(id, tenant_id, destination_id, event_id, reason)
         ), fanned AS (
             INSERT INTO fan_outs (event_id, tenant_id, destination_ids)
             SELECT * FROM unnest($19::uuid[], $20::uuid[], $21::bytea[])
         )
         INSERT INTO outbox (id, created_at, delivery_ids)
         SELECT $22, statement_timestamp(), $23 WHERE octet_length($23) > 0",
    )
    .bind(column(events, |new| new.event.id.uuid()))
    .bind(column(events, |new| new.event.tenant_id.uuid()))
    .bind(column(events, |new| new.event.event_type.as_str()))
    .bind(column(events, |new| new.event.uid.as_deref()))
    .bind(column(events, |new| new.event.source.as_deref()))
    .bind(metas)
    .bind(column(events, |new| new.event.data.as_ref()))
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
    .execute(&mut *transaction)
    .await?;
    changes.apply(transaction).await
}

fn column<'g, E, T>(items: &'g [E], of: impl Fn(&'g E) -> T) -> Vec<T> {
    items.iter().map(of).collect()
}

impl Waiting {
    fn push(&mut self, new: &NewEvent, id: Uuid, destination: DestinationId, reason: WaitReason) {
        self.ids.push(id);
        self.tenants.push(TenantId::uuid(new.event.tenant_id));
        self.destinations.push(destination.uuid());
        self.events.push(Id::uuid(new.event.id));
        self.reasons.push(reason as i16);
    }
}
