//! Large fan-outs: committed as a cursor, expanded in chunks.

use std::{collections::BTreeSet, time::Duration};

use signalpost_core::{DestinationId, Event};

use super::world::{TENANT, World};
use crate::{
    ingest::{EventOutcome, Start, UnitOutcome},
    manage::ReplaySelection,
};

super::cases![
    a_fan_out_is_expanded_in_chunks,
    it_counts_as_pending_until_then,
    deleted_destinations_are_left_out,
    two_expand_it_once,
    it_is_no_missing_delivery,
];

async fn post(world: &World, to: &[DestinationId]) -> std::sync::Arc<Event> {
    let mut new = world.new_event(world.event(TENANT).await, &[], Start::Queued);
    new.fan_out = to.to_vec();
    let event = new.event.clone();
    let group = world.group(vec![world.unit(TENANT, vec![new]).await]).await;
    let outcomes = world.store.ingest(&group).await.unwrap();
    assert_eq!(outcomes, [UnitOutcome::Committed(vec![EventOutcome::Accepted])]);
    event
}

async fn ids(world: &World, count: usize) -> Vec<DestinationId> {
    world.destinations(count).await.into_iter().map(|destination| destination.id).collect()
}

async fn a_fan_out_is_expanded_in_chunks(world: &World) {
    let to = ids(world, 10).await;
    let first = post(world, &to).await;
    let second = post(world, &to[..3]).await;
    assert_eq!(world.store.relay(Duration::ZERO, 10).await.unwrap(), 0, "the cursor is anchor enough");
    assert_eq!(world.store.expand_fan_outs(4).await.unwrap(), 4);
    assert_eq!(world.store.sample().await.unwrap().waiting, 4);
    let mut created = 4;
    for _ in 0..10 {
        created += world.store.expand_fan_outs(4).await.unwrap();
    }
    assert_eq!(created, 13);
    let due = world.take_all().await;
    let of = |event: &Event| {
        due.iter().filter(|due| due.event.id == event.id).map(|due| due.destination_id).collect::<BTreeSet<_>>()
    };
    assert_eq!(due.len(), 13);
    assert_eq!(of(&first), to.iter().copied().collect());
    assert_eq!(of(&second), to[..3].iter().copied().collect());
    for due in &due {
        assert_eq!(due.delivery_id.created_at(), due.event.id.created_at(), "of its event's millisecond");
    }
}

async fn it_counts_as_pending_until_then(world: &World) {
    let event = post(world, &ids(world, 5).await).await;
    for expanded in 0..5 {
        let counts = world.store.event(TENANT, event.id).await.unwrap().unwrap().counts;
        assert_eq!(counts.pending, 5, "after {expanded}");
        assert_eq!(world.store.expand_fan_outs(1).await.unwrap(), 1);
    }
    assert_eq!(world.store.event(TENANT, event.id).await.unwrap().unwrap().counts.pending, 5);
    assert_eq!(world.store.expand_fan_outs(1).await.unwrap(), 0);
}

async fn deleted_destinations_are_left_out(world: &World) {
    let to = ids(world, 4).await;
    let event = post(world, &to).await;
    world.store.delete_destination(TENANT, to[0]).await.unwrap();
    world.store.delete_destination(TENANT, to[2]).await.unwrap();
    world.store.sweep_deleted(10).await.unwrap();
    let mut created = 0;
    for _ in 0..5 {
        created += world.store.expand_fan_outs(2).await.unwrap();
    }
    assert_eq!(created, 2);
    assert_eq!(world.store.event(TENANT, event.id).await.unwrap().unwrap().counts.pending, 2);
}

async fn two_expand_it_once(world: &World) {
    let to = ids(world, 12).await;
    post(world, &to).await;
    let elsewhere = world.database.handle().await;
    for _ in 0..8 {
        let both = tokio::join!(world.store.expand_fan_outs(3), elsewhere.expand_fan_outs(3));
        both.0.unwrap();
        both.1.unwrap();
    }
    let due = world.take_all().await;
    assert_eq!(due.len(), 12);
    assert_eq!(due.iter().map(|due| due.destination_id).collect::<BTreeSet<_>>().len(), 12);
}

async fn it_is_no_missing_delivery(world: &World) {
    let to = ids(world, 3).await;
    post(world, &to).await;
    let selection = ReplaySelection { destination_id: Some(to[1]), missing: true, ..ReplaySelection::default() };
    assert_eq!(world.store.count_replay(TENANT, &selection, 100).await.unwrap(), 0);
}
