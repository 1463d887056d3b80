//! When a delivery was born: with its event, or when somebody asked for it again.

use signalpost_core::{DeliveryId, Destination, Timestamp};

use super::world::{TENANT, World};
use crate::{
    ingest::Start,
    manage::{ReplaySelection, Retried},
};

super::cases![
    a_first_delivery_is_born_with_its_event,
    a_replay_is_born_when_it_is_made,
    a_job_gives_birth_when_it_creates,
    a_fan_out_is_born_with_its_event,
];

/// As the store tells it, and the feed.
async fn born_at(world: &World, delivery: DeliveryId) -> Option<Timestamp> {
    let born_at = world.standing(delivery).await.born_at;
    assert_eq!(world.take_eventually(delivery).await.born_at, born_at);
    born_at
}

/// The deliveries to it that replay another, or were missing.
async fn replays_to(world: &World, destination: &Destination) -> Vec<DeliveryId> {
    let all = super::invariants::deliveries(world, TENANT).await;
    let of = all.into_values().filter(|view| view.destination_id == destination.id && !view.state.is_final());
    of.map(|view| view.id).collect()
}

async fn a_first_delivery_is_born_with_its_event(world: &World) {
    let target = world.waiting(&world.destination().await).await;
    assert_eq!(born_at(world, target.delivery_id).await, None);
}

async fn a_replay_is_born_when_it_is_made(world: &World) {
    let destination = world.destination().await;
    for way in 0..3 {
        let dead = world.dead(&destination).await;
        let before = world.now().await;
        let again = match way {
            0 => world.store.replay_dead_letter(TENANT, dead.delivery_id).await.unwrap(),
            1 => world.store.retry_delivery(TENANT, dead.delivery_id).await.unwrap(),
            _ => Retried::Again(world.store.replay_event(TENANT, dead.event_id, None).await.unwrap().unwrap()[0]),
        };
        let Retried::Again(again) = again else { panic!("{again:?}") };
        let born = born_at(world, again).await.expect("it is younger than its event");
        assert!(born >= before && born <= world.now().await, "way {way}");
        assert_eq!(again.created_at(), dead.event_id.created_at(), "its id tells of its event");
    }
}

async fn a_job_gives_birth_when_it_creates(world: &World) {
    let destination = world.destination().await;
    world.dead(&destination).await;
    world.post_to(&[], Start::Queued).await;
    let before = world.now().await;
    let selection =
        ReplaySelection { destination_id: Some(destination.id), missing: true, ..ReplaySelection::default() };
    let job = world.run_job(&world.new_job(TENANT, selection).await, 10).await;
    assert_eq!(job.replayed, 2, "one again, and one that was missing");
    for delivery in replays_to(world, &destination).await {
        assert!(world.standing(delivery).await.born_at.is_some_and(|born| born >= before));
    }
}

async fn a_fan_out_is_born_with_its_event(world: &World) {
    let destination = world.destination().await;
    let mut new = world.new_event(world.event(TENANT).await, &[], Start::Queued);
    new.fan_out = vec![destination.id];
    world.commit(vec![new]).await;
    assert_eq!(world.store.expand_fan_outs(10).await.unwrap(), 1);
    let delivery = replays_to(world, &destination).await[0];
    assert_eq!(born_at(world, delivery).await, None);
}
