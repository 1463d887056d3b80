//! What a database of the version before means for secrets, and how a tenant with much to remove is swept.

#![allow(clippy::expect_used, reason = "what fails in a helper fails the test")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use signalpost_core::{
    ApiKey, DestinationId, EventId, Kept, KeyHash, KeyId, Scopes, Sealed, Secret, Tenant, TenantId, TenantSpec,
};
use signalpost_runtime::SystemEntropy;
use signalpost_store::{
    IngestStore as _, ManageStore as _, ReadStore as _, ScheduleStore as _, TenantStore as _,
    ingest::Start,
    manage::{Created, DestinationUpdate},
    tenants::{NewTenant, SealedRow, TenantCreated},
};
use signalpost_store_postgres::PostgresStore;
use sqlx::{Connection as _, Executor as _, PgConnection};
use support::{
    Database,
    fixture::{self, TENANT, now},
};

/// The last schema of which processes cannot read encrypted secrets.
const BEFORE: i64 = 4;

/// A destination as the version before wrote it.
async fn old_row(database: &Database) -> DestinationId {
    let id = DestinationId::new(now(), &SystemEntropy);
    sqlx::query(
        "INSERT INTO destinations (id, tenant_id, spec, secret, state, version, created_at, updated_at)
         VALUES ($1, $2, $3::jsonb, 'whsec_before', 'active', 1, now(), now())",
    )
    .bind(id.uuid())
    .bind(TENANT.uuid())
    .bind(r#"{"url": "https://example.com/hook", "event_types": ["*"], "headers": {"X-Key": "value"}}"#)
    .execute(&database.sql)
    .await
    .expect("a row");
    id
}

fn old_secrets() -> Kept {
    let headers = [("X-Key".to_owned(), Secret::new("value"))].into();
    Kept::Plain { secret: Secret::new("whsec_before"), headers }
}

async fn raw(database: &Database, id: DestinationId) -> (Value, String, bool) {
    let (spec, secret, sealed): (String, String, bool) =
        sqlx::query_as("SELECT spec::text, secret, sealed IS NOT NULL FROM destinations WHERE id = $1")
            .bind(id.uuid())
            .fetch_one(&database.sql)
            .await
            .expect("the row");
    (serde_json::from_str(&spec).expect("JSON"), secret, sealed)
}

#[tokio::test]
async fn a_database_with_destinations_of_before_is_not_sealed_until_it_is_marked() {
    let database = Database::empty().await;
    sqlx::migrate!("../../migrations/postgres").run_to(BEFORE, &database.sql).await.expect("the schema of before");
    let old = old_row(&database).await;
    PostgresStore::migrate(&database.url).await.expect("the schema");
    let store = database.store().await;
    assert!(!store.is_sealed().await.expect("an answer"));
    let found = store.destination(TENANT, old).await.expect("an answer").expect("it is there");
    assert_eq!(found.secrets, old_secrets());
    assert!(found.spec.header_names.contains("X-Key"));

    // What is written until then is readable to the version before.
    let update = DestinationUpdate { spec: &found.spec, secrets: &found.secrets };
    store.update_destination(TENANT, old, 1, update).await.expect("an answer").expect("it is there");
    let (spec, secret, sealed) = raw(&database, old).await;
    assert_eq!((&spec["headers"], &*secret, sealed), (&json!({"X-Key": "value"}), "whsec_before", false));

    for _ in 0..2 {
        store.mark_sealed().await.expect("it is marked");
        assert!(store.is_sealed().await.expect("an answer"));
    }
    let new = Sealed::new(b"\x01\x02k1secrets".to_vec().into());
    let rows = store.unsealed("k1", None, 10).await.expect("rows");
    assert_eq!(rows, [(SealedRow::Destination(old), TENANT, old_secrets())]);
    assert!(store.reseal(rows[0].0, &rows[0].2, &new).await.expect("an answer"));
    let (spec, secret, sealed) = raw(&database, old).await;
    assert_eq!((spec.get("headers"), &*secret, sealed), (None, "", true));
    let found = store.destination(TENANT, old).await.expect("an answer").expect("it is there");
    assert_eq!((found.secrets, found.version), (Kept::Sealed(new), 2));
}

#[tokio::test]
async fn an_empty_database_of_before_is_sealed_when_it_is_upgraded() {
    let database = Database::empty().await;
    sqlx::migrate!("../../migrations/postgres").run_to(BEFORE, &database.sql).await.expect("the schema of before");
    PostgresStore::migrate(&database.url).await.expect("the schema");
    assert!(database.store().await.is_sealed().await.expect("an answer"));
}

async fn tenant(store: &PostgresStore, slug: &str) -> TenantId {
    let (now, id) = (now(), TenantId::new(now(), &SystemEntropy));
    let tenant = Tenant {
        id,
        slug: slug.to_owned(),
        spec: TenantSpec { name: slug.to_owned(), ..TenantSpec::default() },
        ingest_secret: None,
        version: 1,
        created_at: now,
        updated_at: now,
        deleting: None,
    };
    let key = ApiKey {
        id: KeyId::new(now, &SystemEntropy),
        tenant_id: id,
        hash: KeyHash::of(slug.as_bytes()),
        hint: "sp_01234567".to_owned(),
        name: String::new(),
        scopes: Scopes::all(),
        created_at: now,
        expires_at: None,
        last_used_at: None,
    };
    let new = NewTenant { tenant: &tenant, key: &key, destination: None };
    assert_eq!(store.create_tenant(new).await.expect("an answer"), TenantCreated::Yes);
    id
}

/// What nobody tells the sweep: an event whose routing was looked up before the deletion began, and that was committed after
/// the destination was removed.
#[tokio::test]
async fn what_was_accepted_while_the_deletion_began_is_swept() {
    let database = Database::new().await;
    let store = database.store().await;
    let gone = tenant(&store, "gone").await;
    let mut destination = fixture::new_destination();
    destination.tenant_id = gone;
    assert_eq!(store.create_destination(&destination).await.expect("an answer"), Created::Yes);
    let version = store.routes(gone).await.expect("routes").version;
    assert!(store.delete_tenant(gone).await.expect("an answer"));
    while store.sweep_deleted(10).await.expect("a sweep") > 0 {}
    assert_eq!(database.count("SELECT count(*) FROM destinations").await, 0);

    // As if its transaction had read the routing before.
    sqlx::query("UPDATE tenants SET deleting_at = NULL, routing_version = $2 WHERE id = $1")
        .bind(gone.uuid())
        .bind(version)
        .execute(&database.sql)
        .await
        .expect("as it was");
    for start in [Start::Queued, Start::Waiting(signalpost_core::WaitReason::Turn)] {
        let mut event = fixture::event_at(now());
        event.tenant_id = gone;
        let mut unit = fixture::unit(&store, vec![fixture::new_event(event, &[destination.id], start)]).await;
        (unit.tenant, unit.routing_version) = (gone, version);
        fixture::post(&store, &fixture::group(vec![unit])).await;
    }
    sqlx::query("UPDATE tenants SET deleting_at = now() - interval '61 seconds' WHERE id = $1")
        .bind(gone.uuid())
        .execute(&database.sql)
        .await
        .expect("it is being deleted");

    while store.relay(Duration::ZERO, 10).await.expect("a relay") > 0 {}
    // One call of each is not enough: what waits is cancelled before it is removed.
    for _ in 0..10 {
        store.sweep_tenants(100).await.expect("a sweep");
        store.sweep_deleted(100).await.expect("a sweep");
        database.assert_consistent().await;
    }
    assert_eq!(database.rows_of(gone).await, [].into());
}

/// Whatever a table holds, a chunk reads about as much as it removes.
#[tokio::test]
async fn a_chunk_of_a_sweep_reads_no_whole_table() {
    let database = Database::new().await;
    let store = database.store().await;
    let (gone, stays) = (tenant(&store, "gone").await, tenant(&store, "stays").await);
    let mut filling = session(&database).await;
    for (tenant, events) in [(stays, 3_000), (gone, 40)] {
        let ids: Vec<_> = (0..events).map(|_| EventId::new(now(), &SystemEntropy).uuid()).collect();
        sqlx::query(
            "INSERT INTO events (id, tenant_id, type, meta, data) SELECT id, $1, 'x', '{}', '' FROM unnest($2) AS id",
        )
        .bind(tenant.uuid())
        .bind(ids)
        .execute(&mut filling)
        .await
        .expect("events");
    }
    sqlx::query(
        "INSERT INTO deliveries (id, tenant_id, event_id, destination_id, state, event_type)
         SELECT id, tenant_id, id, tenant_id, 2, 'x' FROM events",
    )
    .execute(&mut filling)
    .await
    .expect("deliveries");
    filling.close().await.expect("it ends");
    assert!(store.delete_tenant(gone).await.expect("an answer"));
    let scans = "SELECT COALESCE(sum(seq_tup_read), 0)::bigint FROM pg_stat_user_tables
                 WHERE relname LIKE 'events%' OR relname LIKE 'deliveries%' OR relname LIKE 'attempts%'";
    store.close().await;
    sessions_end(&database).await;
    let before = database.count(scans).await;
    let store = database.store().await;
    while store.sweep_tenants(10).await.expect("a sweep") > 0 {}
    store.close().await;
    sessions_end(&database).await;
    assert_eq!(database.count(scans).await, before, "rows read by sequential scans");
    // It would be seen.
    let mut scanning = session(&database).await;
    sqlx::raw_sql("SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM events")
        .execute(&mut scanning)
        .await
        .expect("a scan");
    scanning.close().await.expect("it ends");
    sessions_end(&database).await;
    assert!(database.count(scans).await >= before + 3_000);
    let left = database.rows_of(gone).await;
    assert_eq!(left.into_keys().collect::<Vec<_>>(), ["tenants"]);
    assert_eq!(database.rows_of(stays).await["deliveries"], 3_000);
}

/// One of those that `sessions_end` waits for.
async fn session(database: &Database) -> PgConnection {
    let mut session = PgConnection::connect(&database.url).await.expect("a connection");
    session.execute("SET application_name = 'signalpost'").await.expect("a name");
    session
}

/// A session has told what it read when the server no longer shows it.
async fn sessions_end(database: &Database) {
    const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity
                            WHERE application_name = 'signalpost' AND datname = current_database()";
    tokio::time::timeout(Duration::from_secs(10), async {
        while database.count(SESSIONS).await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the sessions end");
}
