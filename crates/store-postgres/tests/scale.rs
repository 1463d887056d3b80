//! What a number costs: of deliveries that wait for a destination (`docs/feed-plans.md` shows the plans that this prints), and of destinations.

#![allow(clippy::expect_used, reason = "what fails in a helper fails the test")]

mod support;

#[path = "../src/schedule/feed_statements.rs"]
mod statements;

use std::time::Duration;

use serde_json::Value;
use signalpost_core::{DestinationId, WaitReason};
use signalpost_store::{DispatchStore as _, ScheduleStore as _, dispatch::QueueHold, ingest::Start};
use signalpost_testkit::eventually;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use support::{
    Database,
    fixture::{TENANT, budget, destination, events, post},
};
use uuid::Uuid;

/// Others with work, and how much each has.
const OTHERS: usize = 20;
const EACH: usize = 15;

/// Deliveries that wait for one destination, as a flood leaves them; their events are not looked at before they are taken.
async fn flood(database: &Database, destination: DestinationId, count: i64) {
    sqlx::query(
        "INSERT INTO waiting (delivery_id, tenant_id, destination_id, event_id, due_at, reason)
         SELECT gen_random_uuid(), $1, $2, gen_random_uuid(), clock_timestamp() - n * interval '1 millisecond', $3
         FROM generate_series(1, $4) AS n",
    )
    .bind(TENANT.uuid())
    .bind(destination.uuid())
    .bind(WaitReason::Turn as i16)
    .bind(count)
    .execute(&database.sql)
    .await
    .expect("a flood");
    sqlx::query("UPDATE queues SET depth = $2, next_due = clock_timestamp() WHERE destination_id = $1")
        .bind(destination.uuid())
        .bind(count)
        .execute(&database.sql)
        .await
        .expect("its queue");
    sqlx::raw_sql("ANALYZE waiting; ANALYZE queues").execute(&database.sql).await.expect("statistics");
}

/// Entries read of the indexes by which due queues and due rows are found.
async fn reads(database: &Database) -> (i64, i64) {
    let row = sqlx::query(
        "SELECT COALESCE(sum(idx_tup_read) FILTER (WHERE indexrelname = 'waiting_due'), 0)::bigint AS rows,
                COALESCE(sum(idx_tup_read) FILTER (WHERE indexrelname = 'queues_due'), 0)::bigint AS queues
         FROM pg_stat_user_indexes",
    )
    .fetch_one(&database.sql)
    .await
    .expect("the statistics");
    (row.get("rows"), row.get("queues"))
}

/// What one take cost.
struct Taken {
    /// Leased.
    rows: i64,
    /// Read of the index of due rows.
    rows_read: i64,
    /// Read of the index of due queues.
    queues_read: i64,
}

async fn take(database: &Database, most: usize) -> Taken {
    let before = reads(database).await;
    let leased_before = database.count("SELECT count(*) FROM waiting WHERE leased").await;
    let store = database.store().await;
    store.take_due(budget(most)).await.expect("what is due");
    // A connection tells its statistics when it ends, at the latest.
    store.close().await;
    let rows = database.count("SELECT count(*) FROM waiting WHERE leased").await - leased_before;
    let after = eventually("the statistics have come", Duration::from_secs(20), || async {
        let after = reads(database).await;
        if after.0 - before.0 >= rows && after.1 > before.1 { Ok(after) } else { Err(after) }
    })
    .await;
    Taken { rows, rows_read: after.0 - before.0, queues_read: after.1 - before.1 }
}

/// As the store's sessions are set up.
const SESSION: &str =
    "SET plan_cache_mode = 'force_custom_plan'; SET enable_seqscan = off; SET enable_bitmapscan = off;
    SET enable_mergejoin = off; SET random_page_cost = 0.1; SET jit = off";

/// The plans of one take, and how many buffers they touch.
async fn explain(database: &Database, size: i64) -> i64 {
    let mut connection = PgConnection::connect(&database.url).await.expect("a connection");
    connection.execute(SESSION).await.expect("a session");
    let mut transaction = connection.begin().await.expect("a transaction");
    sqlx::query(statements::NEXT_DUE).execute(&mut *transaction).await.expect("the next");
    let rows = sqlx::query(statements::DUE_QUEUES).bind(200_i64).fetch_all(&mut *transaction).await.expect("queues");
    let queues: Vec<Uuid> = rows.iter().map(|row| row.get("destination_id")).collect();
    let shares = vec![10_i64; queues.len()];
    let none = vec![0_i64; queues.len()];
    let times = "SELECT clock_timestamp()::text AS now, (clock_timestamp() + interval '1 minute')::text AS until";
    let row = sqlx::query(times).fetch_one(&mut *transaction).await.expect("times");
    let (now, until): (String, String) = (row.get("now"), row.get("until"));
    let mut buffers = 0;
    for (name, statement) in
        [("due queues", statements::DUE_QUEUES), ("lease", statements::LEASE), ("advance", statements::ADVANCE)]
    {
        let statement = statement.replace("$3", "$3::text::timestamptz");
        let statement = match name {
            "lease" => statement.replace("$4", "$4::text::timestamptz"),
            _ => statement,
        };
        let explain = format!("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, FORMAT JSON) {statement}");
        let query = sqlx::query_scalar::<_, Value>(AssertSqlSafe(explain));
        let query = match name {
            "due queues" => query.bind(200_i64),
            "lease" => query.bind(&queues).bind(&shares).bind(&now).bind(&until),
            _ => query.bind(&queues).bind(&none).bind(&now).bind(600_000_000_i64),
        };
        let plan: Value = query.fetch_one(&mut *transaction).await.expect("a plan");
        let top = &plan[0]["Plan"];
        let touched = top["Shared Hit Blocks"].as_i64().unwrap_or_default()
            + top["Shared Read Blocks"].as_i64().unwrap_or_default();
        println!("--- {size} waiting, {name}: {touched} buffers");
        print(top, 0);
        buffers += touched;
    }
    transaction.rollback().await.expect("nothing happened");
    buffers
}

/// One line per node of a plan.
fn print(node: &Value, depth: usize) {
    let text = |name: &str| node[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| node[name].as_f64().unwrap_or_default();
    println!(
        "{:indent$}{} {} {}: {} rows, {} loops, {} removed, {} buffers",
        "",
        text("Node Type"),
        text("Relation Name"),
        text("Index Name"),
        number("Actual Rows"),
        number("Actual Loops"),
        number("Rows Removed by Filter"),
        number("Shared Hit Blocks") + number("Shared Read Blocks"),
        indent = depth * 2
    );
    for child in node["Plans"].as_array().into_iter().flatten() {
        print(child, depth + 1);
    }
}

#[tokio::test]
async fn a_million_waiting_cost_the_feed_no_more_than_a_thousand() {
    let mut buffers = Vec::new();
    for size in [1_000, 1_000_000] {
        let database = Database::new().await;
        let store = database.store().await;
        let dead = destination(&store).await;
        flood(&database, dead.id, size).await;
        for _ in 0..OTHERS {
            let other = destination(&store).await;
            post(&store, &events(&store, other.id, EACH, Start::Waiting(WaitReason::Turn)).await).await;
        }
        let due = i64::try_from(OTHERS).expect("a few");
        // It is dead and nobody knows: it is one due queue among others.
        let flooded = take(&database, 100).await;
        assert_eq!(flooded.rows, 100);
        assert!(
            flooded.rows_read <= 2 * flooded.rows + due + 1,
            "{} rows read for {}",
            flooded.rows_read,
            flooded.rows
        );
        // What was taken leaves dead entries behind, as every change does.
        sqlx::raw_sql("VACUUM (INDEX_CLEANUP ON) waiting, queues").execute(&database.sql).await.expect("clean tables");
        // Its circuit is open: its queue is not even seen.
        let hold = QueueHold { destination_id: dead.id, hold: Duration::from_secs(3600), trial: None };
        store.hold_queues(&[hold]).await.expect("held");
        let held = take(&database, 100).await;
        assert_eq!(held.rows, 100);
        assert!(held.rows_read <= 2 * held.rows + due, "{} rows read for {}", held.rows_read, held.rows);
        // Whether anything is due, what, and when something is next.
        assert!(held.queues_read <= 2 * due + 4, "{} queues read of {due}", held.queues_read);
        store.hold_queues(&[QueueHold { hold: Duration::ZERO, ..hold }]).await.expect("let go");
        sqlx::raw_sql("VACUUM (INDEX_CLEANUP ON) waiting, queues").execute(&database.sql).await.expect("clean tables");
        buffers.push(explain(&database, size).await);
        store.close().await;
    }
    // A deeper tree has a page more for each look-up.
    assert!(buffers[1] <= buffers[0] * 2, "{buffers:?} buffers");
}

#[tokio::test]
async fn the_poll_for_changes_reads_only_what_changed() {
    let database = Database::new().await;
    let store = database.store().await;
    destination(&store).await;
    let copies = "INSERT INTO destinations
        SELECT (jsonb_populate_record(d, jsonb_build_object('id', gen_random_uuid(), 'updated_at', now() - interval '1 hour'))).*
        FROM destinations d, generate_series(1, 10000)";
    sqlx::raw_sql(copies).execute(&database.sql).await.expect("10,000 destinations");
    let scans = async || {
        let row = sqlx::query(
            "SELECT (SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'destinations_updated') AS by_index,
                    (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'destinations') AS one_by_one",
        );
        let row = row.fetch_one(&database.sql).await.expect("the statistics");
        (row.get::<i64, _>("by_index"), row.get::<i64, _>("one_by_one"))
    };
    let before = scans().await;
    let after = eventually("it has polled", Duration::from_secs(20), || async {
        let after = scans().await;
        if after.0 >= before.0 + 4 { Ok(after) } else { Err(after) }
    })
    .await;
    assert!(after.1 < 10_000, "{} rows were read one by one", after.1);
    store.close().await;
}
