//! Triggers that note what changes.

use rusqlite::{Connection, Row};
use signalpost_core::{AttemptOutcome, DeadReason, DeliveryId, DeliveryState, DestinationId, EventId};

use crate::{
    columns::{id, maybe_id},
    failure::{Failure, Outcome},
};

/// One change of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An event is there.
    Event {
        /// Which.
        event: EventId,
        /// Its producer's own id.
        uid: Option<String>,
    },
    /// A delivery is there.
    Born {
        /// Which.
        delivery: DeliveryId,
        /// Of which event.
        event: EventId,
        /// Where to.
        destination: DestinationId,
        /// How it starts.
        state: DeliveryState,
        /// It sends this one again.
        replay_of: Option<DeliveryId>,
        /// Its lane and its place in it.
        lane: Option<([u8; 16], i64)>,
        /// It may be sent once.
        at_most_once: bool,
    },
    /// A delivery's state, count of attempts or reason changed.
    Moved {
        /// Which.
        delivery: DeliveryId,
        /// Before.
        from: (DeliveryState, u32),
        /// After.
        to: (DeliveryState, u32),
        /// Why it is dead.
        reason: Option<DeadReason>,
    },
    /// A delivery is there no more.
    Gone {
        /// Which.
        delivery: DeliveryId,
    },
    /// An attempt is there, or is another than before.
    Attempt {
        /// Of which delivery.
        delivery: DeliveryId,
        /// Its number.
        number: u32,
        /// What came of it.
        outcome: AttemptOutcome,
        /// What it was before.
        before: Option<AttemptOutcome>,
    },
    /// An attempt is there no more.
    AttemptGone {
        /// Of which delivery.
        delivery: DeliveryId,
        /// Its number.
        number: u32,
    },
}

const SCHEMA: &str = "
CREATE TEMP TABLE simulated_changes (
    seq INTEGER PRIMARY KEY, kind INTEGER NOT NULL, a BLOB, b BLOB, c BLOB, d BLOB, e BLOB,
    v INTEGER, w INTEGER, x INTEGER, y INTEGER, z INTEGER, text TEXT);
CREATE TEMP TRIGGER simulated_event AFTER INSERT ON main.events BEGIN
    INSERT INTO simulated_changes (kind, a, text) VALUES (0, new.id, new.uid);
END;
CREATE TEMP TRIGGER simulated_born AFTER INSERT ON main.deliveries BEGIN
    INSERT INTO simulated_changes (kind, a, b, c, d, e, v, w, x)
    VALUES (1, new.id, new.event_id, new.destination_id, new.replay_of, LANE, new.state, LANE_SEQ, GUARANTEE);
END;
CREATE TEMP TRIGGER simulated_moved AFTER UPDATE ON main.deliveries
WHEN old.state <> new.state OR old.attempts <> new.attempts OR old.reason IS NOT new.reason BEGIN
    INSERT INTO simulated_changes (kind, a, v, w, x, y, z)
    VALUES (2, new.id, old.state, old.attempts, new.state, new.attempts, new.reason);
END;
CREATE TEMP TRIGGER simulated_gone AFTER DELETE ON main.deliveries BEGIN
    INSERT INTO simulated_changes (kind, a) VALUES (3, old.id);
END;
CREATE TEMP TRIGGER simulated_attempt BEFORE INSERT ON main.attempts BEGIN
    INSERT INTO simulated_changes (kind, a, v, w, x)
    VALUES (4, new.delivery_id, new.number, new.outcome,
            (SELECT outcome FROM attempts WHERE delivery_id = new.delivery_id AND number = new.number));
END;
CREATE TEMP TRIGGER simulated_reattempt AFTER UPDATE ON main.attempts BEGIN
    INSERT INTO simulated_changes (kind, a, v, w, x) VALUES (4, new.delivery_id, new.number, new.outcome, old.outcome);
END;
CREATE TEMP TRIGGER simulated_attempt_gone AFTER DELETE ON main.attempts BEGIN
    INSERT INTO simulated_changes (kind, a, v) VALUES (5, old.delivery_id, old.number);
END;
";

/// Begins to note.
pub(super) fn start(connection: &Connection) -> Outcome<()> {
    connection.execute_batch(&schema(connection)?)?;
    Ok(())
}

/// The triggers, for the columns that this schema has.
fn schema(connection: &Connection) -> Outcome<String> {
    let mut text = SCHEMA.to_owned();
    for (mark, column) in [("LANE_SEQ", "lane_seq"), ("LANE", "lane"), ("GUARANTEE", "guarantee")] {
        let sql = "SELECT count(*) FROM pragma_table_info('deliveries') WHERE name = ?1";
        let there: i64 = connection.query_row(sql, [column], |row| row.get(0))?;
        let value = if there > 0 { format!("new.{column}") } else { "NULL".to_owned() };
        text = text.replace(mark, &value);
    }
    Ok(text)
}

/// What was noted since the last time.
pub(super) fn take(connection: &Connection) -> Outcome<Vec<Change>> {
    let mut statement = connection
        .prepare_cached("SELECT kind, a, b, c, d, e, v, w, x, y, z, text FROM simulated_changes ORDER BY seq")?;
    let changes = statement.query_and_then([], change)?.collect::<Outcome<Vec<_>>>()?;
    if !changes.is_empty() {
        connection.prepare_cached("DELETE FROM simulated_changes")?.execute([])?;
    }
    Ok(changes)
}

fn change(row: &Row<'_>) -> Outcome<Change> {
    let strange = || Failure::internal("a number that means nothing");
    let state = |column| -> Outcome<_> { DeliveryState::from_number(row.get(column)?).ok_or_else(strange) };
    let outcome = |number: u8| AttemptOutcome::from_number(number).ok_or_else(strange);
    Ok(match row.get::<_, u8>(0)? {
        0 => Change::Event { event: id(row, 1)?, uid: row.get(11)? },
        1 => Change::Born {
            delivery: id(row, 1)?,
            event: id(row, 2)?,
            destination: id(row, 3)?,
            replay_of: maybe_id(row, 4)?,
            lane: lane(row)?,
            state: state(6)?,
            at_most_once: row.get::<_, Option<u8>>(8)? == Some(1),
        },
        2 => Change::Moved {
            delivery: id(row, 1)?,
            from: (state(6)?, row.get(7)?),
            to: (state(8)?, row.get(9)?),
            reason: row.get::<_, Option<u8>>(10)?.and_then(DeadReason::from_number),
        },
        3 => Change::Gone { delivery: id(row, 1)? },
        4 => Change::Attempt {
            delivery: id(row, 1)?,
            number: row.get(6)?,
            outcome: outcome(row.get(7)?)?,
            before: row.get::<_, Option<u8>>(8)?.map(outcome).transpose()?,
        },
        5 => Change::AttemptGone { delivery: id(row, 1)?, number: row.get(6)? },
        _ => return Err(strange()),
    })
}

fn lane(row: &Row<'_>) -> Outcome<Option<([u8; 16], i64)>> {
    let Some(bytes) = row.get::<_, Option<Vec<u8>>>(5)? else { return Ok(None) };
    let bytes = bytes.try_into().map_err(|_| Failure::internal("a lane has 16 bytes"))?;
    Ok(Some((bytes, row.get::<_, Option<i64>>(7)?.unwrap_or(0))))
}
