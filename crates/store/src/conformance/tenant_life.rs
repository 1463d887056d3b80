//! How tenants come, change and go.

use signalpost_core::{Tenant, TenantId};

use super::{
    accounts::{all, sealed, tenant_spec},
    pages::walk,
    world::{TENANT, World},
};
use crate::{
    StoreError,
    ingest::Start,
    tenants::{NewTenant, TenantCreated},
};

super::cases![
    the_first_tenant_is_there,
    a_tenant_comes_with_its_key_and_its_destination,
    a_slug_is_taken_once,
    a_change_is_of_the_version_that_was_seen,
    tenants_come_in_pages,
    destinations_are_counted,
    the_deletion_of_a_tenant_begins_at_once,
    the_first_tenant_stays,
];

async fn the_first_tenant_is_there(world: &World) {
    let first = world.store.tenant(TENANT).await.unwrap().unwrap();
    assert_eq!((&*first.slug, &*first.spec.name, first.version), ("default", "Default", 1));
    assert_eq!((first.updated_at, first.deleting, first.ingest_secret), (first.created_at, None, None));
    // One that the version before made.
    let other = world.tenant("other").await;
    let found = world.store.tenant(other).await.unwrap().unwrap();
    assert_eq!((&*found.slug, &*found.spec.name), ("other", "other"));
    assert_eq!(world.store.tenant(TenantId::new(world.now().await, world.entropy())).await.unwrap(), None);
}

async fn a_tenant_comes_with_its_key_and_its_destination(world: &World) {
    let mut tenant = world.new_tenant("acme").await;
    tenant.ingest_secret = Some(sealed("k1", "secret"));
    let (key, destination) = (world.new_key(tenant.id).await, world.new_destination(tenant.id).await);
    let new = NewTenant { tenant: &tenant, key: &key, destination: Some(&destination) };
    assert_eq!(world.store.create_tenant(new).await.unwrap(), TenantCreated::Yes);
    world.met(tenant.id);
    let found = world.store.tenant(tenant.id).await.unwrap().unwrap();
    assert!(found.updated_at >= tenant.created_at);
    assert_eq!(found, Tenant { updated_at: found.updated_at, ..tenant.clone() });
    assert_eq!(world.store.tenant_by_slug("acme").await.unwrap(), Some(tenant.id));
    assert!(world.store.tenant_exists(tenant.id).await.unwrap());
    assert_eq!(world.store.list_keys(tenant.id, all()).await.unwrap(), std::slice::from_ref(&key));
    assert_eq!(world.store.destination(tenant.id, destination.id).await.unwrap().unwrap().spec, destination.spec);
    assert_eq!(world.store.routes(tenant.id).await.unwrap().routes.len(), 1);
    // It works.
    world.post_to(&[&destination], Start::Queued).await;
    // The same again, as by one who did not hear the answer.
    assert_eq!(world.store.create_tenant(new).await.unwrap(), TenantCreated::Yes);
    assert_eq!(world.store.tenant(tenant.id).await.unwrap(), Some(found));
    assert_eq!(world.store.count_destinations(tenant.id).await.unwrap(), 1);
    // What belongs to others does not come with it.
    let other = world.new_tenant("other").await;
    let their_key = world.new_key(other.id).await;
    let new = NewTenant { tenant: &other, key: &their_key, destination: Some(&destination) };
    let refused = world.store.create_tenant(new).await;
    assert!(matches!(refused, Err(StoreError::Internal(_))), "{refused:?}");
    assert_eq!(world.store.tenant(other.id).await.unwrap(), None);
    assert_eq!(world.store.key_by_hash(&their_key.hash).await.unwrap(), None);
}

async fn a_slug_is_taken_once(world: &World) {
    let (first, _) = world.open("acme").await;
    let second = world.new_tenant("acme").await;
    let (key, destination) = (world.new_key(second.id).await, world.new_destination(second.id).await);
    let new = NewTenant { tenant: &second, key: &key, destination: Some(&destination) };
    for deleting in [false, true] {
        if deleting {
            assert!(world.store.delete_tenant(first.id).await.unwrap());
        }
        assert_eq!(world.store.create_tenant(new).await.unwrap(), TenantCreated::SlugTaken);
        assert_eq!(world.store.tenant(second.id).await.unwrap(), None);
        assert_eq!(world.store.key_by_hash(&key.hash).await.unwrap(), None);
        assert_eq!(world.store.destination(second.id, destination.id).await.unwrap(), None);
    }
}

async fn a_change_is_of_the_version_that_was_seen(world: &World) {
    let (tenant, _) = world.open("acme").await;
    let (spec, secret) = (tenant_spec("Acme Ltd"), sealed("k1", "secret"));
    assert_eq!(world.store.update_tenant(tenant.id, 2, &spec, Some(&secret)).await.unwrap(), None);
    let changed = world.store.update_tenant(tenant.id, 1, &spec, Some(&secret)).await.unwrap().unwrap();
    assert!(changed.updated_at >= tenant.updated_at);
    let wanted = Tenant { spec, ingest_secret: Some(secret), version: 2, updated_at: changed.updated_at, ..tenant };
    assert_eq!(changed, wanted);
    assert_eq!(world.store.update_tenant(tenant.id, 1, &tenant_spec("x"), None).await.unwrap(), None);
    assert_eq!(world.store.tenant(tenant.id).await.unwrap(), Some(changed));
    let unknown = TenantId::new(world.now().await, world.entropy());
    assert_eq!(world.store.update_tenant(unknown, 1, &tenant_spec("x"), None).await.unwrap(), None);
    // Also of the one that is always there, and of one that the version before made.
    for (tenant, slug) in [(TENANT, "default"), (world.tenant("before").await, "before")] {
        let changed = world.store.update_tenant(tenant, 1, &tenant_spec("New"), None).await.unwrap().unwrap();
        assert_eq!((&*changed.slug, &*changed.spec.name, changed.version), (slug, "New", 2));
    }
}

async fn tenants_come_in_pages(world: &World) {
    let mut ids = vec![TENANT];
    for number in 0..7 {
        ids.push(world.open(&format!("t{number}")).await.0.id);
    }
    assert!(world.store.delete_tenant(ids[3]).await.unwrap());
    walk(ids, async |page| {
        let found = world.store.list_tenants(page).await.unwrap();
        found.into_iter().map(|tenant| tenant.id).collect()
    })
    .await;
}

async fn destinations_are_counted(world: &World) {
    let (tenant, _) = world.open("acme").await;
    assert_eq!(world.store.count_destinations(tenant.id).await.unwrap(), 0);
    let first = world.destination_of(tenant.id).await;
    world.destination_of(tenant.id).await;
    world.destination().await;
    assert_eq!(world.store.count_destinations(tenant.id).await.unwrap(), 2);
    world.store.set_paused(tenant.id, first.id, true).await.unwrap();
    assert_eq!(world.store.count_destinations(tenant.id).await.unwrap(), 2);
    world.store.delete_destination(tenant.id, first.id).await.unwrap();
    assert_eq!(world.store.count_destinations(tenant.id).await.unwrap(), 1);
}

async fn the_deletion_of_a_tenant_begins_at_once(world: &World) {
    let (tenant, _) = world.open("acme").await;
    let (other, _) = world.open("other").await;
    let (mine, theirs) = (world.destination_of(tenant.id).await, world.destination_of(other.id).await);
    let mut changes = world.store.changes();
    changes.mark_unchanged();
    let ready = world.new_event(world.event(tenant.id).await, &[mine.id], Start::Queued);
    let group = world.group(vec![world.unit(tenant.id, vec![ready]).await]).await;
    for _ in 0..2 {
        assert!(world.store.delete_tenant(tenant.id).await.unwrap());
    }
    changes.changed().await.unwrap();
    let store = &world.store;
    assert_eq!(store.tenant_by_slug("acme").await.unwrap(), None);
    assert!(!store.tenant_exists(tenant.id).await.unwrap());
    let found = store.tenant(tenant.id).await.unwrap().unwrap();
    assert!(found.deleting.unwrap().since >= tenant.created_at);
    assert_eq!(found.deleting.unwrap().rows, 0);
    assert_eq!(store.update_tenant(tenant.id, found.version, &tenant_spec("x"), None).await.unwrap(), None);
    // It takes nothing new, also of those who did not hear of it yet.
    assert_eq!(store.destination(tenant.id, mine.id).await.unwrap(), None);
    assert_eq!(store.count_destinations(tenant.id).await.unwrap(), 0);
    assert_eq!(store.routes(tenant.id).await.unwrap().routes, []);
    let refused = store.ingest(&group).await;
    assert!(matches!(refused, Err(StoreError::Data(_))), "{refused:?}");
    let late = world.new_destination(tenant.id).await;
    let refused = store.create_destination(&late).await;
    assert!(matches!(refused, Err(StoreError::Data(_))), "{refused:?}");
    assert_eq!(store.destination(tenant.id, late.id).await.unwrap(), None);
    // Nothing changed for others.
    assert!(store.destination(other.id, theirs.id).await.unwrap().is_some());
    assert!(store.tenant_exists(other.id).await.unwrap());
    world.post_to(&[&theirs], Start::Queued).await;
}

async fn the_first_tenant_stays(world: &World) {
    let destination = world.destination().await;
    assert!(!world.store.delete_tenant(TENANT).await.unwrap());
    assert!(!world.store.delete_tenant(TenantId::new(world.now().await, world.entropy())).await.unwrap());
    assert!(world.store.destination(TENANT, destination.id).await.unwrap().is_some());
    assert!(world.store.tenant_exists(TENANT).await.unwrap());
}
