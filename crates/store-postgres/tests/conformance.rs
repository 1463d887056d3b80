//! The suite that every store passes, on PostgreSQL.

#![allow(clippy::expect_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use signalpost_core::{DestinationId, TenantId, Timestamp};
use signalpost_store::{
    Store,
    conformance::{self, Cut, Factory},
};
use signalpost_store_postgres::PostgresSettings;
use support::commit_proxy::{self, CommitProxy};

/// Makes databases; drops one while the next case runs, as that takes the server a while.
#[derive(Default)]
struct Postgres {
    dropping: Arc<Mutex<Option<JoinHandle<()>>>>,
}

struct Database {
    database: Option<support::Database>,
    proxy: CommitProxy,
    dropping: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Database {
    fn database(&self) -> &support::Database {
        self.database.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (database, mut dropping) = (self.database.take(), self.dropping.lock().expect("no panic"));
        let before = dropping.take();
        *dropping = Some(std::thread::spawn(move || {
            before.map(JoinHandle::join);
            drop(database);
        }));
    }
}

#[async_trait]
impl Factory for Postgres {
    async fn database(&self) -> Box<dyn conformance::Database> {
        let database = support::Database::new().await;
        let proxy = CommitProxy::start(&database.url).await;
        Box::new(Database { database: Some(database), proxy, dropping: Arc::clone(&self.dropping) })
    }
}

#[async_trait]
impl conformance::Database for Database {
    async fn handle(&self) -> Arc<dyn Store> {
        self.database().store().await
    }

    async fn add_tenant(&self, id: TenantId, slug: &str) {
        self.database().add_tenant(id, slug).await;
    }

    async fn make_room(&self, at: Timestamp) {
        self.database().make_room(at).await;
    }

    async fn backdate_failures(&self, destination: DestinationId, by: Duration) {
        self.database().backdate_failures(destination, by).await;
    }

    async fn backdate_deletion(&self, tenant: TenantId, by: Duration) {
        self.database().backdate_deletion(tenant, by).await;
    }

    async fn rows_of(&self, tenant: TenantId) -> BTreeMap<String, u64> {
        self.database().rows_of(tenant).await
    }

    async fn cut(&self, when: Cut) -> Option<Arc<dyn Store>> {
        let store = support::store_at(&self.proxy.url(&self.database().url), PostgresSettings::default()).await;
        self.proxy.arm(match when {
            Cut::BeforeCommit => commit_proxy::Cut::BeforeCommit,
            Cut::AfterCommit => commit_proxy::Cut::AfterCommit,
        });
        Some(store)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_conforms() {
    // One case alone, to look at it: `SIGNALPOST_CASE=lanes::`.
    let case = std::env::var("SIGNALPOST_CASE").unwrap_or_default();
    let postgres = Postgres::default();
    conformance::exercise_those(&postgres, &case).await;
    let last = postgres.dropping.lock().expect("no panic").take();
    last.map(JoinHandle::join);
}
