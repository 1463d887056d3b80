//! `ordering_on_dead: block`: a lane waits for its dead letter.

use std::time::Duration;

use signalpost_core::{
    DeliveryId, DeliveryState, Destination, DestinationSpec,
    ordering::{OnDead, OrderingMode},
};

use super::{
    ordered::{ids, unknown},
    world::{TENANT, World, delivered, died, eventually},
};
use crate::{
    dispatch::{Target, Written},
    manage::{DestinationUpdate, ReplaySelection, Retried},
    schedule::Retention,
};

super::cases![
    a_dead_letter_blocks_its_lane_alone,
    a_blocked_lane_costs_no_polling,
    its_replay_takes_its_place,
    every_way_of_sending_it_again_takes_its_place,
    a_replay_that_dies_blocks_again,
    discarding_it_lets_the_lane_go,
    its_retention_lets_the_lane_go,
    a_change_of_the_destination_lets_its_lanes_go,
    another_dead_letter_lets_nothing_go,
    one_that_was_replayed_before_it_died_blocks_nothing,
    an_empty_lane_stays_blocked,
    an_unknown_outcome_blocks_as_any_death,
];

const NO_TIME: Retention = Retention {
    events: Duration::from_secs(30 * 24 * 3600),
    dead_letters: Duration::ZERO,
    audit: Duration::from_secs(365 * 24 * 3600),
    chunk: 100,
};

/// A blocked lane: the dead one and two behind it.
async fn blocked(world: &World, destination: &Destination, key: &str) -> Vec<Target> {
    let line = world.line(destination, key, 3).await;
    world.take_all().await;
    assert!(world.write_on(died(line[0], 1, signalpost_core::DeadReason::Rejected)).await.followers.is_empty());
    line
}

async fn a_dead_letter_blocks_its_lane_alone(world: &World) {
    let destination = world.ordered(OnDead::Block).await;
    let line = blocked(world, &destination, "a").await;
    let letter = world.store.dead_letter(TENANT, line[0].delivery_id).await.unwrap().unwrap();
    assert!(letter.blocks_lane);
    assert!(world.take_all().await.is_empty());
    let late = world.in_lane(&destination, "a").await;
    let other = world.in_lane(&destination, "b").await;
    let free = world.waiting(&destination).await;
    let mut expected = [other.delivery_id, free.delivery_id];
    expected.sort();
    assert_eq!(world.taken().await, expected);
    for follower in [line[1], line[2], late] {
        assert!(world.follows(follower).await);
        assert_eq!(world.store.retry_delivery(TENANT, follower.delivery_id).await.unwrap(), Retried::DueNow);
        assert!(world.follows(follower).await, "the lane still holds");
    }
    // The second, cancelled, is not what it waits for.
    world.store.cancel_delivery(TENANT, line[1].delivery_id).await.unwrap();
    assert!(world.follows(line[2]).await);
    world.store.discard_dead_letter(TENANT, line[0].delivery_id).await.unwrap();
    let order = world.drain().await;
    assert_eq!(order, [line[2].delivery_id, late.delivery_id]);
}

async fn a_blocked_lane_costs_no_polling(world: &World) {
    let destination = world.ordered(OnDead::Block).await;
    let line = world.line(&destination, "a", 3).await;
    world.kill(line[0]).await;
    let due = world.take(10).await;
    assert!(due.deliveries.is_empty() && !due.more, "{due:?}");
    assert_eq!(due.next_in, None, "no clock brings it forward");
    assert_eq!(world.store.sample().await.unwrap().oldest_due, Duration::ZERO);
}

async fn its_replay_takes_its_place(world: &World) {
    let destination = world.ordered(OnDead::Block).await;
    let line = blocked(world, &destination, "a").await;
    let late = world.in_lane(&destination, "a").await;
    let again = world.store.replay_dead_letter(TENANT, line[0].delivery_id).await.unwrap();
    let Retried::Again(again) = again else { panic!("{again:?}") };
    assert_eq!(world.drain().await, [again, line[1].delivery_id, line[2].delivery_id, late.delivery_id]);
}

async fn every_way_of_sending_it_again_takes_its_place(world: &World) {
    let destination = world.ordered(OnDead::Block).await;
    for way in 0..4 {
        let line = blocked(world, &destination, &format!("lane {way}")).await;
        let dead = line[0];
        match way {
            0 => drop(world.store.replay_dead_letter(TENANT, dead.delivery_id).await.unwrap()),
            1 => drop(world.store.retry_delivery(TENANT, dead.delivery_id).await.unwrap()),
            2 => drop(world.store.replay_event(TENANT, dead.event_id, None).await.unwrap()),
            _ => {
                let selection = ReplaySelection { destination_id: Some(destination.id), ..ReplaySelection::default() };
                world.run_job(&world.new_job(TENANT, selection).await, 10).await;
            }
        }
        let view = world.store.delivery(TENANT, dead.delivery_id).await.unwrap().unwrap();
        let again: DeliveryId = view.replayed_by.expect("it was sent again");
        assert_eq!(world.drain().await, [again, line[1].delivery_id, line[2].delivery_id], "way {way}");
    }
}

async fn a_replay_that_dies_blocks_again(world: &World) {
    let destination = world.ordered(OnDead::Block).await;
    let line = blocked(world, &destination, "a").await;
    let mut dead = line[0];
    for _ in 0..2 {
        let again = world.store.replay_dead_letter(TENANT, dead.delivery_id).await.unwrap();
        let Retried::Again(again) = again else { panic!("{again:?}") };
        dead = Target { delivery_id: again, ..dead };
        assert_eq!(world.taken().await, [again]);
        world.kill(dead).await;
        assert!(world.take_all().await.is_empty() && world.follows(line[1]).await);
    }
    assert!(world.store.discard_dead_letter(TENANT, dead.delivery_id).await.unwrap());
    assert_eq!(world.drain().await, ids(&line[1..]));
}

async fn discarding_it_lets_the_lane_go(world: &World) {
    let destination = world.ordered(OnDead::Block).await;
    let line = blocked(world, &destination, "a").await;
    let other = world.tenant("other").await;
    assert!(!world.store.discard_dead_letter(other, line[0].delivery_id).await.unwrap());
    assert!(world.follows(line[1]).await);
    assert!(world.store.discard_dead_letter(TENANT, line[0].delivery_id).await.unwrap());
    assert_eq!(world.drain().await, ids(&line[1..]));
    // Sent again after all, it comes last.
    let tail = world.line(&destination, "a", 2).await;
    let again = world.store.retry_delivery(TENANT, line[0].delivery_id).await.unwrap();
    let Retried::Again(again) = again else { panic!("{again:?}") };
    assert_eq!(world.drain().await, [tail[0].delivery_id, tail[1].delivery_id, again]);
}

async fn its_retention_lets_the_lane_go(world: &World) {
    let destination = world.ordered(OnDead::Block).await;
    let line = blocked(world, &destination, "a").await;
    let second = blocked(world, &destination, "b").await;
    eventually("the dead letters go", async || {
        world.store.retain(Retention { chunk: 1, ..NO_TIME }).await.unwrap();
        (world.store.sample().await.unwrap().dead_letters == 0).then_some(())
    })
    .await;
    let order = world.drain().await;
    for lane in [&line, &second] {
        let of_lane: Vec<_> = order.iter().copied().filter(|delivery| ids(lane).contains(delivery)).collect();
        assert_eq!(of_lane, ids(&lane[1..]));
        // For the invariants: a dead delivery that is no dead letter was replayed or discarded.
        world.store.retry_delivery(TENANT, lane[0].delivery_id).await.unwrap();
    }
}

async fn a_change_of_the_destination_lets_its_lanes_go(world: &World) {
    for mode in [OrderingMode::None, OrderingMode::Key] {
        let destination = world.ordered(OnDead::Block).await;
        let lines = [blocked(world, &destination, "a").await, blocked(world, &destination, "b").await];
        let mut spec = destination.spec.clone();
        spec.url.push_str("/elsewhere");
        let update = async |spec: &DestinationSpec, version| {
            let update = DestinationUpdate { spec, secrets: &destination.secrets };
            world.store.update_destination(TENANT, destination.id, version, update).await.unwrap().unwrap()
        };
        let changed = update(&spec, 1).await;
        assert!(world.follows(lines[0][1]).await, "it still asks for that");
        spec.ordering.mode = mode;
        spec.ordering.on_dead = OnDead::Continue;
        update(&spec, changed.version).await;
        // The place that was kept is gone: a replay joins at the tail.
        let again = world.store.replay_dead_letter(TENANT, lines[0][0].delivery_id).await.unwrap();
        let Retried::Again(again) = again else { panic!("{again:?}") };
        let order = world.drain().await;
        let of_lane = |lane: &[DeliveryId]| -> Vec<_> {
            order.iter().copied().filter(|delivery| lane.contains(delivery)).collect()
        };
        let first = [lines[0][1].delivery_id, lines[0][2].delivery_id, again];
        assert_eq!(of_lane(&first), first);
        assert_eq!(of_lane(&ids(&lines[1])), ids(&lines[1][1..]));
        // What dies now blocks nothing.
        let line = world.line(&destination, "c", 2).await;
        world.kill(line[0]).await;
        assert_eq!(world.drain().await, ids(&line[1..]));
    }
}

async fn another_dead_letter_lets_nothing_go(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 4).await;
    world.kill(line[0]).await;
    let mut spec = destination.spec.clone();
    spec.ordering.on_dead = OnDead::Block;
    let update = DestinationUpdate { spec: &spec, secrets: &destination.secrets };
    world.store.update_destination(TENANT, destination.id, 1, update).await.unwrap().unwrap();
    world.kill(line[1]).await;
    assert!(world.follows(line[2]).await, "the present setting counts");
    let again = world.store.replay_dead_letter(TENANT, line[0].delivery_id).await.unwrap();
    let Retried::Again(again) = again else { panic!("{again:?}") };
    assert!(world.take_all().await.is_empty(), "it joined at the tail of a lane that is blocked");
    world.store.discard_dead_letter(TENANT, line[1].delivery_id).await.unwrap();
    assert_eq!(world.drain().await, [line[2].delivery_id, line[3].delivery_id, again]);
}

/// No dead letter comes of it, so nobody could let the lane go.
async fn one_that_was_replayed_before_it_died_blocks_nothing(world: &World) {
    let destination = world.ordered(OnDead::Block).await;
    let line = world.line(&destination, "a", 2).await;
    let again = world.store.replay_event(TENANT, line[0].event_id, None).await.unwrap().unwrap();
    world.kill(line[0]).await;
    assert_eq!(world.drain().await, [line[1].delivery_id, again[0]]);
}

async fn an_empty_lane_stays_blocked(world: &World) {
    let destination = world.ordered(OnDead::Block).await;
    let dead = world.in_lane(&destination, "a").await;
    world.kill(dead).await;
    let line = world.line(&destination, "a", 2).await;
    assert!(world.take_all().await.is_empty());
    assert!(world.follows(line[0]).await);
    let again = world.store.replay_dead_letter(TENANT, dead.delivery_id).await.unwrap();
    let Retried::Again(again) = again else { panic!("{again:?}") };
    assert_eq!(world.drain().await, [again, line[0].delivery_id, line[1].delivery_id]);
    assert_eq!(world.state(again).await, DeliveryState::Delivered);
}

async fn an_unknown_outcome_blocks_as_any_death(world: &World) {
    let destination = world.ordered(OnDead::Block).await;
    let line = world.line(&destination, "a", 2).await;
    assert_eq!(world.write(unknown(line[0])).await, Written::Done);
    assert!(world.follows(line[1]).await);
    assert_eq!(world.write(delivered(line[0], 1)).await, Written::Superseded);
    assert!(world.follows(line[1]).await);
}
