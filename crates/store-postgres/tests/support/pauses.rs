//! What a race needs: pauses within transactions, and a log of what happened in which order. Both are triggers of the test's
//! database, so nothing of it is in the store.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AssertSqlSafe, PgPool, Row};
use uuid::Uuid;

/// Tables whose statements pause, before they begin and after they are done, while what they or those before them have locked
/// stays locked; and those that pause before a row, too.
const TABLES: [&str; 11] = [
    "deliveries",
    "attempts",
    "waiting",
    "lanes",
    "queues",
    "dead_letters",
    "outbox",
    "idempotency",
    "failing",
    "destinations",
    "tenants",
];
const ROWS: [&str; 4] = ["waiting", "lanes", "queues", "failing"];

/// About each twelfth statement pauses for up to 15 ms, and each fortieth row.
const FUNCTIONS: &str = "
    CREATE FUNCTION pause_statement() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF random() < 0.08 THEN PERFORM pg_sleep(random() * 0.015); END IF;
        RETURN NULL;
    END $$;
    CREATE FUNCTION pause_row() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF random() < 0.025 THEN PERFORM pg_sleep(random() * 0.015); END IF;
        IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
        RETURN NEW;
    END $$;

    -- Members of lanes: 0 joins, 1 may be sent from now on, 2 is gone. Those who write here have locked the lane.
    CREATE TABLE lane_log (
        seq bigserial PRIMARY KEY, destination_id uuid, lane uuid, lane_seq bigint, delivery_id uuid, what smallint);
    CREATE FUNCTION log_lane() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' THEN
            INSERT INTO lane_log VALUES (DEFAULT, OLD.destination_id, OLD.lane, OLD.lane_seq, OLD.delivery_id, 2);
            RETURN NULL;
        END IF;
        IF TG_OP = 'INSERT' THEN
            INSERT INTO lane_log VALUES (DEFAULT, NEW.destination_id, NEW.lane, NEW.lane_seq, NEW.delivery_id, 0);
        END IF;
        IF NEW.due_at < 'infinity' AND (TG_OP = 'INSERT' OR OLD.due_at = 'infinity') THEN
            INSERT INTO lane_log VALUES (DEFAULT, NEW.destination_id, NEW.lane, NEW.lane_seq, NEW.delivery_id, 1);
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER log_lane AFTER INSERT OR UPDATE ON waiting
        FOR EACH ROW WHEN (NEW.lane IS NOT NULL) EXECUTE FUNCTION log_lane();
    CREATE TRIGGER log_lane_end AFTER DELETE ON waiting
        FOR EACH ROW WHEN (OLD.lane IS NOT NULL) EXECUTE FUNCTION log_lane();

    -- What ended, and yet changed.
    CREATE TABLE risen (delivery_id uuid, was smallint, became smallint);
    CREATE FUNCTION log_risen() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO risen VALUES (OLD.id, OLD.state, NEW.state);
        RETURN NULL;
    END $$;
    CREATE TRIGGER log_risen AFTER UPDATE ON deliveries
        FOR EACH ROW WHEN (OLD.state >= 2 AND (NEW.state <> OLD.state OR NEW.attempts <> OLD.attempts
                                               OR NEW.ended_at IS DISTINCT FROM OLD.ended_at))
        EXECUTE FUNCTION log_risen();
";

/// From now on transactions pause, and are logged.
pub async fn install(sql: &PgPool) {
    let mut statements = FUNCTIONS.to_owned();
    for table in TABLES {
        for (name, when) in [("a_pause_before", "BEFORE"), ("z_pause_after", "AFTER")] {
            statements += &format!(
                "CREATE TRIGGER {name} {when} INSERT OR UPDATE OR DELETE ON {table}
                 FOR EACH STATEMENT EXECUTE FUNCTION pause_statement();"
            );
        }
    }
    for table in ROWS {
        statements += &format!(
            "CREATE TRIGGER pause_row BEFORE INSERT OR UPDATE OR DELETE ON {table}
             FOR EACH ROW EXECUTE FUNCTION pause_row();"
        );
    }
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(sql).await.expect("the triggers");
}

/// No more pauses; the log goes on.
pub async fn end(sql: &PgPool) {
    let statement = "CREATE OR REPLACE FUNCTION pause_statement() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RETURN NULL; END $$";
    sqlx::raw_sql(statement).execute(sql).await.expect("no pauses");
}

/// In each lane one at a time may be sent, and it is the first of those that are there. Gives how many had their turn.
pub async fn check(sql: &PgPool) -> usize {
    let rows = sqlx::query("SELECT destination_id, lane, lane_seq, delivery_id, what FROM lane_log ORDER BY seq")
        .fetch_all(sql)
        .await
        .expect("the log");
    let mut open = BTreeMap::<(Uuid, Uuid), BTreeSet<(i64, Uuid)>>::new();
    let mut running = BTreeMap::<(Uuid, Uuid), Uuid>::new();
    let mut turns = 0;
    for row in &rows {
        let lane = (row.get("destination_id"), row.get("lane"));
        let member: (i64, Uuid) = (row.get("lane_seq"), row.get("delivery_id"));
        let members = open.entry(lane).or_default();
        match row.get::<i16, _>("what") {
            0 => assert!(members.insert(member), "{member:?} joins twice"),
            1 => {
                assert_eq!(members.first(), Some(&member), "it overtakes");
                assert_eq!(running.insert(lane, member.1), None, "{member:?} is not alone");
                turns += 1;
            }
            _ => {
                assert!(members.remove(&member), "{member:?} ends and was not there");
                if running.get(&lane) == Some(&member.1) {
                    running.remove(&lane);
                }
            }
        }
    }
    let risen: i64 = sqlx::query_scalar("SELECT count(*) FROM risen").fetch_one(sql).await.expect("a count");
    assert_eq!(risen, 0, "what ended stays as it ended");
    turns
}
