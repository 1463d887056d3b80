//! The hot path of ingest: a group of producers' requests becomes rows.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, params};
use signalpost_core::{DeliveryId, DeliveryState, DestinationId, DestinationSpec, Event, TenantId, WaitReason};
use signalpost_store::{
    Changes, IngestStore, StoreError,
    dispatch::Target,
    ingest::{
        EventOutcome, IngestGroup, IngestUnit, MakeGroup, NewDelivery, NewEvent, Route, Routes, RoutingVersion, Start,
        StoredAnswer, UnitOutcome,
    },
};

use crate::{
    SqliteStore,
    births::Terms,
    claims::{Place, Standing},
    columns::{destination_state, id, key, pack},
    failure::{Failure, Outcome},
    tx::Tx,
};

#[async_trait]
impl IngestStore for SqliteStore {
    async fn ingest(&self, group: &IngestGroup) -> Result<Vec<UnitOutcome>, StoreError> {
        let group = group.clone();
        self.write(move |tx| ingest(tx, &group)).await
    }

    async fn ingest_late(&self, make: MakeGroup) -> Result<Vec<UnitOutcome>, StoreError> {
        self.write(move |tx| make().map_or_else(|| Ok(Vec::new()), |group| ingest(tx, &group))).await
    }

    async fn routes(&self, tenant: TenantId) -> Result<Routes, StoreError> {
        self.read(move |connection| routes(connection, tenant)).await
    }

    async fn spilled(&self) -> Result<Vec<DestinationId>, StoreError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT destination_id FROM queues WHERE spilled ORDER BY destination_id")?;
            let rows = statement.query_map([], |row| id(row, 0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    fn changes(&self) -> Changes {
        self.inner.changes.clone()
    }
}

fn ingest(tx: &Tx<'_>, group: &IngestGroup) -> Outcome<Vec<UnitOutcome>> {
    let IngestGroup { units, outbox_id, published } = group;
    let mut group = Group { tx, versions: BTreeMap::new(), queued: Vec::new() };
    let outcomes = units.iter().map(|unit| group.unit(unit)).collect::<Outcome<Vec<_>>>()?;
    let mut acknowledged = tx.prepare("DELETE FROM outbox WHERE id = ?1")?;
    for record in published {
        acknowledged.execute([key(*record)])?;
    }
    if let Some(lowest) = group.queued.iter().min() {
        tx.execute(
            "INSERT INTO outbox (id, created_at, delivery_ids) VALUES (?1, ?2, ?3)",
            params![key(*outbox_id), tx.now.as_micros(), pack(group.queued.iter().copied())],
        )?;
        // Below the reconciler's mark nothing is queued; a clock that was set back must not break that.
        tx.execute("UPDATE marks SET value = ?1 WHERE name = 'requeue' AND value > ?1", [key(*lowest)])?;
    }
    Ok(outcomes)
}

struct Group<'t, 'c> {
    tx: &'t Tx<'c>,
    /// Of the tenants met so far.
    versions: BTreeMap<TenantId, RoutingVersion>,
    /// The deliveries that the bus brings.
    queued: Vec<DeliveryId>,
}

impl Group<'_, '_> {
    fn unit(&mut self, unit: &IngestUnit) -> Outcome<UnitOutcome> {
        if let Some(claim) = &unit.claim {
            let place = Place { tenant: unit.tenant, scope: &claim.scope, key: &claim.key };
            if let Some(known) = self.tx.known(place)? {
                match known.standing {
                    _ if known.body_hash != claim.body_hash => return Ok(UnitOutcome::Mismatch),
                    Standing::Answered(answer) => return Ok(UnitOutcome::Replayed(answer)),
                    // Events claim within their transaction, so nobody else can be under way with this key.
                    Standing::UnderWay { .. } => {}
                }
            }
        }
        if self.version(unit.tenant)? != unit.routing_version {
            return Ok(UnitOutcome::Rerouted);
        }
        let outcomes = unit.events.iter().map(|event| self.event(unit.tenant, event)).collect::<Outcome<Vec<_>>>()?;
        if let Some(claim) = &unit.claim {
            let place = Place { tenant: unit.tenant, scope: &claim.scope, key: &claim.key };
            let StoredAnswer { status, body } = (claim.answer)(&outcomes);
            self.tx.keep_answer(place, &claim.body_hash, claim.ttl, status, &body)?;
        }
        Ok(UnitOutcome::Committed(outcomes))
    }

    fn version(&mut self, tenant: TenantId) -> Outcome<RoutingVersion> {
        if let Some(version) = self.versions.get(&tenant) {
            return Ok(*version);
        }
        let version = self
            .tx
            .row("SELECT routing_version FROM tenants WHERE id = ?1 AND deleting_at IS NULL", [key(tenant)], |row| {
                row.get(0)
            })?
            .ok_or_else(|| Failure::data(format!("there is no tenant {tenant}")))?;
        self.versions.insert(tenant, version);
        Ok(version)
    }

    fn event(&mut self, tenant: TenantId, new: &NewEvent) -> Outcome<EventOutcome> {
        let event = &*new.event;
        check_texts(event)?;
        if let (Some(claim), Some(uid)) = (&new.uid, &event.uid) {
            let scope = format!("uid:{}", event.source.as_deref().unwrap_or_default());
            let place = Place { tenant, scope: &scope, key: uid };
            if let Some(known) = self.tx.known(place)? {
                return Ok(match known.standing {
                    Standing::Answered(answer) if known.body_hash == claim.content_hash => {
                        EventOutcome::Duplicate(answer.body)
                    }
                    _ => EventOutcome::UidConflict,
                });
            }
            self.tx.keep_answer(place, &claim.content_hash, claim.ttl, 202, &new.answer)?;
        }
        self.tx.execute(
            "INSERT INTO events (id, tenant_id, type, uid, source, meta, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                key(event.id),
                key(tenant),
                event.event_type,
                event.uid,
                event.source,
                serde_json::to_string(&event.meta)?,
                &event.data[..]
            ],
        )?;
        for delivery in &new.deliveries {
            let target = Target {
                delivery_id: delivery.id,
                tenant_id: tenant,
                destination_id: delivery.destination_id,
                event_id: event.id,
                lease: None,
            };
            self.delivery(&target, delivery)?;
        }
        if !new.fan_out.is_empty() {
            self.tx.execute(
                "INSERT INTO fan_outs (event_id, tenant_id, destination_ids) VALUES (?1, ?2, ?3)",
                params![key(event.id), key(tenant), pack(new.fan_out.iter().copied())],
            )?;
        }
        Ok(EventOutcome::Accepted)
    }

    fn delivery(&mut self, target: &Target, new: &NewDelivery) -> Outcome<()> {
        let mut terms = Terms { guarantee: new.guarantee, ..Terms::default() };
        let mut state = DeliveryState::Waiting;
        match (new.lane, new.start) {
            (None, Start::Queued) => {
                state = DeliveryState::Queued;
                self.queued.push(new.id);
            }
            (None, Start::Waiting(reason)) => self.tx.anchor(target, DeliveryState::Queued, self.tx.now, reason)?,
            (Some(lane), start) => {
                let reason = if let Start::Waiting(reason) = start { reason } else { WaitReason::Turn };
                terms.place = Some(self.tx.join_lane(target, lane, reason)?);
            }
        }
        self.tx.insert_delivery(target, state, &terms)
    }
}

/// SQLite would take a NUL, but its own functions, and PostgreSQL, stop there.
fn check_texts(event: &Event) -> Outcome<()> {
    let texts = [Some(&event.event_type), event.uid.as_ref(), event.source.as_ref()];
    if texts.into_iter().flatten().any(|text| text.contains('\0')) {
        return Err(Failure::data("a text holds a NUL"));
    }
    Ok(())
}

fn routes(connection: &Connection, tenant: TenantId) -> Outcome<Routes> {
    let version = connection
        .prepare_cached("SELECT routing_version FROM tenants WHERE id = ?1 AND deleting_at IS NULL")?
        .query_row([key(tenant)], |row| row.get(0))
        .optional()?;
    let Some(version) = version else { return Ok(Routes { version: 0, routes: Vec::new() }) };
    let mut statement = connection.prepare_cached(
        "SELECT id, version, spec, state FROM destinations WHERE tenant_id = ?1 AND state <> 'deleted' ORDER BY id",
    )?;
    let mut rows = statement.query([key(tenant)])?;
    let mut routes = Vec::new();
    while let Some(row) = rows.next()? {
        let spec: DestinationSpec = serde_json::from_str(row.get_ref(2)?.as_str().map_err(Failure::internal)?)?;
        routes.push(Route {
            destination_id: id(row, 0)?,
            destination_version: row.get(1)?,
            event_types: spec.event_types,
            ordering: spec.ordering,
            guarantee: spec.guarantee,
            state: destination_state(row, 3)?,
        });
    }
    Ok(Routes { version, routes })
}
