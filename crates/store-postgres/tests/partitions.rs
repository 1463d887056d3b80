//! Partitions: made ahead by several at once, dropped when nothing in them lives.

mod support;

use std::{sync::Arc, time::Duration};

use signalpost_core::{DeadReason, DeliveryId};
use signalpost_runtime::SystemEntropy;
use signalpost_store::{
    DispatchStore, ManageStore, ReadStore, ScheduleStore, dispatch::Next, ingest::Start, manage::Retried,
    schedule::Retention,
};
use signalpost_testkit::eventually;
use support::{
    Database,
    fixture::{TENANT, attempt, destination, event_at, group, new_event, now, post, unit},
};

const DAY: Duration = Duration::from_secs(86_400);

const PARTITIONS: &str = "SELECT count(*) FROM pg_inherits WHERE inhparent IN ('events'::regclass, 'deliveries'::regclass, 'attempts'::regclass)";

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_make_the_same_partitions() {
    let database = Database::new().await;
    let before = database.count(PARTITIONS).await;
    let mut processes = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let store = database.store().await;
        processes.spawn(async move { store.prepare_partitions(12).await });
    }
    for outcome in processes.join_all().await {
        outcome.expect("partitions");
    }
    assert_eq!(database.count(PARTITIONS).await - before, 3 * 5);
    assert_eq!(
        database.count("SELECT count(*) FROM pg_class WHERE relname LIKE 'deliveries_p%' AND relkind = 'r' AND NOT reloptions @> ARRAY['fillfactor=50']").await,
        0
    );
}

#[tokio::test]
async fn a_partition_goes_when_nothing_in_it_lives_and_a_dead_letter_outlives_it() {
    let database = Database::new().await;
    let store = database.store().await;
    let destination = destination(&store).await;
    let retention = Retention { events: 30 * DAY, dead_letters: 300 * DAY, audit: 300 * DAY, chunk: 100 };
    let old = now() - 40 * DAY;
    let news = vec![
        new_event(event_at(old), &[destination.id], Start::Queued),
        new_event(event_at(old), &[destination.id], Start::Queued),
    ];
    let targets = post(&store, &group(vec![unit(&store, news).await])).await;
    let before = database.count(PARTITIONS).await;

    let dead = Next::Dead { reason: DeadReason::Exhausted };
    store.write(&[attempt(targets[0], 1, dead)], false).await.expect("written");
    store.retain(retention).await.expect("retained");
    assert_eq!(database.count(PARTITIONS).await, before, "one is still queued");

    store.write(&[attempt(targets[1], 1, Next::Retry { after: DAY })], false).await.expect("written");
    store.retain(retention).await.expect("retained");
    assert_eq!(database.count(PARTITIONS).await, before, "one waits");

    store.write(&[attempt(targets[1], 2, Next::Delivered)], false).await.expect("written");
    store.retain(retention).await.expect("retained");
    assert_eq!(database.count(PARTITIONS).await, before - 3);
    assert_eq!(store.delivery(TENANT, targets[0].delivery_id).await.expect("a read"), None);

    // Its own copy is enough to send it again.
    let letter = store.dead_letter(TENANT, targets[0].delivery_id).await.expect("a read").expect("the letter");
    let Retried::Again(new) = store.replay_dead_letter(TENANT, targets[0].delivery_id).await.expect("a replay") else {
        panic!("the dead letter is sent again");
    };
    let due = store.take_due(support::fixture::budget(10)).await.expect("what is due");
    assert_eq!(due.deliveries.len(), 1);
    assert_eq!((due.deliveries[0].delivery_id, &due.deliveries[0].event), (new, &letter.event));
    database.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_reader_delays_the_drop_and_stops_nobody() {
    let database = Database::new().await;
    let store = database.store().await;
    let destination = destination(&store).await;
    let retention = Retention { events: 30 * DAY, dead_letters: 30 * DAY, audit: 30 * DAY, chunk: 100 };
    database.make_room(now() - 40 * DAY).await;
    let before = database.count(PARTITIONS).await;

    let mut reader = database.sql.begin().await.expect("a transaction");
    sqlx::query("SELECT count(*) FROM events").execute(&mut *reader).await.expect("a long read");
    let retaining = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.retain(retention).await }
    });
    let new = new_event(event_at(now()), &[destination.id], Start::Queued);
    let new = group(vec![unit(&store, vec![new]).await]);
    tokio::time::timeout(Duration::from_secs(4), post(&store, &new)).await.expect("ingest goes on");
    retaining.await.expect("no panic").expect("not an error: it is tried again");
    assert_eq!(database.count(PARTITIONS).await, before - 2, "what is read stays");
    reader.rollback().await.expect("the reader ends");
    eventually("the partition is dropped", Duration::from_secs(10), || async {
        store.retain(retention).await.map_err(|error| error.to_string())?;
        let now = database.count(PARTITIONS).await;
        if now == before - 3 { Ok(()) } else { Err(format!("{now} partitions")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_dropped_beside_those_who_take_locks_on_several_tables() {
    let database = Database::new().await;
    let store = database.store().await;
    let retention = Retention { events: 30 * DAY, dead_letters: 30 * DAY, audit: 30 * DAY, chunk: 100 };
    database.make_room(now() - 40 * DAY).await;
    let before = database.count(PARTITIONS).await;
    // As a batch of outcomes does, at least one at any time: deliveries first, events later.
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let sql = database.sql.clone();
        writers.spawn(async move {
            loop {
                let mut writer = sql.begin().await.expect("a transaction");
                for statement in
                    ["SELECT id FROM deliveries LIMIT 1", "SELECT pg_sleep(0.05)", "SELECT id FROM events LIMIT 1"]
                {
                    sqlx::query(statement).execute(&mut *writer).await.expect(statement);
                }
                writer.commit().await.expect("the end");
            }
        });
    }
    // And somebody who vacuums a partition of today.
    let mut vacuum = database.sql.begin().await.expect("a transaction");
    let today = signalpost_core::EventId::floor(now()).created_at().to_string()[..10].replace('-', "");
    let lock = format!("LOCK TABLE deliveries_p{today} IN SHARE UPDATE EXCLUSIVE MODE");
    sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut *vacuum).await.expect("its lock");
    eventually("the partitions are dropped", Duration::from_secs(10), || async {
        store.retain(retention).await.map_err(|error| error.to_string())?;
        let now = database.count(PARTITIONS).await;
        if now == before - 3 { Ok(()) } else { Err(format!("{now} partitions")) }
    })
    .await;
    vacuum.rollback().await.expect("the end");
    assert!(writers.try_join_next().is_none(), "they go on");
}

/// Retention takes one table after the other, and may be held up in between.
#[tokio::test]
async fn what_is_sent_again_of_a_day_that_is_half_gone_has_all_its_partitions() {
    let database = Database::new().await;
    let store = database.store().await;
    let destination = destination(&store).await;
    let retention = Retention { events: 30 * DAY, dead_letters: 300 * DAY, audit: 300 * DAY, chunk: 100 };
    let news = vec![new_event(event_at(now() - 40 * DAY), &[destination.id], Start::Queued)];
    let target = post(&store, &group(vec![unit(&store, news).await])).await[0];
    store.write(&[attempt(target, 1, Next::Delivered)], false).await.expect("written");
    let before = database.count(PARTITIONS).await;

    let mut reader = database.sql.begin().await.expect("a transaction");
    sqlx::query("SELECT count(*) FROM deliveries").execute(&mut *reader).await.expect("a long read");
    store.retain(retention).await.expect("retained");
    reader.rollback().await.expect("the reader ends");
    assert_eq!(database.count(PARTITIONS).await, before - 1, "the attempts are gone");

    let Retried::Again(new) = store.retry_delivery(TENANT, target.delivery_id).await.expect("a replay") else {
        panic!("it is sent again");
    };
    assert_eq!(database.count(PARTITIONS).await, before);
    let due = store.take_due(support::fixture::budget(10)).await.expect("what is due");
    assert_eq!(due.deliveries[0].delivery_id, new);
    let again = signalpost_store::dispatch::Target { delivery_id: new, ..target };
    let report = store.write(&[attempt(again, 1, Next::Delivered)], false).await.expect("its outcome is kept");
    assert_eq!(report.written, [signalpost_store::dispatch::Written::Done]);
    store.retain(retention).await.expect("retained");
    assert_eq!(database.count(PARTITIONS).await, before - 3, "and then all of the day goes");
    database.assert_consistent().await;
}

/// It may have been sent again, and died again, for as long as anybody liked.
#[tokio::test]
async fn a_dead_letter_of_long_ago_is_sent_again() {
    let database = Database::new().await;
    let store = database.store().await;
    let destination = destination(&store).await;
    let retention = Retention { events: 30 * DAY, dead_letters: 2000 * DAY, audit: 300 * DAY, chunk: 100 };
    let old = now() - 1000 * DAY;
    database.make_room(old).await;
    let news = vec![new_event(event_at(old), &[destination.id], Start::Queued)];
    let target = post(&store, &group(vec![unit(&store, news).await])).await[0];
    let dead = Next::Dead { reason: DeadReason::Exhausted };
    store.write(&[attempt(target, 1, dead)], false).await.expect("written");
    let before = database.count(PARTITIONS).await;
    store.retain(retention).await.expect("retained");
    assert_eq!(database.count(PARTITIONS).await, before - 3);
    let again = store.replay_dead_letter(TENANT, target.delivery_id).await.expect("a replay");
    assert!(matches!(again, Retried::Again(_)), "{again:?}");
    assert_eq!(database.count(PARTITIONS).await, before);
    database.assert_consistent().await;
}

/// What a version before has left behind, and goes on writing, fits the schema that is added to; it can be added to again.
#[tokio::test]
async fn partitions_that_are_there_and_those_to_come_get_what_is_added() {
    let database = Database::empty().await;
    let run = |statements: &'static str| {
        let sql = database.sql.clone();
        async move { sqlx::raw_sql(statements).execute(&sql).await.expect("a migration") }
    };
    run(include_str!("../../../migrations/postgres/0001_schema.sql")).await;
    database.make_room(now()).await;
    let delivery = "INSERT INTO deliveries (id, tenant_id, event_id, destination_id, event_type, state)
        SELECT $1, $1, $1, $1, 'a', 1";
    let waiting = "INSERT INTO waiting (delivery_id, tenant_id, destination_id, event_id, due_at, reason)
        SELECT $1, $1, $1, $1, now(), 0";
    for time in 0..3 {
        if time > 0 {
            run(include_str!("../../../migrations/postgres/0002_lanes.sql")).await;
        }
        let id = DeliveryId::new(now(), &SystemEntropy).uuid();
        for statement in [delivery, waiting] {
            sqlx::query(statement).bind(id).execute(&database.sql).await.expect("a row of the version before");
        }
    }
    database.store().await.prepare_partitions(3).await.expect("more partitions");
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_name LIKE 'deliveries_p%'
        AND column_name IN ('lane', 'lane_seq', 'guarantee', 'born_at')";
    let partitions = database.count("SELECT count(*) FROM pg_inherits WHERE inhparent = 'deliveries'::regclass").await;
    assert!(partitions >= 5, "{partitions} partitions");
    assert_eq!(database.count(columns).await, 4 * partitions);
    let plain = "SELECT count(*) FROM deliveries d JOIN waiting w ON w.delivery_id = d.id
        WHERE d.lane IS NULL AND d.guarantee IS NULL AND d.born_at IS NULL AND w.lane IS NULL AND w.claim IS NULL";
    assert_eq!(database.count(plain).await, 3);
}
