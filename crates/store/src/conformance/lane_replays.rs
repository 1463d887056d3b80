//! Replays and lanes: at the tail, in the original order.

use std::time::Duration;

use signalpost_core::{
    DeliveryId, DeliveryStatus, Destination, DestinationId, Guarantee, LaneId, Timestamp, ordering::OnDead,
};

use super::{
    ordered::{by_key, ids},
    world::{TENANT, World, targets},
};
use crate::{
    dispatch::Target,
    ingest::Start,
    manage::{DestinationUpdate, ReplaySelection, Retried},
    schedule::Retention,
};

super::cases![
    a_single_replay_joins_at_the_tail,
    a_job_keeps_the_original_order,
    a_piece_of_a_job_never_ends_inside_a_millisecond,
    a_piece_without_lanes_is_no_larger_than_asked,
    what_was_missing_joins_the_lane_that_it_would_have_now,
    a_dead_letter_without_its_delivery_keeps_its_lane,
    a_blocking_dead_letter_without_its_delivery_keeps_its_place,
];

fn of(destination: &Destination) -> ReplaySelection {
    ReplaySelection { destination_id: Some(destination.id), ..ReplaySelection::default() }
}

/// Runs a job; how many deliveries each piece made.
async fn pieces(world: &World, selection: ReplaySelection, most: usize) -> Vec<usize> {
    let job = world.new_job(TENANT, selection).await;
    world.store.create_replay(&job).await.unwrap();
    let mut pieces = Vec::new();
    loop {
        let (created, goes_on) = world.store.step_replay(job.id, most).await.unwrap();
        pieces.extend((created > 0).then_some(created));
        if !goes_on {
            let job = world.store.replay(TENANT, job.id).await.unwrap().unwrap();
            assert_eq!(job.replayed, pieces.iter().sum::<usize>() as u64);
            assert_eq!(job.matched, Some(job.replayed));
            return pieces;
        }
    }
}

/// What is delivered from now on, each by the delivery that it replays.
async fn replayed(world: &World) -> Vec<DeliveryId> {
    let mut originals = Vec::new();
    for delivery in world.drain().await {
        originals.extend(world.store.delivery(TENANT, delivery).await.unwrap().unwrap().replay_of);
    }
    originals
}

/// So many of a lane, all accepted in one millisecond, in three groups.
async fn of_one_millisecond(world: &World, to: DestinationId, at: Timestamp, count: usize) -> Vec<Target> {
    let mut line = Vec::new();
    for group in 0..3 {
        let mut events = Vec::new();
        for _ in 0..(count + group) / 3 {
            let mut event = world.event_at(TENANT, at);
            event.meta.ordering_key = Some("a".into());
            events.push(world.keyed(event, &[to], Start::Queued));
        }
        line.extend(world.commit(events).await);
    }
    line
}

async fn a_single_replay_joins_at_the_tail(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = world.line(&destination, "a", 3).await;
    world.kill(line[0]).await;
    world.deliver(line[1]).await;
    let mut expected = vec![line[2].delivery_id];
    for ended in &line[..2] {
        let again = world.store.retry_delivery(TENANT, ended.delivery_id).await.unwrap();
        let Retried::Again(again) = again else { panic!("{again:?}") };
        assert_eq!(world.standing(again).await.lane, Some(LaneId::of("a")));
        expected.push(again);
    }
    expected.push(world.in_lane(&destination, "a").await.delivery_id);
    expected.extend(world.store.replay_event(TENANT, line[1].event_id, None).await.unwrap().unwrap());
    assert_eq!(world.drain().await, expected);
}

async fn a_job_keeps_the_original_order(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let mut line = Vec::new();
    let start = world.now().await;
    for number in 0..4 {
        let at = start - Duration::from_millis(40 - 10 * number);
        line.extend(of_one_millisecond(world, destination.id, at, 6).await);
    }
    let other = world.line(&destination, "b", 4).await;
    for target in line.iter().chain(&other) {
        world.kill(*target).await;
    }
    let waits = world.in_lane(&destination, "a").await;
    assert_eq!(pieces(world, of(&destination), 5).await.iter().sum::<usize>(), 28);
    let mut originals = Vec::new();
    for delivery in world.drain().await {
        let view = world.store.delivery(TENANT, delivery).await.unwrap().unwrap();
        originals.push(view.replay_of.unwrap_or(delivery));
    }
    let mut first = vec![waits.delivery_id];
    first.extend(ids(&line));
    for lane in [first, ids(&other)] {
        let of_lane: Vec<_> = originals.iter().copied().filter(|original| lane.contains(original)).collect();
        assert_eq!(of_lane, lane);
    }
}

async fn a_piece_of_a_job_never_ends_inside_a_millisecond(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let start = world.now().await;
    let mut line = Vec::new();
    for number in 0..3 {
        let at = start - Duration::from_millis(30 - 10 * number);
        line.extend(of_one_millisecond(world, destination.id, at, 7).await);
    }
    for target in &line {
        world.deliver(*target).await;
    }
    let selection = ReplaySelection { statuses: vec![DeliveryStatus::Delivered], ..of(&destination) };
    let pieces = pieces(world, selection, 2).await;
    assert_eq!(pieces, [7, 7, 7]);
    assert_eq!(replayed(world).await, ids(&line));
}

async fn a_piece_without_lanes_is_no_larger_than_asked(world: &World) {
    let destination = world.destination().await;
    let at = world.now().await;
    let events = (0..7).map(|_| world.new_event(world.event_at(TENANT, at), &[destination.id], Start::Queued));
    for target in world.commit(events.collect()).await {
        world.kill(target).await;
    }
    assert_eq!(pieces(world, of(&destination), 3).await, [3, 3, 1]);
}

async fn what_was_missing_joins_the_lane_that_it_would_have_now(world: &World) {
    let destination = world.destination().await;
    let start = world.now().await;
    let mut events = Vec::new();
    for number in 0..3 {
        let mut event = world.event_at(TENANT, start - Duration::from_millis(30 - 10 * number));
        event.meta.ordering_key = Some("a".into());
        let new = world.new_event(event, &[], Start::Queued);
        events.push(new.event.id);
        world.commit(vec![new]).await;
    }
    let mut spec = destination.spec.clone();
    spec.ordering = by_key(OnDead::Continue);
    spec.guarantee = Guarantee::AtMostOnce;
    let update = DestinationUpdate { spec: &spec, secrets: &destination.secrets };
    world.store.update_destination(TENANT, destination.id, 1, update).await.unwrap().unwrap();
    let selection = ReplaySelection { missing: true, ..of(&destination) };
    assert_eq!(pieces(world, selection, 10).await, [3]);
    let one = world.store.replay_event(TENANT, events[0], Some(destination.id)).await.unwrap().unwrap()[0];
    let due = world.take(10).await.deliveries;
    assert_eq!(due.len(), 1);
    assert_eq!((due[0].lane, due[0].guarantee), (Some(LaneId::of("a")), Guarantee::AtMostOnce));
    world.deliver(super::ordered::of(&due[0])).await;
    let order = world.drain().await;
    let mut of_events = vec![due[0].event.id];
    for delivery in &order {
        of_events.push(world.store.delivery(TENANT, *delivery).await.unwrap().unwrap().event_id);
    }
    assert_eq!(of_events, [events[0], events[1], events[2], events[0]]);
    assert_eq!(order.last(), Some(&one));
}

const MONTH: Retention = Retention {
    events: Duration::from_secs(30 * 24 * 3600),
    dead_letters: Duration::from_secs(30 * 24 * 3600),
    audit: Duration::from_secs(365 * 24 * 3600),
    chunk: 100,
};

/// Two of a lane that were accepted long ago; the first dies, the second waits.
async fn old_line(world: &World, destination: &Destination) -> Vec<Target> {
    let at = world.now().await - MONTH.events * 2;
    world.database.make_room(at).await;
    let mut line = Vec::new();
    for number in 0..2 {
        let mut event = world.event_at(TENANT, at + Duration::from_millis(number));
        event.meta.ordering_key = Some("a".into());
        let mut new = world.keyed(event, &[destination.id], Start::Queued);
        new.deliveries[0].guarantee = Guarantee::AtMostOnce;
        assert_eq!(targets(&new).len(), 1);
        line.extend(world.commit(vec![new]).await);
    }
    world.kill(line[0]).await;
    line
}

async fn drop_events(world: &World) {
    for _ in 0..1000 {
        if !world.store.retain(MONTH).await.unwrap() {
            return;
        }
    }
    panic!("retention does not come to an end");
}

async fn a_dead_letter_without_its_delivery_keeps_its_lane(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let line = old_line(world, &destination).await;
    world.deliver(line[1]).await;
    drop_events(world).await;
    assert_eq!(world.store.delivery(TENANT, line[0].delivery_id).await.unwrap(), None);
    let young = world.in_lane(&destination, "a").await;
    let again = world.store.replay_dead_letter(TENANT, line[0].delivery_id).await.unwrap();
    let Retried::Again(again) = again else { panic!("{again:?}") };
    let standing = world.standing(again).await;
    assert_eq!((standing.lane, standing.guarantee), (Some(LaneId::of("a")), Guarantee::AtMostOnce));
    assert_eq!(world.drain().await, [young.delivery_id, again]);
}

async fn a_blocking_dead_letter_without_its_delivery_keeps_its_place(world: &World) {
    let destination = world.ordered(OnDead::Block).await;
    for by_job in [false, true] {
        let line = old_line(world, &destination).await;
        world.store.cancel_delivery(TENANT, line[1].delivery_id).await.unwrap();
        drop_events(world).await;
        let young = world.in_lane(&destination, "a").await;
        assert!(world.take_all().await.is_empty(), "it is blocked still");
        if by_job {
            assert_eq!(pieces(world, of(&destination), 10).await, [1]);
        } else {
            world.store.replay_dead_letter(TENANT, line[0].delivery_id).await.unwrap();
        }
        let order = world.drain().await;
        assert_eq!((order.len(), order.last()), (2, Some(&young.delivery_id)));
    }
}
