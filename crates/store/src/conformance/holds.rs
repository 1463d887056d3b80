//! Queues that a circuit holds: nothing comes from them, then a little, then all.

use std::{cell::RefCell, num::NonZeroU32, time::Duration};

use signalpost_core::{Destination, DestinationId, WaitReason};

use super::world::{TENANT, World, eventually, park};
use crate::{
    dispatch::{QueueHold, Target, Written},
    ingest::Start,
    manage::DestinationUpdate,
};

super::cases![
    a_held_queue_is_spilled_and_yields_nothing,
    a_longer_hold_stays,
    a_hold_of_nothing_lets_it_go,
    a_queue_on_trial_yields_a_few_at_a_time,
    an_empty_queue_is_held_too,
    many_are_held_at_once,
    a_change_of_the_destination_lets_its_queue_go,
    resuming_lets_its_queue_go,
    what_is_gone_is_left_out,
];

const LATER: Duration = Duration::from_secs(600);

fn hold(destination: &Destination, hold: Duration, trial: Option<u32>) -> QueueHold {
    QueueHold { destination_id: destination.id, hold, trial: trial.and_then(NonZeroU32::new) }
}

async fn several(world: &World, destination: &Destination, count: usize) -> Vec<Target> {
    let mut several = Vec::with_capacity(count);
    for _ in 0..count {
        several.push(world.waiting(destination).await);
    }
    several
}

async fn a_held_queue_is_spilled_and_yields_nothing(world: &World) {
    let destinations = world.destinations(2).await;
    several(world, &destinations[0], 3).await;
    world.store.hold_queues(&[hold(&destinations[0], LATER, Some(2))]).await.unwrap();
    assert_eq!(world.store.spilled().await.unwrap(), [destinations[0].id]);
    let newer = world.waiting(&destinations[0]).await;
    let free = world.waiting(&destinations[1]).await;
    assert_eq!(world.taken().await, [free.delivery_id]);
    world.store.retry_delivery(TENANT, newer.delivery_id).await.unwrap();
    let next_in = world.take(10).await.next_in.expect("the hold ends");
    assert!(next_in > Duration::from_secs(1) && next_in <= LATER, "{next_in:?}");
    assert!(world.take_all().await.is_empty());
}

async fn a_longer_hold_stays(world: &World) {
    let destination = world.destination().await;
    several(world, &destination, 2).await;
    world.store.hold_queues(&[hold(&destination, LATER, Some(1))]).await.unwrap();
    world.store.hold_queues(&[hold(&destination, Duration::from_millis(1), Some(1))]).await.unwrap();
    let next_in = world.take(10).await.next_in.expect("the hold ends");
    assert!(next_in > LATER / 2 && next_in <= LATER, "{next_in:?}");
    world.store.hold_queues(&[hold(&destination, LATER * 2, Some(1))]).await.unwrap();
    assert!(world.take(10).await.next_in.unwrap() > LATER);
}

async fn a_hold_of_nothing_lets_it_go(world: &World) {
    let destination = world.destination().await;
    several(world, &destination, 5).await;
    world.store.hold_queues(&[hold(&destination, LATER, Some(1))]).await.unwrap();
    assert!(world.take_all().await.is_empty());
    world.store.hold_queues(&[hold(&destination, Duration::ZERO, None)]).await.unwrap();
    assert_eq!(world.take(10).await.deliveries.len(), 5, "all that is due at once");
    assert_eq!(world.store.spilled().await.unwrap(), [], "it is drained");
    // Also where it came to its trial.
    several(world, &destination, 3).await;
    world.store.hold_queues(&[hold(&destination, Duration::ZERO, Some(1))]).await.unwrap();
    assert_eq!(world.take(10).await.deliveries.len(), 1);
    world.store.hold_queues(&[hold(&destination, Duration::ZERO, None)]).await.unwrap();
    assert_eq!(world.take(10).await.deliveries.len(), 2, "without a rest");
}

async fn a_queue_on_trial_yields_a_few_at_a_time(world: &World) {
    let destination = world.destination().await;
    let mut waits = several(world, &destination, 7).await;
    world.store.hold_queues(&[hold(&destination, Duration::from_millis(100), Some(3))]).await.unwrap();
    let takes = RefCell::new(Vec::new());
    eventually("all are fed", async || {
        let due = world.take(100).await.deliveries;
        assert!(due.len() <= 3, "{due:?}");
        if !due.is_empty() {
            if !takes.borrow().is_empty() {
                assert_eq!(world.store.spilled().await.unwrap(), [destination.id], "a queue on trial is spilled");
            }
            takes.borrow_mut().push(due);
        }
        (takes.borrow().iter().map(Vec::len).sum::<usize>() == 7).then_some(())
    })
    .await;
    let takes = takes.into_inner();
    for pair in takes.windows(2) {
        // All leases are equally long, so they end as far from each other as they began.
        let between = pair[1][0].leased_until.since(pair[0][0].leased_until);
        assert!(between >= Duration::from_millis(900), "once a second: {between:?}");
    }
    let mut fed: Vec<_> = takes.iter().flatten().map(|due| due.delivery_id).collect();
    fed.sort();
    waits.sort_by_key(|target| target.delivery_id);
    assert_eq!(fed, super::ordered::ids(&waits));
}

async fn an_empty_queue_is_held_too(world: &World) {
    let destination = world.destination().await;
    world.store.hold_queues(&[hold(&destination, LATER, Some(1))]).await.unwrap();
    assert_eq!(world.store.spilled().await.unwrap(), [destination.id], "what comes goes straight to the store");
    let sample = world.store.sample().await.unwrap();
    assert_eq!((sample.queues, sample.waiting), (0, 0));
    let waits = world.waiting(&destination).await;
    assert!(world.take_all().await.is_empty());
    // Nothing waits for a while, and it is held still.
    world.deliver(waits).await;
    assert_eq!(world.store.spilled().await.unwrap(), [destination.id]);
    let waits = world.waiting(&destination).await;
    assert!(world.take_all().await.is_empty());
    world.store.hold_queues(&[hold(&destination, Duration::ZERO, None)]).await.unwrap();
    assert_eq!(world.taken().await, [waits.delivery_id]);
    world.deliver(waits).await;
    assert_eq!(world.store.spilled().await.unwrap(), []);
}

async fn many_are_held_at_once(world: &World) {
    let destinations = world.destinations(20).await;
    for destination in &destinations {
        world.waiting(destination).await;
    }
    let mut holds: Vec<_> = destinations.iter().map(|destination| hold(destination, LATER, Some(1))).collect();
    holds.reverse();
    world.store.hold_queues(&holds).await.unwrap();
    world.store.hold_queues(&[]).await.unwrap();
    assert!(world.take_all().await.is_empty());
    let release: Vec<_> = destinations[..7].iter().map(|destination| hold(destination, Duration::ZERO, None)).collect();
    world.store.hold_queues(&release).await.unwrap();
    assert_eq!(world.take_all().await.len(), 7);
}

/// One that is held, one that waits for its circuit, and one that waits for its time.
async fn held(world: &World, destination: &Destination) -> [Target; 3] {
    let of = [world.waiting(destination).await, world.queued(destination).await, world.queued(destination).await];
    assert_eq!(world.write(park(of[1], WaitReason::Circuit, LATER, false)).await, Written::Done);
    assert_eq!(world.write(super::world::failed(of[2], 1, LATER)).await, Written::Done);
    world.store.hold_queues(&[hold(destination, LATER, Some(1))]).await.unwrap();
    assert!(world.take_all().await.is_empty());
    of
}

async fn a_change_of_the_destination_lets_its_queue_go(world: &World) {
    let destination = world.destination().await;
    let of = held(world, &destination).await;
    let update = DestinationUpdate { spec: &destination.spec, secrets: &destination.secrets };
    let stale = world.store.update_destination(TENANT, destination.id, 5, update).await.unwrap();
    assert!(stale.is_none() && world.take_all().await.is_empty());
    world.store.update_destination(TENANT, destination.id, 1, update).await.unwrap().unwrap();
    let mut expected = super::ordered::ids(&of[..2]);
    expected.sort();
    assert_eq!(world.taken().await, expected);
}

async fn resuming_lets_its_queue_go(world: &World) {
    let destination = world.destination().await;
    let of = held(world, &destination).await;
    world.store.set_paused(TENANT, destination.id, true).await.unwrap();
    let newer = world.post_to(&[&destination], Start::Waiting(WaitReason::Paused)).await.targets[0];
    // Held or let go, a paused one yields nothing.
    world.store.hold_queues(&[hold(&destination, Duration::ZERO, None)]).await.unwrap();
    assert!(world.take_all().await.is_empty());
    world.store.hold_queues(&[hold(&destination, LATER, Some(1))]).await.unwrap();
    world.store.set_paused(TENANT, destination.id, false).await.unwrap();
    let mut expected = vec![of[0].delivery_id, of[1].delivery_id, newer.delivery_id];
    expected.sort();
    assert_eq!(world.taken().await, expected);
}

async fn what_is_gone_is_left_out(world: &World) {
    let mut unknown = world.new_destination(TENANT).await;
    unknown.id = DestinationId::new(world.now().await, world.entropy());
    let deleted = world.destination().await;
    world.store.delete_destination(TENANT, deleted.id).await.unwrap();
    let held = world.destination().await;
    let holds = [&unknown, &deleted, &held].map(|destination| hold(destination, LATER, Some(1)));
    world.store.hold_queues(&holds).await.unwrap();
    assert_eq!(world.store.spilled().await.unwrap(), [held.id]);
    let release = [&unknown, &deleted, &held].map(|destination| hold(destination, Duration::ZERO, None));
    world.store.hold_queues(&release).await.unwrap();
    assert_eq!(world.store.spilled().await.unwrap(), []);
}
