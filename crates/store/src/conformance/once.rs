//! At most once: the claim is there before the first byte leaves, and never two of them.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use signalpost_core::{AttemptOutcome, DeadReason, DeliveryState, Guarantee, WaitReason, ordering::OnDead};

use super::{
    ordered::unknown,
    world::{TENANT, World, attempt, delivered, detach, failed, park},
};
use crate::{
    dispatch::{DeliveryWrite, Next, Target, Written},
    ingest::Start,
    manage::{Cancelled, Retried},
};

super::cases![
    a_claim_excludes_every_other,
    the_same_claim_again_is_done,
    wherever_it_waits_it_can_be_claimed,
    what_has_an_attempt_cannot_be_claimed,
    a_claim_that_was_not_used_is_given_back,
    its_outcome_ends_it,
    a_deadline_that_passes_ends_it_as_unknown,
    a_claim_past_its_deadline_still_holds,
    a_claimed_one_is_nobody_elses_to_move,
    one_of_many_claims_wins,
    it_is_not_retried,
    a_replay_of_it_is_sent_once_too,
    it_keeps_its_place_in_its_lane,
];

const LATER: Duration = Duration::from_secs(600);

fn claim(target: Target, claim: u64, deadline: Duration) -> DeliveryWrite {
    DeliveryWrite::Claim { target, claim, deadline }
}

fn failed_once(target: Target) -> DeliveryWrite {
    DeliveryWrite::Attempt {
        target,
        attempt: attempt(1, AttemptOutcome::Dead),
        next: Next::Dead { reason: DeadReason::FailedOnce },
    }
}

async fn a_claim_excludes_every_other(world: &World) {
    let target = world.once(&world.destination().await, Start::Queued).await;
    assert_eq!(world.standing(target.delivery_id).await.guarantee, Guarantee::AtMostOnce);
    let before = world.now().await;
    assert_eq!(world.write(claim(target, 7, LATER)).await, Written::Done);
    let standing = world.standing(target.delivery_id).await;
    assert_eq!((standing.state, standing.attempts, standing.lease_left), (DeliveryState::Waiting, 0, None));
    let (deadline, reason) = standing.waiting.unwrap();
    assert_eq!(reason, WaitReason::InFlight);
    assert!(deadline >= before + LATER && deadline <= world.now().await + LATER);
    for other in [0, 8, u64::MAX] {
        assert_eq!(world.write(claim(target, other, LATER)).await, Written::Superseded);
    }
    assert_eq!(world.standing(target.delivery_id).await.waiting, standing.waiting);
    assert!(world.take_all().await.is_empty());
}

async fn the_same_claim_again_is_done(world: &World) {
    let target = world.once(&world.destination().await, Start::Queued).await;
    for _ in 0..3 {
        assert_eq!(world.write(claim(target, u64::MAX, LATER)).await, Written::Done);
    }
    let twice = [claim(target, u64::MAX, LATER), claim(target, 1, LATER)];
    let report = world.store.write(&twice, false).await.unwrap();
    assert_eq!(report.written, [Written::Done, Written::Superseded]);
    assert_eq!(world.write(delivered(target, 1)).await, Written::Done);
    assert_eq!(world.write(claim(target, u64::MAX, LATER)).await, Written::Superseded, "it ended");
}

async fn wherever_it_waits_it_can_be_claimed(world: &World) {
    let destination = world.destination().await;
    let queued = world.once(&destination, Start::Queued).await;
    let waits = world.once(&destination, Start::Waiting(WaitReason::Turn)).await;
    let fed = world.take_all().await;
    assert_eq!((fed.len(), fed[0].guarantee), (1, Guarantee::AtMostOnce));
    let parked = world.once(&destination, Start::Queued).await;
    world.write(park(parked, WaitReason::Slot, LATER, false)).await;
    let of = [queued, waits, parked];
    let batch: Vec<_> = of.iter().map(|target| claim(*target, 1, LATER)).collect();
    let report = world.store.write(&batch, true).await.unwrap();
    assert_eq!((report.written, report.followers.len()), (vec![Written::Done; 3], 0));
    for target in of {
        assert_eq!(world.standing(target.delivery_id).await.waiting.unwrap().1, WaitReason::InFlight);
    }
    assert_eq!(world.store.sample().await.unwrap().waiting, 3);
}

async fn what_has_an_attempt_cannot_be_claimed(world: &World) {
    let target = world.once(&world.destination().await, Start::Queued).await;
    world.write(failed(target, 1, LATER)).await;
    assert_eq!(world.write(claim(target, 1, LATER)).await, Written::Superseded);
    let nowhere = Target { tenant_id: world.tenant("other").await, ..target };
    assert_eq!(world.write(claim(nowhere, 1, LATER)).await, Written::Superseded);
}

async fn a_claim_that_was_not_used_is_given_back(world: &World) {
    let target = world.once(&world.destination().await, Start::Queued).await;
    let give_back = |claim| DeliveryWrite::Park {
        target,
        reason: WaitReason::Turn,
        after: Duration::ZERO,
        hold_queue: false,
        claim: Some(claim),
    };
    assert_eq!(world.write(claim(target, 7, LATER)).await, Written::Done);
    assert_eq!(world.write(give_back(8)).await, Written::Superseded, "it is another's");
    for _ in 0..2 {
        assert_eq!(world.write(give_back(7)).await, Written::Done);
    }
    assert_eq!(world.taken().await, [target.delivery_id]);
    assert_eq!(world.write(claim(target, 8, LATER)).await, Written::Done, "as if it had not been claimed");
    assert_eq!(world.write(give_back(7)).await, Written::Superseded);
    assert_eq!(world.write(claim(target, 7, LATER)).await, Written::Superseded);
    assert_eq!(world.write(delivered(target, 1)).await, Written::Done);
}

async fn its_outcome_ends_it(world: &World) {
    let destination = world.destination().await;
    let (arrives, fails) =
        (world.once(&destination, Start::Queued).await, world.once(&destination, Start::Queued).await);
    for target in [arrives, fails] {
        world.write(claim(target, 1, LATER)).await;
    }
    assert_eq!(world.write(delivered(arrives, 1)).await, Written::Done);
    assert_eq!(world.state(arrives.delivery_id).await, DeliveryState::Delivered);
    assert_eq!(world.write(failed_once(fails)).await, Written::Done);
    let letter = world.store.dead_letter(TENANT, fails.delivery_id).await.unwrap().unwrap();
    assert_eq!((letter.reason, letter.attempts), (DeadReason::FailedOnce, 1));
}

async fn a_deadline_that_passes_ends_it_as_unknown(world: &World) {
    let target = world.once(&world.destination().await, Start::Queued).await;
    assert_eq!(world.write(claim(target, 1, Duration::from_millis(30))).await, Written::Done);
    let due = world.take_eventually(target.delivery_id).await;
    assert_eq!((due.reason, due.attempts, due.guarantee), (WaitReason::InFlight, 0, Guarantee::AtMostOnce));
    assert_eq!(world.write(unknown(target)).await, Written::Done);
    let view = world.store.delivery(TENANT, target.delivery_id).await.unwrap().unwrap();
    assert_eq!((view.state, view.reason), (DeliveryState::Dead, Some(DeadReason::UnknownOutcome)));
    assert_eq!(view.last_attempt.unwrap().outcome, AttemptOutcome::Interrupted);
    for late in [delivered(target, 1), failed_once(target), claim(target, 1, LATER), detach(target, 1, LATER)] {
        assert_eq!(world.write(late.clone()).await, Written::Superseded, "{late:?}");
    }
    assert_eq!(world.state(target.delivery_id).await, DeliveryState::Dead, "ended is final");
}

async fn a_claim_past_its_deadline_still_holds(world: &World) {
    let target = world.once(&world.destination().await, Start::Queued).await;
    world.write(claim(target, 1, Duration::ZERO)).await;
    assert_eq!(world.write(claim(target, 2, LATER)).await, Written::Superseded, "a request may have gone out");
    let due = world.take_eventually(target.delivery_id).await;
    assert_eq!(world.write(claim(target, 2, LATER)).await, Written::Superseded);
    world.store.give_back(&[(due.delivery_id, due.leased_until)]).await.unwrap();
    assert_eq!(world.write(claim(target, 2, LATER)).await, Written::Superseded);
    assert_eq!(world.take_eventually(target.delivery_id).await.reason, WaitReason::InFlight);
    // A late outcome that is earlier than the news of its loss counts.
    assert_eq!(world.write(delivered(target, 1)).await, Written::Done);
    assert_eq!(world.write(unknown(target)).await, Written::Superseded);
}

async fn a_claimed_one_is_nobody_elses_to_move(world: &World) {
    let target = world.once(&world.destination().await, Start::Queued).await;
    world.write(claim(target, 1, LATER)).await;
    let standing = world.standing(target.delivery_id).await;
    assert_eq!(world.write(park(target, WaitReason::Slot, Duration::ZERO, true)).await, Written::Superseded);
    assert_eq!(world.store.retry_delivery(TENANT, target.delivery_id).await.unwrap(), Retried::InFlight);
    assert_eq!(world.store.cancel_delivery(TENANT, target.delivery_id).await.unwrap(), Cancelled::InFlight);
    assert_eq!(world.standing(target.delivery_id).await, standing);
    assert_eq!(world.store.spilled().await.unwrap(), []);
    let late = world.once(&world.destination().await, Start::Queued).await;
    world.write(claim(late, 1, Duration::ZERO)).await;
    world.take_eventually(late.delivery_id).await;
    assert_eq!(world.write(park(late, WaitReason::Slot, Duration::ZERO, false)).await, Written::Superseded);
    assert_eq!(world.standing(late.delivery_id).await.waiting.unwrap().1, WaitReason::InFlight);
}

async fn one_of_many_claims_wins(world: &World) {
    let destination = world.destination().await;
    let mut of = Vec::new();
    for round in 0..40 {
        let start = if round % 2 == 0 { Start::Queued } else { Start::Waiting(WaitReason::Turn) };
        of.push(world.once(&destination, start).await);
    }
    let mut dispatchers = Vec::new();
    for number in 1..=4_u64 {
        let store = if number == 1 { Arc::clone(&world.store) } else { world.database.handle().await };
        let mut of = of.clone();
        // Each in an order of its own.
        of.rotate_left(usize::try_from(number).unwrap() * 9);
        dispatchers.push(tokio::spawn(async move {
            let mut won = Vec::new();
            for part in of.chunks(5) {
                let batch: Vec<_> = part.iter().map(|target| claim(*target, number, LATER)).collect();
                let written = store.write(&batch, false).await.unwrap().written;
                let done = part.iter().zip(written).filter(|(_, written)| *written == Written::Done);
                won.extend(done.map(|(target, _)| target.delivery_id));
            }
            won
        }));
    }
    let mut won: Vec<_> = join_all(dispatchers).await.into_iter().flat_map(|won| won.unwrap()).collect();
    won.sort();
    let mut all: Vec<_> = of.iter().map(|target| target.delivery_id).collect();
    all.sort();
    assert_eq!(won, all, "each has one owner");
}

async fn it_is_not_retried(world: &World) {
    let destination = world.destination().await;
    let waits = world.once(&destination, Start::Queued).await;
    assert_eq!(world.store.retry_delivery(TENANT, waits.delivery_id).await.unwrap(), Retried::DueNow);
    let arrived = world.once(&destination, Start::Queued).await;
    world.deliver(arrived).await;
    let cancelled = world.once(&destination, Start::Queued).await;
    world.store.cancel_delivery(TENANT, cancelled.delivery_id).await.unwrap();
    let dead = world.once(&destination, Start::Queued).await;
    world.write(failed_once(dead)).await;
    for ended in [arrived, cancelled, dead] {
        let retried = world.store.retry_delivery(TENANT, ended.delivery_id).await.unwrap();
        assert_eq!(retried, Retried::AtMostOnce);
        let view = world.store.delivery(TENANT, ended.delivery_id).await.unwrap().unwrap();
        assert_eq!(view.replayed_by, None);
    }
    assert!(world.store.dead_letter(TENANT, dead.delivery_id).await.unwrap().is_some());
}

/// A person asks for it, and knows what it may mean.
async fn a_replay_of_it_is_sent_once_too(world: &World) {
    let destination = world.destination().await;
    let dead = world.once(&destination, Start::Queued).await;
    world.write(claim(dead, 1, LATER)).await;
    world.write(failed_once(dead)).await;
    let again = world.store.replay_dead_letter(TENANT, dead.delivery_id).await.unwrap();
    let Retried::Again(again) = again else { panic!("{again:?}") };
    let standing = world.standing(again).await;
    assert_eq!((standing.guarantee, standing.attempts), (Guarantee::AtMostOnce, 0));
    assert_eq!(world.take_eventually(again).await.guarantee, Guarantee::AtMostOnce);
    let again = Target { delivery_id: again, ..dead };
    assert_eq!(world.write(claim(again, 2, LATER)).await, Written::Done);
    assert_eq!(world.write(claim(again, 1, LATER)).await, Written::Superseded);
}

async fn it_keeps_its_place_in_its_lane(world: &World) {
    let mut destination = world.new_destination(TENANT).await;
    destination.spec.ordering = super::ordered::by_key(OnDead::Continue);
    destination.spec.guarantee = Guarantee::AtMostOnce;
    world.create(&destination).await;
    let routes = world.store.routes(TENANT).await.unwrap();
    assert_eq!(routes.routes[0].guarantee, Guarantee::AtMostOnce);
    let mut line = Vec::new();
    for _ in 0..3 {
        let mut new = world.new_keyed("a", &[destination.id], Start::Queued).await;
        new.deliveries[0].guarantee = Guarantee::AtMostOnce;
        line.extend(world.commit(vec![new]).await);
    }
    assert_eq!(world.write(claim(line[1], 1, LATER)).await, Written::Superseded, "not before the first");
    assert_eq!(world.write(claim(line[0], 1, LATER)).await, Written::Done);
    assert!(world.follows(line[1]).await && world.take_all().await.is_empty());
    let report = world.write_on(failed_once(line[0])).await;
    assert_eq!(report.followers.len(), 1);
    let handed = &report.followers[0];
    assert_eq!((handed.delivery_id, handed.guarantee), (line[1].delivery_id, Guarantee::AtMostOnce));
    assert_eq!(world.write(claim(line[1], 1, LATER)).await, Written::Done);
    assert!(world.follows(line[2]).await);
}
