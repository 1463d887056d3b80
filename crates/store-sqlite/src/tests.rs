//! What needs a look behind the port: a full disk, a job that panics, a mark that a clock set back must not break.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use signalpost_core::{
    Clock as _, DeliveryId, DeliveryState, DestinationId, Event, EventId, EventMeta, Guarantee, OutboxId, TenantId,
    Timestamp,
};
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_store::{
    DispatchStore as _, Health as _, IngestStore as _, ReadStore as _, ScheduleStore as _, StoreError,
    ingest::{EventOutcome, IngestGroup, IngestUnit, NewDelivery, NewEvent, Start, UnitOutcome},
};
use tempfile::TempDir;

use crate::{SqliteStore, failure::Failure, feed, leftovers};

fn open(folder: &TempDir) -> SqliteStore {
    SqliteStore::open(folder.path(), Arc::new(SystemClock::new()), Arc::new(SystemEntropy)).unwrap()
}

fn now() -> Timestamp {
    SystemClock::new().now()
}

/// A group of one event of `size` bytes, accepted at that time, with one delivery on the bus.
fn group(at: Timestamp, size: usize) -> (IngestGroup, DeliveryId, EventId) {
    let id = EventId::new(at, &SystemEntropy);
    let delivery = NewDelivery {
        id: DeliveryId::new(at, &SystemEntropy),
        destination_id: DestinationId::new(at, &SystemEntropy),
        start: Start::Queued,
        lane: None,
        guarantee: Guarantee::AtLeastOnce,
    };
    let event = Event {
        id,
        tenant_id: TenantId::DEFAULT,
        event_type: "order.created".into(),
        uid: None,
        source: None,
        meta: EventMeta::default(),
        data: Bytes::from(vec![b'1'; size]),
    };
    let new = NewEvent {
        event: Arc::new(event),
        deliveries: vec![delivery],
        fan_out: Vec::new(),
        uid: None,
        answer: Bytes::new(),
    };
    let unit = IngestUnit { tenant: TenantId::DEFAULT, routing_version: 0, claim: None, events: vec![new] };
    let outbox_id = OutboxId::new(at, &SystemEntropy);
    (IngestGroup { units: vec![unit], outbox_id, published: Vec::new() }, delivery.id, id)
}

async fn set_most_pages(store: &SqliteStore, more: i64) {
    store
        .write(move |tx| {
            let pages: i64 = tx.connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
            tx.connection.query_row(&format!("PRAGMA max_page_count = {}", pages + more), [], |_| Ok(()))?;
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_heals() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    set_most_pages(&store, 20).await;
    let mut accepted = Vec::new();
    let refused = loop {
        let (group, _, id) = group(now(), 40_000);
        match store.ingest(&group).await {
            Ok(outcomes) => {
                assert_eq!(outcomes, [UnitOutcome::Committed(vec![EventOutcome::Accepted])]);
                accepted.push(id);
            }
            Err(error) => break (error, id),
        }
        assert!(accepted.len() < 100, "it is never full");
    };
    let StoreError::Unavailable(text) = &refused.0 else { panic!("{:?}", refused.0) };
    assert_eq!(text, "the disk is full");
    assert_eq!(store.event(TenantId::DEFAULT, refused.1).await.unwrap(), None);
    // It counts as full until it takes something again, although reading goes on.
    for _ in 0..2 {
        let checked = store.check().await;
        assert!(matches!(&checked, Err(StoreError::Unavailable(text)) if text == "the disk is full"), "{checked:?}");
    }
    // Many at once: those that share the transaction with one that fails learn that nothing is known.
    let groups: Vec<_> = (0..10).map(|_| group(now(), 40_000).0).collect();
    for result in futures::future::join_all(groups.iter().map(|group| store.ingest(group))).await {
        assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    }
    assert!(store.check().await.is_err());
    set_most_pages(&store, 10_000).await;
    store.check().await.unwrap();
    let (group, ..) = group(now(), 40_000);
    store.ingest(&group).await.unwrap();
    for id in accepted {
        assert!(store.event(TenantId::DEFAULT, id).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_job_that_fails_takes_back_its_own_part_only() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let (good, delivery, _) = group(now(), 10);
    // Handed in together with the others, so that they share a transaction (or follow each other, which is no less).
    let spoil = |fail: bool| {
        store.write(move |tx| -> Result<(), Failure> {
            tx.execute("UPDATE tenants SET name = 'spoilt'", [])?;
            if fail { Err(Failure::data("no")) } else { panic!("on purpose") }
        })
    };
    let (failed, ingested, panicked) = tokio::join!(spoil(true), store.ingest(&good), spoil(false));
    assert!(matches!(failed, Err(StoreError::Data(_))), "{failed:?}");
    assert!(matches!(panicked, Err(StoreError::Internal(_))), "{panicked:?}");
    ingested.unwrap();
    let name: String = store
        .read(|connection| Ok(connection.query_row("SELECT name FROM tenants", [], |row| row.get(0))?))
        .await
        .unwrap();
    assert_eq!(name, "Default");
    assert!(store.examine(&[delivery]).await.unwrap()[0].is_some());
}

#[tokio::test]
async fn jobs_of_one_transaction_run_again_where_one_fails() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let (standing, stands) = tokio::sync::oneshot::channel();
    let runs: Arc<[AtomicU32; 4]> = Arc::default();
    let counted = |job: usize| {
        let runs = Arc::clone(&runs);
        move || runs[job].fetch_add(1, Ordering::Relaxed)
    };
    // A name twice is refused, so none may be left from before.
    let write = |job: usize, fail: bool| {
        let run = counted(job);
        store.write(move |tx| -> Result<u32, Failure> {
            let insert = "INSERT INTO marks (name, value) VALUES (?1, x'00')";
            tx.execute(insert, [format!("job {job}")])?;
            let before = run();
            if fail { Err(Failure::data("no")) } else { Ok(before) }
        })
    };
    let stand_still = {
        let (run, mut standing) = (counted(0), Some(standing));
        store.write(move |_| {
            run();
            standing.take().map(|standing| standing.send(()));
            Ok(gate.recv().is_ok())
        })
    };
    // What is handed in meanwhile is one group, in the order in which it is polled.
    let meanwhile = async {
        stands.await.unwrap();
        tokio::join!(write(1, false), write(2, true), write(3, false), async { go.send(()).unwrap() })
    };
    let (stood, (first, failed, last, ())) = tokio::join!(stand_still, meanwhile);
    assert!(stood.unwrap());
    assert_eq!((first.unwrap(), last.unwrap()), (1, 0), "what ran before it ran twice, what came after it once");
    assert!(matches!(failed, Err(StoreError::Data(_))), "{failed:?}");
    assert_eq!(runs.each_ref().map(|runs| runs.load(Ordering::Relaxed)), [1, 2, 2, 1]);
    let names: Vec<String> = store
        .read(|connection| {
            let mut statement = connection.prepare("SELECT name FROM marks WHERE name LIKE 'job %' ORDER BY name")?;
            Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
        })
        .await
        .unwrap();
    assert_eq!(names, ["job 1", "job 3"]);
}

#[tokio::test]
async fn what_is_queued_below_the_mark_is_found() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let later = now() + Duration::from_secs(3600);
    assert_eq!(store.requeue_lost(later, 10).await.unwrap(), (0, true));
    // The clock was set back: this one is older than what was looked at already.
    let (mut group, delivery, _) = group(now(), 10);
    let record = group.outbox_id;
    store.ingest(&group).await.unwrap();
    group.units.clear();
    group.published = vec![record];
    store.ingest(&group).await.unwrap();
    assert_eq!(store.requeue_lost(later, 10).await.unwrap(), (1, true));
    assert_eq!(store.examine(&[delivery]).await.unwrap()[0].unwrap().state, DeliveryState::Waiting);
}

#[tokio::test]
async fn what_a_process_queued_whose_clock_was_ahead_is_found_by_the_next() {
    let folder = TempDir::new().unwrap();
    let delivery = {
        let store = open(&folder);
        let (mut group, delivery, _) = group(now() + Duration::from_secs(3600), 10);
        let record = group.outbox_id;
        store.ingest(&group).await.unwrap();
        group.units.clear();
        group.published = vec![record];
        store.ingest(&group).await.unwrap();
        delivery
    };
    let store = open(&folder);
    assert_eq!(store.requeue_lost(now(), 10).await.unwrap(), (1, true));
    assert_eq!(store.examine(&[delivery]).await.unwrap()[0].unwrap().state, DeliveryState::Waiting);
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_missing_to_the_feed() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let (group, _, event) = group(now(), 10);
    store.ingest(&group).await.unwrap();
    let found = |store: SqliteStore| async move { store.write(move |tx| feed::light_event(tx, event)).await.unwrap() };
    assert!(found(store.clone()).await.is_some());
    store.write(|tx| tx.execute("UPDATE events SET meta = '{'", [])).await.unwrap();
    assert!(found(store).await.is_none());
}

#[tokio::test]
async fn lists_that_take_long_keep_nothing_else_waiting() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let mut lists = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let store = store.clone();
        lists.spawn(async move {
            store.list(move |connection| Ok(connection.query_row(endless, [], |row| row.get::<_, i64>(0))?)).await
        });
    }
    // Once they run, all of their connections are out.
    while store.inner.lists.has_idle() {
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(Duration::from_secs(4), store.check()).await.expect("it waits for no list").unwrap();
    assert_eq!(lists.len(), 20, "they run");
    assert!(lists.try_join_next().is_none(), "they run");
    // Those that wait for a connection are told so in time, too.
    while let Some(list) = lists.join_next().await {
        assert!(matches!(list.unwrap(), Err(StoreError::Unavailable(_))));
    }
}

#[tokio::test]
async fn a_read_that_takes_too_long_is_stopped() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    for _ in 0..8 {
        // Dropped while it runs: its connection must come back, or the pool is empty after a few.
        let read = store.read(move |connection| Ok(connection.query_row(endless, [], |row| row.get::<_, i64>(0))?));
        assert!(tokio::time::timeout(Duration::from_millis(30), read).await.is_err());
    }
    store.check().await.unwrap();
}

#[tokio::test]
async fn what_waits_for_others_is_not_looked_at_to_sweep() {
    let folder = TempDir::new().unwrap();
    let plan: Vec<String> = open(&folder)
        .read(|connection| {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", leftovers::TO_CANCEL))?;
            let rows = statement.query_map([0, 0, 0], |row| row.get(3))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
        .unwrap();
    let expected =
        ["SCAN t USING COVERING INDEX destinations_deleted", "SEARCH w USING INDEX waiting_due (destination_id=?)"];
    assert_eq!(plan, expected);
}

#[tokio::test]
async fn the_log_begins_again() {
    const DATA: usize = 1024 * 1024;
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let log = folder.path().join("signalpost.db-wal");
    let mut ids = Vec::new();
    // More was written than it holds.
    while ids.len() < 64 + (std::fs::metadata(&log).unwrap().len() / DATA as u64) as usize {
        let (group, _, id) = group(now(), DATA);
        store.ingest(&group).await.unwrap();
        ids.push(id);
        assert!(ids.len() < 1_000, "the log only grows");
    }
    drop(store);
    // Closed in order, all is in the file.
    assert!(!log.exists());
    let store = open(&folder);
    for id in ids {
        assert!(store.event(TenantId::DEFAULT, id).await.unwrap().is_some());
    }
}
