//! Idempotency keys and uids of events, in the transaction of the event.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use signalpost_core::{EventId, TenantId};

use super::world::{TENANT, World, eventually};
use crate::{
    ingest::{EventOutcome, IngestGroup, IngestUnit, KeyClaim, NewEvent, Start, StoredAnswer, UidClaim, UnitOutcome},
    manage::{Begun, IdempotencyKey},
    read::{EventFilter, Page},
};

super::cases![
    a_repeated_key_gets_the_first_answer,
    another_body_is_a_mismatch,
    a_key_belongs_to_its_tenant_and_scope,
    an_expired_key_is_a_new_one,
    a_key_that_was_begun_and_left_is_taken_over,
    a_unit_that_is_left_out_takes_no_key,
    fifty_at_once_make_one_event,
    fifty_at_once_with_two_bodies_agree_on_one,
    a_repeated_uid_gets_the_first_answer,
    other_content_under_a_uid_is_a_conflict,
    a_uid_belongs_to_its_tenant_and_source,
    an_expired_uid_is_a_new_one,
    equal_uids_within_a_group_are_one_event,
    fifty_at_once_with_one_uid_make_one_event,
    the_answer_of_a_request_tells_of_all_its_events,
];

const HOUR: Duration = Duration::from_secs(3600);
const ACCEPTED: EventOutcome = EventOutcome::Accepted;

/// A claim whose answer tells how many events were accepted.
fn claim(scope: &str, key: &str, body: u8, ttl: Duration) -> KeyClaim {
    KeyClaim {
        scope: scope.into(),
        key: key.into(),
        body_hash: [body; 32],
        ttl,
        answer: Arc::new(move |outcomes| {
            let accepted = outcomes.iter().filter(|outcome| **outcome == ACCEPTED).count();
            StoredAnswer {
                status: 202,
                body: Bytes::from(format!("{accepted} of {} with body {body}", outcomes.len())),
            }
        }),
    }
}

/// A request of one event.
async fn request(world: &World, tenant: TenantId, claim: Option<KeyClaim>) -> IngestUnit {
    let new = world.new_event(world.event(tenant).await, &[], Start::Queued);
    IngestUnit { claim, ..world.unit(tenant, vec![new]).await }
}

async fn ingest(world: &World, unit: IngestUnit) -> UnitOutcome {
    let group = world.group(vec![unit]).await;
    world.store.ingest(&group).await.unwrap().remove(0)
}

async fn events(world: &World, tenant: TenantId) -> Vec<EventId> {
    let page = Page { limit: 250, after: None, descending: false };
    let views = world.store.list_events(tenant, &EventFilter::default(), page, false).await.unwrap();
    views.into_iter().map(|view| view.event.id).collect()
}

async fn a_repeated_key_gets_the_first_answer(world: &World) {
    let first = ingest(world, request(world, TENANT, Some(claim("events", "k", 1, HOUR))).await).await;
    assert_eq!(first, UnitOutcome::Committed(vec![ACCEPTED]));
    for _ in 0..2 {
        let again = ingest(world, request(world, TENANT, Some(claim("events", "k", 1, HOUR))).await).await;
        let answer = StoredAnswer { status: 202, body: Bytes::from_static(b"1 of 1 with body 1") };
        assert_eq!(again, UnitOutcome::Replayed(answer));
    }
    assert_eq!(events(world, TENANT).await.len(), 1);
}

async fn another_body_is_a_mismatch(world: &World) {
    ingest(world, request(world, TENANT, Some(claim("events", "k", 1, HOUR))).await).await;
    let other = ingest(world, request(world, TENANT, Some(claim("events", "k", 2, HOUR))).await).await;
    assert_eq!(other, UnitOutcome::Mismatch);
    assert_eq!(events(world, TENANT).await.len(), 1);
}

async fn a_key_belongs_to_its_tenant_and_scope(world: &World) {
    let other = world.tenant("other").await;
    for (tenant, scope) in [(TENANT, "events"), (other, "events"), (TENANT, "events dst")] {
        let outcome = ingest(world, request(world, tenant, Some(claim(scope, "k", 1, HOUR))).await).await;
        assert_eq!(outcome, UnitOutcome::Committed(vec![ACCEPTED]), "{tenant} {scope}");
    }
    assert_eq!(events(world, TENANT).await.len(), 2);
    assert_eq!(events(world, other).await.len(), 1);
}

async fn an_expired_key_is_a_new_one(world: &World) {
    let short = Duration::from_millis(50);
    ingest(world, request(world, TENANT, Some(claim("events", "k", 1, short))).await).await;
    eventually("the key expires, also for another body", async || {
        let outcome = ingest(world, request(world, TENANT, Some(claim("events", "k", 2, HOUR))).await).await;
        (outcome == UnitOutcome::Committed(vec![ACCEPTED])).then_some(())
    })
    .await;
    let again = ingest(world, request(world, TENANT, Some(claim("events", "k", 2, HOUR))).await).await;
    assert!(matches!(again, UnitOutcome::Replayed(_)), "{again:?}");
    assert_eq!(events(world, TENANT).await.len(), 2);
}

async fn a_key_that_was_begun_and_left_is_taken_over(world: &World) {
    let key = |body| IdempotencyKey { scope: "events".into(), key: "k".into(), body_hash: [body; 32], ttl: HOUR };
    let lease = Duration::from_millis(50);
    assert_eq!(world.store.begin_idempotent(TENANT, &key(1), lease).await.unwrap(), Begun::First);
    eventually("the lease runs out", async || {
        let other_body = ingest(world, request(world, TENANT, Some(claim("events", "k", 2, HOUR))).await).await;
        assert_eq!(other_body, UnitOutcome::Mismatch);
        let outcome = ingest(world, request(world, TENANT, Some(claim("events", "k", 1, HOUR))).await).await;
        (outcome == UnitOutcome::Committed(vec![ACCEPTED])).then_some(())
    })
    .await;
    let answer = StoredAnswer { status: 202, body: Bytes::from_static(b"1 of 1 with body 1") };
    assert_eq!(world.store.begin_idempotent(TENANT, &key(1), lease).await.unwrap(), Begun::Answered(answer));
    assert_eq!(events(world, TENANT).await.len(), 1);
}

async fn a_unit_that_is_left_out_takes_no_key(world: &World) {
    let unit = request(world, TENANT, Some(claim("events", "k", 1, HOUR))).await;
    world.destination().await;
    assert_eq!(ingest(world, unit).await, UnitOutcome::Rerouted);
    let other_body = request(world, TENANT, Some(claim("events", "k", 2, HOUR))).await;
    assert_eq!(ingest(world, other_body).await, UnitOutcome::Committed(vec![ACCEPTED]));
}

/// Fifty groups of one unit at once, on two handles, as two processes would send them.
async fn at_once(world: &World, units: Vec<IngestUnit>) -> Vec<UnitOutcome> {
    let handles = [Arc::clone(&world.store), world.database.handle().await];
    let mut groups: Vec<IngestGroup> = Vec::new();
    for unit in units {
        groups.push(world.group(vec![unit]).await);
    }
    let tasks = groups.into_iter().enumerate().map(|(number, group)| {
        let store = Arc::clone(&handles[number % handles.len()]);
        tokio::spawn(async move { store.ingest(&group).await.unwrap().remove(0) })
    });
    join_all(tasks).await.into_iter().map(|outcome| outcome.unwrap()).collect()
}

async fn fifty_at_once_make_one_event(world: &World) {
    let mut units = Vec::new();
    for _ in 0..50 {
        units.push(request(world, TENANT, Some(claim("events", "k", 1, HOUR))).await);
    }
    let outcomes = at_once(world, units).await;
    let committed = outcomes.iter().filter(|outcome| matches!(outcome, UnitOutcome::Committed(_))).count();
    assert_eq!(committed, 1, "{outcomes:?}");
    let answer = StoredAnswer { status: 202, body: Bytes::from_static(b"1 of 1 with body 1") };
    let replayed = outcomes.iter().filter(|outcome| **outcome == UnitOutcome::Replayed(answer.clone())).count();
    assert_eq!(replayed, 49, "{outcomes:?}");
    assert_eq!(events(world, TENANT).await.len(), 1);
}

async fn fifty_at_once_with_two_bodies_agree_on_one(world: &World) {
    let mut units = Vec::new();
    for number in 0..50 {
        units.push(request(world, TENANT, Some(claim("events", "k", number % 2, HOUR))).await);
    }
    let outcomes = at_once(world, units).await;
    let count = |wanted: fn(&UnitOutcome) -> bool| outcomes.iter().filter(|outcome| wanted(outcome)).count();
    assert_eq!(count(|outcome| matches!(outcome, UnitOutcome::Committed(_))), 1);
    assert_eq!(count(|outcome| matches!(outcome, UnitOutcome::Replayed(_))), 24);
    assert_eq!(count(|outcome| *outcome == UnitOutcome::Mismatch), 25);
    assert_eq!(events(world, TENANT).await.len(), 1);
}

/// An event with a uid, whose content is told by `content`.
async fn with_uid(world: &World, tenant: TenantId, source: Option<&str>, content: u8, ttl: Duration) -> NewEvent {
    let mut event = world.event(tenant).await;
    event.uid = Some("order-1".into());
    event.source = source.map(Into::into);
    let mut new = world.new_event(event, &[], Start::Queued);
    new.uid = Some(UidClaim { content_hash: [content; 32], ttl });
    new
}

async fn post(world: &World, events: Vec<NewEvent>) -> Vec<EventOutcome> {
    let tenant = events[0].event.tenant_id;
    let unit = world.unit(tenant, events).await;
    match ingest(world, unit).await {
        UnitOutcome::Committed(outcomes) => outcomes,
        other => panic!("{other:?}"),
    }
}

async fn a_repeated_uid_gets_the_first_answer(world: &World) {
    let first = with_uid(world, TENANT, None, 1, HOUR).await;
    assert_eq!(post(world, vec![first.clone()]).await, [ACCEPTED]);
    let again = with_uid(world, TENANT, None, 1, HOUR).await;
    assert_eq!(post(world, vec![again]).await, [EventOutcome::Duplicate(first.answer.clone())]);
    assert_eq!(events(world, TENANT).await, [first.event.id]);
    assert_eq!(world.store.event_by_uid(TENANT, "order-1").await.unwrap(), Some(first.event.id));
}

async fn other_content_under_a_uid_is_a_conflict(world: &World) {
    let first = with_uid(world, TENANT, None, 1, HOUR).await;
    assert_eq!(post(world, vec![first.clone()]).await, [ACCEPTED]);
    let other = with_uid(world, TENANT, None, 2, HOUR).await;
    let beside = world.new_event(world.event(TENANT).await, &[], Start::Queued);
    assert_eq!(post(world, vec![other, beside]).await, [EventOutcome::UidConflict, ACCEPTED]);
    assert_eq!(events(world, TENANT).await.len(), 2);
}

async fn a_uid_belongs_to_its_tenant_and_source(world: &World) {
    let other = world.tenant("other").await;
    for (tenant, source) in [(TENANT, None), (TENANT, Some("shop")), (TENANT, Some("till")), (other, None)] {
        let new = with_uid(world, tenant, source, 1, HOUR).await;
        let id = new.event.id;
        assert_eq!(post(world, vec![new]).await, [ACCEPTED], "{tenant} {source:?}");
        assert_eq!(world.store.event_by_uid(tenant, "order-1").await.unwrap(), Some(id), "the newest");
    }
}

async fn an_expired_uid_is_a_new_one(world: &World) {
    let first = with_uid(world, TENANT, None, 1, Duration::from_millis(50)).await;
    assert_eq!(post(world, vec![first.clone()]).await, [ACCEPTED]);
    let newest = eventually("the uid expires", async || {
        let new = with_uid(world, TENANT, None, 2, HOUR).await;
        let id = new.event.id;
        (post(world, vec![new]).await == [ACCEPTED]).then_some(id)
    })
    .await;
    assert_eq!(world.store.event_by_uid(TENANT, "order-1").await.unwrap(), Some(newest));
    assert_eq!(events(world, TENANT).await, [first.event.id, newest]);
}

async fn equal_uids_within_a_group_are_one_event(world: &World) {
    let mut new = Vec::new();
    for content in [1, 1, 2] {
        new.push(with_uid(world, TENANT, None, content, HOUR).await);
    }
    let first = new[0].clone();
    let expected = [ACCEPTED, EventOutcome::Duplicate(first.answer.clone()), EventOutcome::UidConflict];
    assert_eq!(post(world, new).await, expected);
    let units = vec![
        world.unit(TENANT, vec![with_uid(world, TENANT, Some("shop"), 1, HOUR).await]).await,
        world.unit(TENANT, vec![with_uid(world, TENANT, Some("shop"), 1, HOUR).await]).await,
    ];
    let answer = units[0].events[0].answer.clone();
    let group = world.group(units).await;
    let outcomes = world.store.ingest(&group).await.unwrap();
    let expected = [vec![ACCEPTED], vec![EventOutcome::Duplicate(answer)]].map(UnitOutcome::Committed);
    assert_eq!(outcomes, expected);
    assert_eq!(events(world, TENANT).await.len(), 2);
}

async fn fifty_at_once_with_one_uid_make_one_event(world: &World) {
    let mut units = Vec::new();
    for _ in 0..50 {
        let new = with_uid(world, TENANT, None, 1, HOUR).await;
        units.push(world.unit(TENANT, vec![new]).await);
    }
    let outcomes = at_once(world, units).await;
    let stored = events(world, TENANT).await;
    assert_eq!(stored.len(), 1);
    let accepted = outcomes.iter().filter(|outcome| **outcome == UnitOutcome::Committed(vec![ACCEPTED])).count();
    assert_eq!(accepted, 1);
    let answers: BTreeSet<Vec<u8>> = outcomes
        .into_iter()
        .filter_map(|outcome| match outcome {
            UnitOutcome::Committed(events) => match &events[0] {
                EventOutcome::Duplicate(answer) => Some(answer.to_vec()),
                _ => None,
            },
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(answers, BTreeSet::from([format!("{{\"id\":\"{}\"}}", stored[0]).into_bytes()]));
}

async fn the_answer_of_a_request_tells_of_all_its_events(world: &World) {
    let first = with_uid(world, TENANT, None, 1, HOUR).await;
    post(world, vec![first]).await;
    let batch = vec![
        with_uid(world, TENANT, None, 2, HOUR).await,
        world.new_event(world.event(TENANT).await, &[], Start::Queued),
    ];
    let unit = IngestUnit { claim: Some(claim("batch", "k", 1, HOUR)), ..world.unit(TENANT, batch).await };
    assert_eq!(ingest(world, unit).await, UnitOutcome::Committed(vec![EventOutcome::UidConflict, ACCEPTED]));
    let again = request(world, TENANT, Some(claim("batch", "k", 1, HOUR))).await;
    let answer = StoredAnswer { status: 202, body: Bytes::from_static(b"1 of 2 with body 1") };
    assert_eq!(ingest(world, again).await, UnitOutcome::Replayed(answer));
}
