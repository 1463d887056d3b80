//! A fresh database per test, and what tests do to it besides the port.

#![allow(clippy::expect_used, reason = "what fails in a helper fails the test")]
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod commit_proxy;
pub mod fixture;
pub mod pauses;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use signalpost_core::{DestinationId, TenantId, Timestamp};
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

    /// As if a destination had begun to fail so much earlier.
    pub async fn backdate_failures(&self, destination: DestinationId, by: Duration) {
        sqlx::query("UPDATE failing SET since = since - $2 * interval '1 second' WHERE destination_id = $1")
            .bind(destination.uuid())
            .bind(i64::try_from(by.as_secs()).expect("some days"))
            .execute(&self.sql)
            .await
            .expect("an earlier time");
    }

    /// As if the deletion of a tenant had begun so much earlier.
    pub async fn backdate_deletion(&self, tenant: TenantId, by: Duration) {
        sqlx::query("UPDATE tenants SET deleting_at = deleting_at - $2 * interval '1 second' WHERE id = $1")
            .bind(tenant.uuid())
            .bind(i64::try_from(by.as_secs()).expect("some seconds"))
            .execute(&self.sql)
            .await
            .expect("an earlier time");
    }

    /// How many rows each table has of a tenant; of tables that know only destinations, those of destinations that are nowhere.
    pub async fn rows_of(&self, tenant: TenantId) -> BTreeMap<String, u64> {
        let tables: Vec<(String, bool)> = sqlx::query_as(
            "SELECT c.relname::text, bool_or(a.attname = 'tenant_id')
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
               AND a.attname IN ('tenant_id', 'destination_id') GROUP BY c.relname",
        )
        .fetch_all(&self.sql)
        .await
        .expect("the tables");
        let conditions = tables.into_iter().map(|(table, knows_tenant)| {
            let nowhere = "$1 = $1 AND destination_id NOT IN (SELECT id FROM destinations)";
            (table, if knows_tenant { "tenant_id = $1" } else { nowhere })
        });
        let mut found = BTreeMap::new();
        for (table, condition) in conditions.chain([("tenants".to_owned(), "id = $1")]) {
            let rows: i64 =
                sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table} WHERE {condition}")))
                    .bind(tenant.uuid())
                    .fetch_one(&self.sql)
                    .await
                    .expect("a number");
            if rows > 0 {
                found.insert(table, u64::try_from(rows).expect("a count"));
            }
        }
        found
    }

    /// As if an hour had passed for all that waits.
    pub async fn pass_time(&self) {
        sqlx::raw_sql(
            "UPDATE waiting SET due_at = due_at - interval '1 hour' WHERE due_at < 'infinity';
             UPDATE queues SET next_due = next_due - interval '1 hour', hold_until = hold_until - interval '1 hour',
                    paced_until = paced_until - interval '1 hour'",
        )
        .execute(&self.sql)
        .await
        .expect("an hour");
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
                "no queue sleeps on when its first row is due, but for a hold or its pace",
                "SELECT count(*) FROM queues q WHERE depth > 0 AND next_due > GREATEST(
                     (SELECT min(due_at) FROM waiting w WHERE w.destination_id = q.destination_id) + interval '1 second',
                     hold_until, paced_until, clock_timestamp())",
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
                "a lane's depth is the number of its rows, and a lane with members has a row",
                "SELECT count(*) FROM lanes l FULL JOIN (
                     SELECT destination_id, lane, count(*) AS members FROM waiting WHERE lane IS NOT NULL GROUP BY 1, 2) w
                 ON w.destination_id = l.destination_id AND w.lane = l.lane
                 WHERE COALESCE(l.depth, 0) <> COALESCE(w.members, 0)",
            ),
            (
                "a lane without members is there only while it is blocked",
                "SELECT count(*) FROM lanes WHERE depth <= 0 AND blocked_by IS NULL",
            ),
            (
                "only the first of a lane has a due time, and it has one unless the lane is blocked",
                "SELECT count(*) FROM (
                     SELECT w.due_at < 'infinity' AS runs, l.blocked_by IS NULL AS free,
                            row_number() OVER (PARTITION BY w.destination_id, w.lane ORDER BY w.lane_seq) AS place
                     FROM waiting w JOIN lanes l ON l.destination_id = w.destination_id AND l.lane = w.lane) m
                 WHERE (runs AND place > 1) OR (NOT runs AND place = 1 AND free)",
            ),
            (
                "what has no due time waits for its lane, and nothing else does",
                "SELECT count(*) FROM waiting WHERE (due_at = 'infinity') <> (reason = 6) OR (reason = 6 AND lane IS NULL)",
            ),
            (
                "what blocks a lane is a dead letter of it",
                "SELECT count(*) FROM lanes l WHERE blocked_by IS NOT NULL AND NOT EXISTS (
                     SELECT FROM dead_letters d WHERE d.delivery_id = l.blocked_by AND d.lane = l.lane
                         AND d.destination_id = l.destination_id)",
            ),
            (
                "a delivery of a lane waits in it until it ends, in its place",
                "SELECT count(*) FROM deliveries d LEFT JOIN waiting w ON w.delivery_id = d.id
                 WHERE (d.lane IS NOT NULL AND d.state = 0)
                    OR (d.state = 1 AND (d.lane, d.lane_seq) IS DISTINCT FROM (w.lane, w.lane_seq))",
            ),
            (
                "no two of a lane that wait have the same place",
                "SELECT count(*) FROM (SELECT FROM waiting WHERE lane IS NOT NULL
                     GROUP BY destination_id, lane, lane_seq HAVING count(*) > 1) w",
            ),
            (
                "what is sent once at most has one attempt at most",
                "SELECT count(*) FROM deliveries WHERE guarantee = 1 AND attempts > 1",
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
