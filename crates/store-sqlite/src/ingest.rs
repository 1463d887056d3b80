//! The hot path of ingest: a group of producers' requests becomes rows.

use std::{collections::BTreeMap, sync::LazyLock};

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
    births::{Birth, Terms},
    claims::{Place, Standing},
    columns::{destination_state, id, key, pack},
    failure::{Failure, Outcome},
    rows::Insert,
    tx::Tx,
    writer::MadeOnce,
};

#[async_trait]
impl IngestStore for SqliteStore {
    async fn ingest(&self, group: &IngestGroup) -> Result<Vec<UnitOutcome>, StoreError> {
        let group = group.clone();
        self.write(move |tx| ingest(tx, &group)).await
    }

    async fn ingest_late(&self, make: MakeGroup) -> Result<Vec<UnitOutcome>, StoreError> {
        let mut made = MadeOnce::new(make);
        self.write(move |tx| made.get()?.as_ref().map_or_else(|| Ok(Vec::new()), |group| ingest(tx, group))).await
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
    let mut group = Group { tx, versions: BTreeMap::new(), events: Vec::new(), births: Vec::new(), queued: Vec::new() };
    let outcomes = units.iter().map(|unit| group.unit(unit)).collect::<Outcome<Vec<_>>>()?;
    group.insert()?;
    for record in published {
        tx.execute("DELETE FROM outbox WHERE id = ?1", [key(*record)])?;
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

/// Bytes of data. A larger event has a statement of its own: SQLite copies what is bound.
const LARGE: usize = 64 * 1024;

static EVENTS: LazyLock<Insert> =
    LazyLock::new(|| Insert::new("INSERT OR FAIL INTO events (id, tenant_id, type, uid, source, meta, data)", 7));

struct Group<'g, 't, 'c> {
    tx: &'t Tx<'c>,
    /// Of the tenants met so far.
    versions: BTreeMap<TenantId, RoutingVersion>,
    /// What is accepted: inserted at the end, all at once.
    events: Vec<(TenantId, &'g Event)>,
    births: Vec<Birth>,
    /// The deliveries that the bus brings.
    queued: Vec<DeliveryId>,
}

impl<'g> Group<'g, '_, '_> {
    fn unit(&mut self, unit: &'g IngestUnit) -> Outcome<UnitOutcome> {
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

    fn event(&mut self, tenant: TenantId, new: &'g NewEvent) -> Outcome<EventOutcome> {
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
        self.events.push((tenant, event));
        for delivery in &new.deliveries {
            let target = Target {
                delivery_id: delivery.id,
                tenant_id: tenant,
                destination_id: delivery.destination_id,
                event_id: event.id,
                lease: None,
            };
            self.delivery(target, delivery)?;
        }
        if !new.fan_out.is_empty() {
            self.tx.execute(
                "INSERT INTO fan_outs (event_id, tenant_id, destination_ids) VALUES (?1, ?2, ?3)",
                params![key(event.id), key(tenant), pack(new.fan_out.iter().copied())],
            )?;
        }
        Ok(EventOutcome::Accepted)
    }

    fn delivery(&mut self, target: Target, new: &NewDelivery) -> Outcome<()> {
        let mut terms = Terms { guarantee: new.guarantee, ..Terms::default() };
        let mut state = DeliveryState::Waiting;
        match (new.lane, new.start) {
            (None, Start::Queued) => {
                state = DeliveryState::Queued;
                self.queued.push(new.id);
            }
            (None, Start::Waiting(reason)) => self.tx.anchor(&target, DeliveryState::Queued, self.tx.now, reason)?,
            (Some(lane), start) => {
                let reason = if let Start::Waiting(reason) = start { reason } else { WaitReason::Turn };
                terms.place = Some(self.tx.join_lane(&target, lane, reason)?);
            }
        }
        self.births.push(Birth { target, state, terms });
        Ok(())
    }

    /// Writes the rows of events and deliveries, in the order of their ids, as far as a lane allows.
    fn insert(&mut self) -> Outcome<()> {
        self.events.sort_unstable_by_key(|(_, event)| event.id);
        let (large, usual) = self.events.iter().partition::<Vec<_>, _>(|(_, event)| event.data.len() > LARGE);
        self.insert_events(&usual)?;
        large.iter().try_for_each(|event| self.insert_events(std::slice::from_ref(event)))?;
        // Those of a lane in its order.
        self.births.sort_unstable_by_key(|birth| (birth.terms.place.map(|place| place.seq), birth.target.delivery_id));
        self.tx.insert_deliveries(&self.births)
    }

    fn insert_events(&self, events: &[(TenantId, &Event)]) -> Outcome<()> {
        self.tx.insert(&EVENTS, events, |(tenant, event), values| {
            values.bind(key(event.id))?;
            values.bind(key(*tenant))?;
            values.bind(&event.event_type)?;
            values.bind(&event.uid)?;
            values.bind(&event.source)?;
            values.bind(serde_json::to_string(&event.meta)?)?;
            values.bind(&event.data[..])
        })
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
