//! What is PostgreSQL's own at ingest: claims across processes, partitions made on demand, groups that were committed unheard.

mod support;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use signalpost_core::{Timestamp, WaitReason};
use signalpost_store::{
    IngestStore, StoreError,
    ingest::{EventOutcome, Start, UnitOutcome},
};
use support::{
    Database,
    commit_proxy::{CommitProxy, Cut},
    fixture::{claim, destination, event_at, events, group, new_event, now, post, unit},
    store_at,
};

#[tokio::test(flavor = "multi_thread")]
async fn one_key_from_fifty_clients_of_two_processes_is_one_event() {
    let database = Database::new().await;
    let stores = [database.store().await, database.store().await];
    let destination = destination(&stores[0]).await;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..50 {
        let store = Arc::clone(&stores[client % 2]);
        clients.spawn(async move {
            let event = new_event(event_at(now()), &[destination.id], Start::Queued);
            let mut unit = unit(&store, vec![event]).await;
            unit.claim = Some(claim("the key", 1));
            store.ingest(&group(vec![unit])).await.expect("an answer").remove(0)
        });
    }
    let outcomes = clients.join_all().await;
    let committed = outcomes.iter().filter(|outcome| matches!(outcome, UnitOutcome::Committed(_))).count();
    assert_eq!(committed, 1);
    let answers: BTreeSet<_> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            UnitOutcome::Replayed(answer) => Some(answer.body.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(answers.len(), 1, "{outcomes:?}");
    assert_eq!(outcomes.len() - committed, 49);
    assert_eq!(database.count("SELECT count(*) FROM events").await, 1);
    assert_eq!(database.count("SELECT count(*) FROM outbox").await, 1);
    database.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_with_the_same_keys_and_queues_in_other_orders_all_commit() {
    let database = Database::new().await;
    let stores = [database.store().await, database.store().await, database.store().await];
    let mut destinations = Vec::new();
    for _ in 0..5 {
        destinations.push(destination(&stores[0]).await.id);
    }
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..12_usize {
        let (store, mut destinations) = (Arc::clone(&stores[client % 3]), destinations.clone());
        destinations.rotate_left(client % 5);
        clients.spawn(async move {
            for turn in 0..5 {
                let mut units = Vec::new();
                for key in 0..8 {
                    let start = Start::Waiting(WaitReason::Turn);
                    let mut unit = unit(&store, vec![new_event(event_at(now()), &destinations, start)]).await;
                    unit.claim = Some(claim(&format!("{turn} {}", (key + client) % 8), 1));
                    units.push(unit);
                }
                store.ingest(&group(units)).await.expect("a commit");
            }
        });
    }
    clients.join_all().await;
    // Each of 5 turns had 8 keys, once each.
    assert_eq!(database.count("SELECT count(*) FROM events").await, 40);
    assert_eq!(database.count("SELECT sum(depth)::bigint FROM queues").await, 200);
    database.assert_consistent().await;
}

#[tokio::test]
async fn a_day_without_a_partition_gets_one() {
    let database = Database::new().await;
    let store = database.store().await;
    let destination = destination(&store).await;
    let long_ago = now() - Duration::from_secs(90 * 86_400);
    let old = new_event(event_at(long_ago), &[destination.id], Start::Queued);
    let outcomes = store.ingest(&group(vec![unit(&store, vec![old]).await])).await.expect("a partition on demand");
    assert_eq!(outcomes, [UnitOutcome::Committed(vec![EventOutcome::Accepted])]);
    let absurd = new_event(event_at(Timestamp::from_millis(86_400_000)), &[], Start::Queued);
    let refused = store.ingest(&group(vec![unit(&store, vec![absurd]).await])).await;
    assert!(matches!(refused, Err(StoreError::Data(_))), "{refused:?}");
}

#[tokio::test]
async fn a_group_whose_commit_was_unheard_can_be_repeated() {
    let database = Database::new().await;
    let proxy = CommitProxy::start(&database.url).await;
    let store = store_at(&proxy.url(&database.url), Default::default()).await;
    let destination = destination(&store).await;
    for (cut, stored_before) in [(Cut::BeforeCommit, 0), (Cut::AfterCommit, 20)] {
        let group = events(&store, destination.id, 20, Start::Waiting(WaitReason::Turn)).await;
        let before = database.count("SELECT count(*) FROM deliveries").await;
        proxy.arm(cut);
        let outcome = store.ingest(&group).await;
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
        assert!(proxy.has_cut());
        assert_eq!(database.count("SELECT count(*) FROM deliveries").await - before, stored_before, "{cut:?}");
        post(&store, &group).await;
        assert_eq!(database.count("SELECT count(*) FROM deliveries").await - before, 20, "{cut:?}");
    }
    assert_eq!(database.count("SELECT count(*) FROM outbox").await, 0);
    database.assert_consistent().await;
}

#[tokio::test]
async fn a_group_in_one_statement_is_repeated_over_another_connection() {
    let database = Database::new().await;
    let proxy = CommitProxy::start_for(&database.url, Some("all_of_it")).await;
    let store = store_at(&proxy.url(&database.url), Default::default()).await;
    let destination = destination(&store).await;
    // Prepares the statement.
    post(&store, &events(&store, destination.id, 1, Start::Queued).await).await;
    for cut in [Cut::BeforeCommit, Cut::AfterCommit] {
        let group = events(&store, destination.id, 20, Start::Queued).await;
        let before = database.count("SELECT count(*) FROM deliveries").await;
        proxy.arm(cut);
        post(&store, &group).await;
        assert!(proxy.has_cut(), "{cut:?}");
        assert_eq!(database.count("SELECT count(*) FROM deliveries").await - before, 20, "{cut:?}");
        // The next connection has prepared nothing yet.
        post(&store, &events(&store, destination.id, 1, Start::Queued).await).await;
    }
    assert_eq!(database.count("SELECT count(*) FROM outbox").await, 5);
    database.assert_consistent().await;
}
