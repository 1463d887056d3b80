//! The audit log.

use std::time::Duration;

use serde_json::json;
use signalpost_core::AuditOutcome;

use super::{
    accounts::all,
    pages::walk,
    world::{TENANT, World},
};
use crate::{schedule::Retention, tenants::AuditFilter};

super::cases![
    an_entry_is_there_before_its_outcome,
    entries_are_filtered,
    entries_come_in_pages,
    retention_drops_old_entries,
];

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn an_entry_is_there_before_its_outcome(world: &World) {
    let (other, _) = world.open("other").await;
    let mut entry = world.new_entry(TENANT, world.now().await);
    entry.before = Some(json!({"url": "https://example.com/hook", "nested": [1, null, "ü"]}));
    for _ in 0..2 {
        world.store.begin_audit(&entry).await.unwrap();
    }
    let listed = async |tenant| world.store.list_audit(tenant, &AuditFilter::default(), all()).await.unwrap();
    assert_eq!(listed(TENANT).await, [entry.clone()]);
    assert_eq!(listed(other.id).await, []);
    let outcome = AuditOutcome { status: 201, after: Some(json!({"name": "x"})) };
    // It is not theirs.
    world.store.end_audit(other.id, entry.id, Some("x"), &AuditOutcome { status: 404, after: None }).await.unwrap();
    assert_eq!(listed(TENANT).await, [entry.clone()]);
    world.store.end_audit(TENANT, entry.id, Some("dst_1"), &outcome).await.unwrap();
    (entry.target, entry.outcome) = ("dst_1".to_owned(), Some(outcome));
    assert_eq!(listed(TENANT).await, [entry.clone()]);
    // Without a target the one that it has stays; without an address and with an answer of nothing.
    let mut bare = world.new_entry(TENANT, world.now().await);
    (bare.address, bare.target) = (None, "dst_2".to_owned());
    world.store.begin_audit(&bare).await.unwrap();
    let outcome = AuditOutcome { status: 204, after: None };
    world.store.end_audit(TENANT, bare.id, None, &outcome).await.unwrap();
    bare.outcome = Some(outcome);
    let mut both = [entry, bare];
    both.sort_by_key(|entry| entry.id);
    assert_eq!(listed(TENANT).await, both);
}

async fn entries_are_filtered(world: &World) {
    let now = world.now().await;
    let mut ids = Vec::new();
    for (age, actor, action) in [
        (3_u32, "key_1", "a.create"),
        (2, "operator:1", "a.create"),
        (1, "key_1", "a.delete"),
        (0, "key_1", "a.create"),
    ] {
        let mut entry = world.new_entry(TENANT, now - DAY * age);
        (entry.actor, entry.action) = (actor.to_owned(), action.to_owned());
        world.store.begin_audit(&entry).await.unwrap();
        ids.push(entry.id);
    }
    let (actor, action) = (|text: &str| Some(text.to_owned()), |text: &str| Some(text.to_owned()));
    let none = AuditFilter::default();
    for (filter, wanted) in [
        (none.clone(), vec![0, 1, 2, 3]),
        (AuditFilter { actor: actor("key_1"), ..none.clone() }, vec![0, 2, 3]),
        (AuditFilter { action: action("a.create"), ..none.clone() }, vec![0, 1, 3]),
        (AuditFilter { actor: actor("key_1"), action: action("a.create"), ..none.clone() }, vec![0, 3]),
        (AuditFilter { actor: actor("key"), ..none.clone() }, vec![]),
        (AuditFilter { since: Some(ids[1].created_at()), ..none.clone() }, vec![1, 2, 3]),
        (AuditFilter { until: Some(ids[1].created_at()), ..none.clone() }, vec![0]),
        (AuditFilter { since: Some(now - DAY * 5 / 2), until: Some(now - DAY / 2), ..none.clone() }, vec![1, 2]),
    ] {
        let found = world.store.list_audit(TENANT, &filter, all()).await.unwrap();
        let wanted: Vec<_> = wanted.into_iter().map(|place| ids[place]).collect();
        assert_eq!(found.into_iter().map(|entry| entry.id).collect::<Vec<_>>(), wanted, "{filter:?}");
    }
}

async fn entries_come_in_pages(world: &World) {
    let (other, _) = world.open("other").await;
    let mut ids = Vec::new();
    for tenant in [TENANT, other.id] {
        for _ in 0..8 {
            let entry = world.new_entry(tenant, world.now().await);
            world.store.begin_audit(&entry).await.unwrap();
            ids.push(entry.id);
        }
    }
    walk(ids[..8].to_vec(), async |page| {
        let found = world.store.list_audit(TENANT, &AuditFilter::default(), page).await.unwrap();
        found.into_iter().map(|entry| entry.id).collect()
    })
    .await;
}

/// Five entries that are older than ten days, of two tenants, and one that is not: its id.
async fn old_and_new(world: &World) -> signalpost_core::AuditId {
    let now = world.now().await;
    let (other, _) = world.open("other").await;
    for age in 11..=15 {
        let tenant = if age % 2 == 0 { other.id } else { TENANT };
        world.store.begin_audit(&world.new_entry(tenant, now - DAY * age)).await.unwrap();
    }
    let young = world.new_entry(TENANT, now - DAY * 9);
    world.store.begin_audit(&young).await.unwrap();
    young.id
}

async fn left(world: &World) -> Vec<signalpost_core::AuditId> {
    let mut left = Vec::new();
    for tenant in world.tenants() {
        let found = world.store.list_audit(tenant, &AuditFilter::default(), all()).await.unwrap();
        left.extend(found.into_iter().map(|entry| entry.id));
    }
    left
}

async fn retention_drops_old_entries(world: &World) {
    let young = old_and_new(world).await;
    let retention = Retention { events: DAY, dead_letters: DAY, audit: DAY * 10, chunk: 3 };
    while world.store.retain(retention).await.unwrap() {}
    assert_eq!(left(world).await, [young]);
}
