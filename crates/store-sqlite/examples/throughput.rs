//! How many events and outcomes per second the SQLite store commits, by size of group.
//!
//! `cargo run --release -p signalpost-store-sqlite --example throughput -- [folder]`. What it tells depends on the disk:
//! name the folder where the data directory will be.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a measurement")]

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use signalpost_core::{
    AttemptOutcome, Clock as _, DeliveryId, DestinationId, Event, EventId, EventMeta, Guarantee, OutboxId, TenantId,
};
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_store::{
    DispatchStore as _, IngestStore as _,
    dispatch::{Attempt, DeliveryWrite, Next, Target},
    ingest::{IngestGroup, IngestUnit, NewDelivery, NewEvent, Start},
};
use signalpost_store_sqlite::SqliteStore;
use tempfile::TempDir;

const EVENTS: usize = 30_000;

/// Groups of one event per unit, each with one delivery to one of 20 destinations, and the outcomes that follow.
fn prepare(size: usize, clock: SystemClock) -> Vec<(IngestGroup, Vec<DeliveryWrite>)> {
    let destinations: Vec<_> = (0..20).map(|_| DestinationId::new(clock.now(), &SystemEntropy)).collect();
    let mut groups: Vec<(IngestGroup, Vec<DeliveryWrite>)> = Vec::new();
    for number in 0..EVENTS / size {
        let now = clock.now() + Duration::from_millis(number as u64);
        let mut units = Vec::with_capacity(size);
        let mut outcomes = Vec::with_capacity(size);
        for place in 0..size {
            let target = Target {
                delivery_id: DeliveryId::new(now, &SystemEntropy),
                tenant_id: TenantId::DEFAULT,
                destination_id: destinations[place % destinations.len()],
                event_id: EventId::new(now, &SystemEntropy),
                lease: None,
            };
            let event = Event {
                id: target.event_id,
                tenant_id: TenantId::DEFAULT,
                event_type: "order.created".into(),
                uid: None,
                source: None,
                meta: EventMeta::default(),
                data: Bytes::from(vec![b'1'; 300]),
            };
            let delivery = NewDelivery {
                id: target.delivery_id,
                destination_id: target.destination_id,
                start: Start::Queued,
                lane: None,
                guarantee: Guarantee::AtLeastOnce,
            };
            let new = NewEvent {
                event: Arc::new(event),
                deliveries: vec![delivery],
                fan_out: Vec::new(),
                uid: None,
                answer: Bytes::from_static(b"{}"),
            };
            units.push(IngestUnit { tenant: TenantId::DEFAULT, routing_version: 0, claim: None, events: vec![new] });
            let attempt = Attempt {
                number: 1,
                started_at: now,
                duration: Duration::from_millis(3),
                outcome: AttemptOutcome::Delivered,
                status_code: Some(200),
                response_excerpt: Bytes::from_static(b"ok"),
                error: None,
            };
            outcomes.push(DeliveryWrite::Attempt { target, attempt, next: Next::Delivered });
        }
        // As the API does: a record goes with the group after the next.
        let published = groups.iter().rev().nth(1).map(|group| group.0.outbox_id).into_iter().collect();
        groups.push((IngestGroup { units, outbox_id: OutboxId::new(now, &SystemEntropy), published }, outcomes));
    }
    groups
}

#[tokio::main]
async fn main() {
    let clock = SystemClock::new();
    let parent = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    println!("group | ingest events/s | outcomes/s | both at once, events/s");
    for size in [1, 30, 100, 500] {
        let groups = prepare(size, clock);
        let count = (groups.len() * size) as f64;
        let rate = |since: Duration| count / (clock.elapsed() - since).as_secs_f64();
        let folder = TempDir::new_in(&parent).unwrap();
        let store = SqliteStore::open(folder.path(), Arc::new(clock), Arc::new(SystemEntropy)).unwrap();
        let start = clock.elapsed();
        for (group, _) in &groups {
            store.ingest(group).await.unwrap();
        }
        let ingest = rate(start);
        let start = clock.elapsed();
        for (_, outcomes) in &groups {
            store.write(outcomes, false).await.unwrap();
        }
        let outcomes = rate(start);
        // Outcomes follow their group, and share the commit of the next.
        let groups = prepare(size, clock);
        let start = clock.elapsed();
        let mut before: &[DeliveryWrite] = &[];
        for (group, outcomes) in &groups {
            let (ingested, written) = tokio::join!(store.ingest(group), store.write(before, false));
            ingested.unwrap();
            written.unwrap();
            before = outcomes;
        }
        println!("{size:5} | {ingest:15.0} | {outcomes:10.0} | {:22.0}", rate(start));
    }
}
