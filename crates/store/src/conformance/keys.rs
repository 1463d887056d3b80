//! API keys of tenants.

use std::time::Duration;

use signalpost_core::{KeyHash, KeyId, TenantId};

use super::{
    accounts::all,
    pages::walk,
    world::{TENANT, World, eventually},
};
use crate::{
    StoreError,
    tenants::{Holder, NewTenant},
};

super::cases![
    a_key_is_found_by_its_hash,
    a_key_ends_by_the_clock_of_the_store,
    a_revoked_key_is_gone,
    a_key_of_a_tenant_that_is_being_deleted_does_nothing,
    a_key_is_added_once,
    last_use_never_moves_back,
    keys_come_in_pages,
];

async fn a_key_is_found_by_its_hash(world: &World) {
    let (tenant, key) = world.open("acme").await;
    let (other, their_key) = world.open("other").await;
    for (tenant, key) in [(tenant, key), (other, their_key)] {
        let found = world.store.key_by_hash(&key.hash).await.unwrap();
        assert_eq!(found, Some(Holder { key, tenant }));
    }
    assert_eq!(world.store.key_by_hash(&KeyHash::of(b"another")).await.unwrap(), None);
}

async fn a_key_ends_by_the_clock_of_the_store(world: &World) {
    let now = world.now().await;
    let mut past = world.new_key(TENANT).await;
    past.expires_at = Some(now - Duration::from_micros(1));
    let mut soon = world.new_key(TENANT).await;
    soon.expires_at = Some(now + Duration::from_millis(300));
    let mut later = world.new_key(TENANT).await;
    later.expires_at = Some(now + Duration::from_secs(3600));
    for key in [&past, &soon, &later] {
        assert!(world.store.create_key(TENANT, key).await.unwrap());
    }
    assert_eq!(world.store.key_by_hash(&past.hash).await.unwrap(), None);
    eventually("the key ends", async || world.store.key_by_hash(&soon.hash).await.unwrap().is_none().then_some(()))
        .await;
    assert!(world.now().await >= soon.expires_at.unwrap());
    let found = world.store.key_by_hash(&later.hash).await.unwrap().unwrap();
    assert_eq!(found.key, later);
    let listed = world.store.list_keys(TENANT, all()).await.unwrap();
    assert_eq!(listed.len(), 3, "those that ended are shown, too");
}

async fn a_revoked_key_is_gone(world: &World) {
    let (tenant, key) = world.open("acme").await;
    let (other, _) = world.open("other").await;
    assert!(!world.store.revoke_key(other.id, key.id).await.unwrap(), "it is not theirs");
    assert_eq!(world.store.list_keys(other.id, all()).await.unwrap().len(), 1);
    assert!(world.store.key_by_hash(&key.hash).await.unwrap().is_some());
    assert!(world.store.revoke_key(tenant.id, key.id).await.unwrap());
    assert_eq!(world.store.key_by_hash(&key.hash).await.unwrap(), None);
    assert!(!world.store.revoke_key(tenant.id, key.id).await.unwrap());
    assert_eq!(world.store.list_keys(tenant.id, all()).await.unwrap(), []);
}

async fn a_key_of_a_tenant_that_is_being_deleted_does_nothing(world: &World) {
    let (tenant, key) = world.open("acme").await;
    let (_, their_key) = world.open("other").await;
    assert!(world.store.delete_tenant(tenant.id).await.unwrap());
    assert_eq!(world.store.key_by_hash(&key.hash).await.unwrap(), None);
    assert!(!world.store.create_key(tenant.id, &world.new_key(tenant.id).await).await.unwrap());
    assert!(world.store.key_by_hash(&their_key.hash).await.unwrap().is_some());
    let nobody = TenantId::new(world.now().await, world.entropy());
    assert!(!world.store.create_key(nobody, &world.new_key(nobody).await).await.unwrap());
}

async fn a_key_is_added_once(world: &World) {
    let key = world.new_key(TENANT).await;
    for _ in 0..2 {
        assert!(world.store.create_key(TENANT, &key).await.unwrap());
    }
    assert_eq!(world.store.list_keys(TENANT, all()).await.unwrap(), std::slice::from_ref(&key));
    // Another key of the same text is none: the tenant that came with it is not made either.
    let tenant = world.new_tenant("acme").await;
    let mut copy = world.new_key(tenant.id).await;
    copy.hash = key.hash;
    let destination = world.new_destination(tenant.id).await;
    let new = NewTenant { tenant: &tenant, key: &copy, destination: Some(&destination) };
    let refused = world.store.create_tenant(new).await;
    assert!(matches!(refused, Err(StoreError::Data(_))), "{refused:?}");
    assert_eq!(world.store.tenant(tenant.id).await.unwrap(), None);
    assert_eq!(world.store.destination(tenant.id, destination.id).await.unwrap(), None);
    assert_eq!(world.store.key_by_hash(&key.hash).await.unwrap().unwrap().tenant.id, TENANT);
}

async fn last_use_never_moves_back(world: &World) {
    let now = world.now().await;
    let (first, second) = (world.new_key(TENANT).await, world.new_key(TENANT).await);
    for key in [&first, &second] {
        assert!(world.store.create_key(TENANT, key).await.unwrap());
    }
    let unknown = KeyId::new(now, world.entropy());
    let (early, late) = (now - Duration::from_secs(60), now);
    let used = [(first.id, early), (unknown, now), (second.id, late), (second.id, early)];
    world.store.touch_keys(&used).await.unwrap();
    world.store.touch_keys(&[(second.id, early)]).await.unwrap();
    world.store.touch_keys(&[]).await.unwrap();
    for (key, at) in [(&first, early), (&second, late)] {
        let found = world.store.key_by_hash(&key.hash).await.unwrap().unwrap().key;
        assert_eq!(found.last_used_at, Some(at));
    }
    world.store.touch_keys(&[(first.id, late)]).await.unwrap();
    assert_eq!(world.store.key_by_hash(&first.hash).await.unwrap().unwrap().key.last_used_at, Some(late));
}

async fn keys_come_in_pages(world: &World) {
    let (other, _) = world.open("other").await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        let key = world.new_key(TENANT).await;
        assert!(world.store.create_key(TENANT, &key).await.unwrap());
        ids.push(key.id);
    }
    walk(ids, async |page| {
        let found = world.store.list_keys(TENANT, page).await.unwrap();
        found.into_iter().map(|key| key.id).collect()
    })
    .await;
    assert_eq!(world.store.list_keys(other.id, all()).await.unwrap().len(), 1);
}
