//! What only a file can do: be locked, be opened again, be full, be of a newer version.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::json;
use signalpost_core::{
    CircuitRecord, Clock as _, DeliveryId, DeliveryState, Destination, DestinationId, DestinationSpec,
    DestinationState, Event, EventId, EventMeta, Guarantee, Kept, OutboxId, TenantId, WaitReason,
};
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_store::{
    DispatchStore as _, Health as _, IngestStore as _, ManageStore as _, ReadStore as _, ScheduleStore as _,
    StoreError,
    dispatch::{DeliveryWrite, Target, Written},
    ingest::{EventOutcome, IngestGroup, IngestUnit, NewDelivery, NewEvent, Start, UnitOutcome},
    schedule::FeedBudget,
};
use signalpost_store_sqlite::SqliteStore;
use tempfile::TempDir;

fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(path, Arc::new(SystemClock::new()), Arc::new(SystemEntropy))
}

/// An event of `size` bytes with one delivery to a destination that nobody looks up.
fn group(size: usize) -> (IngestGroup, DeliveryId) {
    let destination = DestinationId::new(SystemClock::new().now(), &SystemEntropy);
    group_for(size, destination, 0, Start::Queued)
}

fn group_for(
    size: usize,
    destination_id: DestinationId,
    routing_version: i64,
    start: Start,
) -> (IngestGroup, DeliveryId) {
    let now = SystemClock::new().now();
    let id = EventId::new(now, &SystemEntropy);
    let delivery = DeliveryId::new(id.created_at(), &SystemEntropy);
    let event = Event {
        id,
        tenant_id: TenantId::DEFAULT,
        event_type: "order.created".into(),
        uid: None,
        source: None,
        meta: EventMeta::default(),
        data: Bytes::from(vec![b'1'; size]),
    };
    let new = NewEvent {
        event: Arc::new(event),
        deliveries: vec![NewDelivery {
            id: delivery,
            destination_id,
            start,
            lane: None,
            guarantee: Guarantee::AtLeastOnce,
        }],
        fan_out: Vec::new(),
        uid: None,
        answer: Bytes::new(),
    };
    let unit = IngestUnit { tenant: TenantId::DEFAULT, routing_version, claim: None, events: vec![new] };
    let group = IngestGroup { units: vec![unit], outbox_id: OutboxId::new(now, &SystemEntropy), published: Vec::new() };
    (group, delivery)
}

fn accepted(outcomes: &[UnitOutcome]) -> bool {
    outcomes == [UnitOutcome::Committed(vec![EventOutcome::Accepted])]
}

#[tokio::test]
async fn what_was_answered_is_there_after_it_is_opened_again() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("data").join("signalpost.db");
    let (group, delivery) = group(100);
    {
        let store = open(&file).unwrap();
        assert!(accepted(&store.ingest(&group).await.unwrap()));
    }
    let store = open(&file).unwrap();
    let standing = store.examine(&[delivery]).await.unwrap();
    assert_eq!(standing[0].map(|standing| standing.state), Some(DeliveryState::Queued));
    // The outbox record came along: the relay finds it.
    assert_eq!(store.relay(Duration::ZERO, 10).await.unwrap(), 1);
    assert!(store.tenant_exists(TenantId::DEFAULT).await.unwrap());
    assert!(store.check().await.is_ok());
}

fn destination(spec: DestinationSpec) -> Destination {
    let now = SystemClock::new().now();
    Destination {
        id: DestinationId::new(now, &SystemEntropy),
        tenant_id: TenantId::DEFAULT,
        uid: None,
        spec,
        secrets: Kept::plain("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"),
        state: DestinationState::Active,
        disabled_reason: None,
        circuit: CircuitRecord::default(),
        version: 1,
        created_at: now,
        updated_at: now,
    }
}

#[tokio::test]
async fn what_the_process_before_held_is_due_at_once() {
    const LATER: Duration = Duration::from_secs(600);
    let budget = FeedBudget { most: 10, per_destination: 10, lease: LATER };
    let folder = TempDir::new().unwrap();
    let spec = serde_json::from_value(json!({"url": "https://example.com/hook", "event_types": ["*"]}));
    let destination = destination(spec.unwrap());
    let mut ids = Vec::new();
    {
        let store = open(folder.path()).unwrap();
        store.create_destination(&destination).await.unwrap();
        let version = store.routes(TenantId::DEFAULT).await.unwrap().version;
        for start in [Start::Waiting(WaitReason::Turn), Start::Queued, Start::Queued] {
            let (group, delivery) = group_for(10, destination.id, version, start);
            assert!(accepted(&store.ingest(&group).await.unwrap()));
            let event_id = group.units[0].events[0].event.id;
            let target = Target {
                delivery_id: delivery,
                tenant_id: TenantId::DEFAULT,
                destination_id: destination.id,
                event_id,
            };
            ids.push(target);
        }
        let [_, detached, parked] = ids[..] else { panic!("three of them") };
        let writes = [
            DeliveryWrite::Detach { target: detached, attempt: 1, deadline: LATER },
            DeliveryWrite::Park { target: parked, reason: WaitReason::Slot, after: LATER, hold_queue: false },
        ];
        assert_eq!(store.write(&writes, false).await.unwrap().written, [Written::Done; 2]);
        assert_eq!(store.take_due(budget).await.unwrap().deliveries.len(), 1);
        let due = store.take_due(budget).await.unwrap();
        assert!(due.deliveries.is_empty() && due.next_in.is_some_and(|next| next > LATER / 2), "{due:?}");
    }
    let store = open(folder.path()).unwrap();
    let due = store.take_due(budget).await.unwrap().deliveries;
    let mut found: Vec<_> = due.iter().map(|due| (due.delivery_id, due.reason)).collect();
    found.sort_by_key(|(id, _)| ids.iter().position(|target| target.delivery_id == *id));
    let (leased, detached) = (ids[0].delivery_id, ids[1].delivery_id);
    assert_eq!(found, [(leased, WaitReason::Turn), (detached, WaitReason::InFlight)], "what was parked keeps its time");
    let due = store.take_due(budget).await.unwrap();
    assert!(due.deliveries.is_empty() && due.next_in.is_some_and(|next| next > LATER / 2), "{due:?}");
    assert_eq!(store.sample().await.unwrap().waiting, 3);
}

#[tokio::test]
async fn two_processes_cannot_share_a_data_directory() {
    let folder = TempDir::new().unwrap();
    let first = open(folder.path()).unwrap();
    let refused = open(folder.path()).unwrap_err();
    let StoreError::Unavailable(text) = &refused else { panic!("{refused:?}") };
    assert!(text.contains("in use by another Signalpost process"), "{text}");
    drop(first);
    open(folder.path()).unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database_of_ours_is_refused() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("signalpost.db");
    std::fs::write(&file, vec![b'x'; 4096]).unwrap();
    assert!(matches!(open(&file), Err(StoreError::Internal(_))));
}

#[cfg(unix)]
#[tokio::test]
async fn only_its_owner_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().unwrap();
    let _store = open(folder.path()).unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
    }
}
