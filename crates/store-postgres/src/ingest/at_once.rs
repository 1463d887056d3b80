//! The common case of ingest: a group without claims, lanes, large fan-outs and waiting starts, by the routes of now. One statement
//! that is a transaction of its own: one round trip, planned once.
//!
//! It commits all of the group or nothing. Where it commits nothing, as the routing of a tenant moved, the group is decided unit by
//! unit.

use std::collections::BTreeMap;

use signalpost_core::{DeliveryId, DeliveryState, TenantId};
use signalpost_store::ingest::{EventOutcome, IngestGroup, IngestUnit, NewDelivery, NewEvent, Start, UnitOutcome};
use sqlx::PgConnection;

use super::columns::{EventColumns, column};
use crate::{
    error::Failure,
    ids::{pack, uuids},
    rows::guarantee_number,
};

/// A group that can be committed so.
pub(super) struct Plain<'g> {
    group: &'g IngestGroup,
    /// The routing versions by which its units were routed.
    versions: BTreeMap<TenantId, i64>,
    events: Vec<&'g NewEvent>,
}

/// None: it is decided unit by unit.
pub(super) fn plain(group: &IngestGroup) -> Option<Plain<'_>> {
    let mut versions = BTreeMap::new();
    for unit in &group.units {
        let version = *versions.entry(unit.tenant).or_insert(unit.routing_version);
        if unit.claim.is_some() || version != unit.routing_version {
            return None;
        }
    }
    let events: Vec<&NewEvent> = group.units.iter().flat_map(|unit| &unit.events).collect();
    let is_plain = |new: &&NewEvent| {
        new.uid.is_none()
            && new.fan_out.is_empty()
            && new.deliveries.iter().all(|delivery| delivery.lane.is_none() && delivery.start == Start::Queued)
    };
    (!events.is_empty() && events.iter().all(is_plain)).then_some(Plain { group, versions, events })
}

impl Plain<'_> {
    /// Whether it was committed.
    pub(super) async fn commit(&self, connection: &mut PgConnection) -> Result<bool, Failure> {
        let events = &self.events;
        let columns = EventColumns::of(events)?;
        let deliveries = self.deliveries();
        let mut published = uuids(self.group.published.iter().copied());
        published.sort_unstable();
        let ids: Vec<DeliveryId> = deliveries.iter().map(|(_, delivery)| delivery.id).collect();
        Ok(sqlx::query_scalar(
            "WITH fit AS MATERIALIZED (
                 SELECT count(*) = cardinality($1::uuid[]) AS all_of_it
                 FROM unnest($1::uuid[], $2::bigint[]) AS i(id, version)
                 JOIN tenants t ON t.id = i.id AND t.routing_version = i.version AND t.deleting_at IS NULL
             ), gone AS (
                 DELETE FROM outbox WHERE id = ANY($3) AND (SELECT all_of_it FROM fit)
             ), stored AS (
                 INSERT INTO events (id, tenant_id, type, uid, source, meta, data)
                 SELECT i.id, i.tenant_id, i.type, i.uid, i.source, i.meta::jsonb, i.data
                 FROM unnest($4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bytea[])
                      AS i(id, tenant_id, type, uid, source, meta, data)
                 WHERE (SELECT all_of_it FROM fit)
             ), born AS (
                 INSERT INTO deliveries (id, tenant_id, event_id, destination_id, event_type, guarantee, state)
                 SELECT i.*, $17::smallint
                 FROM unnest($11::uuid[], $12::uuid[], $13::uuid[], $14::uuid[], $15::text[], $16::smallint[]) AS i
                 WHERE (SELECT all_of_it FROM fit)
             ), kept AS (
                 INSERT INTO outbox (id, created_at, delivery_ids)
                 SELECT $18, statement_timestamp(), $19 WHERE octet_length($19) > 0 AND (SELECT all_of_it FROM fit)
             )
             SELECT all_of_it FROM fit",
        )
        .bind(uuids(self.versions.keys().copied()))
        .bind(self.versions.values().copied().collect::<Vec<_>>())
        .bind(published)
        .bind(columns.ids)
        .bind(columns.tenants)
        .bind(columns.types)
        .bind(columns.uids)
        .bind(columns.sources)
        .bind(columns.metas)
        .bind(columns.data)
        .bind(uuids(ids.iter().copied()))
        .bind(column(&deliveries, |(new, _)| new.event.tenant_id.uuid()))
        .bind(column(&deliveries, |(new, _)| new.event.id.uuid()))
        .bind(column(&deliveries, |(_, delivery)| delivery.destination_id.uuid()))
        .bind(column(&deliveries, |(new, _)| new.event.event_type.as_str()))
        .bind(column(&deliveries, |(_, delivery)| guarantee_number(delivery.guarantee)))
        .bind(DeliveryState::Queued as i16)
        .bind(self.group.outbox_id.uuid())
        .bind(pack(ids))
        .fetch_one(connection)
        .await?)
    }

    fn deliveries(&self) -> Vec<(&NewEvent, &NewDelivery)> {
        self.events.iter().flat_map(|new| new.deliveries.iter().map(|delivery| (*new, delivery))).collect()
    }

    /// What came of its units, once it is committed.
    pub(super) fn outcomes(&self) -> Vec<UnitOutcome> {
        let all = |unit: &IngestUnit| UnitOutcome::Committed(vec![EventOutcome::Accepted; unit.events.len()]);
        self.group.units.iter().map(all).collect()
    }
}
