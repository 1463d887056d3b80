//! What is left of a tenant that is deleted: nothing, and of the others everything.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use signalpost_core::{AuditOutcome, DeadReason, TenantId, WaitReason, ordering::OnDead};

use super::{
    invariants,
    ordered::by_key,
    world::{World, died, eventually, failed, targets},
};
use crate::{
    dispatch::DeliveryWrite,
    ingest::{EventOutcome, Start, StoredAnswer, UidClaim, UnitOutcome},
    manage::{IdempotencyKey, ReplaySelection},
    tenants::LATE,
};

super::cases![nothing_is_left_of_a_deleted_tenant, what_comes_late_is_swept_too, two_sweeps_at_once_do_it_together,];

/// What is removed by other means than the sweep of tenants, or with the tenant itself.
const NOT_COUNTED: [&str; 7] = ["waiting", "queues", "lanes", "failing", "tenants", "audit_log", "outbox"];

fn key(name: &str) -> IdempotencyKey {
    IdempotencyKey {
        scope: "POST /v1/destinations".into(),
        key: name.into(),
        body_hash: [7; 32],
        ttl: Duration::from_secs(3600),
    }
}

/// Something of everything that a tenant can have.
async fn fill(world: &World, slug: &str) -> TenantId {
    let (tenant, _) = world.open(slug).await;
    let tenant = tenant.id;
    let store = &world.store;
    let plain = world.destination_of(tenant).await;
    let mut lanes = world.new_destination(tenant).await;
    lanes.spec.ordering = by_key(OnDead::Block);
    world.create(&lanes).await;
    // Deliveries in all states.
    world.deliver(world.queued(&plain).await).await;
    world.dead(&plain).await;
    world.write(failed(world.queued(&plain).await, 1, Duration::from_secs(3600))).await;
    world.waiting(&plain).await;
    world.queued(&plain).await;
    let out = world.queued(&plain).await;
    world.write(DeliveryWrite::Detach { target: out, attempt: 1, deadline: Duration::from_millis(50) }).await;
    // A lane that waits for a dead letter.
    let mut line = Vec::new();
    for _ in 0..3 {
        let mut event = world.event(tenant).await;
        event.meta.ordering_key = Some("customer".to_owned());
        line.push(world.keyed(event, &[lanes.id], Start::Waiting(WaitReason::Turn)));
    }
    let first = targets(&line[0])[0];
    let group = world.group(vec![world.unit(tenant, line).await]).await;
    assert!(matches!(store.ingest(&group).await.unwrap()[..], [UnitOutcome::Committed(_)]));
    world.write(died(first, 1, DeadReason::Rejected)).await;
    // Events that share a millisecond with the other tenant's, with a uid and with what is still to be expanded.
    let mut event = world.event_at(tenant, plain.created_at);
    event.uid = Some("order-1".to_owned());
    let mut new = world.new_event(event, &[plain.id], Start::Waiting(WaitReason::Turn));
    new.uid = Some(UidClaim { content_hash: [1; 32], ttl: Duration::from_secs(3600) });
    new.fan_out = vec![plain.id, lanes.id];
    let group = world.group(vec![world.unit(tenant, vec![new]).await]).await;
    assert_eq!(store.ingest(&group).await.unwrap(), [UnitOutcome::Committed(vec![EventOutcome::Accepted])]);
    store.create_replay(&world.new_job(tenant, ReplaySelection::default()).await).await.unwrap();
    late(world, tenant).await;
    tenant
}

/// What is done in the name of a tenant without looking whether it is being deleted.
async fn late(world: &World, tenant: TenantId) {
    let name = format!("k-{}", world.now().await.as_micros());
    world.store.begin_idempotent(tenant, &key(&name), Duration::from_secs(60)).await.unwrap();
    let answer = StoredAnswer { status: 201, body: Bytes::from_static(b"{}") };
    world.store.finish_idempotent(tenant, &key(&name), Some(&answer)).await.unwrap();
    let entry = world.new_entry(tenant, world.now().await);
    world.store.begin_audit(&entry).await.unwrap();
    let outcome = AuditOutcome { status: 201, after: None };
    world.store.end_audit(tenant, entry.id, None, &outcome).await.unwrap();
    world.store.create_replay(&world.new_job(tenant, ReplaySelection::default()).await).await.unwrap();
}

async fn rows(world: &World, tenant: TenantId) -> BTreeMap<String, u64> {
    world.database.rows_of(tenant).await
}

/// Sweeps in chunks until there are only rows of these tables.
async fn sweep_until_only(world: &World, tenant: TenantId, tables: &[&str]) {
    eventually("it is swept", async || {
        world.store.sweep_deleted(3).await.unwrap();
        assert!(world.store.sweep_tenants(3).await.unwrap() <= 3);
        rows(world, tenant).await.keys().all(|table| tables.contains(&table.as_str())).then_some(())
    })
    .await;
}

async fn nothing_is_left_of_a_deleted_tenant(world: &World) {
    let (gone, stays) = (fill(world, "gone").await, fill(world, "stays").await);
    // What the bus has lost.
    while world.store.relay(Duration::ZERO, 100).await.unwrap() > 0 {}
    let (before, theirs) = (rows(world, gone).await, rows(world, stays).await);
    for table in ["destinations", "attempts", "dead_letters", "fan_outs", "replays", "idempotency", "api_keys"] {
        assert!(before.contains_key(table), "there is something in {table}: {before:?}");
    }
    let deliveries = invariants::deliveries(world, stays).await;
    assert_eq!(world.store.sweep_tenants(100).await.unwrap(), 0, "none is being deleted");
    assert!(world.store.delete_tenant(gone).await.unwrap());
    sweep_until_only(world, gone, &["tenants", "audit_log"]).await;
    assert_eq!(world.store.sweep_tenants(100).await.unwrap(), 0, "more may come");
    let removed = world.store.tenant(gone).await.unwrap().unwrap().deleting.unwrap().rows;
    let counted = before.iter().filter(|(table, _)| !NOT_COUNTED.contains(&table.as_str()));
    assert_eq!(removed, counted.map(|(_, rows)| rows).sum::<u64>(), "{before:?}");

    world.database.backdate_deletion(gone, LATE).await;
    sweep_until_only(world, gone, &[]).await;
    assert_eq!(world.store.tenant(gone).await.unwrap(), None);
    assert_eq!(rows(world, stays).await, theirs);
    assert_eq!(invariants::deliveries(world, stays).await, deliveries);
    assert!(!world.store.delete_tenant(gone).await.unwrap());
    // Its name is free.
    world.open("gone").await;
}

async fn what_comes_late_is_swept_too(world: &World) {
    let (tenant, _) = world.open("gone").await;
    assert!(world.store.delete_tenant(tenant.id).await.unwrap());
    sweep_until_only(world, tenant.id, &["tenants", "audit_log"]).await;
    late(world, tenant.id).await;
    assert!(rows(world, tenant.id).await.contains_key("idempotency"));
    sweep_until_only(world, tenant.id, &["tenants", "audit_log"]).await;
    late(world, tenant.id).await;
    world.database.backdate_deletion(tenant.id, LATE).await;
    sweep_until_only(world, tenant.id, &[]).await;
}

async fn two_sweeps_at_once_do_it_together(world: &World) {
    let (gone, stays) = (fill(world, "gone").await, fill(world, "stays").await);
    while world.store.relay(Duration::ZERO, 100).await.unwrap() > 0 {}
    let theirs = rows(world, stays).await;
    assert!(world.store.delete_tenant(gone).await.unwrap());
    world.database.backdate_deletion(gone, LATE).await;
    let elsewhere = world.database.handle().await;
    eventually("it is swept", async || {
        world.store.sweep_deleted(5).await.unwrap();
        let both = tokio::join!(world.store.sweep_tenants(2), elsewhere.sweep_tenants(2));
        assert!(both.0.unwrap() + both.1.unwrap() <= 4);
        rows(world, gone).await.is_empty().then_some(())
    })
    .await;
    assert_eq!(rows(world, stays).await, theirs);
}
