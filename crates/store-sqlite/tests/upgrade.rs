//! A file that an earlier version made, with what it left in it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{path::Path, sync::Arc, time::Duration};

use rusqlite::{Connection, params};
use signalpost_core::{
    CircuitRecord, Clock as _, DeadReason, DeliveryId, DeliveryState, DestinationId, EventId, Guarantee, OutboxId,
    TenantId, Timestamp, WaitReason,
};
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_store::{
    DispatchStore as _, Health as _, IngestStore as _, ManageStore as _, ReadStore as _, ScheduleStore as _,
    dispatch::{Attempt, DeliveryWrite, Next, Target, Written},
    manage::Retried,
    schedule::FeedBudget,
};
use signalpost_store_sqlite::SqliteStore;
use tempfile::TempDir;

const BUDGET: FeedBudget = FeedBudget { most: 10, per_destination: 10, lease: Duration::from_secs(60) };

/// What is in the file.
struct Before {
    destination: DestinationId,
    queued: Target,
    due: Target,
    later: Target,
    dead: Target,
}

fn row(connection: &Connection, sql: &str, params: impl rusqlite::Params) {
    assert_eq!(connection.execute(sql, params).unwrap(), 1);
}

/// One event with one delivery in that state.
fn delivery(connection: &Connection, destination: DestinationId, now: Timestamp, state: DeliveryState) -> Target {
    let event_id = EventId::new(now, &SystemEntropy);
    let target = Target {
        delivery_id: DeliveryId::new(event_id.created_at(), &SystemEntropy),
        tenant_id: TenantId::DEFAULT,
        destination_id: destination,
        event_id,
        lease: None,
    };
    row(
        connection,
        "INSERT INTO events (id, tenant_id, type, meta, data) VALUES (?1, ?2, 'order.created', '{}', x'7b7d')",
        params![event_id.uuid().into_bytes(), TenantId::DEFAULT.uuid().into_bytes()],
    );
    let ended = state.is_final();
    row(
        connection,
        "INSERT INTO deliveries (id, tenant_id, event_id, destination_id, state, attempts, reason, ended_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            target.delivery_id.uuid().into_bytes(),
            TenantId::DEFAULT.uuid().into_bytes(),
            event_id.uuid().into_bytes(),
            destination.uuid().into_bytes(),
            state as u8,
            u8::from(ended),
            ended.then_some(DeadReason::Rejected as u8),
            ended.then_some(now.as_micros())
        ],
    );
    target
}

fn waits(connection: &Connection, target: &Target, due_at: Timestamp, reason: WaitReason, leased: bool) {
    row(
        connection,
        "INSERT INTO waiting (delivery_id, tenant_id, destination_id, event_id, due_at, reason, leased)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            target.delivery_id.uuid().into_bytes(),
            TenantId::DEFAULT.uuid().into_bytes(),
            target.destination_id.uuid().into_bytes(),
            target.event_id.uuid().into_bytes(),
            due_at.as_micros(),
            reason as u8,
            leased
        ],
    );
}

/// Makes a file as version 1 of the schema has it.
fn version_1(file: &Path) -> Before {
    let connection = Connection::open(file).unwrap();
    connection.execute_batch(include_str!("../../../migrations/sqlite/0001_initial.sql")).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    let now = SystemClock::new().now();
    let destination = DestinationId::new(now, &SystemEntropy);
    row(
        &connection,
        "INSERT INTO destinations (id, tenant_id, spec, secret, state, version, created_at, updated_at)
         VALUES (?1, ?2, '{\"url\": \"https://example.com/hook\", \"event_types\": [\"*\"]}',
                 'whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz', 'active', 3, ?3, ?3)",
        params![destination.uuid().into_bytes(), TenantId::DEFAULT.uuid().into_bytes(), now.as_micros()],
    );
    let [queued, due, later, dead] =
        [DeliveryState::Queued, DeliveryState::Waiting, DeliveryState::Waiting, DeliveryState::Dead]
            .map(|state| delivery(&connection, destination, now, state));
    row(
        &connection,
        "INSERT INTO outbox (id, created_at, delivery_ids) VALUES (?1, ?2, ?3)",
        params![
            OutboxId::new(now, &SystemEntropy).uuid().into_bytes(),
            now.as_micros(),
            queued.delivery_id.uuid().into_bytes()
        ],
    );
    waits(&connection, &due, now + Duration::from_secs(60), WaitReason::Turn, true);
    waits(&connection, &later, now + Duration::from_secs(600), WaitReason::Slot, false);
    row(
        &connection,
        "INSERT INTO queues (destination_id, tenant_id, depth, next_due, blocked) VALUES (?1, ?2, 2, ?3, 0)",
        params![
            destination.uuid().into_bytes(),
            TenantId::DEFAULT.uuid().into_bytes(),
            (now + Duration::from_secs(60)).as_micros()
        ],
    );
    row(
        &connection,
        "INSERT INTO attempts (delivery_id, number, tenant_id, destination_id, event_id, started_at, duration_us, outcome,
             response_excerpt)
         VALUES (?1, 1, ?2, ?3, ?4, ?5, 1, 2, x'')",
        params![
            dead.delivery_id.uuid().into_bytes(),
            TenantId::DEFAULT.uuid().into_bytes(),
            destination.uuid().into_bytes(),
            dead.event_id.uuid().into_bytes(),
            now.as_micros()
        ],
    );
    row(
        &connection,
        "INSERT INTO dead_letters (delivery_id, tenant_id, destination_id, event_id, reason, dead_at, attempts,
             event_type, event_meta, event_data)
         VALUES (?1, ?2, ?3, ?4, 3, ?5, 1, 'order.created', '{}', x'7b7d')",
        params![
            dead.delivery_id.uuid().into_bytes(),
            TenantId::DEFAULT.uuid().into_bytes(),
            destination.uuid().into_bytes(),
            dead.event_id.uuid().into_bytes(),
            now.as_micros()
        ],
    );
    Before { destination, queued, due, later, dead }
}

fn delivered(target: Target) -> DeliveryWrite {
    let attempt = Attempt {
        number: 1,
        started_at: SystemClock::new().now(),
        duration: Duration::from_millis(1),
        outcome: signalpost_core::AttemptOutcome::Delivered,
        status_code: Some(200),
        response_excerpt: bytes::Bytes::new(),
        error: None,
    };
    DeliveryWrite::Attempt { target, attempt, next: Next::Delivered }
}

#[tokio::test]
async fn what_an_earlier_version_left_goes_on() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("signalpost.db");
    let before = version_1(&file);
    let open = || SqliteStore::open(&file, Arc::new(SystemClock::new()), Arc::new(SystemEntropy)).unwrap();
    drop(open());
    // Once more: what was migrated stays so.
    let store = open();
    store.check().await.unwrap();
    let destination = store.destination(TenantId::DEFAULT, before.destination).await.unwrap().unwrap();
    assert_eq!((destination.version, &destination.circuit), (3, &CircuitRecord::default()));
    let routes = store.routes(TenantId::DEFAULT).await.unwrap();
    assert_eq!(routes.routes[0].ordering, destination.spec.ordering);
    for target in [before.queued, before.due, before.later, before.dead] {
        let standing = store.examine(&[target.delivery_id]).await.unwrap()[0].unwrap();
        assert_eq!((standing.lane, standing.guarantee), (None, Guarantee::AtLeastOnce));
        assert_eq!((standing.born_at, standing.lease_left), (None, None));
    }
    let due = store.take_due(BUDGET).await.unwrap().deliveries;
    assert_eq!(due.iter().map(|due| due.delivery_id).collect::<Vec<_>>(), [before.due.delivery_id]);
    assert_eq!((due[0].lane, due[0].guarantee), (None, Guarantee::AtLeastOnce));
    assert_eq!(store.relay(Duration::ZERO, 10).await.unwrap(), 1);
    let due = store.take_due(BUDGET).await.unwrap().deliveries;
    assert_eq!(due.iter().map(|due| due.delivery_id).collect::<Vec<_>>(), [before.queued.delivery_id]);
    let report = store.write(&[delivered(before.due), delivered(before.queued)], true).await.unwrap();
    assert_eq!((report.written, report.followers.len()), (vec![Written::Done; 2], 0));
    let again = store.replay_dead_letter(TenantId::DEFAULT, before.dead.delivery_id).await.unwrap();
    let Retried::Again(again) = again else { panic!("{again:?}") };
    let standing = store.examine(&[again]).await.unwrap()[0].unwrap();
    assert_eq!((standing.lane, standing.guarantee), (None, Guarantee::AtLeastOnce));
    assert!(standing.born_at.is_some());
    assert_eq!(store.sample().await.unwrap().waiting, 2, "the replay, and what is due later");
}
