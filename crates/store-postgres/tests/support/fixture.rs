//! Ids, destinations, events, groups.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::json;
use signalpost_core::{
    AttemptOutcome, Clock as _, DeliveryId, Destination, DestinationId, Event, EventId, EventMeta, Guarantee, Kept,
    OutboxId, TenantId, Timestamp,
};
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_store::{
    IngestStore, ManageStore,
    dispatch::{Attempt, DeliveryWrite, Next, Target},
    ingest::{IngestGroup, IngestUnit, KeyClaim, NewDelivery, NewEvent, Start, StoredAnswer, UnitOutcome},
    manage::Created,
    schedule::FeedBudget,
};
use signalpost_store_postgres::PostgresStore;

pub const TENANT: TenantId = TenantId::DEFAULT;

pub fn now() -> Timestamp {
    SystemClock::new().now()
}

pub async fn destination(store: &PostgresStore) -> Destination {
    let destination = new_destination();
    assert_eq!(store.create_destination(&destination).await.expect("a destination"), Created::Yes);
    destination
}

pub fn new_destination() -> Destination {
    Destination::new(
        DestinationId::new(now(), &SystemEntropy),
        TENANT,
        serde_json::from_value(json!({"url": "https://example.com/hook", "event_types": ["*"]})).expect("a spec"),
        Kept::plain("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"),
        now(),
    )
}

pub fn event_at(at: Timestamp) -> Event {
    Event {
        id: EventId::new(at, &SystemEntropy),
        tenant_id: TENANT,
        event_type: "order.created".to_owned(),
        uid: None,
        source: None,
        meta: EventMeta::default(),
        data: Bytes::from_static(br#"{"amount":4711,"currency":"EUR","customer":"somebody"}"#),
    }
}

pub fn new_event(event: Event, destinations: &[DestinationId], start: Start) -> NewEvent {
    let deliveries = destinations
        .iter()
        .map(|destination_id| NewDelivery {
            id: DeliveryId::new(event.created_at(), &SystemEntropy),
            destination_id: *destination_id,
            start,
            lane: None,
            guarantee: Guarantee::AtLeastOnce,
        })
        .collect();
    NewEvent { event: Arc::new(event), deliveries, fan_out: Vec::new(), uid: None, answer: Bytes::from_static(b"{}") }
}

pub async fn unit(store: &PostgresStore, events: Vec<NewEvent>) -> IngestUnit {
    let routing_version = store.routes(TENANT).await.expect("routes").version;
    IngestUnit { tenant: TENANT, routing_version, claim: None, events }
}

pub fn group(units: Vec<IngestUnit>) -> IngestGroup {
    IngestGroup { units, outbox_id: OutboxId::new(now(), &SystemEntropy), published: Vec::new() }
}

/// A group of events, each with one delivery to the same destination.
pub async fn events(store: &PostgresStore, destination: DestinationId, count: usize, start: Start) -> IngestGroup {
    let at = now();
    let events = (0..count).map(|_| new_event(event_at(at), &[destination], start)).collect();
    group(vec![unit(store, events).await])
}

/// Posts a group, again where routing moved meanwhile.
pub async fn post(store: &PostgresStore, group: &IngestGroup) -> Vec<Target> {
    let mut group = IngestGroup {
        units: group.units.iter().map(copy).collect(),
        outbox_id: group.outbox_id,
        published: group.published.clone(),
    };
    loop {
        let outcomes = store.ingest(&group).await.expect("a commit");
        if outcomes.iter().all(|outcome| matches!(outcome, UnitOutcome::Committed(_))) {
            return targets(&group);
        }
        assert!(outcomes.iter().all(|outcome| *outcome == UnitOutcome::Rerouted), "{outcomes:?}");
        for unit in &mut group.units {
            unit.routing_version = store.routes(TENANT).await.expect("routes").version;
        }
    }
}

fn copy(unit: &IngestUnit) -> IngestUnit {
    IngestUnit {
        tenant: unit.tenant,
        routing_version: unit.routing_version,
        claim: unit.claim.clone(),
        events: unit.events.clone(),
    }
}

pub fn targets(group: &IngestGroup) -> Vec<Target> {
    let target = |new: &NewEvent, delivery: &NewDelivery| Target {
        delivery_id: delivery.id,
        tenant_id: new.event.tenant_id,
        destination_id: delivery.destination_id,
        event_id: new.event.id,
        lease: None,
    };
    let events = group.units.iter().flat_map(|unit| &unit.events);
    events.flat_map(|new| new.deliveries.iter().map(|delivery| target(new, delivery))).collect()
}

pub fn claim(key: &str, body: u8) -> KeyClaim {
    KeyClaim {
        scope: "events".to_owned(),
        key: key.to_owned(),
        body_hash: [body; 32],
        ttl: Duration::from_secs(3600),
        answer: Arc::new(|outcomes| StoredAnswer { status: 202, body: Bytes::from(format!("{outcomes:?}")) }),
    }
}

pub fn attempt(target: Target, number: u32, next: Next) -> DeliveryWrite {
    let outcome = match next {
        Next::Delivered => AttemptOutcome::Delivered,
        Next::Retry { .. } => AttemptOutcome::Retry,
        Next::Dead { .. } => AttemptOutcome::Dead,
    };
    let attempt = Attempt {
        number,
        started_at: now(),
        duration: Duration::from_millis(12),
        outcome,
        status_code: Some(200),
        response_excerpt: Bytes::from_static(b"ok"),
        error: None,
    };
    DeliveryWrite::Attempt { target, attempt, next }
}

pub fn budget(most: usize) -> FeedBudget {
    FeedBudget { most, per_destination: most, lease: Duration::from_secs(60) }
}
