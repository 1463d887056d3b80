//! The filters of lists, and what single reads show.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use signalpost_core::{AttemptOutcome, DeadReason, DeliveryStatus, Event, EventId, Timestamp, WaitReason};

use super::world::{TENANT, World, attempt, delivered, died, failed, interrupted, park};
use crate::{
    dispatch::{DeliveryWrite, Next, Target, Written},
    ingest::Start,
    read::{AttemptFilter, DeadLetterFilter, DeliveryFilter, EventFilter, Page},
};

super::cases![
    events_are_filtered,
    events_come_with_or_without_data,
    deliveries_are_filtered,
    attempts_are_filtered,
    dead_letters_are_filtered,
    a_delivery_shows_what_it_waits_for,
    tenants_are_found,
    the_sample_shows_what_waits,
    health_tells_the_time,
];

const LATER: Duration = Duration::from_secs(600);

fn all<K>() -> Page<K> {
    Page { limit: 250, after: None, descending: false }
}

async fn events_are_filtered(world: &World) {
    let base = Timestamp::from_millis(world.now().await.as_millis() - 100);
    let mut events: Vec<Event> = Vec::new();
    for (number, at) in (0..4).map(|number| (number, base + Duration::from_millis(10 * number))) {
        let mut event = world.event_at(TENANT, at);
        event.event_type = if number % 2 == 0 { "order.created".into() } else { "order.paid".into() };
        event.uid = Some(format!("uid-{}", number / 2));
        event.source = (number != 3).then(|| format!("source-{number}"));
        event.meta.labels = BTreeMap::from([("n".to_owned(), number.to_string()), ("ä \"x\"".into(), "y".into())]);
        world.post_event(event.clone(), &[], Start::Queued).await;
        events.push(event);
    }
    let ids = |places: &[usize]| places.iter().map(|place| events[*place].id).collect::<Vec<EventId>>();
    let filter = EventFilter::default;
    let label = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let micro = Duration::from_micros(1);
    for (filter, expected) in [
        (filter(), ids(&[0, 1, 2, 3])),
        (EventFilter { event_type: Some("order.paid".into()), ..filter() }, ids(&[1, 3])),
        (EventFilter { event_type: Some("order".into()), ..filter() }, ids(&[])),
        (EventFilter { uid: Some("uid-1".into()), ..filter() }, ids(&[2, 3])),
        (EventFilter { source: Some("source-2".into()), ..filter() }, ids(&[2])),
        (EventFilter { labels: label("n", "2"), ..filter() }, ids(&[2])),
        (EventFilter { labels: label("ä \"x\"", "y"), ..filter() }, ids(&[0, 1, 2, 3])),
        (EventFilter { labels: [label("n", "1"), label("ä \"x\"", "y")].concat(), ..filter() }, ids(&[1])),
        (EventFilter { labels: [label("n", "1"), label("n", "2")].concat(), ..filter() }, ids(&[])),
        (EventFilter { since: Some(events[2].created_at()), ..filter() }, ids(&[2, 3])),
        (EventFilter { since: Some(events[2].created_at() + micro), ..filter() }, ids(&[3])),
        (EventFilter { until: Some(events[2].created_at()), ..filter() }, ids(&[0, 1])),
        (EventFilter { until: Some(events[2].created_at() + micro), ..filter() }, ids(&[0, 1, 2])),
        (EventFilter { uid: Some("uid-1".into()), event_type: Some("order.paid".into()), ..filter() }, ids(&[3])),
    ] {
        let found = world.store.list_events(TENANT, &filter, all(), false).await.unwrap();
        let found: Vec<_> = found.into_iter().map(|view| view.event.id).collect();
        assert_eq!(found, expected, "{filter:?}");
    }
    let labelled = EventFilter { labels: label("ä \"x\"", "y"), ..filter() };
    let page = Page { limit: 2, after: Some(events[3].id), descending: true };
    let found = world.store.list_events(TENANT, &labelled, page, false).await.unwrap();
    assert_eq!(found.into_iter().map(|view| view.event.id).collect::<Vec<_>>(), ids(&[2, 1]));
}

async fn events_come_with_or_without_data(world: &World) {
    let destination = world.destination().await;
    let posted = world.post_to(&[&destination], Start::Queued).await;
    let with = world.store.list_events(TENANT, &EventFilter::default(), all(), true).await.unwrap();
    assert_eq!(with[0].event, posted.event);
    assert_eq!(with[0].counts.pending, 1);
    let without = world.store.list_events(TENANT, &EventFilter::default(), all(), false).await.unwrap();
    assert_eq!(*without[0].event, Event { data: Bytes::new(), ..(*posted.event).clone() });
    assert_eq!(without[0].counts, with[0].counts);
    assert_eq!(world.store.event(TENANT, posted.event.id).await.unwrap().as_ref(), Some(&with[0]));
}

async fn deliveries_are_filtered(world: &World) {
    let destinations = world.destinations(2).await;
    let base = Timestamp::from_millis(world.now().await.as_millis() - 100);
    let mut targets: Vec<Target> = Vec::new();
    for number in 0..5_u64 {
        let mut event = world.event_at(TENANT, base + Duration::from_millis(10 * number));
        event.event_type = if number < 3 { "order.created".into() } else { "order.paid".into() };
        let to = &destinations[usize::from(number % 2 == 1)];
        targets.push(world.post_event(event, &[to], Start::Queued).await.targets[0]);
    }
    // 0 stays pending.
    world.write(failed(targets[1], 1, LATER)).await;
    world.deliver(targets[2]).await;
    world.kill(targets[3]).await;
    world.write(DeliveryWrite::End { target: targets[4], dead: None }).await;
    let ids = |places: &[usize]| places.iter().map(|place| targets[*place].delivery_id).collect::<Vec<_>>();
    let filter = DeliveryFilter::default;
    let status = |status| DeliveryFilter { status: Some(status), ..DeliveryFilter::default() };
    let at = |place: usize| Some(targets[place].event_id.created_at());
    for (filter, expected) in [
        (filter(), ids(&[0, 1, 2, 3, 4])),
        (status(DeliveryStatus::Pending), ids(&[0])),
        (status(DeliveryStatus::Retrying), ids(&[1])),
        (status(DeliveryStatus::Delivered), ids(&[2])),
        (status(DeliveryStatus::Dead), ids(&[3])),
        (status(DeliveryStatus::Cancelled), ids(&[4])),
        (DeliveryFilter { destination_id: Some(destinations[1].id), ..filter() }, ids(&[1, 3])),
        (DeliveryFilter { event_id: Some(targets[2].event_id), ..filter() }, ids(&[2])),
        (DeliveryFilter { event_type: Some("order.paid".into()), ..filter() }, ids(&[3, 4])),
        (DeliveryFilter { since: at(1), until: at(3), ..filter() }, ids(&[1, 2])),
        (
            DeliveryFilter {
                destination_id: Some(destinations[0].id),
                event_type: Some("order.created".into()),
                ..status(DeliveryStatus::Delivered)
            },
            ids(&[2]),
        ),
    ] {
        let found = world.store.list_deliveries(TENANT, &filter, all()).await.unwrap();
        for view in &found {
            assert_eq!(world.store.delivery(TENANT, view.id).await.unwrap().as_ref(), Some(view));
        }
        let found: Vec<_> = found.into_iter().map(|view| view.id).collect();
        assert_eq!(found, expected, "{filter:?}");
    }
    let view = world.store.delivery(TENANT, targets[3].delivery_id).await.unwrap().unwrap();
    assert_eq!((view.event_type.as_str(), view.event_id), ("order.paid", targets[3].event_id));
    assert_eq!(view.last_attempt, Some(attempt(1, AttemptOutcome::Dead)));
}

async fn attempts_are_filtered(world: &World) {
    let destinations = world.destinations(2).await;
    let (one, other) = (world.queued(&destinations[0]).await, world.queued(&destinations[1]).await);
    let started = Timestamp::from_millis(world.now().await.as_millis());
    for (target, number) in [(one, 1), (one, 2), (other, 1)] {
        let mut attempt = attempt(number, AttemptOutcome::Retry);
        attempt.started_at = started + Duration::from_secs(u64::from(number));
        let next = Next::Retry { after: LATER };
        assert_eq!(world.write(DeliveryWrite::Attempt { target, attempt, next }).await, Written::Done);
    }
    assert_eq!(world.write(interrupted(other, 2)).await, Written::Done);
    let ids = |wanted: &[(Target, u32)]| wanted.iter().map(|(t, n)| (t.delivery_id, *n)).collect::<Vec<_>>();
    let filter = AttemptFilter::default;
    let since = |seconds| Some(started + Duration::from_secs(seconds));
    for (filter, mut expected) in [
        (AttemptFilter { event_id: Some(one.event_id), ..filter() }, ids(&[(one, 1), (one, 2)])),
        (AttemptFilter { delivery_id: Some(other.delivery_id), ..filter() }, ids(&[(other, 1), (other, 2)])),
        (AttemptFilter { destination_id: Some(destinations[0].id), ..filter() }, ids(&[(one, 1), (one, 2)])),
        (AttemptFilter { outcome: Some(AttemptOutcome::Interrupted), ..filter() }, ids(&[(other, 2)])),
        (AttemptFilter { since: since(1), until: since(2), ..filter() }, ids(&[(one, 1), (other, 1)])),
        (AttemptFilter { since: since(2), ..filter() }, ids(&[(one, 2)])),
        (
            AttemptFilter { destination_id: Some(destinations[1].id), event_id: Some(one.event_id), ..filter() },
            ids(&[]),
        ),
    ] {
        let found = world.store.list_attempts(TENANT, &filter, all()).await.unwrap();
        for view in &found {
            let target = if view.delivery_id == one.delivery_id { one } else { other };
            assert_eq!((view.event_id, view.destination_id), (target.event_id, target.destination_id));
        }
        let found: Vec<_> = found.into_iter().map(|view| (view.delivery_id, view.attempt.number)).collect();
        expected.sort();
        assert_eq!(found, expected, "{filter:?}");
    }
}

async fn dead_letters_are_filtered(world: &World) {
    let destinations = world.destinations(2).await;
    let mut targets = Vec::new();
    for (number, reason) in [DeadReason::Exhausted, DeadReason::Rejected, DeadReason::Exhausted].into_iter().enumerate()
    {
        let mut event = world.event(TENANT).await;
        event.event_type = if number == 1 { "order.paid".into() } else { "order.created".into() };
        let posted = world.post_event(event, &[&destinations[usize::from(number == 2)]], Start::Queued).await;
        assert_eq!(world.write(died(posted.targets[0], 1, reason)).await, Written::Done);
        targets.push(posted.targets[0]);
    }
    let mut died_at = Vec::new();
    for target in &targets {
        died_at.push(world.store.dead_letter(TENANT, target.delivery_id).await.unwrap().unwrap().dead_at);
    }
    let filter = DeadLetterFilter::default;
    for (filter, expected) in [
        (filter(), vec![0, 1, 2]),
        (DeadLetterFilter { destination_id: Some(destinations[1].id), ..filter() }, vec![2]),
        (DeadLetterFilter { event_type: Some("order.paid".into()), ..filter() }, vec![1]),
        (DeadLetterFilter { reason: Some(DeadReason::Exhausted), ..filter() }, vec![0, 2]),
        (DeadLetterFilter { since: Some(died_at[1]), ..filter() }, vec![1, 2]),
        (DeadLetterFilter { until: Some(died_at[1]), ..filter() }, vec![0]),
    ] {
        let found = world.store.list_dead_letters(TENANT, &filter, all(), false).await.unwrap();
        assert!(found.iter().all(|letter| letter.event.data.is_empty()));
        let found: Vec<_> = found.into_iter().map(|letter| letter.delivery_id).collect();
        let mut expected: Vec<_> = expected.into_iter().map(|place| targets[place].delivery_id).collect();
        expected.sort();
        assert_eq!(found, expected, "{filter:?}");
    }
    let with = world.store.list_dead_letters(TENANT, &filter(), all(), true).await.unwrap();
    for letter in with {
        assert_eq!(world.store.dead_letter(TENANT, letter.delivery_id).await.unwrap(), Some(letter));
    }
}

async fn a_delivery_shows_what_it_waits_for(world: &World) {
    let destination = world.destination().await;
    let target = world.queued(&destination).await;
    let waits = async || world.store.delivery(TENANT, target.delivery_id).await.unwrap().unwrap().waiting;
    assert_eq!(waits().await, None);
    world.write(park(target, WaitReason::Slot, LATER, false)).await;
    assert_eq!(waits().await, world.standing(target.delivery_id).await.waiting);
    assert_eq!(waits().await.unwrap().1, WaitReason::Slot);
    world.write(failed(target, 1, LATER)).await;
    assert_eq!(waits().await.unwrap().1, WaitReason::Retry);
    world.write(delivered(target, 2)).await;
    assert_eq!(waits().await, None);
}

async fn tenants_are_found(world: &World) {
    let other = world.tenant("other").await;
    assert_eq!(world.store.tenant_by_slug("default").await.unwrap(), Some(TENANT));
    assert_eq!(world.store.tenant_by_slug("other").await.unwrap(), Some(other));
    assert_eq!(world.store.tenant_by_slug("Other").await.unwrap(), None);
    assert!(world.store.tenant_exists(other).await.unwrap());
    let unknown = signalpost_core::TenantId::new(world.now().await, world.entropy());
    assert!(!world.store.tenant_exists(unknown).await.unwrap());
}

async fn the_sample_shows_what_waits(world: &World) {
    assert_eq!(world.store.sample().await.unwrap(), crate::schedule::Sample::default());
    let destinations = world.destinations(3).await;
    for (place, count) in [(0, 2), (1, 3)] {
        for _ in 0..count {
            world.waiting(&destinations[place]).await;
        }
    }
    world.dead(&destinations[2]).await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    let sample = world.store.sample().await.unwrap();
    assert_eq!((sample.waiting, sample.queues, sample.spilled, sample.dead_letters), (5, 2, 0, 1));
    assert_eq!(sample.deepest, [(destinations[1].id, 3), (destinations[0].id, 2)]);
    assert!(sample.oldest_due > Duration::ZERO && sample.outbox_age > Duration::ZERO, "{sample:?}");
    world.take_all().await;
    assert_eq!(world.store.sample().await.unwrap().oldest_due, Duration::ZERO, "all of it is on its way");
}

async fn health_tells_the_time(world: &World) {
    let first = world.store.check().await.unwrap();
    assert!(first > Timestamp::from_millis(1_700_000_000_000));
    assert!(world.store.check().await.unwrap() >= first);
}
