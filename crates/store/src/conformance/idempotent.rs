//! Idempotency keys of requests other than events: begun under a lease, then finished.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;

use super::world::{TENANT, World, eventually};
use crate::{
    ingest::StoredAnswer,
    manage::{Begun, IdempotencyKey},
};

super::cases![
    a_key_is_begun_once_and_answered,
    another_body_is_a_mismatch_at_every_stage,
    a_failed_request_forgets_its_key,
    a_lease_that_ran_out_is_taken_over,
    an_expired_answer_is_forgotten,
    a_key_belongs_to_its_tenant_and_scope,
    the_first_answer_stays,
    one_of_fifty_is_first,
];

const LEASE: Duration = Duration::from_secs(60);

fn key(body: u8) -> IdempotencyKey {
    IdempotencyKey {
        scope: "POST /v1/destinations".into(),
        key: "k-1".into(),
        body_hash: [body; 32],
        ttl: Duration::from_secs(3600),
    }
}

fn answer(text: &'static str) -> StoredAnswer {
    StoredAnswer { status: 201, body: Bytes::from_static(text.as_bytes()) }
}

async fn begin(world: &World, key: &IdempotencyKey, lease: Duration) -> Begun {
    world.store.begin_idempotent(TENANT, key, lease).await.unwrap()
}

async fn finish(world: &World, key: &IdempotencyKey, answer: Option<StoredAnswer>) {
    world.store.finish_idempotent(TENANT, key, answer.as_ref()).await.unwrap();
}

async fn a_key_is_begun_once_and_answered(world: &World) {
    assert_eq!(begin(world, &key(1), LEASE).await, Begun::First);
    assert_eq!(begin(world, &key(1), LEASE).await, Begun::InFlight);
    finish(world, &key(1), Some(answer("made"))).await;
    for _ in 0..2 {
        assert_eq!(begin(world, &key(1), LEASE).await, Begun::Answered(answer("made")));
    }
}

async fn another_body_is_a_mismatch_at_every_stage(world: &World) {
    assert_eq!(begin(world, &key(1), LEASE).await, Begun::First);
    assert_eq!(begin(world, &key(2), LEASE).await, Begun::Mismatch);
    finish(world, &key(1), Some(answer("made"))).await;
    assert_eq!(begin(world, &key(2), LEASE).await, Begun::Mismatch);
}

async fn a_failed_request_forgets_its_key(world: &World) {
    assert_eq!(begin(world, &key(1), LEASE).await, Begun::First);
    finish(world, &key(1), None).await;
    assert_eq!(begin(world, &key(2), LEASE).await, Begun::First);
    // Finishing again what is forgotten is nothing.
    finish(world, &key(2), None).await;
    finish(world, &key(2), None).await;
}

async fn a_lease_that_ran_out_is_taken_over(world: &World) {
    assert_eq!(begin(world, &key(1), Duration::from_millis(50)).await, Begun::First);
    eventually("the lease runs out", async || (begin(world, &key(1), LEASE).await == Begun::First).then_some(())).await;
    assert_eq!(begin(world, &key(1), LEASE).await, Begun::InFlight);
}

async fn an_expired_answer_is_forgotten(world: &World) {
    let short = IdempotencyKey { ttl: Duration::from_millis(50), ..key(1) };
    assert_eq!(begin(world, &short, Duration::from_millis(20)).await, Begun::First);
    finish(world, &short, Some(answer("made"))).await;
    eventually("the answer expires", async || (begin(world, &key(2), LEASE).await == Begun::First).then_some(())).await;
}

async fn a_key_belongs_to_its_tenant_and_scope(world: &World) {
    let other = world.tenant("other").await;
    assert_eq!(begin(world, &key(1), LEASE).await, Begun::First);
    assert_eq!(world.store.begin_idempotent(other, &key(2), LEASE).await.unwrap(), Begun::First);
    let elsewhere = IdempotencyKey { scope: "POST /v1/replays".into(), ..key(3) };
    assert_eq!(begin(world, &elsewhere, LEASE).await, Begun::First);
}

async fn the_first_answer_stays(world: &World) {
    assert_eq!(begin(world, &key(1), LEASE).await, Begun::First);
    finish(world, &key(1), Some(answer("first"))).await;
    finish(world, &key(1), Some(answer("second"))).await;
    finish(world, &key(1), None).await;
    assert_eq!(begin(world, &key(1), LEASE).await, Begun::Answered(answer("first")));
}

async fn one_of_fifty_is_first(world: &World) {
    let handles = [Arc::clone(&world.store), world.database.handle().await];
    let tasks = (0..50).map(|number| {
        let store = Arc::clone(&handles[number % 2]);
        tokio::spawn(async move { store.begin_idempotent(TENANT, &key(1), LEASE).await.unwrap() })
    });
    let begun: Vec<_> = join_all(tasks).await.into_iter().map(|begun| begun.unwrap()).collect();
    assert_eq!(begun.iter().filter(|begun| **begun == Begun::First).count(), 1);
    assert_eq!(begun.iter().filter(|begun| **begun == Begun::InFlight).count(), 49);
}
