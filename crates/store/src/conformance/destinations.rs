//! Destinations and the routing that they make.

use std::sync::Arc;

use futures::future::join_all;
use signalpost_core::{Destination, DestinationState, Kept, pattern::EventPattern};

use super::world::{TENANT, World, spec};
use crate::{
    ingest::RoutingVersion,
    manage::{Created, DestinationUpdate},
};

super::cases![
    a_destination_is_kept_whole,
    creating_the_same_again_changes_nothing,
    a_uid_is_unique_among_those_that_are_there,
    one_of_many_gets_a_uid,
    an_update_holds_on_its_version_only,
    it_is_paused_and_resumed,
    it_is_disabled_and_resumed,
    a_deleted_one_is_gone_for_its_owner,
    every_change_moves_routing_and_is_told,
    what_changes_nothing_is_not_told,
    another_handle_hears_of_changes,
    routes_show_what_a_router_needs,
    who_polls_misses_no_change,
];

/// As it is kept: the store stamps the last change.
fn same(kept: &Destination, given: &Destination) -> bool {
    Destination { updated_at: given.updated_at, ..kept.clone() } == *given
}

async fn version(world: &World) -> RoutingVersion {
    world.store.routes(TENANT).await.unwrap().version
}

async fn a_destination_is_kept_whole(world: &World) {
    let mut destination = world.new_destination(TENANT).await;
    destination.uid = Some("crm/main".into());
    destination.spec = serde_json::from_value(serde_json::json!({
        "name": "CRM", "description": "ä \"quoted\"", "url": "https://example.com/hook?x=1",
        "event_types": ["order.*", "**.failed"], "method": "PUT", "headers": {"x-a": "{event.id}"},
        "body_format": "cloudevents", "timeout_ms": 3000, "rate_limit": {"per_second": 0.5, "burst": 7},
        "max_in_flight": 3, "metadata": {"team": "x"},
        "retry": {"strategy": "exponential", "initial_ms": 50, "factor": 1.5, "max_ms": 2000, "max_attempts": 100,
                  "jitter": 0.1, "on_4xx": "never"},
    }))
    .unwrap();
    world.create(&destination).await;
    let found = world.store.destination(TENANT, destination.id).await.unwrap().unwrap();
    assert!(same(&found, &destination), "{found:?}");
    assert_eq!(found.secrets, destination.secrets);
    assert_eq!(world.store.destination_by_uid(TENANT, "crm/main").await.unwrap(), Some(found.clone()));
    let listed = world.store.destinations(&[destination.id, world.new_destination(TENANT).await.id]).await.unwrap();
    assert_eq!(listed, [found]);
}

async fn creating_the_same_again_changes_nothing(world: &World) {
    let mut destination = world.new_destination(TENANT).await;
    destination.uid = Some("crm".into());
    world.create(&destination).await;
    let before = (version(world).await, world.store.destination(TENANT, destination.id).await.unwrap());
    world.create(&destination).await;
    assert_eq!((version(world).await, world.store.destination(TENANT, destination.id).await.unwrap()), before);
}

async fn a_uid_is_unique_among_those_that_are_there(world: &World) {
    let mut first = world.new_destination(TENANT).await;
    first.uid = Some("crm".into());
    world.create(&first).await;
    let mut second = world.new_destination(TENANT).await;
    second.uid = Some("crm".into());
    assert_eq!(world.store.create_destination(&second).await.unwrap(), Created::UidTaken(first.id));
    assert_eq!(world.store.destination(TENANT, second.id).await.unwrap(), None);
    let mut elsewhere = world.new_destination(world.tenant("other").await).await;
    elsewhere.uid = Some("crm".into());
    world.create(&elsewhere).await;
    assert!(world.store.delete_destination(TENANT, first.id).await.unwrap());
    world.create(&second).await;
    assert_eq!(world.store.destination_by_uid(TENANT, "crm").await.unwrap().unwrap().id, second.id);
}

async fn one_of_many_gets_a_uid(world: &World) {
    let handles = [Arc::clone(&world.store), world.database.handle().await];
    let mut tasks = Vec::new();
    for number in 0..20 {
        let mut destination = world.new_destination(TENANT).await;
        destination.uid = Some("crm".into());
        let store = Arc::clone(&handles[number % 2]);
        tasks
            .push(tokio::spawn(async move { (destination.id, store.create_destination(&destination).await.unwrap()) }));
    }
    let created: Vec<_> = join_all(tasks).await.into_iter().map(|created| created.unwrap()).collect();
    let winners: Vec<_> = created.iter().filter(|(_, created)| *created == Created::Yes).map(|(id, _)| *id).collect();
    assert_eq!(winners.len(), 1, "{created:?}");
    assert!(created.iter().all(|(id, created)| *id == winners[0] || *created == Created::UidTaken(winners[0])));
}

async fn an_update_holds_on_its_version_only(world: &World) {
    let destination = world.destination().await;
    let mut changed = spec();
    changed.url = "https://example.com/other".into();
    let secrets = Kept::plain("whsec_bmV3IHNlY3JldCBuZXcgc2VjcmV0IG5ldyE=");
    let update = DestinationUpdate { spec: &changed, secrets: &secrets };
    let updated = world.store.update_destination(TENANT, destination.id, 1, update).await.unwrap().unwrap();
    assert_eq!((updated.version, &updated.spec, &updated.secrets), (2, &changed, &secrets));
    assert!(updated.updated_at >= destination.updated_at);
    assert_eq!(updated.created_at, destination.created_at);
    assert_eq!(world.store.update_destination(TENANT, destination.id, 1, update).await.unwrap(), None);
    assert_eq!(world.store.destination(TENANT, destination.id).await.unwrap(), Some(updated));
    let unknown = world.new_destination(TENANT).await.id;
    assert_eq!(world.store.update_destination(TENANT, unknown, 1, update).await.unwrap(), None);
    assert!(world.store.delete_destination(TENANT, destination.id).await.unwrap());
    assert_eq!(world.store.update_destination(TENANT, destination.id, 3, update).await.unwrap(), None);
}

async fn it_is_paused_and_resumed(world: &World) {
    let id = world.destination().await.id;
    for (paused, state, version) in [
        (false, DestinationState::Active, 1),
        (true, DestinationState::Paused, 2),
        (true, DestinationState::Paused, 2),
        (false, DestinationState::Active, 3),
        (false, DestinationState::Active, 3),
    ] {
        let found = world.store.set_paused(TENANT, id, paused).await.unwrap().unwrap();
        assert_eq!((found.state, found.version), (state, version));
        assert_eq!(world.store.destination(TENANT, id).await.unwrap(), Some(found));
    }
    assert_eq!(world.store.set_paused(TENANT, world.new_destination(TENANT).await.id, true).await.unwrap(), None);
}

async fn it_is_disabled_and_resumed(world: &World) {
    let id = world.destination().await.id;
    let find = async || world.store.destination(TENANT, id).await.unwrap().unwrap();
    world.store.disable_destination(TENANT, id, "answered 410").await.unwrap();
    let found = find().await;
    assert_eq!((found.state, found.version), (DestinationState::Disabled, 2));
    assert_eq!(found.disabled_reason.as_deref(), Some("answered 410"));
    // Neither pausing nor disabling changes it now.
    world.store.disable_destination(TENANT, id, "another").await.unwrap();
    assert_eq!(world.store.set_paused(TENANT, id, true).await.unwrap(), Some(found.clone()));
    assert_eq!(find().await, found);
    let found = world.store.set_paused(TENANT, id, false).await.unwrap().unwrap();
    assert_eq!((found.state, found.version, found.disabled_reason), (DestinationState::Active, 3, None));
    world.store.set_paused(TENANT, id, true).await.unwrap();
    world.store.disable_destination(TENANT, id, "fails for days").await.unwrap();
    assert_eq!(find().await.state, DestinationState::Disabled);
    world.store.disable_destination(TENANT, world.new_destination(TENANT).await.id, "unknown").await.unwrap();
}

async fn a_deleted_one_is_gone_for_its_owner(world: &World) {
    let destination = world.destination().await;
    let id = destination.id;
    // Something is still out for it, so that the row stays for the dispatcher to see.
    world.queued(&destination).await;
    assert!(world.store.delete_destination(TENANT, id).await.unwrap());
    assert!(!world.store.delete_destination(TENANT, id).await.unwrap());
    assert_eq!(world.store.destination(TENANT, id).await.unwrap(), None);
    assert_eq!(world.store.set_paused(TENANT, id, true).await.unwrap(), None);
    assert_eq!(world.store.routes(TENANT).await.unwrap().routes, []);
    let seen = world.store.destinations(&[id]).await.unwrap();
    assert_eq!((seen[0].state, seen[0].version), (DestinationState::Deleted, 2));
    world.store.disable_destination(TENANT, id, "late").await.unwrap();
    assert_eq!(world.store.destinations(&[id]).await.unwrap()[0].state, DestinationState::Deleted);
}

async fn every_change_moves_routing_and_is_told(world: &World) {
    let mut changes = world.store.changes();
    let destination = world.new_destination(TENANT).await;
    let id = destination.id;
    let (changed, secrets) = (spec(), Kept::plain("whsec_x"));
    let update = DestinationUpdate { spec: &changed, secrets: &secrets };
    let mut last = version(world).await;
    for step in 0..6 {
        changes.mark_unchanged();
        match step {
            0 => world.create(&destination).await,
            1 => assert!(world.store.update_destination(TENANT, id, 1, update).await.unwrap().is_some()),
            2 => assert!(world.store.set_paused(TENANT, id, true).await.unwrap().is_some()),
            3 => assert!(world.store.set_paused(TENANT, id, false).await.unwrap().is_some()),
            4 => world.store.disable_destination(TENANT, id, "gone").await.unwrap(),
            _ => assert!(world.store.delete_destination(TENANT, id).await.unwrap()),
        }
        let told = tokio::time::timeout(super::DEADLINE, changes.changed()).await;
        told.unwrap_or_else(|_| panic!("step {step} is not told")).unwrap();
        let moved = version(world).await;
        assert!(moved > last, "step {step}: {moved} after {last}");
        last = moved;
    }
}

async fn what_changes_nothing_is_not_told(world: &World) {
    let destination = world.destination().await;
    world.store.set_paused(TENANT, destination.id, true).await.unwrap();
    let before = version(world).await;
    let (changed, secrets) = (spec(), Kept::plain("whsec_x"));
    let update = DestinationUpdate { spec: &changed, secrets: &secrets };
    world.store.set_paused(TENANT, destination.id, true).await.unwrap();
    world.store.update_destination(TENANT, destination.id, 1, update).await.unwrap();
    world.store.delete_destination(TENANT, world.new_destination(TENANT).await.id).await.unwrap();
    world.queued(&destination).await;
    assert_eq!(version(world).await, before);
}

async fn another_handle_hears_of_changes(world: &World) {
    let elsewhere = world.database.handle().await;
    let mut changes = elsewhere.changes();
    changes.mark_unchanged();
    let destination = world.destination().await;
    tokio::time::timeout(super::DEADLINE, changes.changed()).await.expect("it is told").unwrap();
    let (_, since) = elsewhere.changed_since(None).await.unwrap();
    world.store.set_paused(TENANT, destination.id, true).await.unwrap();
    let (changed, _) = elsewhere.changed_since(Some(since)).await.unwrap();
    assert!(changed.iter().any(|found| found.id == destination.id && found.state == DestinationState::Paused));
}

async fn routes_show_what_a_router_needs(world: &World) {
    let destinations = world.destinations(3).await;
    world.store.set_paused(TENANT, destinations[1].id, true).await.unwrap();
    world.store.disable_destination(TENANT, destinations[2].id, "gone").await.unwrap();
    world.destination_of(world.tenant("other").await).await;
    let routes = world.store.routes(TENANT).await.unwrap();
    let seen: Vec<_> =
        routes.routes.iter().map(|route| (route.destination_id, route.destination_version, route.state)).collect();
    let expected = [
        (destinations[0].id, 1, DestinationState::Active),
        (destinations[1].id, 2, DestinationState::Paused),
        (destinations[2].id, 2, DestinationState::Disabled),
    ];
    assert_eq!(seen, expected);
    assert_eq!(routes.routes[0].event_types, [EventPattern::everything()]);
}

async fn who_polls_misses_no_change(world: &World) {
    let (none, mut since) = world.store.changed_since(None).await.unwrap();
    assert_eq!(none, []);
    let destination = world.destination().await;
    for round in 0..5 {
        let paused = round % 2 == 0;
        world.store.set_paused(TENANT, destination.id, paused).await.unwrap();
        let (changed, next) = world.store.changed_since(Some(since)).await.unwrap();
        let found = changed.iter().find(|found| found.id == destination.id).expect("it changed");
        assert_eq!(found.state == DestinationState::Paused, paused, "its present state");
        assert!(next >= since);
        since = next;
    }
    world.queued(&destination).await;
    world.store.delete_destination(TENANT, destination.id).await.unwrap();
    let (changed, _) = world.store.changed_since(Some(since)).await.unwrap();
    assert!(changed.iter().any(|found| found.id == destination.id && found.state == DestinationState::Deleted));
}
