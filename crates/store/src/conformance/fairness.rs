//! Whose turn it is: tenants and destinations in turn, and rate-limited queues at about their rate.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    time::Duration,
};

use signalpost_core::{Destination, DestinationId, Timestamp, destination::RateLimit};

use super::world::{TENANT, World, budget, eventually};
use crate::{
    ingest::{Start, UnitOutcome},
    manage::DestinationUpdate,
};

super::cases![
    a_flooded_destination_leaves_room,
    a_tenant_of_many_destinations_leaves_room,
    every_queue_gets_its_turn,
    every_queue_of_a_tenant_gets_its_turn_beside_another_tenant,
    a_limited_queue_yields_about_its_rate,
    a_limited_queue_that_got_less_than_its_rate_rests_for_less,
    a_slow_queue_yields_one,
    a_changed_limit_holds_at_once,
];

/// Many deliveries of one destination, due now.
async fn flood(world: &World, destination: &Destination, count: usize) {
    let mut units = Vec::new();
    for _ in 0..count {
        let event = world.event(destination.tenant_id).await;
        let start = Start::Waiting(signalpost_core::WaitReason::Turn);
        let new = world.new_event(event, &[destination.id], start);
        units.push(world.unit(destination.tenant_id, vec![new]).await);
    }
    let group = world.group(units).await;
    let outcomes = world.store.ingest(&group).await.unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, UnitOutcome::Committed(_))));
}

async fn take(world: &World, most: usize, per_destination: usize) -> BTreeMap<DestinationId, usize> {
    let due = world.store.take_due(budget(most, per_destination)).await.unwrap();
    let mut taken = BTreeMap::new();
    for due in due.deliveries {
        *taken.entry(due.destination_id).or_default() += 1;
    }
    taken
}

async fn a_flooded_destination_leaves_room(world: &World) {
    let destinations = world.destinations(4).await;
    flood(world, &destinations[0], 100).await;
    for destination in &destinations[1..] {
        world.waiting(destination).await;
    }
    let taken = take(world, 20, 10).await;
    assert_eq!(taken.len(), 4, "each is served: {taken:?}");
    assert!(taken[&destinations[0].id] <= 10);
}

async fn a_tenant_of_many_destinations_leaves_room(world: &World) {
    let other = world.tenant("other").await;
    let many = world.destinations(20).await;
    for destination in &many {
        flood(world, destination, 3).await;
    }
    let one = world.destination_of(other).await;
    flood(world, &one, 3).await;
    // The other tenant came last, and there is more due than the budget.
    let taken = take(world, 4, 4).await;
    assert!(taken.contains_key(&one.id), "{taken:?}");
}

async fn every_queue_gets_its_turn(world: &World) {
    let destinations = world.destinations(9).await;
    for destination in &destinations {
        flood(world, destination, 20).await;
    }
    let mut served = BTreeSet::new();
    for _ in 0..3 {
        served.extend(take(world, 3, 3).await.into_keys());
    }
    assert!(served.len() >= 3, "{served:?}");
    for _ in 0..24 {
        served.extend(take(world, 3, 3).await.into_keys());
    }
    assert_eq!(served.len(), 9, "none starves behind others that are always due");
}

async fn every_queue_of_a_tenant_gets_its_turn_beside_another_tenant(world: &World) {
    let other = world.destination_of(world.tenant("other").await).await;
    flood(world, &other, 100).await;
    let many = world.destinations(6).await;
    // Of different depths, the first in line the deepest: what a queue holds must not decide about its turn.
    for (place, destination) in many.iter().enumerate() {
        flood(world, destination, 20 - 3 * place).await;
    }
    // Half of each take is the other tenant's, so of these two get their turn each time.
    let mut served = BTreeSet::new();
    for _ in 0..3 {
        let due = world.store.take_due(budget(4, 4)).await.unwrap();
        assert_eq!(due.deliveries.len(), 4);
        assert!(due.more);
        served.extend(due.deliveries.into_iter().map(|due| due.destination_id));
    }
    served.remove(&other.id);
    assert_eq!(served.len(), 6, "none starves behind others that are always due");
}

async fn limited(world: &World, per_second: f64) -> Destination {
    let mut destination = world.new_destination(TENANT).await;
    destination.spec.rate_limit = Some(RateLimit { per_second, burst: NonZeroU32::new(1) });
    world.create(&destination).await;
    destination
}

async fn a_limited_queue_yields_about_its_rate(world: &World) {
    let slow = limited(world, 3.0).await;
    let free = world.destination().await;
    flood(world, &slow, 40).await;
    flood(world, &free, 40).await;
    let mut served_at: Vec<Timestamp> = Vec::new();
    let mut of_free = 0;
    while served_at.len() < 3 {
        let due = eventually("it is due again", async || {
            let due = world.store.take_due(budget(1000, 1000)).await.unwrap();
            if due.deliveries.is_empty() {
                assert!(!due.more, "it rests");
                let next_in = due.next_in.expect("it waits");
                assert!(next_in <= Duration::from_secs(2), "{next_in:?}");
                return None;
            }
            Some(due.deliveries)
        })
        .await;
        of_free += due.iter().filter(|due| due.destination_id == free.id).count();
        assert_eq!(of_free, 40, "the other one is not held up");
        let got: Vec<_> = due.iter().filter(|due| due.destination_id == slow.id).collect();
        assert!((1..=6).contains(&got.len()), "at most two seconds of three per second: {}", got.len());
        served_at.push(got[0].leased_until);
    }
    for pair in served_at.windows(2) {
        assert!(pair[1].since(pair[0]) >= Duration::from_millis(900), "it rests for a second: {served_at:?}");
    }
}

async fn a_limited_queue_that_got_less_than_its_rate_rests_for_less(world: &World) {
    let fast = limited(world, 50.0).await;
    flood(world, &fast, 60).await;
    // Two seconds of its rate are 100; the budget gives it a quarter.
    let due = world.store.take_due(budget(1000, 25)).await.unwrap();
    assert_eq!((due.deliveries.len(), due.more), (25, false));
    let next_in = due.next_in.expect("it rests");
    assert!(next_in <= Duration::from_millis(250), "{next_in:?}");
}

async fn a_slow_queue_yields_one(world: &World) {
    let slow = limited(world, 0.001).await;
    flood(world, &slow, 5).await;
    assert_eq!(take(world, 1000, 1000).await.get(&slow.id), Some(&1));
}

async fn a_changed_limit_holds_at_once(world: &World) {
    let slow = limited(world, 2.0).await;
    let mut spec = slow.spec.clone();
    spec.rate_limit = None;
    let update = DestinationUpdate { spec: &spec, secrets: &slow.secrets };
    world.store.update_destination(TENANT, slow.id, 1, update).await.unwrap().unwrap();
    flood(world, &slow, 40).await;
    assert_eq!(take(world, 1000, 1000).await.get(&slow.id), Some(&40));
}
