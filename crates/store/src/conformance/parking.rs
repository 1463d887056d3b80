//! What cannot be sent now: parked, held, spilled, paused, detached.

use std::{cell::RefCell, time::Duration};

use signalpost_core::{AttemptOutcome, DeliveryState, WaitReason};

use super::world::{TENANT, World, attempt, delivered, detach, eventually, failed, interrupted, park};
use crate::{
    dispatch::Written,
    ingest::Start,
    manage::{Cancelled, Retried},
    read::{AttemptFilter, Page},
};

super::cases![
    a_parked_delivery_waits_and_consumes_no_attempt,
    a_fed_delivery_can_be_parked,
    a_held_queue_yields_nothing_until_the_hold_ends,
    without_a_hold_the_others_go_on,
    a_longer_hold_is_not_cut_short,
    a_spilled_queue_is_unspilled_when_it_is_empty,
    a_spilled_queue_is_unspilled_when_nothing_due_is_left,
    a_paused_queue_yields_nothing_until_it_is_resumed,
    a_resumed_queue_yields_what_was_parked_for_the_pause,
    a_disabled_queue_yields_nothing_until_it_is_resumed,
    a_detached_request_is_waited_for,
    a_late_park_leaves_a_detached_request_alone,
    a_late_park_does_not_shorten_the_pause_before_a_retry,
    its_outcome_ends_a_detached_request,
    a_deadline_that_passes_tells_of_an_interruption,
    a_late_outcome_replaces_the_interruption,
    a_late_detach_does_not_undo_the_interruption,
];

const LATER: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_millis(150);

async fn a_parked_delivery_waits_and_consumes_no_attempt(world: &World) {
    let destination = world.destination().await;
    for reason in [WaitReason::RateLimit, WaitReason::Slot, WaitReason::Paused, WaitReason::Turn] {
        let target = world.queued(&destination).await;
        let before = world.now().await;
        assert_eq!(world.write(park(target, reason, LATER, false)).await, Written::Done);
        let standing = world.standing(target.delivery_id).await;
        assert_eq!((standing.state, standing.attempts), (DeliveryState::Waiting, 0));
        let (due_at, found) = standing.waiting.unwrap();
        assert_eq!(found, reason);
        assert!(due_at >= before + LATER && due_at <= world.now().await + LATER);
    }
    assert!(world.take_all().await.is_empty());
    assert_eq!(world.store.spilled().await.unwrap(), []);
}

async fn a_fed_delivery_can_be_parked(world: &World) {
    let target = world.waiting(&world.destination().await).await;
    let mark = world.take(1).await.deliveries[0].leased_until;
    assert_eq!(world.write(park(target, WaitReason::Slot, Duration::ZERO, false)).await, Written::Done);
    assert_ne!(world.standing(target.delivery_id).await.waiting.unwrap().0, mark);
    assert_eq!(world.take_eventually(target.delivery_id).await.reason, WaitReason::Slot);
    assert_eq!(world.store.sample().await.unwrap().waiting, 1);
}

async fn a_held_queue_yields_nothing_until_the_hold_ends(world: &World) {
    let destinations = world.destinations(2).await;
    let held = world.waiting(&destinations[0]).await;
    let free = world.waiting(&destinations[1]).await;
    let parked = world.queued(&destinations[0]).await;
    assert_eq!(world.write(park(parked, WaitReason::RateLimit, SOON, true)).await, Written::Done);
    let until = world.standing(parked.delivery_id).await.waiting.unwrap().0;
    assert_eq!(world.store.spilled().await.unwrap(), [destinations[0].id]);
    // New ones that go straight to the store wait behind it, too.
    let newer = world.waiting(&destinations[0]).await;
    let taken = RefCell::new(Vec::new());
    eventually("all are fed", async || {
        for due in world.take(10).await.deliveries {
            let early = due.leased_until - Duration::from_secs(60) < until;
            assert!(!early || due.delivery_id == free.delivery_id, "{due:?} was fed before the hold ended at {until}");
            taken.borrow_mut().push(due.delivery_id);
        }
        (taken.borrow().len() == 4).then_some(())
    })
    .await;
    let mut taken = taken.into_inner();
    taken.sort();
    let mut expected = [held, free, parked, newer].map(|target| target.delivery_id);
    expected.sort();
    assert_eq!(taken, expected);
}

async fn without_a_hold_the_others_go_on(world: &World) {
    let destination = world.destination().await;
    let waits = world.waiting(&destination).await;
    let parked = world.queued(&destination).await;
    assert_eq!(world.write(park(parked, WaitReason::Slot, LATER, false)).await, Written::Done);
    let taken: Vec<_> = world.take_all().await.into_iter().map(|due| due.delivery_id).collect();
    assert_eq!(taken, [waits.delivery_id]);
}

async fn a_longer_hold_is_not_cut_short(world: &World) {
    let destination = world.destination().await;
    let (long, short) = (world.queued(&destination).await, world.queued(&destination).await);
    world.write(park(long, WaitReason::RateLimit, LATER, true)).await;
    world.write(park(short, WaitReason::RateLimit, Duration::ZERO, true)).await;
    world.waiting(&destination).await;
    assert!(world.take_all().await.is_empty());
    let next_in = world.take(1).await.next_in.expect("something waits");
    assert!(next_in > LATER - Duration::from_secs(60) && next_in <= LATER, "{next_in:?}");
}

async fn a_spilled_queue_is_unspilled_when_it_is_empty(world: &World) {
    let destination = world.destination().await;
    let targets = [world.queued(&destination).await, world.queued(&destination).await];
    for target in targets {
        world.write(park(target, WaitReason::RateLimit, LATER, true)).await;
    }
    assert_eq!(world.store.sample().await.unwrap().spilled, 1);
    world.deliver(targets[0]).await;
    assert_eq!(world.store.spilled().await.unwrap(), [destination.id], "one still waits");
    world.deliver(targets[1]).await;
    assert_eq!(world.store.spilled().await.unwrap(), []);
    let third = world.queued(&destination).await;
    world.write(park(third, WaitReason::Slot, LATER, false)).await;
    assert_eq!(world.store.spilled().await.unwrap(), [], "a queue that comes back is not spilled");
}

async fn a_spilled_queue_is_unspilled_when_nothing_due_is_left(world: &World) {
    let destination = world.destination().await;
    let (held, retried) = (world.queued(&destination).await, world.queued(&destination).await);
    world.write(failed(retried, 1, LATER)).await;
    let due = world.waiting(&destination).await;
    world.write(park(held, WaitReason::RateLimit, SOON, true)).await;
    assert_eq!(world.store.spilled().await.unwrap(), [destination.id]);
    // One at a time: as long as one more is due, it stays spilled.
    let mut taken = Vec::new();
    while taken.len() < 2 {
        let fed = eventually("the hold ends", async || world.take(1).await.deliveries.pop()).await;
        taken.push(fed.delivery_id);
        if taken.len() == 1 {
            assert_eq!(world.store.spilled().await.unwrap(), [destination.id], "more is due");
        }
    }
    taken.sort();
    let mut expected = [held.delivery_id, due.delivery_id];
    expected.sort();
    assert_eq!(taken, expected);
    assert_eq!(world.store.sample().await.unwrap().waiting, 3, "two are leased, one is due much later");
    assert_eq!(world.store.spilled().await.unwrap(), [], "under steady traffic, too, it gets back to the fast way");
}

async fn a_paused_queue_yields_nothing_until_it_is_resumed(world: &World) {
    let destination = world.destination().await;
    let early = world.waiting(&destination).await;
    let later = world.queued(&destination).await;
    world.write(failed(later, 1, LATER)).await;
    world.store.set_paused(TENANT, destination.id, true).await.unwrap();
    let born = world.post_to(&[&destination], Start::Waiting(WaitReason::Paused)).await.targets[0];
    let due = world.take(10).await;
    assert!(due.deliveries.is_empty());
    assert_eq!((due.more, due.next_in), (false, None), "nothing that a clock could bring waits");
    world.store.set_paused(TENANT, destination.id, false).await.unwrap();
    let mut taken: Vec<_> = world.take_all().await.into_iter().map(|due| due.delivery_id).collect();
    taken.sort();
    let mut expected = vec![early.delivery_id, born.delivery_id];
    expected.sort();
    assert_eq!(taken, expected, "the retry keeps its time");
}

async fn a_resumed_queue_yields_what_was_parked_for_the_pause(world: &World) {
    let destination = world.destination().await;
    let target = world.queued(&destination).await;
    world.store.set_paused(TENANT, destination.id, true).await.unwrap();
    world.write(park(target, WaitReason::Paused, LATER, true)).await;
    world.store.set_paused(TENANT, destination.id, false).await.unwrap();
    world.take_eventually(target.delivery_id).await;
    // The hold was for the pause: it does not keep back what comes after it.
    let newer = world.waiting(&destination).await;
    world.take_eventually(newer.delivery_id).await;
}

async fn a_disabled_queue_yields_nothing_until_it_is_resumed(world: &World) {
    let destination = world.destination().await;
    world.waiting(&destination).await;
    world.store.disable_destination(TENANT, destination.id, "gone").await.unwrap();
    // A queue that is born while it is disabled, too.
    let other = world.destination().await;
    world.store.disable_destination(TENANT, other.id, "gone").await.unwrap();
    let parked = world.queued(&other).await;
    world.write(park(parked, WaitReason::Paused, Duration::ZERO, false)).await;
    assert!(world.take_all().await.is_empty());
    for destination in [&destination, &other] {
        world.store.set_paused(TENANT, destination.id, false).await.unwrap();
    }
    assert_eq!(world.take_all().await.len(), 2);
}

async fn a_detached_request_is_waited_for(world: &World) {
    let destination = world.destination().await;
    for fed in [false, true] {
        let target = if fed {
            let target = world.waiting(&destination).await;
            world.take(1).await;
            target
        } else {
            world.queued(&destination).await
        };
        let before = world.now().await;
        assert_eq!(world.write(detach(target, 1, LATER)).await, Written::Done);
        let standing = world.standing(target.delivery_id).await;
        assert_eq!((standing.state, standing.attempts), (DeliveryState::Waiting, 0));
        let (deadline, reason) = standing.waiting.unwrap();
        assert_eq!(reason, WaitReason::InFlight);
        assert!(deadline >= before + LATER && deadline <= world.now().await + LATER);
        assert!(world.take_all().await.is_empty());
        assert_eq!(world.store.retry_delivery(TENANT, target.delivery_id).await.unwrap(), Retried::InFlight);
        assert_eq!(world.store.cancel_delivery(TENANT, target.delivery_id).await.unwrap(), Cancelled::InFlight);
        assert_eq!(world.standing(target.delivery_id).await, standing);
    }
}

async fn a_late_park_leaves_a_detached_request_alone(world: &World) {
    let destination = world.destination().await;
    let target = world.queued(&destination).await;
    assert_eq!(world.write(detach(target, 1, LATER)).await, Written::Done);
    let standing = world.standing(target.delivery_id).await;
    for hold in [false, true] {
        assert_eq!(world.write(park(target, WaitReason::Slot, Duration::ZERO, hold)).await, Written::Superseded);
        assert_eq!(world.standing(target.delivery_id).await, standing);
    }
    assert!(world.take_all().await.is_empty(), "it is not sent twice at once");
    assert_eq!(world.store.spilled().await.unwrap(), []);
    assert_eq!(world.write(failed(target, 1, Duration::ZERO)).await, Written::Done);
    assert_eq!(world.write(park(target, WaitReason::Slot, LATER, false)).await, Written::Done, "its request is over");
}

async fn a_late_park_does_not_shorten_the_pause_before_a_retry(world: &World) {
    let destination = world.destination().await;
    let target = world.queued(&destination).await;
    assert_eq!(world.write(failed(target, 1, LATER)).await, Written::Done);
    let standing = world.standing(target.delivery_id).await;
    for hold in [false, true] {
        // It was decided before that attempt.
        let late = park(target, WaitReason::RateLimit, Duration::ZERO, hold);
        assert_eq!(world.write(late).await, Written::Superseded);
        assert_eq!(world.standing(target.delivery_id).await, standing);
    }
    assert_eq!(world.store.spilled().await.unwrap(), []);
    assert!(world.take_all().await.is_empty());
    // One that makes it wait longer does no harm; nor one of a retry that was fed.
    assert_eq!(world.write(park(target, WaitReason::Circuit, LATER * 2, false)).await, Written::Done);
    let fed = world.queued(&destination).await;
    assert_eq!(world.write(failed(fed, 1, Duration::ZERO)).await, Written::Done);
    world.take_eventually(fed.delivery_id).await;
    assert_eq!(world.write(park(fed, WaitReason::Slot, Duration::ZERO, false)).await, Written::Done);
    assert_eq!(world.take_eventually(fed.delivery_id).await.reason, WaitReason::Slot);
}

async fn its_outcome_ends_a_detached_request(world: &World) {
    let destination = world.destination().await;
    let (arrives, fails) = (world.queued(&destination).await, world.queued(&destination).await);
    for target in [arrives, fails] {
        assert_eq!(world.write(detach(target, 1, LATER)).await, Written::Done);
    }
    assert_eq!(world.write(delivered(arrives, 1)).await, Written::Done);
    assert_eq!(world.state(arrives.delivery_id).await, DeliveryState::Delivered);
    assert_eq!(world.write(failed(fails, 1, Duration::ZERO)).await, Written::Done);
    assert_eq!(world.take_eventually(fails.delivery_id).await.reason, WaitReason::Retry);
    assert_eq!(world.write(detach(fails, 2, LATER)).await, Written::Done, "the next request can be detached again");
}

async fn a_deadline_that_passes_tells_of_an_interruption(world: &World) {
    let target = world.queued(&world.destination().await).await;
    assert_eq!(world.write(detach(target, 1, Duration::from_millis(30))).await, Written::Done);
    let due = world.take_eventually(target.delivery_id).await;
    assert_eq!((due.reason, due.attempts), (WaitReason::InFlight, 0));
    assert_eq!(world.write(interrupted(target, 1)).await, Written::Done);
    let due = world.take_eventually(target.delivery_id).await;
    assert_eq!((due.reason, due.attempts), (WaitReason::Retry, 1));
    assert_eq!(world.write(delivered(target, 2)).await, Written::Done);
}

async fn a_late_outcome_replaces_the_interruption(world: &World) {
    let target = world.queued(&world.destination().await).await;
    world.write(detach(target, 1, Duration::ZERO)).await;
    world.take_eventually(target.delivery_id).await;
    assert_eq!(world.write(interrupted(target, 1)).await, Written::Done);
    assert_eq!(world.write(delivered(target, 1)).await, Written::Done);
    assert_eq!(world.state(target.delivery_id).await, DeliveryState::Delivered);
    let filter = AttemptFilter { delivery_id: Some(target.delivery_id), ..AttemptFilter::default() };
    let page = Page { limit: 10, after: None, descending: false };
    let attempts = world.store.list_attempts(TENANT, &filter, page).await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].attempt, attempt(1, AttemptOutcome::Delivered));
}

async fn a_late_detach_does_not_undo_the_interruption(world: &World) {
    let target = world.queued(&world.destination().await).await;
    world.write(detach(target, 1, Duration::ZERO)).await;
    world.take_eventually(target.delivery_id).await;
    assert_eq!(world.write(interrupted(target, 1)).await, Written::Done);
    let standing = world.standing(target.delivery_id).await;
    assert_eq!(world.write(detach(target, 1, LATER)).await, Written::Superseded);
    assert_eq!(world.standing(target.delivery_id).await, standing);
    assert_eq!(world.take_eventually(target.delivery_id).await.attempts, 1);
}
