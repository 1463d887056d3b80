//! What is PostgreSQL's own in the feed and in outcomes: processes that get in each other's way, and what a statement costs.

mod support;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use signalpost_core::{DeliveryState, WaitReason};
use signalpost_store::{
    DispatchStore, ManageStore, ScheduleStore,
    dispatch::{Next, Written},
    ingest::Start,
};
use signalpost_testkit::eventually;
use sqlx::Row;
use support::{
    Database,
    fixture::{TENANT, attempt, budget, destination, events, now, post},
};

#[tokio::test(flavor = "multi_thread")]
async fn feeders_never_share_a_delivery_and_leave_none() {
    let database = Database::new().await;
    let stores = [database.store().await, database.store().await];
    let mut waiting = BTreeSet::new();
    for _ in 0..4 {
        let destination = destination(&stores[0]).await;
        let group = events(&stores[0], destination.id, 250, Start::Waiting(WaitReason::Turn)).await;
        waiting.extend(post(&stores[0], &group).await.into_iter().map(|target| target.delivery_id));
    }
    let mut feeders = tokio::task::JoinSet::new();
    for feeder in 0..6 {
        let store = Arc::clone(&stores[feeder % 2]);
        feeders.spawn(async move {
            let mut taken = Vec::new();
            loop {
                let due = store.take_due(budget(70)).await.expect("what is due");
                taken.extend(due.deliveries.iter().map(|due| due.delivery_id));
                if !due.more && due.deliveries.is_empty() {
                    return taken;
                }
            }
        });
    }
    let taken: Vec<_> = feeders.join_all().await.into_iter().flatten().collect();
    assert_eq!(taken.len(), 1000);
    assert_eq!(taken.into_iter().collect::<BTreeSet<_>>(), waiting);
    database.assert_consistent().await;
}

/// A writer that adds work while the feeder moves the queue's next due time ahead must not be forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn work_that_arrives_while_the_feeder_is_at_its_queue_is_fed_at_once() {
    let database = Database::new().await;
    let (writer, feeder) = (database.store().await, database.store().await);
    let destination = destination(&writer).await;
    let feeding = tokio::spawn(async move {
        let mut taken = 0;
        while taken < 300 {
            taken += feeder.take_due(budget(3)).await.expect("what is due").deliveries.len();
        }
    });
    for _ in 0..150 {
        let group = events(&writer, destination.id, 2, Start::Waiting(WaitReason::Turn)).await;
        post(&writer, &group).await;
    }
    tokio::time::timeout(Duration::from_secs(30), feeding).await.expect("nothing is forgotten").expect("no panic");
    database.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_feeders_and_people_in_each_others_way_leave_the_tables_consistent() {
    let database = Database::new().await;
    let stores = [database.store().await, database.store().await, database.store().await];
    let mut destinations = Vec::new();
    for _ in 0..3 {
        destinations.push(destination(&stores[0]).await.id);
    }
    let mut work = tokio::task::JoinSet::new();
    for worker in 0..6_usize {
        let (store, destinations) = (Arc::clone(&stores[worker % 3]), destinations.clone());
        work.spawn(async move {
            for turn in 0..12 {
                let start = if turn % 2 == 0 { Start::Queued } else { Start::Waiting(WaitReason::Turn) };
                let group = events(&store, destinations[(worker + turn) % 3], 20, start).await;
                let targets = post(&store, &group).await;
                let batch: Vec<_> = targets
                    .iter()
                    .rev()
                    .enumerate()
                    .map(|(place, target)| match place % 3 {
                        0 => attempt(*target, 1, Next::Delivered),
                        1 => attempt(*target, 1, Next::Retry { after: Duration::ZERO }),
                        _ => attempt(*target, 1, Next::Dead { reason: signalpost_core::DeadReason::Rejected }),
                    })
                    .collect();
                // Two dispatchers with the same batch: each item is written once.
                let (one, other) = tokio::join!(store.write(&batch, false), store.write(&batch, false));
                let (one, other) = (one.expect("written"), other.expect("written"));
                for pair in one.written.iter().zip(&other.written) {
                    assert!(
                        matches!(pair, (Written::Done, Written::Superseded) | (Written::Superseded, Written::Done)),
                        "{pair:?}"
                    );
                }
                let due = store.take_due(budget(15)).await.expect("what is due");
                let leases: Vec<_> = due.deliveries.iter().map(|due| (due.delivery_id, due.leased_until)).collect();
                store.give_back(&leases).await.expect("given back");
                if let Some(target) = targets.get(1) {
                    store.cancel_delivery(TENANT, target.delivery_id).await.expect("cancelled");
                }
                store.relay(Duration::ZERO, 2).await.expect("relayed");
                store.set_paused(TENANT, destinations[turn % 3], turn % 4 < 2).await.expect("paused or resumed");
            }
        });
    }
    work.join_all().await;
    database.assert_consistent().await;
}

#[tokio::test]
async fn a_first_success_is_a_hot_update_and_touches_no_queue() {
    let database = Database::new().await;
    let store = database.store().await;
    let destination = destination(&store).await;
    let targets = post(&store, &events(&store, destination.id, 400, Start::Queued).await).await;
    let batch: Vec<_> = targets.iter().map(|target| attempt(*target, 1, Next::Delivered)).collect();
    for part in batch.chunks(100) {
        assert_eq!(store.write(part, false).await.expect("written").written, vec![Written::Done; part.len()]);
    }
    // A connection tells its statistics when it ends, at the latest.
    store.close().await;
    let (updated, hot) = eventually("the statistics have come", Duration::from_secs(20), || async {
        let row = sqlx::query(
            "SELECT sum(n_tup_upd)::bigint AS updated, sum(n_tup_hot_upd)::bigint AS hot FROM pg_stat_user_tables
             WHERE relname LIKE 'deliveries_p%'",
        )
        .fetch_one(&database.sql)
        .await
        .map_err(|error| error.to_string())?;
        let (updated, hot): (i64, i64) = (row.get("updated"), row.get("hot"));
        if updated >= 400 { Ok((updated, hot)) } else { Err(format!("{updated} updates so far")) }
    })
    .await;
    assert_eq!(updated, 400);
    assert!(hot >= 380, "{hot} of {updated} updates were HOT");
    assert_eq!(
        database.count("SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables WHERE relname = 'waiting'").await,
        0
    );
    // Its birth alone.
    assert_eq!(
        database
            .count("SELECT (n_tup_ins + n_tup_upd)::bigint FROM pg_stat_user_tables WHERE relname = 'queues'")
            .await,
        1
    );
}

/// A million waiting deliveries of one destination must cost the others one row.
#[tokio::test]
async fn the_feed_reads_what_it_takes_and_little_more() {
    let database = Database::new().await;
    let store = database.store().await;
    let (flood, other) = (destination(&store).await, destination(&store).await);
    for _ in 0..10 {
        post(&store, &events(&store, flood.id, 1000, Start::Waiting(WaitReason::Turn)).await).await;
    }
    let wanted = post(&store, &events(&store, other.id, 2, Start::Waiting(WaitReason::Turn)).await).await;
    let read_before = index_reads(&database).await;
    let due = store.take_due(budget(20)).await.expect("what is due");
    assert_eq!(due.deliveries.len(), 20);
    assert!(due.more);
    for target in wanted {
        assert!(due.deliveries.iter().any(|due| due.delivery_id == target.delivery_id), "the small one is not starved");
    }
    store.close().await;
    let read = eventually("the statistics have come", Duration::from_secs(20), || async {
        let read = index_reads(&database).await - read_before;
        if read >= 20 { Ok(read) } else { Err(read) }
    })
    .await;
    assert!(read <= 100, "{read} index entries read for 20 deliveries");
    database.assert_consistent().await;
}

/// Entries read of the index by which due rows are found.
async fn index_reads(database: &Database) -> i64 {
    database
        .count("SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE indexrelname = 'waiting_due'")
        .await
}

/// More young deliveries than one look takes: they are read again when they have grown older, not over and over.
#[tokio::test]
async fn the_reconciler_stops_at_what_is_too_young() {
    let database = Database::new().await;
    let store = database.store().await;
    let destination = destination(&store).await;
    for _ in 0..10 {
        post(&store, &events(&store, destination.id, 1_001, Start::Queued).await).await;
    }
    sqlx::query("DELETE FROM outbox").execute(&database.sql).await.expect("nobody holds them");
    sqlx::query("UPDATE deliveries SET state = $1")
        .bind(DeliveryState::Delivered as i16)
        .execute(&database.sql)
        .await
        .expect("ended");
    assert_eq!(store.requeue_lost(now(), 1_000).await.expect("a look"), (0, true));
}
