//! What people are told of circuits.

use std::time::Duration;

use signalpost_core::{CircuitRecord, DestinationId, circuit::CircuitState};

use super::world::{TENANT, World};

super::cases![
    what_a_circuit_did_is_kept,
    what_is_older_changes_nothing,
    it_is_no_change_of_the_destination,
    resuming_one_that_is_open_is_a_change,
];

async fn kept(world: &World, destination: DestinationId) -> CircuitRecord {
    let shown = world.store.destination(TENANT, destination).await.unwrap().unwrap().circuit;
    let loaded = world.store.destinations(&[destination]).await.unwrap().remove(0).circuit;
    assert_eq!(shown, loaded);
    shown
}

fn record(state: CircuitState, trips: u32, after: u64) -> CircuitRecord {
    let since = signalpost_core::Timestamp::from_millis(1_700_000_000_000) + Duration::from_millis(after);
    let reason = (state == CircuitState::Open).then(|| format!("{trips} failures in a row"));
    CircuitRecord { state, since: Some(since), trips, reason }
}

async fn what_a_circuit_did_is_kept(world: &World) {
    let (one, two) = (world.destination().await, world.destination().await);
    assert_eq!(kept(world, one.id).await, CircuitRecord::default());
    let unknown = DestinationId::new(world.now().await, world.entropy());
    let open = record(CircuitState::Open, 1, 0);
    world.store.record_circuits(&[(unknown, open.clone()), (one.id, open.clone())]).await.unwrap();
    world.store.record_circuits(&[]).await.unwrap();
    assert_eq!((kept(world, one.id).await, kept(world, two.id).await), (open, CircuitRecord::default()));
    for state in [CircuitState::HalfOpen, CircuitState::Closed] {
        let next = record(state, 1, 10);
        world.store.record_circuits(&[(one.id, next.clone())]).await.unwrap();
        assert_eq!(kept(world, one.id).await, next);
    }
    let page = crate::read::Page { limit: 10, after: None, descending: false };
    let listed = world.store.list_destinations(TENANT, None, page);
    assert_eq!(listed.await.unwrap().iter().filter(|destination| destination.circuit.trips == 1).count(), 1);
}

async fn what_is_older_changes_nothing(world: &World) {
    let destination = world.destination().await;
    let present = record(CircuitState::Open, 3, 100);
    world.store.record_circuits(&[(destination.id, present.clone())]).await.unwrap();
    for older in [record(CircuitState::Closed, 2, 200), record(CircuitState::HalfOpen, 3, 99), CircuitRecord::default()]
    {
        world.store.record_circuits(&[(destination.id, older)]).await.unwrap();
        assert_eq!(kept(world, destination.id).await, present);
    }
    let newer = record(CircuitState::Open, 4, 50);
    world.store.record_circuits(&[(destination.id, newer.clone())]).await.unwrap();
    assert_eq!(kept(world, destination.id).await, newer, "more trips are newer, whatever a clock says");
}

async fn it_is_no_change_of_the_destination(world: &World) {
    let destination = world.destination().await;
    let before = world.store.destination(TENANT, destination.id).await.unwrap().unwrap();
    let routing = world.store.routes(TENANT).await.unwrap().version;
    let open = record(CircuitState::Open, 1, 0);
    let (_, moment) = world.store.changed_since(None).await.unwrap();
    world.store.record_circuits(&[(destination.id, open.clone())]).await.unwrap();
    // Other dispatchers hear of it all the same.
    let (told, _) = world.store.changed_since(Some(moment)).await.unwrap();
    let told = told.into_iter().find(|told| told.id == destination.id).unwrap();
    assert_eq!((told.circuit, told.version), (open.clone(), before.version));
    let after = world.store.destination(TENANT, destination.id).await.unwrap().unwrap();
    assert_eq!((after.version, after.updated_at), (before.version, before.updated_at));
    assert_eq!(world.store.routes(TENANT).await.unwrap().version, routing);
    // A change keeps it.
    let paused = world.store.set_paused(TENANT, destination.id, true).await.unwrap().unwrap();
    assert_eq!(paused.circuit, open);
}

async fn resuming_one_that_is_open_is_a_change(world: &World) {
    let destination = world.destination().await;
    let resume = async || world.store.set_paused(TENANT, destination.id, false).await.unwrap().unwrap();
    assert_eq!(resume().await.version, destination.version, "it is active");
    for (number, state) in [CircuitState::Open, CircuitState::HalfOpen, CircuitState::Closed].into_iter().enumerate() {
        let waits = world.waiting(&destination).await;
        let before = world.store.destination(TENANT, destination.id).await.unwrap().unwrap();
        let record = record(state, 1, number as u64);
        world.store.record_circuits(&[(destination.id, record.clone())]).await.unwrap();
        let hold = crate::dispatch::QueueHold {
            destination_id: destination.id,
            hold: Duration::from_secs(600),
            trial: std::num::NonZeroU32::new(1),
        };
        world.store.hold_queues(&[hold]).await.unwrap();
        let (_, moment) = world.store.changed_since(None).await.unwrap();
        let resumed = resume().await;
        let is_change = state != CircuitState::Closed;
        assert_eq!(resumed.version, before.version + u32::from(is_change), "{state:?}");
        assert_eq!((resumed.state, resumed.circuit), (before.state, record));
        let (changed, _) = world.store.changed_since(Some(moment)).await.unwrap();
        assert!(changed.iter().any(|changed| (changed.id, changed.version) == (destination.id, resumed.version)));
        let taken = world.taken().await;
        assert_eq!(taken.contains(&waits.delivery_id), is_change, "{state:?}");
    }
}
