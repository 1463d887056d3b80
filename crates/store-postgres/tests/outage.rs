//! The database away, silent, and back; changes told by NOTIFY and by the poll.

#![allow(clippy::expect_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use signalpost_core::DestinationState;
use signalpost_store::{
    DispatchStore, Health, IngestStore, ManageStore, StoreError,
    ingest::{Start, UnitOutcome},
};
use signalpost_store_postgres::{PostgresSettings, PostgresStore};
use signalpost_testkit::{
    eventually,
    proxy::{Mode, Proxy},
};
use support::{
    Database,
    fixture::{TENANT, destination, events, post},
    store_at,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// Longer than the store may take to say that the database is away, on a busy machine; shorter than it would wait for an answer.
const SOON: Duration = Duration::from_secs(8);

/// The database's address, and how its URL writes it.
async fn upstream(database: &Database) -> (SocketAddr, String) {
    let rest = database.url.split_once("://").expect("a URL").1;
    let authority = rest.split('/').next().expect("an authority");
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    let upstream: SocketAddr = tokio::net::lookup_host(address).await.expect("an address").next().expect("an address");
    (upstream, address.to_owned())
}

async fn proxied(database: &Database) -> (Proxy, String) {
    let (upstream, address) = upstream(database).await;
    let proxy = Proxy::start(upstream).await.expect("a free port");
    let url = database.url.replacen(&address, &proxy.addr().to_string(), 1);
    (proxy, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_said_soon_and_heals_by_itself() {
    let database = Database::new().await;
    let (proxy, url) = proxied(&database).await;
    let store = store_at(&url, PostgresSettings::default()).await;
    let destination = destination(&store).await;
    let group = events(&store, destination.id, 3, Start::Queued).await;
    proxy.set(Mode::Cut);
    let outcome = tokio::time::timeout(SOON, store.ingest(&group)).await.expect("an answer soon");
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    let outcome = tokio::time::timeout(SOON, store.check()).await.expect("an answer soon");
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    proxy.set(Mode::Open);
    eventually("the store is back", Duration::from_secs(10), || store.check()).await;
    post(&store, &group).await;
    database.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_falls_silent_does_not_hold_callers_or_connections() {
    let database = Database::new().await;
    let settings = PostgresSettings {
        max_connections: 1,
        operation_timeout: Duration::from_millis(300),
        ..PostgresSettings::default()
    };
    let store = database.store_with(settings).await;
    // By another one, which has all the time that it needs.
    let patient = database.store().await;
    let destination = destination(&patient).await;
    let group = events(&patient, destination.id, 3, Start::Queued).await;
    eventually("it is connected", Duration::from_secs(10), || store.check()).await;
    let mut blocker = database.sql.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE events").execute(&mut *blocker).await.expect("a lock");
    let outcome = tokio::time::timeout(SOON, store.ingest(&group)).await.expect("an answer soon");
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    blocker.rollback().await.expect("the lock given back");
    eventually("the one connection is usable again", Duration::from_secs(10), || store.check()).await;
    let outcomes = eventually("it takes the group", Duration::from_secs(10), || store.ingest(&group)).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, UnitOutcome::Committed(_))), "{outcomes:?}");
    database.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_to_other_processes() {
    let database = Database::new().await;
    // So slow a poll that only NOTIFY can be the messenger.
    let settings = PostgresSettings { poll_interval: Duration::from_secs(3600), ..PostgresSettings::default() };
    let (here, there) = (database.store().await, database.store_with(settings).await);
    let mut changes = there.changes();
    // Listening has begun when the first change is assumed.
    tokio::time::timeout(SOON, changes.wait_for(|count| *count > 0)).await.expect("it listens").expect("a watcher");
    changes.mark_unchanged();
    let destination = destination(&here).await;
    tokio::time::timeout(SOON, changes.changed()).await.expect("told by NOTIFY").expect("a watcher");
    let (_, moment) = there.changed_since(None).await.expect("a moment");
    here.set_paused(TENANT, destination.id, true).await.expect("paused");
    let (changed, _) = there.changed_since(Some(moment)).await.expect("changes");
    let paused = changed.iter().find(|changed| changed.id == destination.id).expect("the change");
    assert_eq!((paused.state, paused.version), (DestinationState::Paused, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_notify_lost_is_found_by_the_poll() {
    let database = Database::new().await;
    let destination = destination(&*database.store().await).await;
    // It comes after that change: all that it hears of is that it listens, and its first poll.
    let store = database.store().await;
    let mut changes = store.changes();
    tokio::time::timeout(SOON, changes.wait_for(|count| *count > 1)).await.expect("it listens").expect("a watcher");
    // As if somebody else had changed it, without a word.
    changes.mark_unchanged();
    sqlx::query("UPDATE destinations SET version = version + 1, updated_at = clock_timestamp() WHERE id = $1")
        .bind(destination.id.uuid())
        .execute(&database.sql)
        .await
        .expect("a change");
    tokio::time::timeout(SOON, changes.changed()).await.expect("found by the poll").expect("a watcher");
}

/// Forwards; from the first notification on, whatever was connected hears nothing more, and is not closed either.
async fn falling_silent(upstream: SocketAddr) -> (SocketAddr, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (address, silence) = (listener.local_addr().expect("an address"), Arc::new(Notify::new()));
    let silenced = Arc::clone(&silence);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let silenced = Arc::clone(&silenced);
            tokio::spawn(async move {
                let mut far = TcpStream::connect(upstream).await.expect("a database");
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = silenced.notified() => std::future::pending().await,
                }
            });
        }
    });
    (address, silence)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_whose_connections_fall_silent_listens_again() {
    let database = Database::new().await;
    let (upstream, address) = upstream(&database).await;
    let (proxy, silence) = falling_silent(upstream).await;
    let settings = PostgresSettings {
        poll_interval: Duration::from_millis(100),
        list_timeout: Duration::from_millis(500),
        ..PostgresSettings::default()
    };
    let _store = store_at(&database.url.replacen(&address, &proxy.to_string(), 1), settings).await;
    let connections = async |listening: i64| {
        let counts = sqlx::query_as::<_, (i64, i64)>(
            "SELECT count(*) FILTER (WHERE query LIKE 'LISTEN %'), count(*) FILTER (WHERE query LIKE '%sum(version)%')
                 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
        let counts = counts.fetch_one(&database.sql).await.expect("counts");
        if counts.0 == listening && counts.1 > 0 { Ok(()) } else { Err(counts) }
    };
    // Both are open: a poll that still answers would hide that the other one fell silent.
    eventually("it listens and polls", Duration::from_secs(10), || connections(1)).await;
    silence.notify_waiters();
    // The database does not know that the first two are dead.
    eventually("it listens again", Duration::from_secs(10), || connections(2)).await;
}

#[tokio::test]
async fn health_tells_a_schema_that_is_missing_or_old() {
    let database = Database::empty().await;
    let store = database.store().await;
    let missing = store.check().await;
    assert!(matches!(missing, Err(StoreError::Internal(_))), "{missing:?}");
    // Several may migrate at once.
    let (one, other) = tokio::join!(PostgresStore::migrate(&database.url), PostgresStore::migrate(&database.url));
    one.expect("the schema");
    other.expect("the schema");
    store.check().await.expect("healthy");
    sqlx::query("UPDATE _sqlx_migrations SET version = version - 10")
        .execute(&database.sql)
        .await
        .expect("an older schema");
    let old = store.check().await;
    assert!(matches!(old, Err(StoreError::Internal(_))), "{old:?}");
}
