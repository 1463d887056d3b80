//! Pages: by key, in both directions, without a gap or a repetition.

use std::fmt::Debug;

use signalpost_core::DestinationState;

use super::world::{TENANT, World, failed};
use crate::{
    ingest::Start,
    manage::ReplaySelection,
    read::{AttemptFilter, DeadLetterFilter, DeliveryFilter, EventFilter, Page},
};

super::cases![
    destinations_come_in_pages,
    destinations_come_by_their_state,
    events_come_in_pages,
    deliveries_come_in_pages,
    attempts_come_in_pages,
    dead_letters_come_in_pages,
    replays_come_in_pages,
];

const LIMIT: usize = 3;

/// Reads all pages in both directions and compares with the keys that there are.
pub(super) async fn walk<K: Copy + Ord + Debug>(mut all: Vec<K>, page_of: impl AsyncFn(Page<K>) -> Vec<K>) {
    all.sort();
    assert!(all.len() > 2 * LIMIT, "enough for three pages");
    for descending in [false, true] {
        if descending {
            all.reverse();
        }
        let mut seen = Vec::new();
        let mut page = Page { limit: LIMIT, after: None, descending };
        loop {
            let part = page_of(page).await;
            assert!(part.len() <= LIMIT);
            let Some(last) = part.last() else { break };
            page.after = Some(*last);
            seen.extend(part);
        }
        assert_eq!(seen, all, "descending: {descending}");
    }
    let whole = Page { limit: 250, after: None, descending: true };
    assert_eq!(page_of(whole).await, all);
}

async fn destinations_come_in_pages(world: &World) {
    let all = world.destinations(8).await;
    let gone = world.destination().await;
    world.store.delete_destination(TENANT, gone.id).await.unwrap();
    walk(all.iter().map(|destination| destination.id).collect(), async |page| {
        let found = world.store.list_destinations(TENANT, None, page).await.unwrap();
        found.into_iter().map(|destination| destination.id).collect()
    })
    .await;
}

async fn destinations_come_by_their_state(world: &World) {
    let all = world.destinations(21).await;
    for (place, destination) in all.iter().enumerate() {
        match place % 3 {
            0 => drop(world.store.set_paused(TENANT, destination.id, true).await.unwrap()),
            1 => world.store.disable_destination(TENANT, destination.id, "fails for days").await.unwrap(),
            _ => {}
        }
    }
    let states = [DestinationState::Paused, DestinationState::Disabled, DestinationState::Active];
    for (place, state) in states.into_iter().enumerate() {
        let expected = all.iter().skip(place).step_by(3).map(|destination| destination.id).collect();
        walk(expected, async |page| {
            let found = world.store.list_destinations(TENANT, Some(state), page).await.unwrap();
            found.into_iter().map(|destination| destination.id).collect()
        })
        .await;
    }
    let page = Page { limit: 10, after: None, descending: true };
    assert_eq!(world.store.list_destinations(TENANT, Some(DestinationState::Deleted), page).await.unwrap(), []);
}

async fn events_come_in_pages(world: &World) {
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(world.post_to(&[], Start::Queued).await.event.id);
    }
    walk(all, async |page| {
        let found = world.store.list_events(TENANT, &EventFilter::default(), page, false).await.unwrap();
        found.into_iter().map(|view| view.event.id).collect()
    })
    .await;
}

async fn deliveries_come_in_pages(world: &World) {
    let destinations = world.destinations(4).await;
    let mut all = Vec::new();
    for _ in 0..2 {
        let to: Vec<_> = destinations.iter().collect();
        all.extend(world.post_to(&to, Start::Queued).await.targets);
    }
    walk(all.iter().map(|target| target.delivery_id).collect(), async |page| {
        let found = world.store.list_deliveries(TENANT, &DeliveryFilter::default(), page).await.unwrap();
        found.into_iter().map(|delivery| delivery.id).collect()
    })
    .await;
    let event_id = Some(all[0].event_id);
    let page = Page { limit: 10, after: None, descending: false };
    let filter = DeliveryFilter { event_id, ..DeliveryFilter::default() };
    assert_eq!(world.store.list_deliveries(TENANT, &filter, page).await.unwrap().len(), 4);
}

async fn attempts_come_in_pages(world: &World) {
    let destination = world.destination().await;
    let mut all = Vec::new();
    for _ in 0..3 {
        let target = world.queued(&destination).await;
        for number in 1..=3 {
            world.write(failed(target, number, std::time::Duration::from_secs(60))).await;
            all.push((target.delivery_id, number));
        }
    }
    for destination_id in [None, Some(destination.id)] {
        let filter = AttemptFilter { destination_id, ..AttemptFilter::default() };
        walk(all.clone(), async |page| {
            let found = world.store.list_attempts(TENANT, &filter, page).await.unwrap();
            found.into_iter().map(|view| (view.delivery_id, view.attempt.number)).collect()
        })
        .await;
    }
}

async fn dead_letters_come_in_pages(world: &World) {
    let destination = world.destination().await;
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(world.dead(&destination).await.delivery_id);
    }
    walk(all, async |page| {
        let found = world.store.list_dead_letters(TENANT, &DeadLetterFilter::default(), page, false).await.unwrap();
        found.into_iter().map(|letter| letter.delivery_id).collect()
    })
    .await;
}

async fn replays_come_in_pages(world: &World) {
    let mut all = Vec::new();
    for _ in 0..8 {
        let job = world.new_job(TENANT, ReplaySelection::default()).await;
        world.store.create_replay(&job).await.unwrap();
        all.push(job.id);
    }
    walk(all, async |page| {
        let found = world.store.list_replays(TENANT, page).await.unwrap();
        found.into_iter().map(|job| job.id).collect()
    })
    .await;
}
