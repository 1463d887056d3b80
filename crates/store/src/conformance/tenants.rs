//! Tenants are walls: whoever knows another tenant's ids sees and changes nothing with them.

use std::time::Duration;

use super::world::{TENANT, World, failed, spec};
use crate::{
    ingest::Start,
    manage::{Cancelled, DestinationUpdate, ReplaySelection, Retried},
    read::{AttemptFilter, DeadLetterFilter, DeliveryFilter, EventFilter, Page},
};

super::cases![
    nothing_of_another_tenant_is_shown,
    nothing_of_another_tenant_is_changed,
    routing_of_another_tenant_does_not_move,
    a_job_stays_within_its_tenant,
];

fn all<K>() -> Page<K> {
    Page { limit: 250, after: None, descending: false }
}

async fn nothing_of_another_tenant_is_shown(world: &World) {
    let other = world.tenant("other").await;
    let mut destination = world.new_destination(TENANT).await;
    destination.uid = Some("crm".into());
    world.create(&destination).await;
    let mut event = world.event(TENANT).await;
    event.uid = Some("order-1".into());
    let posted = world.post_event(event, &[&destination], Start::Queued).await;
    let (event, delivery) = (posted.event.id, posted.targets[0].delivery_id);
    world.kill(posted.targets[0]).await;
    let job = world.new_job(TENANT, ReplaySelection::default()).await;
    world.store.create_replay(&job).await.unwrap();
    let store = &world.store;
    assert_eq!(store.destination(other, destination.id).await.unwrap(), None);
    assert_eq!(store.destination_by_uid(other, "crm").await.unwrap(), None);
    assert_eq!(store.list_destinations(other, None, all()).await.unwrap(), []);
    assert_eq!(store.routes(other).await.unwrap().routes, []);
    assert_eq!(store.event(other, event).await.unwrap(), None);
    assert_eq!(store.event_by_uid(other, "order-1").await.unwrap(), None);
    assert_eq!(store.list_events(other, &EventFilter::default(), all(), true).await.unwrap(), []);
    assert_eq!(store.delivery(other, delivery).await.unwrap(), None);
    for destination_id in [None, Some(destination.id)] {
        for event_id in [None, Some(event)] {
            let filter = DeliveryFilter { destination_id, event_id, ..DeliveryFilter::default() };
            assert_eq!(store.list_deliveries(other, &filter, all()).await.unwrap(), []);
            for delivery_id in [None, Some(delivery)] {
                let filter = AttemptFilter { destination_id, event_id, delivery_id, ..AttemptFilter::default() };
                assert_eq!(store.list_attempts(other, &filter, all()).await.unwrap(), []);
            }
        }
        let filter = DeadLetterFilter { destination_id, ..DeadLetterFilter::default() };
        assert_eq!(store.list_dead_letters(other, &filter, all(), true).await.unwrap(), []);
        let selection = ReplaySelection { destination_id, ..ReplaySelection::default() };
        assert_eq!(store.count_replay(other, &selection, 10).await.unwrap(), 0);
    }
    assert_eq!(store.dead_letter(other, delivery).await.unwrap(), None);
    assert_eq!(store.replay(other, job.id).await.unwrap(), None);
    assert_eq!(store.list_replays(other, all()).await.unwrap(), []);
}

async fn nothing_of_another_tenant_is_changed(world: &World) {
    let other = world.tenant("other").await;
    let destination = world.destination().await;
    let dead = world.dead(&destination).await;
    let waits = world.queued(&destination).await;
    world.write(failed(waits, 1, Duration::from_secs(60))).await;
    let job = world.new_job(TENANT, ReplaySelection::default()).await;
    world.store.create_replay(&job).await.unwrap();
    let before = super::invariants::deliveries(world, TENANT).await;
    let (changed, store) = (spec(), &world.store);
    let update = DestinationUpdate { spec: &changed, secrets: &destination.secrets };
    assert_eq!(store.update_destination(other, destination.id, 1, update).await.unwrap(), None);
    assert_eq!(store.set_paused(other, destination.id, true).await.unwrap(), None);
    store.disable_destination(other, destination.id, "x").await.unwrap();
    assert!(!store.delete_destination(other, destination.id).await.unwrap());
    for target in [dead, waits] {
        assert_eq!(store.retry_delivery(other, target.delivery_id).await.unwrap(), Retried::NotFound);
        assert_eq!(store.cancel_delivery(other, target.delivery_id).await.unwrap(), Cancelled::NotFound);
        for to in [None, Some(destination.id)] {
            assert_eq!(store.replay_event(other, target.event_id, to).await.unwrap(), None);
        }
    }
    assert_eq!(store.replay_dead_letter(other, dead.delivery_id).await.unwrap(), Retried::NotFound);
    assert!(!store.discard_dead_letter(other, dead.delivery_id).await.unwrap());
    assert_eq!(store.cancel_replay(other, job.id).await.unwrap(), None);
    // One's own event does not go to another's destination.
    let own = world.post_event(world.event(other).await, &[], Start::Queued).await;
    assert_eq!(store.replay_event(other, own.event.id, Some(destination.id)).await.unwrap(), Some(Vec::new()));
    let kept = store.destination(TENANT, destination.id).await.unwrap().unwrap();
    assert_eq!((kept.version, kept.state), (1, destination.state));
    assert_eq!(super::invariants::deliveries(world, TENANT).await, before);
    assert!(store.dead_letter(TENANT, dead.delivery_id).await.unwrap().is_some());
}

async fn routing_of_another_tenant_does_not_move(world: &World) {
    let other = world.tenant("other").await;
    let before = world.store.routes(other).await.unwrap();
    let destination = world.destination().await;
    world.store.set_paused(TENANT, destination.id, true).await.unwrap();
    assert_eq!(world.store.routes(other).await.unwrap(), before);
}

async fn a_job_stays_within_its_tenant(world: &World) {
    let other = world.tenant("other").await;
    let (mine, theirs) = (world.destination_of(other).await, world.destination().await);
    world.dead(&mine).await;
    world.dead(&theirs).await;
    let selection = ReplaySelection { since: Some(mine.created_at), ..ReplaySelection::default() };
    let job = world.run_job(&world.new_job(other, selection).await, 10).await;
    assert_eq!((job.matched, job.replayed), (Some(1), 1));
    let missing = ReplaySelection { destination_id: Some(theirs.id), missing: true, ..ReplaySelection::default() };
    let job = world.run_job(&world.new_job(other, missing).await, 10).await;
    assert_eq!((job.matched, job.replayed), (Some(0), 0));
    let due = world.take_all().await;
    assert_eq!(due.iter().map(|due| due.tenant_id).collect::<Vec<_>>(), [other]);
}
