//! A future that is dropped at any await leaves either all of it or nothing, and a store that goes on working.
//!
//! Each case runs a call again and again, polls it once more each time before it drops it, until it comes to its end.

use std::{future::Future, task::Poll, time::Duration};

use futures::FutureExt as _;
use signalpost_core::{DeadReason, DeliveryState, WaitReason};

use super::world::{Posted, TENANT, World, budget, delivered, died, eventually, failed, park, targets};
use crate::{
    dispatch::Target,
    ingest::{IngestUnit, KeyClaim, Start, StoredAnswer, UnitOutcome},
    manage::{ReplaySelection, ReplayState},
};

super::cases![
    ingest_is_all_or_nothing,
    a_key_of_a_dropped_request_still_counts_once,
    outcomes_are_all_or_nothing,
    a_take_is_all_or_nothing,
    a_relay_is_all_or_nothing,
    a_change_of_a_destination_is_all_or_nothing,
    a_replay_is_all_or_nothing,
    a_job_survives_dropped_steps,
    a_fan_out_survives_dropped_expansions,
    the_reconciler_survives_dropped_runs,
    the_sweep_survives_dropped_runs,
];

/// More polls than any call needs.
const MOST_POLLS: usize = 300;

/// Polls a future so many times, then drops it. Some: it came to its end.
pub(super) async fn polled<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = Box::pin(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.poll_unpin(context) {
            Poll::Ready(end) => Poll::Ready(Some(end)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Runs `round` with a growing number of polls, until it tells that its call came to its end.
pub(super) async fn growing(round: impl AsyncFn(usize) -> bool) {
    for polls in 0..MOST_POLLS {
        if round(polls).await {
            return;
        }
    }
    panic!("it does not come to its end within {MOST_POLLS} polls");
}

/// Waits until all are one way: whether they are.
pub(super) async fn all_or_nothing(what: &str, probe: impl AsyncFn() -> Vec<bool>) -> bool {
    eventually(&format!("{what}: all or nothing"), async || {
        let parts = probe().await;
        let all = parts.iter().all(|part| *part);
        (all || !parts.iter().any(|part| *part)).then_some(all)
    })
    .await
}

/// Whether each of them is in that state.
async fn are(world: &World, of: &[Target], wanted: &[DeliveryState]) -> Vec<bool> {
    let ids: Vec<_> = of.iter().map(|target| target.delivery_id).collect();
    let standings = world.store.examine(&ids).await.unwrap();
    let states = standings.into_iter().map(|standing| standing.map(|standing| standing.state));
    states.zip(wanted).map(|(state, wanted)| state == Some(*wanted)).collect()
}

async fn ingest_is_all_or_nothing(world: &World) {
    let destinations = world.destinations(2).await;
    growing(async |polls| {
        let mut units = Vec::new();
        let mut parts = Vec::new();
        for start in [Start::Queued, Start::Waiting(WaitReason::Turn)] {
            let event = world.event(TENANT).await;
            let new = world.new_event(event, &[destinations[0].id, destinations[1].id], start);
            parts.extend(targets(&new));
            units.push(world.unit(TENANT, vec![new]).await);
        }
        let group = world.group(units).await;
        let end = polled(world.store.ingest(&group), polls).await;
        let committed = all_or_nothing("a group", async || {
            let mut there = Vec::new();
            for target in &parts {
                there.push(world.store.event(TENANT, target.event_id).await.unwrap().is_some());
                there.push(world.store.examine(&[target.delivery_id]).await.unwrap()[0].is_some());
            }
            there
        })
        .await;
        assert!(end.is_none() || committed, "what was answered is there");
        // Its outbox record is part of it. What is not there yet may still come: the database may be at it.
        let relayed = all_or_nothing("a group and its outbox record", async || {
            world.store.relay(Duration::ZERO, 100).await.unwrap();
            are(world, &parts, &[DeliveryState::Waiting; 4]).await
        })
        .await;
        assert!(relayed || !committed, "what is there is brought to the bus");
        end.is_some()
    })
    .await;
}

async fn a_key_of_a_dropped_request_still_counts_once(world: &World) {
    growing(async |polls| {
        let key = format!("key {polls}");
        let request = async || {
            let new = world.new_event(world.event(TENANT).await, &[], Start::Queued);
            let answer = StoredAnswer { status: 202, body: new.answer.clone() };
            let claim = KeyClaim {
                scope: "events".into(),
                key: key.clone(),
                body_hash: [1; 32],
                ttl: Duration::from_secs(3600),
                answer: std::sync::Arc::new(move |_| answer.clone()),
            };
            let id = new.event.id;
            (id, world.group(vec![IngestUnit { claim: Some(claim), ..world.unit(TENANT, vec![new]).await }]).await)
        };
        let (first, group) = request().await;
        let end = polled(world.store.ingest(&group), polls).await;
        let (second, group) = request().await;
        let repeated = world.store.ingest(&group).await.unwrap().remove(0);
        let there = async |id| world.store.event(TENANT, id).await.unwrap().is_some();
        match repeated {
            UnitOutcome::Committed(_) => assert!(!there(first).await && there(second).await && end.is_none()),
            UnitOutcome::Replayed(answer) => {
                assert!(there(first).await && !there(second).await);
                assert_eq!(answer.body, format!("{{\"id\":\"{first}\"}}").into_bytes());
            }
            other => panic!("{other:?}"),
        }
        end.is_some()
    })
    .await;
}

async fn outcomes_are_all_or_nothing(world: &World) {
    let destinations = world.destinations(2).await;
    let wanted = [DeliveryState::Delivered, DeliveryState::Waiting, DeliveryState::Dead, DeliveryState::Waiting];
    growing(async |polls| {
        let mut of = Vec::new();
        for number in 0..4 {
            of.push(world.queued(&destinations[number % 2]).await);
        }
        let batch = [
            delivered(of[0], 1),
            failed(of[1], 1, Duration::from_secs(600)),
            died(of[2], 1, DeadReason::Rejected),
            park(of[3], WaitReason::Slot, Duration::from_secs(600), false),
        ];
        let end = polled(world.store.write(&batch, false), polls).await;
        let written = all_or_nothing("a batch", async || are(world, &of, &wanted).await).await;
        assert!(end.is_none() || written);
        world.store.write(&batch, false).await.unwrap();
        assert_eq!(are(world, &of, &wanted).await, [true; 4], "repeating it is harmless, and enough");
        end.is_some()
    })
    .await;
}

async fn a_take_is_all_or_nothing(world: &World) {
    let destinations = world.destinations(2).await;
    growing(async |polls| {
        let mut of = Vec::new();
        for number in 0..4 {
            of.push(world.waiting(&destinations[number % 2]).await);
        }
        let end = polled(world.store.take_due(budget(100, 100)), polls).await;
        let now = world.now().await;
        let leased = all_or_nothing("a take", async || {
            let mut leased = Vec::new();
            for target in &of {
                leased.push(world.standing(target.delivery_id).await.waiting.unwrap().0 > now);
            }
            leased
        })
        .await;
        if let Some(due) = &end {
            assert_eq!((due.as_ref().unwrap().deliveries.len(), leased), (4, true));
        }
        for target in of {
            world.deliver(target).await;
        }
        end.is_some()
    })
    .await;
}

async fn a_relay_is_all_or_nothing(world: &World) {
    let destination = world.destination().await;
    growing(async |polls| {
        let of = [world.queued(&destination).await, world.queued(&destination).await];
        let end = polled(world.store.relay(Duration::ZERO, 10), polls).await;
        let relayed = all_or_nothing("a relay", async || are(world, &of, &[DeliveryState::Waiting; 2]).await).await;
        assert!(end.is_none() || relayed);
        // The database may still be at undoing the dropped one, whose record is skipped until then.
        eventually("it is relayed", async || {
            world.store.relay(Duration::ZERO, 10).await.unwrap();
            (are(world, &of, &[DeliveryState::Waiting; 2]).await == [true; 2]).then_some(())
        })
        .await;
        end.is_some()
    })
    .await;
}

async fn a_change_of_a_destination_is_all_or_nothing(world: &World) {
    growing(async |polls| {
        let destination = world.destination().await;
        world.waiting(&destination).await;
        let before = world.store.routes(TENANT).await.unwrap().version;
        let end = polled(world.store.set_paused(TENANT, destination.id, true), polls).await;
        let paused = all_or_nothing("a pause", async || {
            let found = world.store.destination(TENANT, destination.id).await.unwrap().unwrap();
            let moved = world.store.routes(TENANT).await.unwrap().version > before;
            vec![found.version == 2, found.state == signalpost_core::DestinationState::Paused, moved]
        })
        .await;
        assert!(end.is_none() || paused);
        world.store.set_paused(TENANT, destination.id, true).await.unwrap();
        assert!(world.take_all().await.is_empty(), "its queue is blocked");
        end.is_some()
    })
    .await;
}

async fn a_replay_is_all_or_nothing(world: &World) {
    let destination = world.destination().await;
    growing(async |polls| {
        let dead = world.dead(&destination).await;
        let end = polled(world.store.replay_dead_letter(TENANT, dead.delivery_id), polls).await;
        let replayed = all_or_nothing("a replay", async || {
            let old = world.store.delivery(TENANT, dead.delivery_id).await.unwrap().unwrap();
            let listed = world.store.dead_letter(TENANT, dead.delivery_id).await.unwrap().is_some();
            vec![old.replayed_by.is_some(), !listed]
        })
        .await;
        assert!(end.is_none() || replayed);
        world.store.replay_dead_letter(TENANT, dead.delivery_id).await.unwrap();
        let due = world.take_all().await;
        assert_eq!(due.len(), 1, "once");
        world.deliver(Target { delivery_id: due[0].delivery_id, ..dead }).await;
        end.is_some()
    })
    .await;
}

async fn a_job_survives_dropped_steps(world: &World) {
    let destination = world.destination().await;
    for _ in 0..12 {
        world.dead(&destination).await;
    }
    let selection = ReplaySelection { destination_id: Some(destination.id), ..ReplaySelection::default() };
    let job = world.new_job(TENANT, selection).await;
    world.store.create_replay(&job).await.unwrap();
    growing(async |polls| {
        // Not to its end but for the last rounds, so that each number of polls meets a job that goes on.
        polled(world.store.step_replay(job.id, 1), polls % 60).await;
        polls >= 60
    })
    .await;
    let finished = eventually("the job ends", async || {
        world.store.step_replay(job.id, 5).await.unwrap();
        let present = world.store.replay(TENANT, job.id).await.unwrap().unwrap();
        (present.state == ReplayState::Completed).then_some(present)
    })
    .await;
    assert_eq!((finished.matched, finished.replayed), (Some(12), 12));
    assert_eq!(world.take_all().await.len(), 12);
}

async fn a_fan_out_survives_dropped_expansions(world: &World) {
    let destinations = world.destinations(30).await;
    let mut new = world.new_event(world.event(TENANT).await, &[], Start::Queued);
    new.fan_out = destinations.iter().map(|destination| destination.id).collect();
    let group = world.group(vec![world.unit(TENANT, vec![new]).await]).await;
    world.store.ingest(&group).await.unwrap();
    growing(async |polls| {
        polled(world.store.expand_fan_outs(1), polls).await;
        polls >= 40
    })
    .await;
    eventually("it is expanded", async || (world.store.expand_fan_outs(10).await.unwrap() == 0).then_some(())).await;
    let mut to: Vec<_> = world.take_all().await.into_iter().map(|due| due.destination_id).collect();
    to.sort();
    assert_eq!(to, destinations.iter().map(|destination| destination.id).collect::<Vec<_>>());
}

async fn the_reconciler_survives_dropped_runs(world: &World) {
    let destination = world.destination().await;
    growing(async |polls| {
        let posted: Posted = world.post_to(&[&destination], Start::Queued).await;
        let mut group = world.group(Vec::new()).await;
        group.published = vec![posted.outbox_id];
        world.store.ingest(&group).await.unwrap();
        let until = world.now().await + Duration::from_millis(5);
        let end = polled(world.store.requeue_lost(until, 10), polls).await;
        eventually("it is found", async || {
            world.store.requeue_lost(until, 10).await.unwrap();
            (world.state(posted.targets[0].delivery_id).await == DeliveryState::Waiting).then_some(())
        })
        .await;
        end.is_some()
    })
    .await;
}

async fn the_sweep_survives_dropped_runs(world: &World) {
    growing(async |polls| {
        let destination = world.destination().await;
        let of = [world.waiting(&destination).await, world.waiting(&destination).await];
        world.store.delete_destination(TENANT, destination.id).await.unwrap();
        let end = polled(world.store.sweep_deleted(10), polls).await;
        all_or_nothing("a sweep", async || are(world, &of, &[DeliveryState::Cancelled; 2]).await).await;
        eventually("it is swept", async || {
            world.store.sweep_deleted(10).await.unwrap();
            world.store.destinations(&[destination.id]).await.unwrap().is_empty().then_some(())
        })
        .await;
        assert_eq!(are(world, &of, &[DeliveryState::Cancelled; 2]).await, [true; 2]);
        end.is_some()
    })
    .await;
}
