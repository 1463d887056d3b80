//! `disable_after`: a destination at which nothing arrives for days is disabled.

use std::{num::NonZeroU32, time::Duration};

use signalpost_core::{DeadReason, Destination, DestinationState, Timestamp, destination::DisableAfter};

use super::world::{TENANT, World, delivered, died, failed, interrupted, park};

super::cases![
    one_that_fails_for_too_long_is_disabled,
    neither_days_nor_attempts_alone_are_enough,
    an_arrival_forgets_the_failures,
    what_is_no_failure_does_not_count,
    one_that_does_not_try_is_left_alone,
    resuming_forgets_the_failures,
    no_more_are_disabled_than_asked,
];

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A destination that is given up after two days and three attempts.
async fn fragile(world: &World) -> Destination {
    let mut destination = world.new_destination(TENANT).await;
    let number = |number| NonZeroU32::new(number).unwrap();
    destination.spec.disable_after = DisableAfter { days: number(2), attempts: number(3) };
    world.create(&destination).await;
    destination
}

/// So many attempts fail, of deliveries of their own.
async fn fail(world: &World, destination: &Destination, count: u32) {
    for number in 0..count {
        let target = world.queued(destination).await;
        let write = match number % 2 {
            0 => failed(target, 1, DAY),
            _ => died(target, 1, DeadReason::Rejected),
        };
        world.write(write).await;
    }
}

async fn state(world: &World, destination: &Destination) -> (DestinationState, Option<String>, u32) {
    let found = world.store.destination(TENANT, destination.id).await.unwrap().unwrap();
    (found.state, found.disabled_reason, found.version)
}

async fn one_that_fails_for_too_long_is_disabled(world: &World) {
    let destination = fragile(world).await;
    let start = world.now().await;
    fail(world, &destination, 3).await;
    assert_eq!(world.store.disable_failing(10).await.unwrap(), 0);
    let routing = world.store.routes(TENANT).await.unwrap().version;
    let by = DAY * 5 + DAY / 2;
    world.database.backdate_failures(destination.id, by).await;
    assert_eq!(world.store.disable_failing(10).await.unwrap(), 1);
    let (state, reason, version) = state(world, &destination).await;
    assert_eq!((state, version), (DestinationState::Disabled, 2));
    let reason = reason.expect("a person wants to know");
    let (before, since) = reason.split_once(" since ").expect(&reason);
    assert_eq!(before, "nothing arrived for 5 days: 3 attempts");
    let since = Timestamp::parse(since.strip_suffix(" failed").expect(&reason)).expect(&reason);
    assert_eq!(since.as_micros() % 1_000_000, 0, "people need no fractions of a second");
    assert!(since + by + Duration::from_secs(1) > start && since + by <= world.now().await, "{reason}");
    assert!(world.store.routes(TENANT).await.unwrap().version > routing, "it is a change");
    assert_eq!(world.store.disable_failing(10).await.unwrap(), 0, "once");
}

async fn neither_days_nor_attempts_alone_are_enough(world: &World) {
    let (few, short) = (fragile(world).await, fragile(world).await);
    fail(world, &few, 2).await;
    world.database.backdate_failures(few.id, DAY * 30).await;
    fail(world, &short, 20).await;
    world.database.backdate_failures(short.id, DAY * 2 - Duration::from_secs(60)).await;
    assert_eq!(world.store.disable_failing(10).await.unwrap(), 0);
    fail(world, &few, 1).await;
    assert_eq!(world.store.disable_failing(10).await.unwrap(), 1);
    assert_eq!(state(world, &few).await.0, DestinationState::Disabled);
    assert_eq!(state(world, &short).await.0, DestinationState::Active);
    world.database.backdate_failures(short.id, Duration::from_secs(60)).await;
    assert_eq!(world.store.disable_failing(10).await.unwrap(), 1);
}

async fn an_arrival_forgets_the_failures(world: &World) {
    let destination = fragile(world).await;
    fail(world, &destination, 10).await;
    world.database.backdate_failures(destination.id, DAY * 30).await;
    let arrives = world.queued(&destination).await;
    world.deliver(arrives).await;
    fail(world, &destination, 10).await;
    assert_eq!(world.store.disable_failing(10).await.unwrap(), 0, "the time begins with the first failure after it");
    world.database.backdate_failures(destination.id, DAY * 30).await;
    assert_eq!(world.store.disable_failing(10).await.unwrap(), 1);
}

async fn what_is_no_failure_does_not_count(world: &World) {
    let destination = fragile(world).await;
    fail(world, &destination, 2).await;
    let target = world.queued(&destination).await;
    world.write(park(target, signalpost_core::WaitReason::Slot, Duration::ZERO, false)).await;
    world.write(interrupted(target, 1)).await;
    // The same again is superseded.
    let twice = [failed(target, 2, DAY), failed(target, 2, DAY)];
    world.database.backdate_failures(destination.id, DAY * 30).await;
    assert_eq!(world.store.disable_failing(10).await.unwrap(), 0);
    world.store.write(&twice[..1], false).await.unwrap();
    assert_eq!(world.store.disable_failing(10).await.unwrap(), 1, "that was the third");
    let other = fragile(world).await;
    let target = world.queued(&other).await;
    for number in 1..=2 {
        for _ in 0..3 {
            world.write(failed(target, number, DAY)).await;
        }
    }
    world.database.backdate_failures(other.id, DAY * 30).await;
    assert_eq!(world.store.disable_failing(10).await.unwrap(), 0, "two, whatever is repeated");
    assert_eq!(world.write(delivered(target, 3)).await, crate::dispatch::Written::Done);
}

async fn one_that_does_not_try_is_left_alone(world: &World) {
    let (paused, deleted) = (fragile(world).await, fragile(world).await);
    for destination in [&paused, &deleted] {
        fail(world, destination, 5).await;
        world.database.backdate_failures(destination.id, DAY * 30).await;
    }
    world.store.set_paused(TENANT, paused.id, true).await.unwrap();
    world.store.delete_destination(TENANT, deleted.id).await.unwrap();
    assert_eq!(world.store.disable_failing(10).await.unwrap(), 0);
    assert_eq!(state(world, &paused).await.0, DestinationState::Paused, "nothing could arrive");
}

async fn resuming_forgets_the_failures(world: &World) {
    let destination = fragile(world).await;
    fail(world, &destination, 5).await;
    world.database.backdate_failures(destination.id, DAY * 30).await;
    assert_eq!(world.store.disable_failing(10).await.unwrap(), 1);
    world.store.set_paused(TENANT, destination.id, false).await.unwrap();
    assert_eq!(world.store.disable_failing(10).await.unwrap(), 0, "it gets its time again");
    fail(world, &destination, 5).await;
    world.database.backdate_failures(destination.id, DAY).await;
    world.store.set_paused(TENANT, destination.id, true).await.unwrap();
    world.store.set_paused(TENANT, destination.id, false).await.unwrap();
    fail(world, &destination, 5).await;
    world.database.backdate_failures(destination.id, DAY + DAY / 2).await;
    assert_eq!(world.store.disable_failing(10).await.unwrap(), 0);
    assert_eq!(state(world, &destination).await.1, None);
}

async fn no_more_are_disabled_than_asked(world: &World) {
    let mut all = Vec::new();
    for _ in 0..5 {
        let destination = fragile(world).await;
        fail(world, &destination, 3).await;
        world.database.backdate_failures(destination.id, DAY * 3).await;
        all.push(destination);
    }
    let mut steps = Vec::new();
    for _ in 0..4 {
        steps.push(world.store.disable_failing(2).await.unwrap());
    }
    assert_eq!(steps, [2, 2, 1, 0]);
    for destination in &all {
        assert_eq!(state(world, destination).await.0, DestinationState::Disabled);
    }
}
