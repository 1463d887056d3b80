//! What holds at every moment, whatever happened before. Checked over the whole database through the port alone.

use std::collections::{BTreeMap, BTreeSet};

use signalpost_core::{DeadReason, DeliveryId, DeliveryState, DestinationId, TenantId, Timestamp, WaitReason};

use super::world::World;
use crate::NEVER;
use crate::read::{AttemptFilter, DeadLetterFilter, DeliveryCounts, DeliveryFilter, DeliveryView, EventFilter, Page};

/// Checks them all.
pub(super) async fn check(world: &World) {
    let mut waiting: BTreeMap<DestinationId, u64> = BTreeMap::new();
    let mut dead_letters = 0;
    for tenant in world.tenants() {
        let deliveries = deliveries(world, tenant).await;
        for delivery in deliveries.values() {
            alone(delivery);
            linked(delivery, &deliveries);
            if delivery.state == DeliveryState::Waiting {
                *waiting.entry(delivery.destination_id).or_default() += 1;
            }
        }
        lanes_go_one_by_one(world, &deliveries).await;
        attempts_are_dense(world, tenant, &deliveries).await;
        dead_letters += dead_letters_are_the_dead(world, tenant, &deliveries).await;
        events_count_their_deliveries(world, tenant, &deliveries).await;
    }
    let sample = world.store.sample().await.unwrap();
    assert_eq!(sample.waiting, waiting.values().sum::<u64>(), "the depth of all queues is what waits");
    assert_eq!(sample.queues, waiting.len() as u64, "one queue per destination with waiting deliveries");
    assert_eq!(sample.deepest.len(), waiting.len().min(20));
    for (destination, depth) in &sample.deepest {
        assert_eq!(waiting.get(destination), Some(depth), "the depth of the queue of {destination}");
    }
    assert!(sample.deepest.is_sorted_by(|a, b| a.1 >= b.1), "deepest first: {:?}", sample.deepest);
    assert_eq!(sample.dead_letters, dead_letters);
    assert_eq!(sample.spilled, world.store.spilled().await.unwrap().len() as u64);
}

/// All deliveries of a tenant.
pub(super) async fn deliveries(world: &World, tenant: TenantId) -> BTreeMap<DeliveryId, DeliveryView> {
    let filter = DeliveryFilter { since: Some(Timestamp::default()), ..DeliveryFilter::default() };
    let mut found = BTreeMap::new();
    let mut page = Page { limit: 250, after: None, descending: false };
    loop {
        let part = world.store.list_deliveries(tenant, &filter, page).await.unwrap();
        let Some(last) = part.last() else { return found };
        page.after = Some(last.id);
        found.extend(part.into_iter().map(|delivery| (delivery.id, delivery)));
    }
}

/// A delivery that has not ended is queued or anchored; one that ended is neither.
fn alone(delivery: &DeliveryView) {
    assert_eq!(delivery.waiting.is_some(), delivery.state == DeliveryState::Waiting, "{delivery:?}");
    assert_eq!(delivery.ended_at.is_some(), delivery.state.is_final(), "{delivery:?}");
    assert_eq!(delivery.reason.is_some(), delivery.state == DeliveryState::Dead, "{delivery:?}");
}

/// A replay and what it replays know each other, and replays form a chain.
fn linked(delivery: &DeliveryView, all: &BTreeMap<DeliveryId, DeliveryView>) {
    if let Some(newer) = delivery.replayed_by.and_then(|newer| all.get(&newer)) {
        assert_eq!(newer.replay_of, Some(delivery.id), "{delivery:?}");
    }
    if let Some(older) = delivery.replay_of.and_then(|older| all.get(&older)) {
        assert_eq!(older.replayed_by, Some(delivery.id), "{delivery:?}");
        assert_eq!(older.destination_id, delivery.destination_id);
        assert_eq!(older.event_id, delivery.event_id);
    }
}

/// Of the open deliveries of a lane one has a due time, and none where the lane waits for a dead letter. All of them wait.
async fn lanes_go_one_by_one(world: &World, deliveries: &BTreeMap<DeliveryId, DeliveryView>) {
    let ids: Vec<_> = deliveries.keys().copied().collect();
    let mut lanes: BTreeMap<_, Lane> = BTreeMap::new();
    for part in ids.chunks(500) {
        for (id, standing) in part.iter().zip(world.store.examine(part).await.unwrap()) {
            let (view, standing) = (&deliveries[id], standing.expect("it was listed"));
            assert_eq!((standing.state, standing.attempts), (view.state, view.attempts));
            assert_eq!(standing.waiting, view.waiting);
            let due = view.waiting.map(|(due, reason)| {
                assert_eq!(due == NEVER, reason == WaitReason::Lane, "{view:?}");
                due < NEVER
            });
            let Some(lane) = standing.lane else {
                assert_ne!(due, Some(false), "{view:?} waits for nothing");
                continue;
            };
            let lane = lanes.entry((view.destination_id, lane)).or_default();
            assert_ne!(view.state, DeliveryState::Queued, "{view:?} is of a lane");
            lane.due += usize::from(due == Some(true));
            lane.follow += usize::from(due == Some(false));
            lane.dead |= view.state == DeliveryState::Dead && view.replayed_by.is_none();
        }
    }
    for (lane, found) in lanes {
        assert!(found.due <= 1, "{lane:?} {found:?}");
        assert!(found.due == 1 || found.follow == 0 || found.dead, "nothing brings {lane:?} forward: {found:?}");
    }
}

/// What is in a lane.
#[derive(Debug, Default)]
struct Lane {
    due: usize,
    follow: usize,
    dead: bool,
}

/// Attempts are numbered from 1 without a gap, and a delivery shows the last.
async fn attempts_are_dense(world: &World, tenant: TenantId, deliveries: &BTreeMap<DeliveryId, DeliveryView>) {
    let filter = AttemptFilter { since: Some(Timestamp::default()), ..AttemptFilter::default() };
    let mut numbers: BTreeMap<DeliveryId, Vec<u32>> = BTreeMap::new();
    let mut page = Page { limit: 250, after: None, descending: false };
    loop {
        let part = world.store.list_attempts(tenant, &filter, page).await.unwrap();
        let Some(last) = part.last() else { break };
        page.after = Some((last.delivery_id, last.attempt.number));
        for attempt in part {
            numbers.entry(attempt.delivery_id).or_default().push(attempt.attempt.number);
        }
    }
    for (id, delivery) in deliveries {
        let numbers = numbers.remove(id).unwrap_or_default();
        assert_eq!(numbers, (1..=delivery.attempts).collect::<Vec<_>>(), "{delivery:?}");
        assert_eq!(delivery.last_attempt.as_ref().map(|last| last.number), numbers.last().copied());
    }
    assert_eq!(numbers, BTreeMap::new(), "attempts without a delivery");
}

/// Dead letters are the dead deliveries that were neither replayed nor discarded; and those whose delivery is gone with
/// its retention. Returns how many there are.
async fn dead_letters_are_the_dead(
    world: &World,
    tenant: TenantId,
    deliveries: &BTreeMap<DeliveryId, DeliveryView>,
) -> u64 {
    let mut listed = BTreeSet::new();
    let mut page = Page { limit: 250, after: None, descending: false };
    loop {
        let filter = DeadLetterFilter::default();
        let part = world.store.list_dead_letters(tenant, &filter, page, false).await.unwrap();
        let Some(last) = part.last() else { break };
        page.after = Some(last.delivery_id);
        listed.extend(part.iter().map(|letter| letter.delivery_id));
    }
    let expected: BTreeSet<_> = deliveries
        .values()
        .filter(|delivery| {
            delivery.state == DeliveryState::Dead
                && delivery.replayed_by.is_none()
                && delivery.reason != Some(DeadReason::Discarded)
        })
        .map(|delivery| delivery.id)
        .collect();
    let with_delivery: BTreeSet<_> = listed.iter().copied().filter(|id| deliveries.contains_key(id)).collect();
    assert_eq!(with_delivery, expected, "dead letters");
    listed.len() as u64
}

/// An event counts the deliveries that were not replayed.
async fn events_count_their_deliveries(
    world: &World,
    tenant: TenantId,
    deliveries: &BTreeMap<DeliveryId, DeliveryView>,
) {
    let mut expected: BTreeMap<_, DeliveryCounts> = BTreeMap::new();
    for delivery in deliveries.values().filter(|delivery| delivery.replayed_by.is_none()) {
        let counts = expected.entry(delivery.event_id).or_default();
        match delivery.state {
            DeliveryState::Queued | DeliveryState::Waiting if delivery.attempts == 0 => counts.pending += 1,
            DeliveryState::Queued | DeliveryState::Waiting => counts.retrying += 1,
            DeliveryState::Delivered => counts.delivered += 1,
            DeliveryState::Dead => counts.dead += 1,
            DeliveryState::Cancelled => counts.cancelled += 1,
        }
    }
    let filter = EventFilter { since: Some(Timestamp::default()), ..EventFilter::default() };
    let mut page = Page { limit: 250, after: None, descending: false };
    loop {
        let part = world.store.list_events(tenant, &filter, page, false).await.unwrap();
        let Some(last) = part.last() else { break };
        page.after = Some(last.event.id);
        for view in part {
            let mut counts = expected.remove(&view.event.id).unwrap_or_default();
            // What a large fan-out has still to create counts as pending, too, and shows nowhere else.
            assert!(view.counts.pending >= counts.pending, "{view:?}");
            counts.pending = view.counts.pending;
            assert_eq!(view.counts, counts, "counts of {}", view.event.id);
        }
    }
    assert_eq!(expected, BTreeMap::new(), "deliveries without their event");
}
