//! A fresh database per test, and what tests do to it besides the port.

#![allow(clippy::expect_used, reason = "what fails in a helper fails the test")]
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod commit_proxy;
pub mod fixture;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use signalpost_core::{TenantId, Timestamp};
use signalpost_runtime::SystemEntropy;
use signalpost_store_postgres::{PostgresSettings, PostgresStore};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, postgres::PgPoolOptions};

/// A database of its own, dropped with this.
#[derive(Debug)]
pub struct Database {
    pub url: String,
    name: String,
    /// For what no port does.
    pub sql: PgPool,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Database {
    /// A new one with the schema.
    pub async fn new() -> Self {
        let database = Self::empty().await;
        PostgresStore::migrate(&database.url).await.expect("the schema");
        database
    }

    /// A new one without the schema.
    pub async fn empty() -> Self {
        let server = signalpost_testkit::env::database_url();
        let name = format!("signalpost_test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        execute(&server, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        execute(&server, &format!("CREATE DATABASE {name}")).await;
        let url = with_database(&server, &name);
        let sql = PgPoolOptions::new().max_connections(2).connect_lazy(&url).expect("a database URL");
        Self { url, name, sql }
    }

    /// A handle on it, as one more process would have.
    pub async fn store(&self) -> Arc<PostgresStore> {
        self.store_with(PostgresSettings::default()).await
    }

    pub async fn store_with(&self, settings: PostgresSettings) -> Arc<PostgresStore> {
        store_at(&self.url, settings).await
    }

    pub async fn add_tenant(&self, id: TenantId, slug: &str) {
        sqlx::query("INSERT INTO tenants (id, slug, name) VALUES ($1, $2, $2)")
            .bind(id.uuid())
            .bind(slug)
            .execute(&self.sql)
            .await
            .expect("a new tenant");
    }

    /// One number.
    pub async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.sql).await.expect(query)
    }

    /// What must hold whatever happened. Reads the tables themselves.
    pub async fn assert_consistent(&self) {
        for (rule, query) in [
            (
                "a delivery waits where and only where it has a row in waiting",
                "SELECT count(*) FROM deliveries d FULL JOIN waiting w ON w.delivery_id = d.id
                 WHERE (d.state = 1) IS DISTINCT FROM (w.delivery_id IS NOT NULL)",
            ),
            (
                "the depth of a queue is the number of its rows",
                "SELECT count(*) FROM queues q WHERE depth <> (SELECT count(*) FROM waiting w WHERE w.destination_id = q.destination_id)",
            ),
            (
                "what waits has a queue",
                "SELECT count(*) FROM waiting w WHERE NOT EXISTS (SELECT FROM queues q WHERE q.destination_id = w.destination_id)",
            ),
            (
                "no queue sleeps on when its first row is due, but for a hold",
                "SELECT count(*) FROM queues q WHERE depth > 0 AND next_due > GREATEST(
                     (SELECT min(due_at) FROM waiting w WHERE w.destination_id = q.destination_id) + interval '1 second',
                     hold_until, clock_timestamp())",
            ),
            (
                "a queue is open where and only where its destination is active",
                "SELECT count(*) FROM queues q LEFT JOIN destinations d ON d.id = q.destination_id
                 WHERE q.blocked = (COALESCE(d.state, 'gone') = 'active')",
            ),
            (
                "attempts are dense",
                "SELECT count(*) FROM deliveries d
                 WHERE attempts <> (SELECT count(*) FROM attempts a WHERE a.delivery_id = d.id)
                    OR attempts <> COALESCE((SELECT max(number) FROM attempts a WHERE a.delivery_id = d.id), 0)",
            ),
            (
                "a queued delivery has an event",
                "SELECT count(*) FROM deliveries d WHERE NOT EXISTS (SELECT FROM events e WHERE e.id = d.event_id)",
            ),
        ] {
            assert_eq!(self.count(query).await, 0, "{rule}");
        }
    }

    /// Makes partitions for a moment, as an API process would.
    pub async fn make_room(&self, at: Timestamp) {
        let day = at.as_secs().div_euclid(86_400);
        let suffix: String = sqlx::query_scalar("SELECT to_char(to_timestamp($1::bigint), 'YYYYMMDD')")
            .bind(day * 86_400)
            .fetch_one(&self.sql)
            .await
            .expect("a date");
        let floor = |day: i64| signalpost_core::EventId::floor(Timestamp::from_millis(day * 86_400_000)).uuid();
        for table in ["events", "deliveries", "attempts"] {
            let statement = format!(
                "CREATE TABLE IF NOT EXISTS {table}_p{suffix} PARTITION OF {table} FOR VALUES FROM ('{}') TO ('{}')",
                floor(day),
                floor(day + 1)
            );
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&self.sql).await.expect("a partition");
        }
    }
}

/// A store at that URL.
pub async fn store_at(url: &str, settings: PostgresSettings) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::connect(url, settings, Arc::new(SystemEntropy)).await.expect("a database URL"))
}

async fn execute(url: &str, statement: &str) {
    let mut connection = PgConnection::connect(url).await.expect("the PostgreSQL of the tests");
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.expect("a database statement");
}

fn with_database(url: &str, name: &str) -> String {
    let (base, parameters) = url.split_once('?').map_or((url, None), |(base, rest)| (base, Some(rest)));
    let (server, _) = base.rsplit_once('/').expect("a URL with a database");
    parameters.map_or_else(|| format!("{server}/{name}"), |rest| format!("{server}/{name}?{rest}"))
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (signalpost_testkit::env::database_url(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(execute(&server, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")));
        });
        assert!(dropping.join().is_ok() || std::thread::panicking(), "the database was not dropped");
    }
}
