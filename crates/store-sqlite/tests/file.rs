//! What only a file can do: be locked, be opened again, be full, be of a newer version.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use signalpost_core::{
    Clock as _, DeliveryId, DeliveryState, DestinationId, Event, EventId, EventMeta, Guarantee, OutboxId, TenantId,
};
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_store::{
    DispatchStore as _, Health as _, IngestStore as _, ReadStore as _, ScheduleStore as _, StoreError,
    ingest::{EventOutcome, IngestGroup, IngestUnit, NewDelivery, NewEvent, Start, UnitOutcome},
};
use signalpost_store_sqlite::SqliteStore;
use tempfile::TempDir;

fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(path, Arc::new(SystemClock::new()), Arc::new(SystemEntropy))
}

/// An event of `size` bytes with one delivery to a destination that nobody looks up.
fn group(size: usize) -> (IngestGroup, DeliveryId) {
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
            destination_id: DestinationId::new(now, &SystemEntropy),
            start: Start::Queued,
            lane: None,
            guarantee: Guarantee::AtLeastOnce,
        }],
        fan_out: Vec::new(),
        uid: None,
        answer: Bytes::new(),
    };
    let unit = IngestUnit { tenant: TenantId::DEFAULT, routing_version: 0, claim: None, events: vec![new] };
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
