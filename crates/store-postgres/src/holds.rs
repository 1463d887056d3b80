//! Holds of whole queues, and their end.

use std::collections::BTreeMap;

use signalpost_core::{DestinationId, WaitReason};
use signalpost_store::dispatch::QueueHold;
use sqlx::PgConnection;

use crate::{error::Failure, queues::micros};

/// Holds queues of destinations that are there, or lets them go. Of several for one destination the last counts.
pub(crate) async fn hold(transaction: &mut PgConnection, holds: &[QueueHold]) -> Result<(), Failure> {
    let holds: BTreeMap<DestinationId, &QueueHold> = holds.iter().map(|hold| (hold.destination_id, hold)).collect();
    if holds.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "WITH held AS MATERIALIZED (
             SELECT q.destination_id FROM queues q
             WHERE q.destination_id = ANY($1)
               AND EXISTS (SELECT FROM destinations d WHERE d.id = q.destination_id AND d.state <> 'deleted')
             ORDER BY q.destination_id FOR UPDATE OF q
         )
         UPDATE queues q SET
             hold_until = CASE WHEN i.hold_us > 0
                 THEN GREATEST(q.hold_until, statement_timestamp() + i.hold_us * interval '1 microsecond')
                 WHEN i.trial IS NOT NULL THEN statement_timestamp() END,
             next_due = CASE WHEN q.depth <= 0 THEN 'infinity'
                 WHEN i.hold_us > 0
                 THEN GREATEST(q.next_due, statement_timestamp() + i.hold_us * interval '1 microsecond')
                 ELSE statement_timestamp() END,
             paced_until = CASE WHEN i.hold_us > 0 THEN q.paced_until END,
             trial = i.trial,
             spilled = CASE WHEN i.hold_us > 0 OR i.trial IS NOT NULL THEN true ELSE q.spilled AND q.depth > 0 END
         FROM unnest($1::uuid[], $2::bigint[], $3::int[]) AS i(destination_id, hold_us, trial), held h
         WHERE q.destination_id = i.destination_id AND q.destination_id = h.destination_id AND q.destination_id = ANY($1)",
    )
    .bind(holds.keys().map(|id| id.uuid()).collect::<Vec<_>>())
    .bind(holds.values().map(|hold| micros(hold.hold)).collect::<Vec<_>>())
    .bind(
        holds
            .values()
            .map(|hold| hold.trial.map(|most| i32::try_from(most.get()).unwrap_or(i32::MAX)))
            .collect::<Vec<_>>(),
    )
    .execute(transaction)
    .await?;
    Ok(())
}

/// A person changed the destination: if its queue is held or on trial, it is so no more.
pub(crate) async fn release_held(transaction: &mut PgConnection, destination: DestinationId) -> Result<(), Failure> {
    let is_held: Option<bool> = sqlx::query_scalar(
        "SELECT trial IS NOT NULL OR COALESCE(hold_until > statement_timestamp(), false) FROM queues
         WHERE destination_id = $1",
    )
    .bind(destination.uuid())
    .fetch_optional(&mut *transaction)
    .await?;
    match is_held {
        Some(true) => release(transaction, destination, &[WaitReason::Circuit]).await,
        Some(false) | None => Ok(()),
    }
}

/// A person changed or resumed the destination: whatever held its queue does so no more, and what was parked for the same
/// reasons is due now. What is leased, and rows that somebody writes just now, are theirs.
pub(crate) async fn release(
    transaction: &mut PgConnection,
    destination: DestinationId,
    reasons: &[WaitReason],
) -> Result<(), Failure> {
    sqlx::query(
        "UPDATE waiting SET due_at = statement_timestamp() WHERE delivery_id = ANY(ARRAY(
             SELECT delivery_id FROM waiting
             WHERE destination_id = $1 AND due_at > statement_timestamp() AND due_at < 'infinity' AND reason = ANY($2)
               AND NOT leased
             FOR UPDATE SKIP LOCKED))",
    )
    .bind(destination.uuid())
    .bind(reasons.iter().map(|reason| *reason as i16).collect::<Vec<_>>())
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "UPDATE queues SET hold_until = NULL, paced_until = NULL, trial = NULL, spilled = spilled AND depth > 0,
                next_due = CASE WHEN depth > 0 THEN statement_timestamp() ELSE 'infinity' END
         WHERE destination_id = $1",
    )
    .bind(destination.uuid())
    .execute(transaction)
    .await?;
    Ok(())
}
