//! What is encrypted, as rows keep it.

use std::collections::BTreeMap;

use signalpost_core::{Destination, Kept, Secret};

use super::{
    accounts::{sealed, tenant_spec},
    world::{TENANT, World},
};
use crate::{
    manage::DestinationUpdate,
    tenants::{NewTenant, SealedRow},
};

super::cases![
    a_new_database_is_sealed_at_once,
    what_is_kept_is_read_again,
    what_is_not_sealed_with_the_newest_key_is_listed,
    sealing_again_is_no_change_of_a_destination,
    the_secret_of_producers_is_sealed_again,
];

async fn a_new_database_is_sealed_at_once(world: &World) {
    assert!(world.store.is_sealed().await.unwrap());
    for _ in 0..2 {
        world.store.mark_sealed().await.unwrap();
    }
    assert!(world.store.is_sealed().await.unwrap());
}

/// Not encrypted, with headers.
fn plain() -> Kept {
    let headers = [("X-Key", "value"), ("X-Other", "ü")];
    let headers: BTreeMap<_, _> = headers.map(|(name, value)| (name.to_owned(), Secret::new(value))).into();
    Kept::Plain { secret: Secret::new("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"), headers }
}

/// Stored, with those secrets.
async fn with(world: &World, kept: Kept) -> Destination {
    let mut destination = world.new_destination(TENANT).await;
    if let Kept::Plain { headers, .. } = &kept {
        destination.spec.header_names = headers.keys().cloned().collect();
    }
    destination.secrets = kept;
    world.create(&destination).await;
    destination
}

async fn what_is_kept_is_read_again(world: &World) {
    for kept in [plain(), Kept::plain("whsec_x"), Kept::Sealed(sealed("k1", "secrets"))] {
        let made = with(world, kept.clone()).await;
        let found = world.store.destination(TENANT, made.id).await.unwrap().unwrap();
        assert_eq!((&found.secrets, &found.spec), (&made.secrets, &made.spec));
        for kept in [Kept::Sealed(sealed("k2", "others")), plain(), Kept::plain("whsec_y")] {
            let found = world.store.destination(TENANT, made.id).await.unwrap().unwrap();
            let update = DestinationUpdate { spec: &made.spec, secrets: &kept };
            let updated = world.store.update_destination(TENANT, made.id, found.version, update).await.unwrap();
            assert_eq!(updated.unwrap().secrets, kept);
            // Also where all tenants' are read.
            assert_eq!(world.store.destinations(&[made.id]).await.unwrap()[0].secrets, kept);
        }
    }
}

async fn what_is_not_sealed_with_the_newest_key_is_listed(world: &World) {
    let mut wanted = Vec::new();
    for kept in [plain(), Kept::Sealed(sealed("old", "a")), Kept::Sealed(sealed("new", "b")), plain()] {
        let made = with(world, kept.clone()).await;
        if kept != Kept::Sealed(sealed("new", "b")) {
            wanted.push((SealedRow::Destination(made.id), TENANT, kept));
        }
    }
    // Its secrets are there until it is swept.
    world.store.delete_destination(TENANT, with(world, plain()).await.id).await.unwrap();
    for (slug, secret) in [("a", Some(sealed("old", "c"))), ("b", Some(sealed("new", "d"))), ("c", None)] {
        let mut tenant = world.new_tenant(slug).await;
        tenant.ingest_secret = secret;
        let key = world.new_key(tenant.id).await;
        world.store.create_tenant(NewTenant { tenant: &tenant, key: &key, destination: None }).await.unwrap();
        world.met(tenant.id);
        if slug == "a" {
            wanted.push((SealedRow::Ingest(tenant.id), tenant.id, Kept::Sealed(sealed("old", "c"))));
        }
    }
    let store = &world.store;
    assert_eq!(store.count_unsealed("new").await.unwrap(), 5);
    assert_eq!(store.sealing_keys().await.unwrap(), ["new", "old"]);
    while store.sweep_deleted(10).await.unwrap() > 0 {}
    wanted.sort_by_key(|row| row.0);
    for most in [1, 2, 250] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let part = store.unsealed("new", after, most).await.unwrap();
            assert!(part.len() <= most);
            let Some(last) = part.last() else { break };
            after = Some(last.0);
            found.extend(part);
        }
        assert_eq!(found, wanted, "{most} at a time");
    }
    assert_eq!(store.count_unsealed("new").await.unwrap(), 4);
    assert_eq!(store.count_unsealed("newer").await.unwrap(), 6);
}

async fn sealing_again_is_no_change_of_a_destination(world: &World) {
    for old in [plain(), Kept::plain("whsec_x"), Kept::Sealed(sealed("old", "a"))] {
        let made = with(world, old.clone()).await;
        let row = SealedRow::Destination(made.id);
        let before = world.store.destination(TENANT, made.id).await.unwrap().unwrap();
        let new = sealed("new", "a");
        for other in [Kept::plain("another"), Kept::Sealed(sealed("old", "another"))] {
            assert!(!world.store.reseal(row, &other, &new).await.unwrap(), "it is not what is there");
        }
        assert_eq!(world.store.destination(TENANT, made.id).await.unwrap(), Some(before.clone()));
        let routing = world.store.routes(TENANT).await.unwrap();
        assert!(world.store.reseal(row, &old, &new).await.unwrap());
        assert!(!world.store.reseal(row, &old, &sealed("newer", "a")).await.unwrap(), "it is not there any more");
        let after = world.store.destination(TENANT, made.id).await.unwrap();
        assert_eq!(after, Some(Destination { secrets: Kept::Sealed(new), ..before }));
        assert_eq!(world.store.routes(TENANT).await.unwrap(), routing);
    }
    assert_eq!(world.store.count_unsealed("new").await.unwrap(), 0);
    assert_eq!(world.store.sealing_keys().await.unwrap(), ["new"]);
    let unknown = SealedRow::Destination(world.new_destination(TENANT).await.id);
    assert!(!world.store.reseal(unknown, &plain(), &sealed("new", "a")).await.unwrap());
}

async fn the_secret_of_producers_is_sealed_again(world: &World) {
    let (tenant, _) = world.open("acme").await;
    let row = SealedRow::Ingest(tenant.id);
    let (old, new) = (sealed("old", "a"), sealed("new", "a"));
    assert!(!world.store.reseal(row, &Kept::plain(""), &new).await.unwrap(), "there is none");
    let spec = tenant_spec("Acme");
    let before = world.store.update_tenant(tenant.id, 1, &spec, Some(&old)).await.unwrap().unwrap();
    assert_eq!(before.ingest_secret.as_ref(), Some(&old));
    assert!(!world.store.reseal(row, &Kept::Sealed(new.clone()), &new).await.unwrap());
    assert!(world.store.reseal(row, &Kept::Sealed(old.clone()), &new).await.unwrap());
    assert!(!world.store.reseal(row, &Kept::Sealed(old), &sealed("newer", "a")).await.unwrap());
    let after = world.store.tenant(tenant.id).await.unwrap().unwrap();
    assert_eq!(after.ingest_secret.as_ref(), Some(&new));
    assert_eq!(signalpost_core::Tenant { ingest_secret: before.ingest_secret.clone(), ..after }, before);
    let cleared = world.store.update_tenant(tenant.id, before.version, &spec, None).await.unwrap().unwrap();
    assert_eq!(cleared.ingest_secret, None);
    assert_eq!(world.store.sealing_keys().await.unwrap(), Vec::<String>::new());
}
