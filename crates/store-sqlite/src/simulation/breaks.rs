//! Breaks what the store promises about lanes, to show that the simulation sees it.

use rusqlite::{Connection, params};
use signalpost_core::{DeliveryState, Timestamp};

use crate::failure::Outcome;

/// Makes the second of a lane due now.
pub(super) fn promote_a_follower(connection: &Connection, now: Timestamp) -> Outcome<bool> {
    let promoted = connection.execute(
        "UPDATE waiting SET due_at = ?1, reason = 0, leased = 0
         WHERE due_at = ?2 AND delivery_id = (
             SELECT d.id FROM deliveries d
             WHERE d.lane IS NOT NULL AND d.state = ?3 AND EXISTS (
                 SELECT 1 FROM deliveries e WHERE e.destination_id = d.destination_id AND e.lane = d.lane
                     AND e.state = ?3 AND e.lane_seq < d.lane_seq)
             ORDER BY d.lane_seq LIMIT 1)",
        params![now.as_micros(), i64::MAX, DeliveryState::Waiting as u8],
    )?;
    if promoted > 0 {
        connection.execute("UPDATE queues SET next_due = min(next_due, max(hold_until, ?1))", [now.as_micros()])?;
    }
    Ok(promoted > 0)
}

/// Makes the first of a lane never due.
pub(super) fn drop_a_head(connection: &Connection) -> Outcome<bool> {
    let dropped = connection.execute(
        "UPDATE waiting SET due_at = ?1, leased = 0
         WHERE due_at < ?1 AND delivery_id = (
             SELECT d.id FROM deliveries d
             WHERE d.lane IS NOT NULL AND d.state = ?2 AND d.attempts = 0 AND NOT EXISTS (
                 SELECT 1 FROM deliveries e WHERE e.destination_id = d.destination_id AND e.lane = d.lane
                     AND e.state = ?2 AND e.lane_seq < d.lane_seq)
             ORDER BY d.lane_seq DESC LIMIT 1)",
        params![i64::MAX, DeliveryState::Waiting as u8],
    )?;
    Ok(dropped > 0)
}
