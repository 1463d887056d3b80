//! Who cancels a replay job waits for nobody who works on it.

#![allow(clippy::expect_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{sync::Arc, time::Duration};

use signalpost_core::{DeadReason, ReplayId};
use signalpost_runtime::SystemEntropy;
use signalpost_store::{
    DispatchStore as _, ManageStore as _, ReadStore as _, ScheduleStore as _, StoreError,
    dispatch::{Next, Target},
    ingest::Start,
    manage::{ReplayJob, ReplaySelection, ReplayState},
};
use signalpost_store_postgres::PostgresStore;
use signalpost_testkit::eventually;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use support::{
    Database,
    fixture::{self, TENANT, attempt, now},
};
use tokio::task::JoinHandle;

/// A job for the dead letters of a new destination, and those.
async fn job(store: &PostgresStore, dead: usize) -> (ReplayId, Vec<Target>) {
    let destination = fixture::destination(store).await;
    let targets = fixture::post(store, &fixture::events(store, destination.id, dead, Start::Queued).await).await;
    let died = |target: &Target| attempt(*target, 1, Next::Dead { reason: DeadReason::Gone });
    store.write(&targets.iter().map(died).collect::<Vec<_>>(), false).await.expect("dead letters");
    let job = ReplayJob {
        id: ReplayId::new(now(), &SystemEntropy),
        tenant_id: TENANT,
        selection: ReplaySelection { destination_id: Some(destination.id), ..ReplaySelection::default() },
        rate_per_second: None,
        state: ReplayState::Running,
        matched: None,
        replayed: 0,
        created_at: now(),
        finished_at: None,
    };
    store.create_replay(&job).await.expect("a job");
    (job.id, targets)
}

/// A step of the job that waits for a lock which the connection holds.
async fn step_that_waits(
    database: &Database,
    store: &Arc<PostgresStore>,
    job: ReplayId,
) -> JoinHandle<Result<(usize, bool), StoreError>> {
    let worker = Arc::clone(store);
    let step = tokio::spawn(async move { worker.step_replay(job, 10).await });
    eventually("the step waits", Duration::from_secs(5), || async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'";
        match database.count(waiting).await {
            0 => Err("it does not wait"),
            _ => Ok(()),
        }
    })
    .await;
    step
}

/// Holds what that statement locks, until the transaction ends.
async fn hold(database: &Database, statement: String) -> PgConnection {
    let mut other = PgConnection::connect(&database.url).await.expect("a connection");
    sqlx::raw_sql(AssertSqlSafe(format!("BEGIN; {statement}"))).execute(&mut other).await.expect("a lock");
    other
}

#[tokio::test]
async fn a_job_that_is_being_counted_is_cancelled_at_once() {
    let database = Database::new().await;
    let store = database.store().await;
    let (job, _) = job(&store, 3).await;
    let other = hold(&database, "LOCK TABLE dead_letters IN ACCESS EXCLUSIVE MODE".to_owned()).await;
    let step = step_that_waits(&database, &store, job).await;
    let cancelled = store.cancel_replay(TENANT, job).await.expect("cancelled").expect("a job");
    assert_eq!(cancelled.state, ReplayState::Cancelled);
    assert!(!step.is_finished(), "it still counts");
    other.close().await.expect("let go");
    assert_eq!(step.await.expect("no panic").expect("a step"), (0, false));
    assert_eq!(store.replay(TENANT, job).await.expect("read"), Some(cancelled));
}

#[tokio::test]
async fn a_job_whose_piece_is_under_way_is_cancelled_at_once_and_creates_none_of_it() {
    let database = Database::new().await;
    let store = database.store().await;
    let (job, targets) = job(&store, 3).await;
    assert_eq!(store.step_replay(job, 10).await.expect("counted"), (0, true));
    let id = targets[1].delivery_id.uuid();
    let other = hold(&database, format!("SELECT FROM deliveries WHERE id = '{id}' FOR UPDATE")).await;
    let step = step_that_waits(&database, &store, job).await;
    let elsewhere = database.store().await;
    assert_eq!(elsewhere.step_replay(job, 10).await.expect("a step"), (0, false), "another one works on it");
    let cancelled = elsewhere.cancel_replay(TENANT, job).await.expect("cancelled").expect("a job");
    assert_eq!((cancelled.state, cancelled.matched), (ReplayState::Cancelled, Some(3)));
    assert!(!step.is_finished(), "it is at it");
    other.close().await.expect("let go");
    assert_eq!(step.await.expect("no panic").expect("a step"), (0, false));
    assert_eq!(store.replay(TENANT, job).await.expect("read"), Some(cancelled));
    assert_eq!(database.count("SELECT count(*) FROM waiting").await, 0);
    assert_eq!(database.count("SELECT count(*) FROM dead_letters").await, 3);
    database.assert_consistent().await;
}
