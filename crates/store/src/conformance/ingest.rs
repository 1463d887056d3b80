//! Groups of producers' requests.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::json;
use signalpost_core::{AttemptOutcome, DeliveryState, EventMeta, WaitReason};

use super::world::{TENANT, World, attempt, delivered, targets};
use crate::{
    StoreError,
    dispatch::Written,
    ingest::{EventOutcome, Start, UnitOutcome},
    read::{AttemptFilter, Page},
};

super::cases![
    a_group_commits_all_of_it_with_one_outbox_record,
    published_records_go_with_the_next_group,
    a_group_without_queued_deliveries_has_no_record,
    an_empty_group_is_fine,
    an_event_that_nobody_wants_is_kept,
    a_delivery_can_be_born_waiting,
    an_event_keeps_every_part,
    every_event_of_a_large_group_keeps_its_own,
    a_unit_on_old_routing_is_left_out_alone,
    a_change_on_another_handle_reroutes,
    data_that_is_refused_commits_nothing,
    a_refused_group_can_be_split,
];

const ACCEPTED: EventOutcome = EventOutcome::Accepted;

async fn a_group_commits_all_of_it_with_one_outbox_record(world: &World) {
    let destinations = world.destinations(2).await;
    let ids: Vec<_> = destinations.iter().map(|destination| destination.id).collect();
    let mut units = Vec::new();
    let mut deliveries = Vec::new();
    for _ in 0..2 {
        let mut events = Vec::new();
        for _ in 0..2 {
            let new = world.new_event(world.event(TENANT).await, &ids, Start::Queued);
            deliveries.extend(targets(&new));
            events.push(new);
        }
        units.push(world.unit(TENANT, events).await);
    }
    let group = world.group(units).await;
    let outcomes = world.store.ingest(&group).await.unwrap();
    assert_eq!(outcomes, vec![UnitOutcome::Committed(vec![ACCEPTED, ACCEPTED]); 2]);
    for target in &deliveries {
        let standing = world.standing(target.delivery_id).await;
        assert_eq!((standing.state, standing.attempts, standing.waiting), (DeliveryState::Queued, 0, None));
    }
    // The record holds them all.
    assert_eq!(world.store.relay(Duration::ZERO, 10).await.unwrap(), 1);
    for target in &deliveries {
        assert_eq!(world.state(target.delivery_id).await, DeliveryState::Waiting);
    }
    assert_eq!(world.store.relay(Duration::ZERO, 10).await.unwrap(), 0);
}

async fn published_records_go_with_the_next_group(world: &World) {
    let destination = world.destination().await;
    let first = world.post_to(&[&destination], Start::Queued).await;
    let new = world.new_event(world.event(TENANT).await, &[destination.id], Start::Queued);
    let second = targets(&new)[0];
    let mut group = world.group(vec![world.unit(TENANT, vec![new]).await]).await;
    group.published = vec![first.outbox_id];
    world.store.ingest(&group).await.unwrap();
    assert_eq!(world.store.relay(Duration::ZERO, 10).await.unwrap(), 1);
    assert_eq!(world.state(first.targets[0].delivery_id).await, DeliveryState::Queued);
    assert_eq!(world.state(second.delivery_id).await, DeliveryState::Waiting);
    // Deleting it again, and one that never was, is nothing.
    let mut group = world.group(Vec::new()).await;
    group.published = vec![first.outbox_id, world.group(Vec::new()).await.outbox_id];
    assert_eq!(world.store.ingest(&group).await.unwrap(), []);
}

async fn a_group_without_queued_deliveries_has_no_record(world: &World) {
    let destination = world.destination().await;
    world.waiting(&destination).await;
    assert_eq!(world.store.relay(Duration::ZERO, 10).await.unwrap(), 0);
    assert_eq!(world.store.sample().await.unwrap().outbox_age, Duration::ZERO);
}

async fn an_empty_group_is_fine(world: &World) {
    let group = world.group(Vec::new()).await;
    assert_eq!(world.store.ingest(&group).await.unwrap(), []);
    let group = world.group(vec![world.unit(TENANT, Vec::new()).await]).await;
    assert_eq!(world.store.ingest(&group).await.unwrap(), [UnitOutcome::Committed(Vec::new())]);
    assert_eq!(world.store.relay(Duration::ZERO, 10).await.unwrap(), 0);
}

async fn an_event_that_nobody_wants_is_kept(world: &World) {
    let posted = world.post_to(&[], Start::Queued).await;
    let view = world.store.event(TENANT, posted.event.id).await.unwrap().unwrap();
    assert_eq!(view.event, posted.event);
    assert_eq!(view.counts, crate::read::DeliveryCounts::default());
}

async fn a_delivery_can_be_born_waiting(world: &World) {
    let destination = world.destination().await;
    let target = world.post_to(&[&destination], Start::Waiting(WaitReason::Slot)).await.targets[0];
    let standing = world.standing(target.delivery_id).await;
    assert_eq!(standing.state, DeliveryState::Waiting);
    let (due_at, reason) = standing.waiting.unwrap();
    assert_eq!(reason, WaitReason::Slot);
    assert!(due_at <= world.now().await);
    let due = world.take(10).await;
    assert_eq!(due.deliveries.len(), 1);
    assert_eq!(due.deliveries[0].delivery_id, target.delivery_id);
}

async fn an_event_keeps_every_part(world: &World) {
    let destination = world.destination().await;
    let mut event = world.event(TENANT).await;
    event.event_type = "order.created:v2/eu".into();
    event.uid = Some("order-4711/ä".into());
    event.source = Some("urn:shop".into());
    event.data = Bytes::from_static(b"\x00\xff not JSON at all \xc3\x28");
    event.meta = EventMeta {
        occurred_at: Some(signalpost_core::Timestamp::from_micros(1_600_000_000_000_001)),
        ordering_key: Some("order 4711".into()),
        destination_id: Some(destination.id),
        labels: BTreeMap::from([("region \"eu\"".into(), "süd".into()), ("empty".into(), String::new())]),
        schema_version: Some("3".into()),
        content_type: Some("application/octet-stream".into()),
        extensions: BTreeMap::from([("n".into(), json!(1)), ("t".into(), json!("text")), ("b".into(), json!(true))]),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    };
    let posted = world.post_event(event.clone(), &[&destination], Start::Queued).await;
    assert_eq!(world.store.events(&[event.id]).await.unwrap(), [Arc::new(event.clone())]);
    assert_eq!(*world.store.event(TENANT, event.id).await.unwrap().unwrap().event, event);
    world.kill(posted.targets[0]).await;
    let letter = world.store.dead_letter(TENANT, posted.targets[0].delivery_id).await.unwrap().unwrap();
    assert_eq!(*letter.event, event);
}

/// More than a store may insert at once; some with what others lack, some large. All of them arrive in one batch.
async fn every_event_of_a_large_group_keeps_its_own(world: &World) {
    let destinations = world.destinations(2).await;
    let (mut units, mut events, mut deliveries) = (Vec::new(), Vec::new(), Vec::new());
    for unit in 0..5_usize {
        let mut posted = Vec::new();
        for place in 0..11 {
            let number = unit * 11 + place;
            let mut event = world.event(TENANT).await;
            event.event_type = format!("order.number-{number}");
            event.source = (number % 2 == 0).then(|| format!("urn:shop:{number}"));
            event.meta.schema_version = (number % 3 == 0).then(|| number.to_string());
            let length = if number % 20 == 7 { 65_530 + number } else { number };
            event.data = Bytes::from(format!("\"{}\"", "x".repeat(length)));
            let to = destinations[number % 2].id;
            let new = world.new_event(event.clone(), &[to], Start::Queued);
            deliveries.extend(targets(&new));
            events.push(event);
            posted.push(new);
        }
        units.push(world.unit(TENANT, posted).await);
    }
    let outcomes = world.store.ingest(&world.group(units).await).await.unwrap();
    assert_eq!(outcomes, vec![UnitOutcome::Committed(vec![ACCEPTED; 11]); 5]);
    for event in &events {
        assert_eq!(*world.store.event(TENANT, event.id).await.unwrap().unwrap().event, *event);
    }
    let arrivals: Vec<_> = deliveries.iter().map(|target| delivered(*target, 1)).collect();
    let twice: Vec<_> = arrivals.iter().rev().chain(&arrivals[..3]).cloned().collect();
    let written = world.store.write(&twice, false).await.unwrap().written;
    assert_eq!(written[..arrivals.len()], vec![Written::Done; arrivals.len()]);
    assert_eq!(written[arrivals.len()..], [Written::Superseded; 3]);
    for target in &deliveries {
        let view = world.store.delivery(TENANT, target.delivery_id).await.unwrap().unwrap();
        assert_eq!((view.state, view.attempts), (DeliveryState::Delivered, 1));
        assert_eq!((view.event_id, view.destination_id), (target.event_id, target.destination_id));
        let filter = AttemptFilter { delivery_id: Some(target.delivery_id), ..AttemptFilter::default() };
        let page = Page { limit: 100, after: None, descending: false };
        let listed = world.store.list_attempts(TENANT, &filter, page).await.unwrap();
        let of: Vec<_> = listed.iter().map(|view| (view.event_id, view.destination_id, &view.attempt)).collect();
        assert_eq!(of, [(target.event_id, target.destination_id, &attempt(1, AttemptOutcome::Delivered))]);
    }
}

async fn a_unit_on_old_routing_is_left_out_alone(world: &World) {
    let other = world.tenant("other").await;
    let destination = world.destination().await;
    let stale_new = world.new_event(world.event(TENANT).await, &[destination.id], Start::Queued);
    let stale_id = stale_new.event.id;
    let stale = world.unit(TENANT, vec![stale_new]).await;
    world.destination().await;
    let fresh_new = world.new_event(world.event(other).await, &[], Start::Queued);
    let fresh_id = fresh_new.event.id;
    let fresh = world.unit(other, vec![fresh_new]).await;
    let group = world.group(vec![stale, fresh]).await;
    let outcomes = world.store.ingest(&group).await.unwrap();
    assert_eq!(outcomes, [UnitOutcome::Rerouted, UnitOutcome::Committed(vec![ACCEPTED])]);
    assert_eq!(world.store.event(TENANT, stale_id).await.unwrap(), None);
    assert!(world.store.event(other, fresh_id).await.unwrap().is_some());
    assert_eq!(world.store.relay(Duration::ZERO, 10).await.unwrap(), 0, "nothing of it is in an outbox record");
}

async fn a_change_on_another_handle_reroutes(world: &World) {
    let elsewhere = world.database.handle().await;
    for _ in 0..10 {
        let unit = world.unit(TENANT, vec![world.new_event(world.event(TENANT).await, &[], Start::Queued)]).await;
        let destination = world.new_destination(TENANT).await;
        elsewhere.create_destination(&destination).await.unwrap();
        let mut group = world.group(vec![unit]).await;
        assert_eq!(world.store.ingest(&group).await.unwrap(), [UnitOutcome::Rerouted]);
        // What the rule is for: the routes that are read now have it, and with them the unit commits.
        let routes = world.store.routes(TENANT).await.unwrap();
        assert!(routes.routes.iter().any(|route| route.destination_id == destination.id));
        group.units[0].routing_version = routes.version;
        assert_eq!(world.store.ingest(&group).await.unwrap(), [UnitOutcome::Committed(vec![ACCEPTED])]);
    }
}

async fn data_that_is_refused_commits_nothing(world: &World) {
    let destination = world.destination().await;
    let good = world.new_event(world.event(TENANT).await, &[destination.id], Start::Queued);
    let good_id = good.event.id;
    let mut culprit = world.event(TENANT).await;
    culprit.source = Some("a\0b".into());
    let culprit_id = culprit.id;
    let bad = world.new_event(culprit, &[destination.id], Start::Waiting(WaitReason::Turn));
    let units = vec![world.unit(TENANT, vec![good]).await, world.unit(TENANT, vec![bad]).await];
    let group = world.group(units).await;
    let error = world.store.ingest(&group).await.unwrap_err();
    assert!(matches!(error, StoreError::Data(_)), "{error:?}");
    assert_eq!(world.store.event(TENANT, good_id).await.unwrap(), None);
    assert_eq!(world.store.event(TENANT, culprit_id).await.unwrap(), None);
    assert_eq!(world.store.relay(Duration::ZERO, 10).await.unwrap(), 0);
    assert_eq!(world.take_all().await.len(), 0);
}

async fn a_refused_group_can_be_split(world: &World) {
    let destination = world.destination().await;
    let good = world.new_event(world.event(TENANT).await, &[destination.id], Start::Queued);
    let good_id = good.event.id;
    let mut culprit = world.event(TENANT).await;
    culprit.event_type = "order\0created".into();
    let bad = world.new_event(culprit, &[destination.id], Start::Queued);
    let mut group = world.group(vec![world.unit(TENANT, vec![bad]).await, world.unit(TENANT, vec![good]).await]).await;
    assert!(matches!(world.store.ingest(&group).await, Err(StoreError::Data(_))));
    let alone = group.units.split_off(1);
    assert!(matches!(world.store.ingest(&group).await, Err(StoreError::Data(_))));
    group.units = alone;
    assert_eq!(world.store.ingest(&group).await.unwrap(), [UnitOutcome::Committed(vec![ACCEPTED])]);
    assert!(world.store.event(TENANT, good_id).await.unwrap().is_some());
}
