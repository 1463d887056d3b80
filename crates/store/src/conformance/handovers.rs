//! The next of a lane goes to the one who ended the one before: no trip over the feed and the bus.

use std::time::Duration;

use signalpost_core::{DeadReason, Guarantee, LaneId, WaitReason, ordering::OnDead};

use super::{
    ordered::{ids, of},
    world::{TENANT, World, delivered, detach, died, failed, interrupted, park},
};
use crate::{
    HANDOVER_LEASE,
    dispatch::{QueueHold, Target, Written},
    manage::Cancelled,
    schedule::DueDelivery,
};

super::cases![
    the_next_one_is_handed_over,
    only_who_asks_for_it_takes_over,
    an_answer_that_is_lost_costs_no_more_than_the_lease,
    it_can_be_given_back,
    a_whole_lane_is_handed_on,
    many_lanes_are_handed_over_at_once,
    what_does_not_end_hands_nothing_over,
    a_queue_that_is_held_hands_nothing_over,
    what_was_handed_over_is_written_as_any_other,
    what_was_fed_is_taken_over_once,
    what_is_in_hand_is_not_ended_by_a_late_outcome,
    what_is_in_hand_is_not_cancelled,
    what_another_has_is_not_written_however_late,
];

const LATER: Duration = Duration::from_secs(600);

/// All but its lease.
fn told(due: &DueDelivery) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        (due.delivery_id, due.tenant_id, due.destination_id, due.destination_version, due.attempts, due.reason),
        (due.lane, due.guarantee, due.born_at, due.event.clone(), due.whole),
    )
}

async fn the_next_one_is_handed_over(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 3).await;
    let before = world.now().await;
    let report = world.write_on(delivered(line[0], 1)).await;
    assert_eq!(report.followers.len(), 1);
    let handed = &report.followers[0];
    assert_eq!(of(handed), line[1]);
    assert_eq!((handed.lane, handed.guarantee), (Some(LaneId::of("a")), Guarantee::AtLeastOnce));
    assert!(handed.leased_until >= before + HANDOVER_LEASE);
    assert!(handed.leased_until <= world.now().await + HANDOVER_LEASE);
    let standing = world.standing(line[1].delivery_id).await;
    assert_eq!(standing.waiting, Some((handed.leased_until, WaitReason::Turn)));
    assert!(standing.lease_left.is_some_and(|left| left <= HANDOVER_LEASE && left > HANDOVER_LEASE / 2));
    assert!(world.take_all().await.is_empty(), "it is leased");
    assert!(world.follows(line[2]).await);
    // The feed would have told the same.
    world.store.give_back(&[(handed.delivery_id, handed.leased_until)]).await.unwrap();
    let fed = world.take_all().await;
    assert_eq!(fed.iter().map(told).collect::<Vec<_>>(), [told(handed)]);
}

async fn what_is_in_hand_is_not_ended_by_a_late_outcome(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 2).await;
    world.take_all().await;
    let write = async |write| world.store.write(&[write], true).await.unwrap();
    // Its request was given up for lost, and it is on its way again.
    assert_eq!(write(interrupted(line[0], 1)).await.written, [Written::Done]);
    assert_eq!(world.taken().await, [line[0].delivery_id]);
    assert_eq!(write(delivered(line[0], 1)).await.written, [Written::Superseded]);
    assert!(world.follows(line[1]).await, "the one before may be under way");
    // So it is while its next request is detached.
    assert_eq!(write(detach(line[0], 2, LATER)).await.written, [Written::Done]);
    assert_eq!(write(delivered(line[0], 1)).await.written, [Written::Superseded]);
    assert_eq!(write(delivered(line[0], 2)).await.followers.len(), 1);
}

async fn what_another_has_is_not_written_however_late(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 3).await;
    let write = async |write| world.store.write(&[write], true).await.unwrap();
    let take_over = async |due: &DueDelivery| {
        world.store.take_over(&[(due.delivery_id, due.leased_until)]).await.unwrap()[0].expect("it is leased")
    };
    let under = |mark, place: usize| Target { lease: Some(mark), ..line[place] };
    let first = take_over(&world.take_all().await[0]).await;
    // Its lease ended, as far as anybody else can see, and it is on the bus once more: there it is nobody's.
    world.store.give_back(&[(line[0].delivery_id, first)]).await.unwrap();
    let fed = world.take_all().await;
    let second = take_over(&fed[0]).await;
    for late in [
        delivered(under(first, 0), 1),
        failed(under(first, 0), 1, LATER),
        detach(under(first, 0), 1, LATER),
        park(under(first, 0), WaitReason::Slot, LATER, false),
    ] {
        assert_eq!(write(late).await.written, [Written::Superseded], "another has it");
    }
    assert!(world.follows(line[1]).await, "it may be under way");
    // Who has it writes, and the same again.
    for _ in 0..2 {
        assert_eq!(write(detach(under(second, 0), 1, LATER)).await.written, [Written::Done]);
    }
    let handed = write(delivered(under(second, 0), 1)).await.followers.remove(0);
    assert_eq!(of(&handed), line[1]);
    // What is only on the bus is ended by whoever sent it: nobody will send it again.
    world.store.give_back(&[(handed.delivery_id, handed.leased_until)]).await.unwrap();
    assert_eq!(world.taken().await, [line[1].delivery_id]);
    let report = write(delivered(under(handed.leased_until, 1), 1)).await;
    assert_eq!((report.written, of(&report.followers[0])), (vec![Written::Done], line[2]));
}

async fn what_is_in_hand_is_not_cancelled(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 5).await;
    let cancel = async |place: usize| world.store.cancel_delivery(TENANT, line[place].delivery_id).await.unwrap();
    let lease = |due: &DueDelivery| (due.delivery_id, due.leased_until);
    // What is only on the bus has to be taken over first, and is not any more.
    let fed = world.take_all().await;
    assert_eq!(cancel(0).await, Cancelled::Yes);
    assert_eq!(world.store.take_over(&[lease(&fed[0])]).await.unwrap(), [None]);
    // Taken over by a dispatcher, it may go out at any moment.
    let fed = world.take_all().await;
    assert_eq!(fed.iter().map(of).collect::<Vec<_>>(), [line[1]]);
    assert!(world.store.take_over(&[lease(&fed[0])]).await.unwrap()[0].is_some());
    assert_eq!(cancel(1).await, Cancelled::InFlight);
    assert!(world.follows(line[2]).await);
    assert_eq!(world.write(park(line[1], WaitReason::Slot, LATER, false)).await, Written::Done);
    assert_eq!(cancel(1).await, Cancelled::Yes, "it has come back");
    // So it may where it was handed over.
    assert_eq!(world.taken().await, [line[2].delivery_id]);
    let handed = world.write_on(delivered(line[2], 1)).await.followers.remove(0);
    assert_eq!(cancel(3).await, Cancelled::InFlight);
    assert!(world.follows(line[4]).await);
    world.store.give_back(&[lease(&handed)]).await.unwrap();
    assert_eq!(cancel(3).await, Cancelled::Yes);
    assert_eq!(world.taken().await, [line[4].delivery_id]);
}

async fn what_was_fed_is_taken_over_once(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 2).await;
    let fed = world.take_all().await;
    assert_eq!(fed.iter().map(of).collect::<Vec<_>>(), [line[0]]);
    let lease = (fed[0].delivery_id, fed[0].leased_until);
    // Two dispatchers have the message, one of them twice.
    let follower = (line[1].delivery_id, crate::NEVER);
    let (of_one, of_other) = ([follower, lease], [lease, lease]);
    let (one, other) = futures::future::join(world.store.take_over(&of_one), world.store.take_over(&of_other)).await;
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one[0], None, "a follower is leased to nobody");
    let taken: Vec<_> = [one[1], other[0], other[1]].into_iter().flatten().collect();
    assert_eq!(taken.len(), 1, "{one:?} {other:?}");
    let standing = world.standing(lease.0).await;
    assert_ne!(standing.waiting.map(|(mark, _)| mark), Some(lease.1));
    assert_eq!(standing.waiting.map(|(mark, _)| mark), Some(taken[0]));
    assert!(standing.lease_left.is_some_and(|left| left <= HANDOVER_LEASE));
    assert_eq!(world.store.take_over(&[lease]).await.unwrap(), [None]);
    assert!(world.taken().await.is_empty());
}

async fn only_who_asks_for_it_takes_over(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 2).await;
    let report = world.store.write(&[delivered(line[0], 1)], false).await.unwrap();
    assert!(report.followers.is_empty());
    assert_eq!(world.taken().await, [line[1].delivery_id]);
}

async fn an_answer_that_is_lost_costs_no_more_than_the_lease(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 3).await;
    let batch = [delivered(line[0], 1)];
    world.store.write(&batch, true).await.unwrap();
    let leased = world.standing(line[1].delivery_id).await.waiting;
    // The answer was lost: the same again.
    let report = world.store.write(&batch, true).await.unwrap();
    assert_eq!((report.written, report.followers.len()), (vec![Written::Superseded], 0));
    assert_eq!(world.standing(line[1].delivery_id).await.waiting, leased);
    assert!(world.follows(line[2]).await);
    let due = world.take_eventually(line[1].delivery_id).await;
    assert_eq!((due.reason, due.attempts), (WaitReason::Turn, 0));
    assert!(due.leased_until >= leased.unwrap().0 + LATER / 10, "not before the lease ended");
    assert_eq!(world.write(delivered(line[1], 1)).await, Written::Done);
    assert_eq!(world.drain().await, [line[2].delivery_id]);
}

async fn it_can_be_given_back(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 2).await;
    let handed = world.write_on(delivered(line[0], 1)).await.followers.remove(0);
    let another = handed.leased_until + Duration::from_micros(1);
    world.store.give_back(&[(handed.delivery_id, another)]).await.unwrap();
    assert!(world.take_all().await.is_empty(), "another's lease");
    world.store.give_back(&[(handed.delivery_id, handed.leased_until)]).await.unwrap();
    assert_eq!(world.taken().await, [line[1].delivery_id]);
}

async fn a_whole_lane_is_handed_on(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 8).await;
    let mut handed = line[0];
    for (number, expected) in line.iter().enumerate() {
        assert_eq!(handed, *expected);
        let end = if number % 3 == 1 { died(handed, 1, DeadReason::Rejected) } else { delivered(handed, 1) };
        let report = world.write_on(end).await;
        assert_eq!(report.followers.len(), usize::from(number < 7));
        let Some(next) = report.followers.first() else { break };
        handed = of(next);
    }
    assert_eq!(world.store.sample().await.unwrap().waiting, 0);
}

async fn many_lanes_are_handed_over_at_once(world: &World) {
    let destinations = [world.ordered(OnDead::Continue).await, world.ordered(OnDead::Continue).await];
    let mut batch = Vec::new();
    let mut expected = Vec::new();
    for number in 0..20 {
        let line = world.line(&destinations[number % 2], &format!("lane {number}"), 3).await;
        batch.push(delivered(line[0], 1));
        if number % 5 == 0 {
            // Its second ends in the same batch.
            batch.push(died(line[1], 1, DeadReason::Rejected));
            expected.push(line[2].delivery_id);
        } else {
            expected.push(line[1].delivery_id);
        }
    }
    let report = world.store.write(&batch, true).await.unwrap();
    assert!(report.written.iter().all(|written| *written == Written::Done));
    let mut handed: Vec<_> = report.followers.iter().map(|due| due.delivery_id).collect();
    handed.sort();
    expected.sort();
    assert_eq!(handed, expected);
}

async fn what_does_not_end_hands_nothing_over(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 3).await;
    world.queued(&destination).await;
    let writes = [
        failed(line[0], 1, LATER),
        // One in the midst of the line leaves it.
        crate::dispatch::DeliveryWrite::End { target: line[1], dead: None },
    ];
    for write in writes {
        assert!(world.write_on(write).await.followers.is_empty());
    }
    assert!(world.follows(line[2]).await);
    let unordered = world.queued(&destination).await;
    assert!(world.write_on(delivered(unordered, 1)).await.followers.is_empty());
}

async fn a_queue_that_is_held_hands_nothing_over(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let held = QueueHold { destination_id: destination.id, hold: LATER, trial: None };
    let on_trial = QueueHold { hold: Duration::ZERO, trial: std::num::NonZeroU32::new(1), ..held };
    for (number, hold) in [held, on_trial].into_iter().enumerate() {
        let line = world.line(&destination, &format!("lane {number}"), 2).await;
        world.store.hold_queues(&[hold]).await.unwrap();
        assert!(world.write_on(delivered(line[0], 1)).await.followers.is_empty(), "{hold:?}");
        assert!(!world.follows(line[1]).await, "it is due as soon as its queue is let go");
    }
    // A hold of the same batch counts.
    let release = QueueHold { trial: None, ..on_trial };
    world.store.hold_queues(&[release]).await.unwrap();
    let line = world.line(&destination, "lane 2", 2).await;
    let parked = world.queued(&destination).await;
    let batch = [delivered(line[0], 1), park(parked, WaitReason::RateLimit, LATER, true)];
    assert!(world.store.write(&batch, true).await.unwrap().followers.is_empty());
    world.store.set_paused(TENANT, destination.id, true).await.unwrap();
    world.store.set_paused(TENANT, destination.id, false).await.unwrap();
    assert!(world.taken().await.contains(&line[1].delivery_id));
}

async fn what_was_handed_over_is_written_as_any_other(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 3).await;
    world.write_on(delivered(line[0], 1)).await;
    assert!(world.write_on(failed(line[1], 1, Duration::ZERO)).await.followers.is_empty());
    let due = world.take_eventually(line[1].delivery_id).await;
    assert_eq!((due.reason, due.attempts), (WaitReason::Retry, 1));
    assert!(world.follows(line[2]).await, "it keeps its place");
    assert_eq!(world.write(park(line[1], WaitReason::Slot, Duration::ZERO, false)).await, Written::Done);
    world.take_eventually(line[1].delivery_id).await;
    let report = world.write_on(delivered(line[1], 2)).await;
    assert_eq!(report.followers.iter().map(|due| due.delivery_id).collect::<Vec<_>>(), ids(&line[2..]));
}
