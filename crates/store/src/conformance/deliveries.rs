//! What people do to deliveries and events: retry, cancel, send again.

use std::{collections::BTreeSet, time::Duration};

use signalpost_core::{DeadReason, DeliveryId, DeliveryState, DeliveryStatus, WaitReason};

use super::world::{TENANT, World, delivered, failed, park};
use crate::{
    dispatch::{DeliveryWrite, Target, Written},
    ingest::Start,
    manage::{Cancelled, Retried},
    read::{DeliveryCounts, DeliveryView},
};

super::cases![
    a_waiting_delivery_is_retried_now,
    a_hold_outlives_a_retry_by_hand,
    one_on_its_way_is_left_alone,
    an_ended_delivery_is_sent_again,
    a_retry_of_a_replayed_delivery_goes_on_from_its_end,
    what_cannot_be_sent_is_gone,
    a_delivery_is_cancelled,
    an_ended_delivery_is_not_cancelled,
    an_event_is_sent_again_to_all,
    an_event_is_sent_again_to_one,
    a_replay_counts_in_place_of_what_it_replays,
    an_event_that_is_not_there_is_not_replayed,
];

const LATER: Duration = Duration::from_secs(600);

async fn retry(world: &World, target: Target) -> Retried {
    world.store.retry_delivery(TENANT, target.delivery_id).await.unwrap()
}

async fn cancel(world: &World, target: Target) -> Cancelled {
    world.store.cancel_delivery(TENANT, target.delivery_id).await.unwrap()
}

async fn view(world: &World, delivery: DeliveryId) -> DeliveryView {
    world.store.delivery(TENANT, delivery).await.unwrap().unwrap()
}

fn unknown(world: &World, like: Target) -> Target {
    Target { delivery_id: DeliveryId::new(like.event_id.created_at(), world.entropy()), ..like }
}

async fn a_waiting_delivery_is_retried_now(world: &World) {
    let target = world.queued(&world.destination().await).await;
    world.write(failed(target, 1, LATER)).await;
    assert!(world.take_all().await.is_empty());
    assert_eq!(retry(world, target).await, Retried::DueNow);
    let due = world.take_all().await;
    assert_eq!((due[0].delivery_id, due[0].attempts), (target.delivery_id, 1));
    assert_eq!(world.write(delivered(target, 2)).await, Written::Done);
}

async fn a_hold_outlives_a_retry_by_hand(world: &World) {
    let destination = world.destination().await;
    let target = world.queued(&destination).await;
    world.write(park(target, WaitReason::RateLimit, LATER, true)).await;
    assert_eq!(retry(world, target).await, Retried::DueNow);
    assert!(world.take_all().await.is_empty(), "its queue is held");
    let paused = world.destination().await;
    let target = world.queued(&paused).await;
    world.write(failed(target, 1, LATER)).await;
    world.store.set_paused(TENANT, paused.id, true).await.unwrap();
    assert_eq!(retry(world, target).await, Retried::DueNow);
    assert!(world.take_all().await.is_empty(), "its destination is paused");
    world.store.set_paused(TENANT, paused.id, false).await.unwrap();
    assert_eq!(world.take_all().await.len(), 1);
}

async fn one_on_its_way_is_left_alone(world: &World) {
    let target = world.queued(&world.destination().await).await;
    assert_eq!(retry(world, target).await, Retried::DueNow);
    assert_eq!(world.state(target.delivery_id).await, DeliveryState::Queued);
    assert_eq!(retry(world, unknown(world, target)).await, Retried::NotFound);
}

async fn an_ended_delivery_is_sent_again(world: &World) {
    let destination = world.destination().await;
    let targets =
        [world.queued(&destination).await, world.queued(&destination).await, world.queued(&destination).await];
    world.deliver(targets[0]).await;
    world.kill(targets[1]).await;
    world.write(DeliveryWrite::End { target: targets[2], dead: None }).await;
    for old in targets {
        let before = view(world, old.delivery_id).await;
        let Retried::Again(new) = retry(world, old).await else { panic!("it had ended") };
        let born = view(world, new).await;
        assert_eq!((born.state, born.attempts, born.replay_of), (DeliveryState::Waiting, 0, Some(old.delivery_id)));
        assert_eq!((born.event_id, born.destination_id), (old.event_id, old.destination_id));
        assert_eq!(new.created_at(), old.event_id.created_at(), "of its event's millisecond");
        let after = view(world, old.delivery_id).await;
        assert_eq!(after.replayed_by, Some(new));
        assert_eq!((after.state, after.ended_at), (before.state, before.ended_at), "ended is final");
        assert_eq!(world.store.dead_letter(TENANT, old.delivery_id).await.unwrap(), None);
    }
    assert_eq!(world.take_all().await.len(), 3);
}

async fn a_retry_of_a_replayed_delivery_goes_on_from_its_end(world: &World) {
    let destination = world.destination().await;
    let first = world.dead(&destination).await;
    let Retried::Again(second) = retry(world, first).await else { panic!("it had ended") };
    assert_eq!(retry(world, first).await, Retried::Again(second), "that one is on its way");
    let target = Target { delivery_id: second, ..first };
    world.take_all().await;
    world.kill(target).await;
    let Retried::Again(third) = retry(world, first).await else { panic!("it had ended") };
    assert_ne!(third, second);
    assert_eq!(view(world, third).await.replay_of, Some(second));
    assert_eq!(world.store.sample().await.unwrap().dead_letters, 0);
}

async fn what_cannot_be_sent_is_gone(world: &World) {
    let destination = world.destination().await;
    let (ended, waits) = (world.dead(&destination).await, world.waiting(&destination).await);
    world.queued(&destination).await;
    world.store.delete_destination(TENANT, destination.id).await.unwrap();
    assert_eq!(retry(world, ended).await, Retried::Gone);
    assert_eq!(retry(world, waits).await, Retried::Gone);
    assert_eq!(view(world, ended.delivery_id).await.replayed_by, None);
}

async fn a_delivery_is_cancelled(world: &World) {
    let destination = world.destination().await;
    let queued = world.queued(&destination).await;
    let waits = world.waiting(&destination).await;
    let retries = world.queued(&destination).await;
    world.write(failed(retries, 1, LATER)).await;
    for (target, attempts) in [(queued, 0), (waits, 0), (retries, 1)] {
        assert_eq!(cancel(world, target).await, Cancelled::Yes);
        assert_eq!(cancel(world, target).await, Cancelled::Yes, "it is already");
        let view = view(world, target.delivery_id).await;
        assert_eq!((view.state, view.attempts, view.reason), (DeliveryState::Cancelled, attempts, None));
        assert_eq!(world.write(delivered(target, attempts + 1)).await, Written::Superseded);
    }
    assert!(world.take_all().await.is_empty());
    assert_eq!(world.store.sample().await.unwrap().queues, 0);
}

async fn an_ended_delivery_is_not_cancelled(world: &World) {
    let destination = world.destination().await;
    let arrived = world.queued(&destination).await;
    world.deliver(arrived).await;
    let dead = world.dead(&destination).await;
    assert_eq!(cancel(world, arrived).await, Cancelled::Ended(DeliveryStatus::Delivered));
    assert_eq!(cancel(world, dead).await, Cancelled::Ended(DeliveryStatus::Dead));
    assert_eq!(cancel(world, unknown(world, dead)).await, Cancelled::NotFound);
    assert_eq!(view(world, dead.delivery_id).await.reason, Some(DeadReason::Rejected));
}

async fn an_event_is_sent_again_to_all(world: &World) {
    let destinations = world.destinations(3).await;
    let all: Vec<_> = destinations.iter().collect();
    let posted = world.post_to(&all, Start::Queued).await;
    for target in &posted.targets {
        world.deliver(*target).await;
    }
    world.store.delete_destination(TENANT, destinations[1].id).await.unwrap();
    for round in 1..=2 {
        let born = world.store.replay_event(TENANT, posted.event.id, None).await.unwrap().unwrap();
        assert_eq!(born.len(), 2, "round {round}: once to each that is there");
        let mut to = BTreeSet::new();
        for id in &born {
            let view = view(world, *id).await;
            assert_eq!((view.state, view.event_id), (DeliveryState::Waiting, posted.event.id));
            assert!(view.replay_of.is_some());
            to.insert(view.destination_id);
        }
        assert_eq!(to, BTreeSet::from([destinations[0].id, destinations[2].id]));
    }
    assert_eq!(world.take_all().await.len(), 4);
}

async fn an_event_is_sent_again_to_one(world: &World) {
    let destinations = world.destinations(2).await;
    let posted = world.post_to(&[&destinations[0]], Start::Queued).await;
    world.kill(posted.targets[0]).await;
    let replay = async |to| world.store.replay_event(TENANT, posted.event.id, Some(to)).await.unwrap().unwrap();
    let born = replay(destinations[0].id).await;
    assert_eq!(view(world, born[0]).await.replay_of, Some(posted.targets[0].delivery_id));
    assert_eq!(world.store.sample().await.unwrap().dead_letters, 0, "a dead letter that was replayed is none");
    // One that it was never sent to.
    let born = replay(destinations[1].id).await;
    let view = view(world, born[0]).await;
    assert_eq!((view.replay_of, view.destination_id), (None, destinations[1].id));
    world.store.delete_destination(TENANT, destinations[0].id).await.unwrap();
    assert_eq!(replay(destinations[0].id).await, []);
    assert_eq!(replay(world.new_destination(TENANT).await.id).await, []);
}

async fn a_replay_counts_in_place_of_what_it_replays(world: &World) {
    let destination = world.destination().await;
    let posted = world.post_to(&[&destination], Start::Queued).await;
    let counts = async || world.store.event(TENANT, posted.event.id).await.unwrap().unwrap().counts;
    assert_eq!(counts().await, DeliveryCounts { pending: 1, ..DeliveryCounts::default() });
    world.write(failed(posted.targets[0], 1, Duration::ZERO)).await;
    assert_eq!(counts().await, DeliveryCounts { retrying: 1, ..DeliveryCounts::default() });
    world.write(super::world::died(posted.targets[0], 2, DeadReason::Exhausted)).await;
    assert_eq!(counts().await, DeliveryCounts { dead: 1, ..DeliveryCounts::default() });
    let born = world.store.replay_event(TENANT, posted.event.id, None).await.unwrap().unwrap();
    assert_eq!(counts().await, DeliveryCounts { pending: 1, ..DeliveryCounts::default() });
    world.deliver(Target { delivery_id: born[0], ..posted.targets[0] }).await;
    assert_eq!(counts().await, DeliveryCounts { delivered: 1, ..DeliveryCounts::default() });
}

async fn an_event_that_is_not_there_is_not_replayed(world: &World) {
    let destination = world.destination().await;
    let unknown = world.event(TENANT).await.id;
    assert_eq!(world.store.replay_event(TENANT, unknown, None).await.unwrap(), None);
    assert_eq!(world.store.replay_event(TENANT, unknown, Some(destination.id)).await.unwrap(), None);
    let unrouted = world.post_to(&[], Start::Queued).await;
    assert_eq!(world.store.replay_event(TENANT, unrouted.event.id, None).await.unwrap(), Some(Vec::new()));
}
