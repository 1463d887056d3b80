//! What is older than its retention goes; what somebody still needs stays.

use std::time::Duration;

use signalpost_core::{DeliveryState, Timestamp};

use super::world::{Posted, TENANT, World, eventually, failed};
use crate::{
    dispatch::Target,
    ingest::Start,
    manage::{ReplaySelection, Retried},
    schedule::Retention,
};

super::cases![
    old_events_go_with_all_that_belongs_to_them,
    a_live_delivery_keeps_its_event,
    a_dead_letter_outlives_its_event_and_can_be_replayed,
    a_bulk_replay_finds_a_dead_letter_without_its_event,
    dead_letters_go_in_their_own_time,
    finished_jobs_go,
    expired_keys_go,
    what_is_young_stays,
];

const DAY: Duration = Duration::from_secs(24 * 3600);
const LONG: Retention = Retention { events: days(30), dead_letters: days(30), audit: days(30), chunk: 100 };

const fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 3600)
}

/// Posts an event that was accepted so many days ago.
async fn posted(world: &World, age_days: u64, to: &[&signalpost_core::Destination]) -> Posted {
    let at = Timestamp::from_millis((world.now().await - DAY * u32::try_from(age_days).unwrap()).as_millis());
    world.database.make_room(at).await;
    world.post_event(world.event_at(TENANT, at), to, Start::Queued).await
}

/// Drops until there is nothing more to drop.
async fn retain(world: &World, retention: Retention) {
    for _ in 0..1000 {
        if !world.store.retain(retention).await.unwrap() {
            return;
        }
    }
    panic!("retention does not come to an end");
}

async fn has_event(world: &World, posted: &Posted) -> bool {
    world.store.event(TENANT, posted.event.id).await.unwrap().is_some()
}

async fn old_events_go_with_all_that_belongs_to_them(world: &World) {
    let destination = world.destination().await;
    let mut old = Vec::new();
    for age in [50, 50, 45] {
        let posted = posted(world, age, &[&destination]).await;
        world.write(failed(posted.targets[0], 1, Duration::ZERO)).await;
        world.write(super::world::delivered(posted.targets[0], 2)).await;
        old.push(posted);
    }
    // A small chunk takes more calls, and leaves nothing half deleted between them.
    for _ in 0..1000 {
        let more = world.store.retain(Retention { chunk: 2, ..LONG }).await.unwrap();
        super::invariants::deliveries(world, TENANT).await;
        if !more {
            break;
        }
    }
    for posted in &old {
        assert!(!has_event(world, posted).await);
        assert_eq!(world.store.delivery(TENANT, posted.targets[0].delivery_id).await.unwrap(), None);
    }
}

async fn a_live_delivery_keeps_its_event(world: &World) {
    let destination = world.destination().await;
    let waits = posted(world, 50, &[&destination]).await;
    world.write(failed(waits.targets[0], 1, days(1))).await;
    let queued = posted(world, 48, &[&destination]).await;
    let ended = posted(world, 46, &[&destination]).await;
    world.deliver(ended.targets[0]).await;
    retain(world, LONG).await;
    assert!(has_event(world, &waits).await && has_event(world, &queued).await);
    assert!(!has_event(world, &ended).await);
    assert_eq!(world.standing(waits.targets[0].delivery_id).await.attempts, 1);
    world.write(super::world::delivered(waits.targets[0], 2)).await;
    world.deliver(queued.targets[0]).await;
    retain(world, LONG).await;
    assert!(!has_event(world, &waits).await && !has_event(world, &queued).await);
}

async fn a_dead_letter_outlives_its_event_and_can_be_replayed(world: &World) {
    let destination = world.destination().await;
    let old = posted(world, 50, &[&destination]).await;
    let target = old.targets[0];
    world.kill(target).await;
    retain(world, LONG).await;
    assert!(!has_event(world, &old).await);
    let letter = world.store.dead_letter(TENANT, target.delivery_id).await.unwrap().unwrap();
    assert_eq!((&letter.event, letter.last_attempt), (&old.event, None));
    let Retried::Again(new) = world.store.replay_dead_letter(TENANT, target.delivery_id).await.unwrap() else {
        panic!("it is a dead letter")
    };
    // It is stored again under its id, and stays while its delivery lives.
    retain(world, LONG).await;
    assert_eq!(world.store.event(TENANT, old.event.id).await.unwrap().unwrap().event, old.event);
    let due = world.take_all().await;
    assert_eq!((due[0].delivery_id, &due[0].event), (new, &old.event));
    world.deliver(Target { delivery_id: new, ..target }).await;
    retain(world, LONG).await;
    assert!(!has_event(world, &old).await);
}

async fn a_bulk_replay_finds_a_dead_letter_without_its_event(world: &World) {
    let destination = world.destination().await;
    let old = posted(world, 50, &[&destination]).await;
    world.kill(old.targets[0]).await;
    let young = world.dead(&destination).await;
    retain(world, LONG).await;
    let selection = ReplaySelection { destination_id: Some(destination.id), ..ReplaySelection::default() };
    let job = world.run_job(&world.new_job(TENANT, selection).await, 1).await;
    assert_eq!((job.matched, job.replayed), (Some(2), 2));
    let mut events: Vec<_> = world.take_all().await.into_iter().map(|due| due.event.id).collect();
    events.sort();
    assert_eq!(events, [old.event.id, young.event_id]);
}

async fn dead_letters_go_in_their_own_time(world: &World) {
    let destination = world.destination().await;
    let mut dead = Vec::new();
    for _ in 0..5 {
        dead.push(world.dead(&destination).await);
    }
    let short = Retention { dead_letters: Duration::ZERO, chunk: 2, ..LONG };
    eventually("they go", async || {
        retain(world, short).await;
        (world.store.sample().await.unwrap().dead_letters == 0).then_some(())
    })
    .await;
    for target in dead {
        assert_eq!(world.store.dead_letter(TENANT, target.delivery_id).await.unwrap(), None);
        assert_eq!(world.state(target.delivery_id).await, DeliveryState::Dead, "the delivery has its own time");
        // For the invariants: a dead delivery that is no dead letter was replayed or discarded.
        world.store.retry_delivery(TENANT, target.delivery_id).await.unwrap();
    }
}

async fn finished_jobs_go(world: &World) {
    let selection = ReplaySelection::default();
    let finished = world.run_job(&world.new_job(TENANT, selection.clone()).await, 10).await;
    let open = world.new_job(TENANT, selection).await;
    world.store.create_replay(&open).await.unwrap();
    retain(world, LONG).await;
    assert!(world.store.replay(TENANT, finished.id).await.unwrap().is_some());
    let short = Retention { events: Duration::ZERO, ..LONG };
    eventually("it goes", async || {
        retain(world, short).await;
        world.store.replay(TENANT, finished.id).await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(world.store.replay(TENANT, open.id).await.unwrap().is_some());
}

async fn expired_keys_go(world: &World) {
    let key = crate::manage::IdempotencyKey {
        scope: "s".into(),
        key: "k".into(),
        body_hash: [1; 32],
        ttl: Duration::from_secs(3600),
    };
    let answer = crate::ingest::StoredAnswer { status: 200, body: bytes::Bytes::from_static(b"x") };
    let lease = Duration::from_millis(1);
    for number in 0..5 {
        let ttl = Duration::from_millis(1);
        let short = crate::manage::IdempotencyKey { key: format!("short {number}"), ttl, ..key.clone() };
        world.store.begin_idempotent(TENANT, &short, lease).await.unwrap();
        world.store.finish_idempotent(TENANT, &short, Some(&answer)).await.unwrap();
    }
    world.store.begin_idempotent(TENANT, &key, lease).await.unwrap();
    world.store.finish_idempotent(TENANT, &key, Some(&answer)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    retain(world, Retention { chunk: 2, ..LONG }).await;
    let kept = world.store.begin_idempotent(TENANT, &key, lease).await.unwrap();
    assert_eq!(kept, crate::manage::Begun::Answered(answer));
}

async fn what_is_young_stays(world: &World) {
    let destination = world.destination().await;
    let young = posted(world, 1, &[&destination]).await;
    world.deliver(young.targets[0]).await;
    let dead = world.dead(&destination).await;
    retain(world, LONG).await;
    assert!(has_event(world, &young).await);
    assert_eq!(world.state(young.targets[0].delivery_id).await, DeliveryState::Delivered);
    assert!(world.store.dead_letter(TENANT, dead.delivery_id).await.unwrap().is_some());
}
