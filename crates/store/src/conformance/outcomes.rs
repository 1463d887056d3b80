//! What comes of deliveries, written in batches, each on its condition.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use signalpost_core::{AttemptOutcome, DeadReason, DeliveryState, DeliveryStatus, WaitReason};

use super::{
    invariants,
    world::{TENANT, World, attempt, delivered, detach, died, failed, interrupted, park, targets},
};
use crate::{
    dispatch::{Attempt, DeliveryWrite, Next, Target, Written},
    ingest::Start,
    read::{AttemptFilter, Page},
};

super::cases![
    a_first_try_success_ends_it,
    what_was_fed_arrives,
    a_failure_waits_for_its_retry,
    a_death_leaves_a_dead_letter,
    an_attempt_keeps_every_part,
    only_the_next_number_counts,
    nothing_is_written_on_what_ended,
    what_is_not_there_is_superseded,
    it_can_end_without_a_request,
    an_interrupted_attempt_gives_way_to_its_outcome,
    an_interrupted_attempt_stays_once_another_follows,
    a_repeated_batch_is_harmless,
    a_batch_is_written_in_its_order,
    the_same_delivery_twice_in_one_batch,
    one_of_two_writers_wins,
];

const LATER: Duration = Duration::from_secs(600);

async fn attempts(world: &World, target: Target) -> Vec<Attempt> {
    let filter = AttemptFilter { delivery_id: Some(target.delivery_id), ..AttemptFilter::default() };
    let page = Page { limit: 100, after: None, descending: false };
    let listed = world.store.list_attempts(TENANT, &filter, page).await.unwrap();
    listed.into_iter().map(|view| view.attempt).collect()
}

async fn a_first_try_success_ends_it(world: &World) {
    let target = world.queued(&world.destination().await).await;
    let before = world.now().await;
    assert_eq!(world.write(delivered(target, 1)).await, Written::Done);
    let standing = world.standing(target.delivery_id).await;
    assert_eq!((standing.state, standing.attempts, standing.waiting), (DeliveryState::Delivered, 1, None));
    let view = world.store.delivery(TENANT, target.delivery_id).await.unwrap().unwrap();
    assert!(view.ended_at.unwrap() >= before && view.ended_at.unwrap() <= world.now().await);
    assert_eq!(attempts(world, target).await, [attempt(1, AttemptOutcome::Delivered)]);
    // The outbox record still names it; the relay leaves it alone.
    assert_eq!(world.store.relay(Duration::ZERO, 10).await.unwrap(), 1);
    assert_eq!(world.state(target.delivery_id).await, DeliveryState::Delivered);
}

/// Some wait for their first attempt, one for its second, one lay on the bus, and one ended meanwhile.
async fn what_was_fed_arrives(world: &World) {
    let destination = world.destination().await;
    let (first, second) = (world.waiting(&destination).await, world.waiting(&destination).await);
    let gone = world.waiting(&destination).await;
    let again = world.queued(&destination).await;
    assert_eq!(world.write(failed(again, 1, Duration::ZERO)).await, Written::Done);
    let on_the_bus = world.queued(&destination).await;
    assert_eq!(world.take_all().await.len(), 4);
    assert_eq!(world.write(DeliveryWrite::End { target: gone, dead: None }).await, Written::Done);

    let late = |target: Target, number| {
        let started_at = target.delivery_id.created_at() + Duration::from_secs(2);
        let attempt = Attempt { started_at, ..attempt(number, AttemptOutcome::Delivered) };
        DeliveryWrite::Attempt { target, attempt, next: Next::Delivered }
    };
    let batch = [late(second, 1), late(gone, 1), late(again, 2), late(on_the_bus, 1), late(first, 1)];
    let report = world.store.write(&batch, false).await.unwrap();
    let superseded = [Written::Done, Written::Superseded, Written::Done, Written::Done, Written::Done];
    assert_eq!(report.written, superseded);
    for (target, attempts) in [(first, 1), (second, 1), (again, 2), (on_the_bus, 1)] {
        let standing = world.standing(target.delivery_id).await;
        let expected = (DeliveryState::Delivered, attempts, None);
        assert_eq!((standing.state, standing.attempts, standing.waiting), expected, "{target:?}");
    }
    assert_eq!(attempts(world, second).await.len(), 1);
    assert_eq!(attempts(world, again).await.len(), 2);
    // A second time it changes nothing.
    assert_eq!(world.store.write(&batch, false).await.unwrap().written, [Written::Superseded; 5]);
    assert_eq!(attempts(world, again).await.len(), 2);
    assert!(world.take_all().await.is_empty());
}

async fn a_failure_waits_for_its_retry(world: &World) {
    let target = world.queued(&world.destination().await).await;
    let before = world.now().await;
    assert_eq!(world.write(failed(target, 1, LATER)).await, Written::Done);
    let standing = world.standing(target.delivery_id).await;
    assert_eq!((standing.state, standing.attempts), (DeliveryState::Waiting, 1));
    let (due_at, reason) = standing.waiting.unwrap();
    assert_eq!(reason, WaitReason::Retry);
    assert!(due_at >= before + LATER && due_at <= world.now().await + LATER, "{due_at}");
    assert_eq!(world.write(failed(target, 2, Duration::ZERO)).await, Written::Done);
    assert_eq!(world.take(10).await.deliveries[0].attempts, 2);
    assert_eq!(world.write(delivered(target, 3)).await, Written::Done);
    assert_eq!(world.standing(target.delivery_id).await.waiting, None);
    assert_eq!(attempts(world, target).await.len(), 3);
}

async fn a_death_leaves_a_dead_letter(world: &World) {
    let destination = world.destination().await;
    let posted = world.post_to(&[&destination], Start::Queued).await;
    let target = posted.targets[0];
    assert_eq!(world.write(failed(target, 1, LATER)).await, Written::Done);
    assert_eq!(world.write(died(target, 2, DeadReason::Exhausted)).await, Written::Done);
    let view = world.store.delivery(TENANT, target.delivery_id).await.unwrap().unwrap();
    assert_eq!((view.state, view.reason, view.attempts), (DeliveryState::Dead, Some(DeadReason::Exhausted), 2));
    let letter = world.store.dead_letter(TENANT, target.delivery_id).await.unwrap().unwrap();
    assert_eq!((letter.reason, letter.attempts), (DeadReason::Exhausted, 2));
    assert_eq!((letter.destination_id, &letter.event), (destination.id, &posted.event));
    assert_eq!(letter.last_attempt, Some(attempt(2, AttemptOutcome::Dead)));
    assert_eq!(Some(letter.dead_at), view.ended_at);
}

async fn an_attempt_keeps_every_part(world: &World) {
    let target = world.queued(&world.destination().await).await;
    let full = Attempt {
        number: 1,
        started_at: signalpost_core::Timestamp::from_micros(1_700_000_000_000_001),
        duration: Duration::from_micros(15_000_001),
        outcome: AttemptOutcome::Retry,
        status_code: Some(599),
        response_excerpt: Bytes::from(vec![0xfe; 4096]),
        error: Some("connection reset: \"ä\"".into()),
    };
    let bare = Attempt {
        number: 2,
        duration: Duration::ZERO,
        status_code: None,
        response_excerpt: Bytes::new(),
        error: None,
        ..full.clone()
    };
    for attempt in [&full, &bare] {
        let next = Next::Retry { after: LATER };
        assert_eq!(world.write(DeliveryWrite::Attempt { target, attempt: attempt.clone(), next }).await, Written::Done);
    }
    assert_eq!(attempts(world, target).await, [full, bare.clone()]);
    let view = world.store.delivery(TENANT, target.delivery_id).await.unwrap().unwrap();
    assert_eq!(view.last_attempt, Some(bare));
}

async fn only_the_next_number_counts(world: &World) {
    let target = world.queued(&world.destination().await).await;
    for number in [0, 2, 3] {
        assert_eq!(world.write(delivered(target, number)).await, Written::Superseded, "{number} before 1");
    }
    assert_eq!(world.state(target.delivery_id).await, DeliveryState::Queued);
    assert_eq!(world.write(failed(target, 1, LATER)).await, Written::Done);
    for number in [0, 1, 3] {
        assert_eq!(world.write(delivered(target, number)).await, Written::Superseded, "{number} after 1");
        assert_eq!(world.write(detach(target, number, LATER)).await, Written::Superseded, "{number} after 1");
    }
    assert_eq!(attempts(world, target).await, [attempt(1, AttemptOutcome::Retry)]);
    assert_eq!(world.standing(target.delivery_id).await.waiting.unwrap().1, WaitReason::Retry);
}

async fn nothing_is_written_on_what_ended(world: &World) {
    let destination = world.destination().await;
    let ends: [DeliveryWrite; 3] = {
        let targets =
            [world.queued(&destination).await, world.queued(&destination).await, world.queued(&destination).await];
        [
            delivered(targets[0], 1),
            died(targets[1], 1, DeadReason::Gone),
            DeliveryWrite::End { target: targets[2], dead: None },
        ]
    };
    for end in ends {
        let target = *end.target();
        assert_eq!(world.write(end).await, Written::Done);
        let before = world.store.delivery(TENANT, target.delivery_id).await.unwrap();
        for late in [
            delivered(target, 1),
            delivered(target, 2),
            failed(target, 2, LATER),
            interrupted(target, 2),
            park(target, WaitReason::Slot, LATER, true),
            detach(target, 1, LATER),
            detach(target, 2, LATER),
            DeliveryWrite::End { target, dead: None },
            DeliveryWrite::End { target, dead: Some(DeadReason::Expired) },
        ] {
            assert_eq!(world.write(late.clone()).await, Written::Superseded, "{late:?}");
        }
        assert_eq!(world.store.delivery(TENANT, target.delivery_id).await.unwrap(), before);
    }
    assert_eq!(world.store.spilled().await.unwrap(), [], "nor is the queue held");
}

async fn what_is_not_there_is_superseded(world: &World) {
    let destination = world.destination().await;
    let stored = world.queued(&destination).await;
    let unknown = targets(&world.new_event(world.event(TENANT).await, &[destination.id], Start::Queued))[0];
    assert_eq!(world.store.examine(&[unknown.delivery_id, stored.delivery_id]).await.unwrap()[0], None);
    let foreign = Target { tenant_id: world.tenant("other").await, ..stored };
    for target in [unknown, foreign] {
        assert_eq!(world.write(delivered(target, 1)).await, Written::Superseded);
        assert_eq!(world.write(park(target, WaitReason::Slot, LATER, false)).await, Written::Superseded);
        assert_eq!(world.write(detach(target, 1, LATER)).await, Written::Superseded);
        assert_eq!(world.write(DeliveryWrite::End { target, dead: None }).await, Written::Superseded);
    }
    assert_eq!(world.state(stored.delivery_id).await, DeliveryState::Queued);
    assert_eq!(world.store.write(&[], false).await.unwrap().written, []);
}

async fn it_can_end_without_a_request(world: &World) {
    let destination = world.destination().await;
    for waits in [false, true] {
        for dead in [None, Some(DeadReason::Expired)] {
            let target = if waits { world.waiting(&destination).await } else { world.queued(&destination).await };
            assert_eq!(world.write(DeliveryWrite::End { target, dead }).await, Written::Done);
            let view = world.store.delivery(TENANT, target.delivery_id).await.unwrap().unwrap();
            let status = view.state.status(view.attempts);
            let expected = if dead.is_some() { DeliveryStatus::Dead } else { DeliveryStatus::Cancelled };
            assert_eq!((status, view.reason, view.attempts), (expected, dead, 0));
            let letter = world.store.dead_letter(TENANT, target.delivery_id).await.unwrap();
            assert_eq!(letter.is_some(), dead.is_some());
        }
    }
}

async fn an_interrupted_attempt_gives_way_to_its_outcome(world: &World) {
    let destination = world.destination().await;
    for last in [AttemptOutcome::Delivered, AttemptOutcome::Retry] {
        let target = world.queued(&destination).await;
        assert_eq!(world.write(interrupted(target, 1)).await, Written::Done);
        assert_eq!(world.standing(target.delivery_id).await.attempts, 1);
        // The same news again is no news.
        assert_eq!(world.write(interrupted(target, 1)).await, Written::Superseded);
        let outcome = if last == AttemptOutcome::Delivered { delivered(target, 1) } else { failed(target, 1, LATER) };
        assert_eq!(world.write(outcome.clone()).await, Written::Done);
        assert_eq!(attempts(world, target).await, [attempt(1, last)]);
        assert_eq!(world.standing(target.delivery_id).await.attempts, 1);
        assert_eq!(world.write(outcome).await, Written::Superseded, "once");
    }
}

async fn an_interrupted_attempt_stays_once_another_follows(world: &World) {
    let target = world.queued(&world.destination().await).await;
    assert_eq!(world.write(interrupted(target, 1)).await, Written::Done);
    assert_eq!(world.write(failed(target, 2, LATER)).await, Written::Done);
    assert_eq!(world.write(delivered(target, 1)).await, Written::Superseded);
    let outcomes: Vec<_> = attempts(world, target).await.into_iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [AttemptOutcome::Interrupted, AttemptOutcome::Retry]);
}

async fn a_repeated_batch_is_harmless(world: &World) {
    let destination = world.destination().await;
    let mut batch = Vec::new();
    for kind in 0..6 {
        let target = world.queued(&destination).await;
        batch.push(match kind {
            0 => delivered(target, 1),
            1 => failed(target, 1, LATER),
            2 => died(target, 1, DeadReason::Rejected),
            3 => interrupted(target, 1),
            4 => DeliveryWrite::End { target, dead: None },
            _ => DeliveryWrite::End { target, dead: Some(DeadReason::Expired) },
        });
    }
    assert_eq!(world.store.write(&batch, false).await.unwrap().written, vec![Written::Done; 6]);
    let before = invariants::deliveries(world, TENANT).await;
    world.store.write(&batch, false).await.unwrap();
    assert_eq!(invariants::deliveries(world, TENANT).await, before);
}

async fn a_batch_is_written_in_its_order(world: &World) {
    let destinations = world.destinations(3).await;
    let mut batch = Vec::new();
    let mut expected = Vec::new();
    for round in 0..30 {
        let target = world.queued(&destinations[round % 3]).await;
        let (write, written) = match round % 5 {
            0 => (delivered(target, 1), Written::Done),
            1 => (delivered(target, 2), Written::Superseded),
            2 => (failed(target, 1, LATER), Written::Done),
            3 => (park(target, WaitReason::RateLimit, LATER, false), Written::Done),
            _ => (detach(target, 2, LATER), Written::Superseded),
        };
        batch.push(write);
        expected.push(written);
    }
    // Not in the order of their ids.
    batch.reverse();
    expected.reverse();
    assert_eq!(world.store.write(&batch, false).await.unwrap().written, expected);
    assert_eq!(world.store.sample().await.unwrap().waiting, 12);
}

async fn the_same_delivery_twice_in_one_batch(world: &World) {
    let destination = world.destination().await;
    let done = [Written::Done, Written::Done];
    let targets = [
        world.queued(&destination).await,
        world.queued(&destination).await,
        world.queued(&destination).await,
        world.queued(&destination).await,
    ];
    let pairs = [
        ([failed(targets[0], 1, LATER), delivered(targets[0], 2)], done, DeliveryState::Delivered),
        (
            [delivered(targets[1], 1), delivered(targets[1], 1)],
            [Written::Done, Written::Superseded],
            DeliveryState::Delivered,
        ),
        ([detach(targets[2], 1, LATER), failed(targets[2], 1, LATER)], done, DeliveryState::Waiting),
        ([park(targets[3], WaitReason::Slot, LATER, false), delivered(targets[3], 1)], done, DeliveryState::Delivered),
    ];
    let mut batch = Vec::new();
    // First parts first, then the second ones.
    for part in 0..2 {
        batch.extend(pairs.iter().map(|pair| pair.0[part].clone()));
    }
    let written = world.store.write(&batch, false).await.unwrap().written;
    for (number, (_, expected, state)) in pairs.iter().enumerate() {
        assert_eq!([written[number], written[number + 4]], *expected, "pair {number}");
        assert_eq!(world.state(targets[number].delivery_id).await, *state, "pair {number}");
    }
    assert_eq!(attempts(world, targets[0]).await.len(), 2);
}

async fn one_of_two_writers_wins(world: &World) {
    let destinations = world.destinations(4).await;
    let mut batch = Vec::new();
    for round in 0..60 {
        let target = world.queued(&destinations[round % 4]).await;
        batch.push(if round % 2 == 0 { delivered(target, 1) } else { failed(target, 1, LATER) });
    }
    let mut reversed = batch.clone();
    reversed.reverse();
    let handles = [Arc::clone(&world.store), world.database.handle().await];
    let writers = [batch, reversed]
        .into_iter()
        .zip(handles)
        .map(|(batch, store)| tokio::spawn(async move { store.write(&batch, false).await.unwrap().written }));
    let mut written = join_all(writers).await.into_iter().map(|written| written.unwrap());
    let (first, mut second) = (written.next().unwrap(), written.next().unwrap());
    second.reverse();
    for (first, second) in first.into_iter().zip(second) {
        assert_ne!(first, second, "one is done, the other superseded");
    }
    assert_eq!(world.store.sample().await.unwrap().waiting, 30);
}
