//! What the process before this one held: leases, claims and circuits end with it, what destinations asked for does not.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{num::NonZeroU32, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::json;
use signalpost_core::{
    AttemptOutcome, Clock as _, DeliveryId, Destination, DestinationId, Event, EventId, EventMeta, Guarantee, Kept,
    LaneId, OutboxId, TenantId, WaitReason,
};
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_store::{
    DispatchStore as _, IngestStore as _, ManageStore as _, ScheduleStore as _,
    dispatch::{Attempt, DeliveryWrite, Next, QueueHold, Target, Written},
    ingest::{EventOutcome, IngestGroup, IngestUnit, NewDelivery, NewEvent, Start, UnitOutcome},
    schedule::FeedBudget,
};
use signalpost_store_sqlite::SqliteStore;
use tempfile::TempDir;

const LATER: Duration = Duration::from_secs(600);
const BUDGET: FeedBudget = FeedBudget { most: 10, per_destination: 10, lease: LATER };

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, Arc::new(SystemClock::new()), Arc::new(SystemEntropy)).unwrap()
}

async fn destination(store: &SqliteStore) -> Destination {
    let now = SystemClock::new().now();
    let destination = Destination::new(
        DestinationId::new(now, &SystemEntropy),
        TenantId::DEFAULT,
        serde_json::from_value(json!({"url": "https://example.com/hook", "event_types": ["*"]})).unwrap(),
        Kept::plain("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"),
        now,
    );
    store.create_destination(&destination).await.unwrap();
    destination
}

async fn post(store: &SqliteStore, to: &Destination, lane: Option<&str>, guarantee: Guarantee) -> Target {
    post_as(Start::Waiting(WaitReason::Turn), store, to, lane, guarantee).await
}

async fn post_as(
    start: Start,
    store: &SqliteStore,
    to: &Destination,
    lane: Option<&str>,
    guarantee: Guarantee,
) -> Target {
    let now = SystemClock::new().now();
    let event_id = EventId::new(now, &SystemEntropy);
    let target = Target {
        delivery_id: DeliveryId::new(event_id.created_at(), &SystemEntropy),
        tenant_id: TenantId::DEFAULT,
        destination_id: to.id,
        event_id,
        lease: None,
    };
    let event = Event {
        id: event_id,
        tenant_id: TenantId::DEFAULT,
        event_type: "order.created".into(),
        uid: None,
        source: None,
        meta: EventMeta::default(),
        data: Bytes::from_static(b"1"),
    };
    let delivery =
        NewDelivery { id: target.delivery_id, destination_id: to.id, start, lane: lane.map(LaneId::of), guarantee };
    let new = NewEvent {
        event: Arc::new(event),
        deliveries: vec![delivery],
        fan_out: Vec::new(),
        uid: None,
        answer: Bytes::new(),
    };
    let routing_version = store.routes(TenantId::DEFAULT).await.unwrap().version;
    let unit = IngestUnit { tenant: TenantId::DEFAULT, routing_version, claim: None, events: vec![new] };
    let group = IngestGroup { units: vec![unit], outbox_id: OutboxId::new(now, &SystemEntropy), published: Vec::new() };
    assert_eq!(store.ingest(&group).await.unwrap(), [UnitOutcome::Committed(vec![EventOutcome::Accepted])]);
    target
}

fn arrived(target: Target) -> DeliveryWrite {
    let attempt = Attempt {
        number: 1,
        started_at: SystemClock::new().now(),
        duration: Duration::from_millis(1),
        outcome: AttemptOutcome::Delivered,
        status_code: Some(200),
        response_excerpt: Bytes::new(),
        error: None,
    };
    DeliveryWrite::Attempt { target, attempt, next: Next::Delivered }
}

async fn taken(store: &SqliteStore) -> Vec<(DeliveryId, WaitReason)> {
    let due = store.take_due(BUDGET).await.unwrap().deliveries;
    let mut taken: Vec<_> = due.iter().map(|due| (due.delivery_id, due.reason)).collect();
    taken.sort();
    taken
}

#[tokio::test]
async fn what_was_leased_or_detached_is_due_at_once() {
    let folder = TempDir::new().unwrap();
    let (leased, detached);
    {
        let store = open(folder.path());
        let to = destination(&store).await;
        leased = post(&store, &to, None, Guarantee::AtLeastOnce).await;
        detached = post_as(Start::Queued, &store, &to, None, Guarantee::AtLeastOnce).await;
        let parked = post_as(Start::Queued, &store, &to, None, Guarantee::AtLeastOnce).await;
        let writes = [
            DeliveryWrite::Detach { target: detached, attempt: 1, deadline: LATER },
            DeliveryWrite::Park {
                target: parked,
                reason: WaitReason::Slot,
                after: LATER,
                hold_queue: false,
                claim: None,
            },
        ];
        assert_eq!(store.write(&writes, false).await.unwrap().written, [Written::Done; 2]);
        assert_eq!(taken(&store).await.len(), 1);
        let due = store.take_due(BUDGET).await.unwrap();
        assert!(due.deliveries.is_empty() && due.next_in.is_some_and(|next| next > LATER / 2), "{due:?}");
    }
    let store = open(folder.path());
    let mut expected = [(leased.delivery_id, WaitReason::Turn), (detached.delivery_id, WaitReason::InFlight)];
    expected.sort();
    assert_eq!(taken(&store).await, expected, "what was parked keeps its time");
    let due = store.take_due(BUDGET).await.unwrap();
    assert!(due.deliveries.is_empty() && due.next_in.is_some_and(|next| next > LATER / 2), "{due:?}");
    assert_eq!(store.sample().await.unwrap().waiting, 3);
}

#[tokio::test]
async fn what_was_handed_over_or_claimed_is_due_at_once() {
    let folder = TempDir::new().unwrap();
    let (line, once);
    {
        let store = open(folder.path());
        let to = destination(&store).await;
        let mut of = Vec::new();
        for _ in 0..3 {
            of.push(post(&store, &to, Some("a"), Guarantee::AtLeastOnce).await);
        }
        line = of;
        once = post(&store, &to, None, Guarantee::AtMostOnce).await;
        let claim = DeliveryWrite::Claim { target: once, claim: 7, deadline: LATER };
        let report = store.write(&[arrived(line[0]), claim], true).await.unwrap();
        assert_eq!((report.written, report.followers.len()), (vec![Written::Done; 2], 1));
        assert_eq!(taken(&store).await, []);
        assert_eq!((store.heartbeat(1).await.unwrap(), store.heartbeat(2).await.unwrap()), (1, 2));
    }
    let store = open(folder.path());
    let mut expected = vec![(line[1].delivery_id, WaitReason::Turn), (once.delivery_id, WaitReason::InFlight)];
    expected.sort();
    assert_eq!(taken(&store).await, expected, "not the one behind");
    // The claim is not forgotten with its process: a request may have gone out.
    let claim = DeliveryWrite::Claim { target: once, claim: 8, deadline: LATER };
    assert_eq!(store.write(&[claim], false).await.unwrap().written, [Written::Superseded]);
    assert_eq!(store.heartbeat(3).await.unwrap(), 1, "the others are gone with their process");
}

#[tokio::test]
async fn circuits_end_with_their_process_and_other_holds_do_not() {
    let folder = TempDir::new().unwrap();
    let (open_circuit, limited, ids);
    {
        let store = open(folder.path());
        open_circuit = destination(&store).await;
        limited = destination(&store).await;
        let held = post(&store, &open_circuit, None, Guarantee::AtLeastOnce).await;
        let parked = post(&store, &open_circuit, None, Guarantee::AtLeastOnce).await;
        let slowed = post(&store, &limited, None, Guarantee::AtLeastOnce).await;
        post(&store, &limited, None, Guarantee::AtLeastOnce).await;
        let park =
            |target, reason, hold_queue| DeliveryWrite::Park { target, reason, after: LATER, hold_queue, claim: None };
        let parks = [park(parked, WaitReason::Circuit, false), park(slowed, WaitReason::RateLimit, true)];
        store.write(&parks, false).await.unwrap();
        let hold = QueueHold { destination_id: open_circuit.id, hold: LATER, trial: NonZeroU32::new(1) };
        store.hold_queues(&[hold]).await.unwrap();
        assert_eq!(taken(&store).await, []);
        let mut of = vec![(held.delivery_id, WaitReason::Turn), (parked.delivery_id, WaitReason::Circuit)];
        of.sort();
        ids = of;
    }
    let store = open(folder.path());
    assert_eq!(taken(&store).await, ids, "both of them, and nothing of the one that asked for a pause");
    assert_eq!(store.spilled().await.unwrap(), [limited.id]);
}
