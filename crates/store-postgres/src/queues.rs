//! The table `queues`: what happened to `waiting`, told once per destination.

use std::collections::BTreeMap;

use signalpost_core::{DestinationId, TenantId};
use sqlx::PgConnection;

use crate::error::Failure;

/// Changes of queues, gathered while a transaction changes `waiting`, and applied as its last step.
#[derive(Debug, Default)]
pub(crate) struct QueueChanges {
    queues: BTreeMap<DestinationId, Change>,
}

#[derive(Debug)]
struct Change {
    tenant: TenantId,
    depth: i64,
    /// The first time that something new is due, in microseconds from now.
    due_us: Option<i64>,
    /// Hold it for that long, and spill.
    hold_us: Option<i64>,
}

impl QueueChanges {
    /// A row came into `waiting`, due after that many microseconds.
    pub(crate) fn added(&mut self, tenant: TenantId, destination: DestinationId, due_us: i64) {
        self.due(tenant, destination, due_us);
        self.entry(tenant, destination).depth += 1;
    }

    /// A follower came into `waiting`: it has no due time.
    pub(crate) fn followed(&mut self, tenant: TenantId, destination: DestinationId) {
        self.entry(tenant, destination).depth += 1;
    }

    /// A row left `waiting`.
    pub(crate) fn removed(&mut self, tenant: TenantId, destination: DestinationId) {
        self.entry(tenant, destination).depth -= 1;
    }

    /// A row that stays is due after that many microseconds.
    pub(crate) fn due(&mut self, tenant: TenantId, destination: DestinationId, due_us: i64) {
        let change = self.entry(tenant, destination);
        change.due_us = Some(change.due_us.map_or(due_us, |earlier| earlier.min(due_us)));
    }

    /// The queue is held for that many microseconds, and spilled.
    pub(crate) fn hold(&mut self, tenant: TenantId, destination: DestinationId, hold_us: i64) {
        let change = self.entry(tenant, destination);
        change.hold_us = change.hold_us.max(Some(hold_us));
    }

    /// Whether it is held from now on.
    pub(crate) fn holds(&self, destination: DestinationId) -> bool {
        self.queues.get(&destination).is_some_and(|change| change.hold_us.is_some())
    }

    fn entry(&mut self, tenant: TenantId, destination: DestinationId) -> &mut Change {
        self.queues.entry(destination).or_insert(Change { tenant, depth: 0, due_us: None, hold_us: None })
    }

    /// Writes them, in the order of the destinations' ids. A queue that is missing belongs to a destination that is gone: it
    /// is made blocked, and the sweep cancels what is in it.
    pub(crate) async fn apply(self, transaction: &mut PgConnection) -> Result<(), Failure> {
        let changes: Vec<(DestinationId, Change)> = self
            .queues
            .into_iter()
            .filter(|(_, change)| change.depth != 0 || change.due_us.is_some() || change.hold_us.is_some())
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO queues AS q (destination_id, tenant_id, depth, next_due, hold_until, blocked, spilled)
             SELECT i.destination_id, i.tenant_id, i.depth,
                    GREATEST(COALESCE(statement_timestamp() + i.due_us * interval '1 microsecond', 'infinity'),
                             statement_timestamp() + i.hold_us * interval '1 microsecond'),
                    statement_timestamp() + i.hold_us * interval '1 microsecond',
                    NOT EXISTS (SELECT FROM destinations d WHERE d.id = i.destination_id AND d.state = 'active'),
                    i.hold_us IS NOT NULL
             FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[])
                  AS i(destination_id, tenant_id, depth, due_us, hold_us)
             ON CONFLICT (destination_id) DO UPDATE SET
                 depth = q.depth + EXCLUDED.depth,
                 hold_until = GREATEST(q.hold_until, EXCLUDED.hold_until),
                 next_due = CASE WHEN q.depth + EXCLUDED.depth <= 0 THEN 'infinity'
                     ELSE GREATEST(LEAST(q.next_due, EXCLUDED.next_due), q.hold_until, EXCLUDED.hold_until,
                                   q.paced_until) END,
                 spilled = (q.spilled OR EXCLUDED.spilled) AND (q.depth + EXCLUDED.depth > 0 OR q.trial IS NOT NULL)",
        )
        .bind(changes.iter().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
        .bind(changes.iter().map(|(_, change)| change.tenant.uuid()).collect::<Vec<_>>())
        .bind(changes.iter().map(|(_, change)| change.depth).collect::<Vec<_>>())
        .bind(changes.iter().map(|(_, change)| change.due_us).collect::<Vec<_>>())
        .bind(changes.iter().map(|(_, change)| change.hold_us).collect::<Vec<_>>())
        .execute(transaction)
        .await?;
        Ok(())
    }
}

/// A duration as the microseconds of a statement.
pub(crate) fn micros(duration: std::time::Duration) -> i64 {
    /// About 3,000 years: later than anything, and inside what PostgreSQL's time can hold.
    const FOREVER: i64 = 100_000_000_000_000_000;
    i64::try_from(duration.as_micros()).map_or(FOREVER, |micros| micros.min(FOREVER))
}
