//! The hot path of ingest: a group in one statement; where it has claims, lanes, waiting starts or large fan-outs, in one
//! transaction of four to seven round trips.

mod at_once;
pub(crate) mod claims;
mod columns;
mod commit;
mod group;

use std::collections::HashSet;

use async_trait::async_trait;
use signalpost_core::{DestinationId, EventId, TenantId, id::Id, pattern::EventPattern};
use signalpost_store::{
    Changes, IngestStore, StoreError,
    ingest::{IngestGroup, Route, Routes, UnitOutcome},
};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{
    PostgresStore,
    error::Failure,
    partitions,
    rows::{destination_state, id, json, version},
    transaction::{read, transact},
};

#[async_trait]
impl IngestStore for PostgresStore {
    async fn ingest(&self, group: &IngestGroup) -> Result<Vec<UnitOutcome>, StoreError> {
        let mut committed = HashSet::new();
        let mut mended = false;
        let mut plain = at_once::plain(group);
        loop {
            let tried = match &plain {
                // Sent again over another connection it would find its own events.
                Some(plain) => {
                    read!(self, hot, |connection| plain.commit(connection)).map(|done| done.then(|| plain.outcomes()))
                }
                None => transact!(self, in hot, |transaction| group::commit(transaction, group, &committed)).map(Some),
            };
            let failure = match tried {
                Ok(Some(outcomes)) => return Ok(outcomes),
                Ok(None) => {
                    plain = None;
                    continue;
                }
                Err(failure) => failure,
            };
            match failure.sqlstate().as_deref() {
                // No partition for one of the ids: it was not made ahead, or a clock is off.
                Some("23514") if !mended => {
                    mended = true;
                    let moments = || events(group).map(|event| event.created_at());
                    read!(self, hot, |connection| partitions::ensure_for(connection, moments()))?;
                }
                // An event is there already: the group is repeated, its first try was committed.
                Some("23505") if committed.is_empty() && is_repetition(&failure) => {
                    plain = None;
                    committed = read!(self, hot, |connection| present(connection, group))?;
                    if committed.is_empty() {
                        return Err(failure.into());
                    }
                }
                _ => return Err(failure.into()),
            }
        }
    }

    async fn routes(&self, tenant: TenantId) -> Result<Routes, StoreError> {
        Ok(read!(self, hot, |connection| routes(connection, tenant))?)
    }

    async fn spilled(&self) -> Result<Vec<DestinationId>, StoreError> {
        let ids: Vec<Uuid> = read!(self, hot, |connection| sqlx::query_scalar(
            "SELECT destination_id FROM queues WHERE spilled ORDER BY destination_id"
        )
        .fetch_all(connection))?;
        Ok(ids.into_iter().map(Id::from_uuid).collect())
    }

    fn changes(&self) -> Changes {
        self.changes.clone()
    }
}

fn events(group: &IngestGroup) -> impl Iterator<Item = EventId> + '_ {
    group.units.iter().flat_map(|unit| &unit.events).map(|event| event.event.id)
}

fn is_repetition(failure: &Failure) -> bool {
    failure.table().is_some_and(|table| {
        ["events", "deliveries", "outbox", "fan_outs", "waiting"].iter().any(|name| table.starts_with(name))
    })
}

/// Which events of the group are stored.
async fn present(connection: &mut PgConnection, group: &IngestGroup) -> Result<HashSet<EventId>, Failure> {
    let ids: Vec<Uuid> = events(group).map(Id::uuid).collect();
    let found: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM events WHERE id = ANY($1)").bind(ids).fetch_all(connection).await?;
    Ok(found.into_iter().map(Id::from_uuid).collect())
}

async fn routes(connection: &mut PgConnection, tenant: TenantId) -> Result<Routes, Failure> {
    let rows = sqlx::query(
        "SELECT t.routing_version, d.id, d.version, (d.spec -> 'event_types')::text AS event_types, d.state,
                jsonb_strip_nulls(jsonb_build_object(
                    'ordering', d.spec -> 'ordering', 'ordering_key_from', d.spec -> 'ordering_key_from',
                    'ordering_on_dead', d.spec -> 'ordering_on_dead'))::text AS ordering,
                COALESCE(d.spec -> 'guarantee', '\"at_least_once\"')::text AS guarantee
         FROM tenants t LEFT JOIN destinations d ON d.tenant_id = t.id AND d.state <> 'deleted'
         WHERE t.id = $1 AND t.deleting_at IS NULL ORDER BY d.id",
    )
    .bind(tenant.uuid())
    .fetch_all(connection)
    .await?;
    let mut routes = Routes { version: 0, routes: Vec::new() };
    for row in &rows {
        routes.version = row.try_get("routing_version")?;
        if row.try_get::<Option<Uuid>, _>("id")?.is_none() {
            continue;
        }
        routes.routes.push(Route {
            destination_id: id(row, "id")?,
            destination_version: version(row, "version")?,
            event_types: json::<Vec<EventPattern>>(row, "event_types")?,
            ordering: json(row, "ordering")?,
            guarantee: json(row, "guarantee")?,
            state: destination_state(row, "state")?,
        });
    }
    Ok(routes)
}
