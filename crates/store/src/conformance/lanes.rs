//! Lanes: one after the other, in the order of acceptance.

use std::time::Duration;

use signalpost_core::{DeadReason, DeliveryState, LaneId, WaitReason, ordering::OnDead};

use super::{
    ordered::{by_key, ids},
    world::{TENANT, World, delivered, detach, died, failed, interrupted, park, targets},
};
use crate::{
    dispatch::{DeliveryWrite, Written},
    ingest::{Start, UnitOutcome},
    manage::{Cancelled, Retried},
};

super::cases![
    the_first_is_fed_and_the_others_wait,
    a_lane_never_goes_by_the_bus,
    they_come_in_the_order_of_acceptance,
    each_destination_has_lanes_of_its_own,
    every_end_lets_the_next_one_go,
    a_pause_of_the_first_keeps_the_others_waiting,
    a_follower_cannot_be_brought_forward,
    a_follower_that_is_cancelled_leaves_the_line,
    followers_cost_the_feed_nothing,
    a_paused_destination_keeps_its_lanes,
    a_deleted_destination_leaves_no_lane,
    routes_tell_the_order,
];

const LATER: Duration = Duration::from_secs(600);

async fn the_first_is_fed_and_the_others_wait(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 3).await;
    let other = world.in_lane(&destination, "b").await;
    let free = world.waiting(&destination).await;
    let first = world.standing(line[0].delivery_id).await;
    assert_eq!((first.state, first.lane), (DeliveryState::Waiting, Some(LaneId::of("a"))));
    assert_eq!(first.lease_left, None);
    assert!(first.waiting.unwrap().0 <= world.now().await);
    for follower in &line[1..] {
        assert!(world.follows(*follower).await);
        assert_eq!(world.standing(follower.delivery_id).await.lane, first.lane);
    }
    assert_eq!(world.standing(free.delivery_id).await.lane, None);
    let fed = world.take_all().await;
    let lane = |delivery| fed.iter().find(|due| due.delivery_id == delivery).map(|due| due.lane);
    assert_eq!(fed.len(), 3, "{fed:?}");
    assert_eq!(lane(line[0].delivery_id), Some(Some(LaneId::of("a"))));
    assert_eq!(lane(other.delivery_id), Some(Some(LaneId::of("b"))));
    assert_eq!(lane(free.delivery_id), Some(None));
    let left = world.standing(line[0].delivery_id).await.lease_left.expect("it is leased");
    assert!(left > LATER / 20 && left <= LATER / 10, "{left:?} of a minute");
    world.deliver(line[0]).await;
    let next = world.take_all().await;
    assert_eq!((next.len(), next[0].delivery_id, next[0].reason), (1, line[1].delivery_id, WaitReason::Turn));
    assert!(world.follows(line[2]).await);
}

async fn a_lane_never_goes_by_the_bus(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 2).await;
    assert_eq!(world.store.relay(Duration::ZERO, 10).await.unwrap(), 0, "there is no outbox record");
    let until = world.now().await + Duration::from_millis(5);
    assert_eq!(world.store.requeue_lost(until, 10).await.unwrap().0, 0);
    assert_eq!(world.drain().await, ids(&line));
}

/// Units and events of one group, and groups.
async fn they_come_in_the_order_of_acceptance(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let mut expected = [Vec::new(), Vec::new()];
    for _ in 0..4 {
        let mut units = Vec::new();
        for _ in 0..3 {
            let mut events = Vec::new();
            for number in [0, 1, 0, 0, 1] {
                let new = world.new_keyed(["a", "b"][number], &[destination.id], Start::Queued).await;
                expected[number].extend(targets(&new).into_iter().map(|target| target.delivery_id));
                events.push(new);
            }
            units.push(world.unit(TENANT, events).await);
        }
        let group = world.group(units).await;
        let outcomes = world.store.ingest(&group).await.unwrap();
        assert!(outcomes.iter().all(|outcome| matches!(outcome, UnitOutcome::Committed(_))));
    }
    let order = world.drain().await;
    for lane in expected {
        let of_lane: Vec<_> = order.iter().copied().filter(|delivery| lane.contains(delivery)).collect();
        assert_eq!(of_lane, lane);
    }
}

async fn each_destination_has_lanes_of_its_own(world: &World) {
    let (one, two) = (world.ordered(OnDead::Continue).await, world.ordered(OnDead::Continue).await);
    let mut lines = Vec::new();
    for _ in 0..2 {
        let new = world.new_keyed("a", &[one.id, two.id], Start::Queued).await;
        lines.push(world.commit(vec![new]).await);
    }
    assert_eq!(world.take_all().await.len(), 2, "the first of each");
    world.deliver(lines[0][0]).await;
    assert_eq!(world.taken().await, ids(&lines[1][..1]));
    assert!(world.follows(lines[1][1]).await);
}

async fn every_end_lets_the_next_one_go(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    for fed in [false, true] {
        let line = world.line(&destination, "a", 6).await;
        let ends = [
            delivered(line[0], 1),
            died(line[1], 1, DeadReason::Rejected),
            DeliveryWrite::End { target: line[2], dead: None },
            DeliveryWrite::End { target: line[3], dead: Some(DeadReason::Expired) },
        ];
        for (number, end) in ends.into_iter().enumerate() {
            if fed {
                assert_eq!(world.taken().await, [line[number].delivery_id]);
            }
            assert_eq!(world.write(end.clone()).await, Written::Done);
            assert_eq!(world.write(end).await, Written::Superseded, "again");
            assert!(!world.follows(line[number + 1]).await, "after {number}");
            assert!(world.follows(line[5]).await, "one at a time");
        }
        let cancelled = world.store.cancel_delivery(TENANT, line[4].delivery_id).await.unwrap();
        assert_eq!(cancelled, Cancelled::Yes);
        assert_eq!(world.drain().await, [line[5].delivery_id]);
    }
}

async fn a_pause_of_the_first_keeps_the_others_waiting(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 2).await;
    let first = line[0];
    let pauses = [
        failed(first, 1, LATER),
        park(first, WaitReason::Slot, LATER * 2, false),
        detach(first, 2, LATER),
        interrupted(first, 2),
        failed(first, 3, LATER),
    ];
    for pause in pauses {
        assert_eq!(world.write(pause.clone()).await, Written::Done, "{pause:?}");
        assert!(world.follows(line[1]).await, "{pause:?}");
        assert!(!world.taken().await.contains(&line[1].delivery_id));
    }
    let retried = world.store.retry_delivery(TENANT, first.delivery_id).await.unwrap();
    assert_eq!(retried, Retried::DueNow);
    assert_eq!(world.taken().await, [first.delivery_id]);
    assert_eq!(world.write(delivered(first, 4)).await, Written::Done);
    assert_eq!(world.taken().await, [line[1].delivery_id]);
}

async fn a_follower_cannot_be_brought_forward(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 2).await;
    let follower = line[1];
    let retried = world.store.retry_delivery(TENANT, follower.delivery_id).await.unwrap();
    assert_eq!(retried, Retried::DueNow, "the lane still holds");
    assert!(world.follows(follower).await);
    for reason in [WaitReason::Slot, WaitReason::Paused] {
        let parked = world.write(park(follower, reason, Duration::ZERO, false)).await;
        assert_eq!(parked, Written::Superseded, "who parks it does not know how it stands");
    }
    let claim = DeliveryWrite::Claim { target: follower, claim: 1, deadline: LATER };
    assert_eq!(world.write(claim).await, Written::Superseded);
    world.store.set_paused(TENANT, destination.id, true).await.unwrap();
    world.store.set_paused(TENANT, destination.id, false).await.unwrap();
    assert!(world.follows(follower).await);
    assert_eq!(world.drain().await, ids(&line));
}

async fn a_follower_that_is_cancelled_leaves_the_line(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 4).await;
    for place in [1, 3] {
        let cancelled = world.store.cancel_delivery(TENANT, line[place].delivery_id).await.unwrap();
        assert_eq!(cancelled, Cancelled::Yes);
    }
    assert_eq!(world.taken().await, [line[0].delivery_id]);
    assert!(world.follows(line[2]).await);
    world.deliver(line[0]).await;
    assert_eq!(world.drain().await, [line[2].delivery_id]);
    let late = world.in_lane(&destination, "a").await;
    assert_eq!(world.taken().await, [late.delivery_id], "the lane begins anew");
}

async fn followers_cost_the_feed_nothing(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 5).await;
    world.write(failed(line[0], 1, LATER)).await;
    let due = world.take(10).await;
    assert!(due.deliveries.is_empty() && !due.more, "{due:?}");
    let next_in = due.next_in.expect("the first has its time");
    assert!(next_in > LATER / 2 && next_in <= LATER, "{next_in:?}");
    assert_eq!(world.store.sample().await.unwrap().waiting, 5, "they all wait");
}

async fn a_paused_destination_keeps_its_lanes(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let mut line = world.line(&destination, "a", 2).await;
    world.store.set_paused(TENANT, destination.id, true).await.unwrap();
    let new = world.new_keyed("a", &[destination.id], Start::Waiting(WaitReason::Paused)).await;
    line.extend(world.commit(vec![new]).await);
    let other = world.new_keyed("b", &[destination.id], Start::Waiting(WaitReason::Paused)).await;
    let other = world.commit(vec![other]).await[0];
    assert_eq!(world.standing(other.delivery_id).await.waiting.unwrap().1, WaitReason::Paused);
    // What was out before the pause ends, and the next one is not handed over.
    let report = world.write_on(delivered(line[0], 1)).await;
    assert!(report.followers.is_empty());
    assert!(world.take_all().await.is_empty());
    assert!(world.follows(line[2]).await);
    world.store.set_paused(TENANT, destination.id, false).await.unwrap();
    let order = world.drain().await;
    let lane: Vec<_> = order.into_iter().filter(|delivery| *delivery != other.delivery_id).collect();
    assert_eq!(lane, ids(&line[1..]));
}

async fn a_deleted_destination_leaves_no_lane(world: &World) {
    let destination = world.ordered(OnDead::Block).await;
    let line = world.line(&destination, "a", 4).await;
    world.line(&destination, "b", 3).await;
    world.kill(line[0]).await;
    assert!(world.follows(line[1]).await, "its lane is blocked");
    world.store.delete_destination(TENANT, destination.id).await.unwrap();
    let mut swept = 0;
    for _ in 0..10 {
        swept += world.store.sweep_deleted(2).await.unwrap();
    }
    assert_eq!(swept, 7, "six deliveries and the destination");
    assert!(world.store.destinations(&[destination.id]).await.unwrap().is_empty());
    for target in &line[1..] {
        assert_eq!(world.state(target.delivery_id).await, DeliveryState::Cancelled);
    }
}

async fn routes_tell_the_order(world: &World) {
    let destination = world.ordered(OnDead::Block).await;
    let routes = world.store.routes(TENANT).await.unwrap();
    let route = routes.routes.iter().find(|route| route.destination_id == destination.id).unwrap();
    assert_eq!(route.ordering, by_key(OnDead::Block));
    assert_eq!(route.guarantee, destination.spec.guarantee);
}
