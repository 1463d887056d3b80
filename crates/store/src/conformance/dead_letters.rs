//! Dead letters: replayed or discarded, each once.

use signalpost_core::{DeadReason, DeliveryState};

use super::world::{TENANT, World, interrupted};
use crate::{
    dispatch::{DeliveryWrite, Target},
    manage::Retried,
};

super::cases![
    a_dead_letter_is_replayed_once,
    a_dead_letter_is_discarded_once,
    a_discarded_one_can_still_be_retried_by_hand,
    a_dead_letter_of_a_deleted_destination_stays,
    what_is_no_dead_letter_is_not_found,
    a_delivery_that_was_replayed_before_it_died_leaves_none,
    two_people_replay_it_once,
];

async fn a_dead_letter_is_replayed_once(world: &World) {
    let target = world.dead(&world.destination().await).await;
    let Retried::Again(new) = world.store.replay_dead_letter(TENANT, target.delivery_id).await.unwrap() else {
        panic!("it is a dead letter")
    };
    let view = world.store.delivery(TENANT, new).await.unwrap().unwrap();
    assert_eq!((view.state, view.replay_of), (DeliveryState::Waiting, Some(target.delivery_id)));
    assert_eq!(world.store.dead_letter(TENANT, target.delivery_id).await.unwrap(), None);
    assert_eq!(world.store.replay_dead_letter(TENANT, target.delivery_id).await.unwrap(), Retried::NotFound);
    assert_eq!(world.take_all().await.len(), 1);
    // The replay may die, too, and is a dead letter of its own.
    world.kill(Target { delivery_id: new, ..target }).await;
    assert!(world.store.dead_letter(TENANT, new).await.unwrap().is_some());
}

async fn a_dead_letter_is_discarded_once(world: &World) {
    let target = world.dead(&world.destination().await).await;
    assert!(world.store.discard_dead_letter(TENANT, target.delivery_id).await.unwrap());
    assert!(!world.store.discard_dead_letter(TENANT, target.delivery_id).await.unwrap());
    assert_eq!(world.store.replay_dead_letter(TENANT, target.delivery_id).await.unwrap(), Retried::NotFound);
    let view = world.store.delivery(TENANT, target.delivery_id).await.unwrap().unwrap();
    assert_eq!((view.state, view.reason), (DeliveryState::Dead, Some(DeadReason::Discarded)));
    assert_eq!(world.store.sample().await.unwrap().dead_letters, 0);
}

async fn a_discarded_one_can_still_be_retried_by_hand(world: &World) {
    let target = world.dead(&world.destination().await).await;
    world.store.discard_dead_letter(TENANT, target.delivery_id).await.unwrap();
    let retried = world.store.retry_delivery(TENANT, target.delivery_id).await.unwrap();
    assert!(matches!(retried, Retried::Again(_)), "{retried:?}");
}

async fn a_dead_letter_of_a_deleted_destination_stays(world: &World) {
    let destination = world.destination().await;
    let target = world.dead(&destination).await;
    world.store.delete_destination(TENANT, destination.id).await.unwrap();
    for _ in 0..2 {
        assert_eq!(world.store.replay_dead_letter(TENANT, target.delivery_id).await.unwrap(), Retried::Gone);
        assert!(world.store.dead_letter(TENANT, target.delivery_id).await.unwrap().is_some());
        world.store.sweep_deleted(10).await.unwrap();
    }
    assert!(world.store.discard_dead_letter(TENANT, target.delivery_id).await.unwrap());
}

async fn what_is_no_dead_letter_is_not_found(world: &World) {
    let destination = world.destination().await;
    let arrived = world.queued(&destination).await;
    world.deliver(arrived).await;
    let cancelled = world.queued(&destination).await;
    world.write(DeliveryWrite::End { target: cancelled, dead: None }).await;
    for target in [arrived, cancelled, world.queued(&destination).await, world.waiting(&destination).await] {
        assert_eq!(world.store.dead_letter(TENANT, target.delivery_id).await.unwrap(), None);
        assert_eq!(world.store.replay_dead_letter(TENANT, target.delivery_id).await.unwrap(), Retried::NotFound);
        assert!(!world.store.discard_dead_letter(TENANT, target.delivery_id).await.unwrap());
    }
}

async fn a_delivery_that_was_replayed_before_it_died_leaves_none(world: &World) {
    let destination = world.destination().await;
    let target = world.queued(&destination).await;
    world.write(interrupted(target, 1)).await;
    world.store.replay_event(TENANT, target.event_id, None).await.unwrap();
    world.write(super::world::died(target, 2, DeadReason::Exhausted)).await;
    assert_eq!(world.store.dead_letter(TENANT, target.delivery_id).await.unwrap(), None, "its replay stands for it");
    assert_eq!(world.state(target.delivery_id).await, DeliveryState::Dead);
}

async fn two_people_replay_it_once(world: &World) {
    let elsewhere = world.database.handle().await;
    for _ in 0..10 {
        let target = world.dead(&world.destination().await).await;
        let id = target.delivery_id;
        let (one, other) =
            tokio::join!(world.store.replay_dead_letter(TENANT, id), elsewhere.replay_dead_letter(TENANT, id));
        let both = [one.unwrap(), other.unwrap()];
        let again = both.iter().filter(|retried| matches!(retried, Retried::Again(_))).count();
        assert_eq!(again, 1, "{both:?}");
    }
    assert_eq!(world.take_all().await.len(), 10);
}
