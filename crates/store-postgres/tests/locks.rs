//! Who locks several deliveries does it in one order: nobody is sacrificed to a deadlock.

#![allow(clippy::expect_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{sync::Arc, time::Duration};

use signalpost_store::{
    DispatchStore as _, ScheduleStore as _,
    dispatch::{Next, Written},
    ingest::Start,
};
use signalpost_testkit::eventually;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use support::{
    Database,
    fixture::{self, attempt},
};
use uuid::Uuid;

/// Until so many of this database wait for a lock.
async fn until_waiting(database: &Database, wanted: i64) {
    eventually("they wait for their locks", Duration::from_secs(5), || async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waiting = database.count(waiting).await;
        if waiting == wanted { Ok(()) } else { Err(waiting) }
    })
    .await;
}

#[tokio::test]
async fn the_relay_and_a_batch_that_mixes_arrivals_with_failures() {
    let database = Database::new().await;
    let store = database.store().await;
    let destination = fixture::destination(&store).await;
    let mut targets = fixture::post(&store, &fixture::events(&store, destination.id, 2, Start::Queued).await).await;
    targets.sort_by_key(|target| target.delivery_id);
    let (older, younger) = (targets[0], targets[1]);
    let mut other = PgConnection::connect(&database.url).await.expect("a connection");
    let lock = format!("BEGIN; SELECT FROM deliveries WHERE id = '{}' FOR UPDATE", older.delivery_id.uuid());
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut other).await.expect("a lock");
    let relay = Arc::clone(&store);
    let relay = tokio::spawn(async move { relay.relay(Duration::ZERO, 10).await });
    until_waiting(&database, 1).await;
    let writer = Arc::clone(&store);
    let writer = tokio::spawn(async move {
        let failed = attempt(older, 1, Next::Retry { after: Duration::from_secs(60) });
        writer.write(&[attempt(younger, 1, Next::Delivered), failed], false).await
    });
    until_waiting(&database, 2).await;
    // Who waits for the older one holds no younger one.
    let free: Option<Uuid> = sqlx::query_scalar("SELECT id FROM deliveries WHERE id = $1 FOR UPDATE SKIP LOCKED")
        .bind(younger.delivery_id.uuid())
        .fetch_optional(&database.sql)
        .await
        .expect("a look");
    assert_eq!(free, Some(younger.delivery_id.uuid()));
    other.close().await.expect("let go");
    assert_eq!(relay.await.expect("no panic").expect("relayed"), 1);
    let report = writer.await.expect("no panic").expect("written");
    assert_eq!(report.written, [Written::Done, Written::Done]);
    database.assert_consistent().await;
}
