//! Looks at all tables at once.

use rusqlite::Connection;
use signalpost_core::{DeliveryId, DeliveryState, DestinationId, Timestamp};

use crate::{
    columns::{id, state},
    failure::Outcome,
};

/// What a broken rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Tables contradict each other.
    Tables,
    /// Attempts are not counted as they are.
    Attempts,
    /// What is not the first of its lane may go.
    Order,
    /// Nothing brings a delivery forward.
    Forgotten,
}

/// What is not finished and does not wait for a person.
#[derive(Debug, Clone, Default)]
pub struct Rest {
    /// Deliveries that something must still bring forward.
    pub deliveries: Vec<Unfinished>,
    /// Deliveries that wait for a person: of a destination that is not active, or in a lane that is blocked.
    pub for_people: usize,
    /// Outbox records.
    pub outbox: u32,
    /// Fan-outs that are not expanded.
    pub fan_outs: u32,
    /// Replay jobs that are not finished.
    pub replays: u32,
}

impl Rest {
    /// Whether nothing is left but what waits for people.
    pub const fn is_over(&self) -> bool {
        self.deliveries.is_empty() && self.outbox == 0 && self.fan_outs == 0 && self.replays == 0
    }
}

/// A delivery that has not ended.
#[derive(Debug, Clone)]
pub struct Unfinished {
    /// Which.
    pub delivery: DeliveryId,
    /// Where to.
    pub destination: DestinationId,
    /// Where it is.
    pub state: DeliveryState,
    /// How many attempts are recorded.
    pub attempts: u32,
    /// Its row in `waiting`, in words.
    pub waiting: String,
}

/// Each gives a text per broken row.
const RULES: &[(Rule, &str)] = &[
    (
        Rule::Tables,
        "SELECT 'delivery ' || hex(d.id) || ' has state ' || d.state || ' and ' ||
         CASE WHEN w.delivery_id IS NULL THEN 'no row' ELSE 'a row' END || ' in waiting'
     FROM deliveries d LEFT JOIN waiting w ON w.delivery_id = d.id
     WHERE (d.state = 1) <> (w.delivery_id IS NOT NULL)",
    ),
    (
        Rule::Tables,
        "SELECT 'waiting holds ' || hex(w.delivery_id) || ', which is no delivery' FROM waiting w
     WHERE NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.id = w.delivery_id)",
    ),
    (
        Rule::Attempts,
        "SELECT 'delivery ' || hex(d.id) || ' counts ' || d.attempts || ' attempts, there are ' || count(a.number) ||
         ', the last is ' || coalesce(max(a.number), 0)
     FROM deliveries d LEFT JOIN attempts a ON a.delivery_id = d.id
     GROUP BY d.id HAVING d.attempts <> count(a.number) OR d.attempts <> coalesce(max(a.number), 0)",
    ),
    (
        Rule::Tables,
        "SELECT 'queue ' || hex(w.destination_id) || ' has ' || count(*) || ' waiting and says ' ||
         coalesce((SELECT depth FROM queues q WHERE q.destination_id = w.destination_id), 'nothing')
     FROM waiting w GROUP BY w.destination_id
     HAVING count(*) IS NOT (SELECT depth FROM queues q WHERE q.destination_id = w.destination_id)",
    ),
    (
        Rule::Tables,
        "SELECT 'queue ' || hex(q.destination_id) || ' says ' || q.depth || ' and none waits' FROM queues q
     WHERE (q.depth <> 0 OR q.trial IS NULL)
         AND NOT EXISTS (SELECT 1 FROM waiting w WHERE w.destination_id = q.destination_id)",
    ),
    // A queue that was served rests for a second where it is limited.
    (
        Rule::Forgotten,
        "SELECT 'queue ' || hex(q.destination_id) || ' is looked at ' ||
         (q.next_due - max(min(w.due_at), q.hold_until)) || ' us too late'
     FROM queues q JOIN waiting w ON w.destination_id = q.destination_id
     GROUP BY q.destination_id HAVING q.next_due > max(min(w.due_at), q.hold_until, q.paced_until, NOW + 1000000)",
    ),
    (
        Rule::Tables,
        "SELECT 'queue ' || hex(q.destination_id) || ' is blocked: ' || q.blocked || ', its destination is ' ||
         coalesce(d.state, 'gone')
     FROM queues q LEFT JOIN destinations d ON d.id = q.destination_id
     WHERE q.blocked <> (coalesce(d.state, 'gone') <> 'active')",
    ),
    (
        Rule::Tables,
        "SELECT 'delivery ' || hex(d.id) || ' is dead, and its dead letter is ' ||
         CASE WHEN l.delivery_id IS NULL THEN 'missing' ELSE 'there' END
     FROM deliveries d LEFT JOIN dead_letters l ON l.delivery_id = d.id
     WHERE (d.state = 3 AND d.replayed_by IS NULL AND coalesce(d.reason, 0) <> 8) <> (l.delivery_id IS NOT NULL)",
    ),
    (
        Rule::Tables,
        "SELECT 'delivery ' || hex(d.id) || ' has no event' FROM deliveries d
     WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.id = d.event_id)",
    ),
];

/// The same, of lanes.
const LANE_RULES: &[(Rule, &str)] = &[
    (
        Rule::Tables,
        "SELECT 'delivery ' || hex(d.id) || ' has a lane, and is queued' FROM deliveries d WHERE d.lane IS NOT NULL AND d.state = 0",
    ),
    (
        Rule::Order,
        "SELECT 'delivery ' || hex(d.id) || ' is not the first of its lane, and is due ' || w.due_at
     FROM deliveries d JOIN waiting w ON w.delivery_id = d.id
     WHERE d.lane IS NOT NULL AND w.due_at < 9223372036854775807 AND EXISTS (
         SELECT 1 FROM deliveries e WHERE e.destination_id = d.destination_id AND e.lane = d.lane
             AND e.state IN (0, 1) AND e.lane_seq < d.lane_seq)",
    ),
    (
        Rule::Forgotten,
        "SELECT 'delivery ' || hex(d.id) || ' is the first of its lane, which is not blocked, and is never due'
     FROM deliveries d JOIN waiting w ON w.delivery_id = d.id
     WHERE d.lane IS NOT NULL AND w.due_at = 9223372036854775807
         AND NOT EXISTS (
             SELECT 1 FROM deliveries e WHERE e.destination_id = d.destination_id AND e.lane = d.lane
                 AND e.state IN (0, 1) AND e.lane_seq < d.lane_seq)
         AND NOT EXISTS (
             SELECT 1 FROM lanes l WHERE l.destination_id = d.destination_id AND l.lane = d.lane
                 AND l.blocked_by IS NOT NULL)",
    ),
    (
        Rule::Tables,
        "SELECT 'a lane of ' || hex(l.destination_id) || ' says ' || l.depth || ' are open, there are ' ||
         (SELECT count(*) FROM deliveries d WHERE d.destination_id = l.destination_id AND d.lane = l.lane
             AND d.state IN (0, 1))
     FROM lanes l
     WHERE l.depth <> (SELECT count(*) FROM deliveries d WHERE d.destination_id = l.destination_id
         AND d.lane = l.lane AND d.state IN (0, 1))",
    ),
    (
        Rule::Tables,
        "SELECT 'a lane of ' || hex(d.destination_id) || ' has open deliveries and no row' FROM deliveries d
     WHERE d.lane IS NOT NULL AND d.state IN (0, 1) AND NOT EXISTS (
         SELECT 1 FROM lanes l WHERE l.destination_id = d.destination_id AND l.lane = d.lane)",
    ),
];

/// The rules that are broken now.
pub(super) fn broken(connection: &Connection, now: Timestamp) -> Outcome<Vec<(Rule, String)>> {
    let mut broken = Vec::new();
    let lanes: &[(Rule, &str)] = if has_lanes(connection)? { LANE_RULES } else { &[] };
    for (rule, sql) in RULES.iter().chain(lanes) {
        let mut statement = connection.prepare(&sql.replace("NOW", &now.as_micros().to_string()))?;
        for text in statement.query_map([], |row| row.get(0))? {
            broken.push((*rule, text?));
        }
    }
    Ok(broken)
}

fn has_lanes(connection: &Connection) -> Outcome<bool> {
    let sql = "SELECT count(*) FROM sqlite_master WHERE name = 'lanes'";
    Ok(connection.query_row(sql, [], |row| row.get::<_, u32>(0))? > 0)
}

/// What is left.
pub(super) fn rest(connection: &Connection) -> Outcome<Rest> {
    let mut rest = Rest::default();
    let count = |sql: &str| -> Outcome<u32> { Ok(connection.query_row(sql, [], |row| row.get(0))?) };
    rest.outbox = count("SELECT count(*) FROM outbox")?;
    rest.fan_outs = count("SELECT count(*) FROM fan_outs")?;
    rest.replays = count("SELECT count(*) FROM replays WHERE state = 'running'")?;
    let blocked = if has_lanes(connection)? {
        "EXISTS (SELECT 1 FROM lanes l
                 WHERE l.destination_id = d.destination_id AND l.lane = d.lane AND l.blocked_by IS NOT NULL)"
    } else {
        "0"
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT d.id, d.destination_id, d.state, d.attempts,
                coalesce('due ' || w.due_at || ', for ' || w.reason || ', leased ' || w.leased, 'not waiting')
                    || coalesce('; queue: next ' || q.next_due || ', held until ' || q.hold_until, '; no queue'),
                w.delivery_id IS NOT NULL AND (coalesce(t.state, 'deleted') IN ('paused', 'disabled') OR {blocked})
         FROM deliveries d LEFT JOIN waiting w ON w.delivery_id = d.id
         LEFT JOIN destinations t ON t.id = d.destination_id
         LEFT JOIN queues q ON q.destination_id = d.destination_id
         WHERE d.state IN (0, 1)"
    ))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if row.get::<_, bool>(5)? {
            rest.for_people += 1;
        } else {
            rest.deliveries.push(Unfinished {
                delivery: id(row, 0)?,
                destination: id(row, 1)?,
                state: state(row, 2)?,
                attempts: row.get(3)?,
                waiting: row.get(4)?,
            });
        }
    }
    Ok(rest)
}
