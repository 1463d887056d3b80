//! Removes what belongs to tenants that are being deleted.

use rusqlite::params;
use signalpost_core::{
    DeliveryId, EventId, TenantId, Timestamp,
    id::{DeliveryKind, EventKind},
};
use signalpost_store::tenants::LATE;

use crate::{
    columns::{ceiling, id, key, time},
    failure::Outcome,
    retention, tenants,
    tx::Tx,
};

/// What goes at once, each with its key. Only `fan_outs` has no index for it: that table holds what is still to be expanded.
const AT_ONCE: &[(&str, &str)] =
    &[("fan_outs", "event_id"), ("replays", "id"), ("api_keys", "id"), ("idempotency", "(tenant_id, scope, key)")];

/// Removes up to so many rows; the oldest deletion first.
pub(crate) fn sweep(tx: &Tx<'_>, most: usize) -> Outcome<usize> {
    let tenants: Vec<(TenantId, Timestamp)> =
        tx.rows("SELECT id, deleting_at FROM tenants WHERE deleting_at IS NOT NULL ORDER BY deleting_at", [], |row| {
            Ok((id(row, 0)?, time(row, 1)?))
        })?;
    let mut left = most;
    for (tenant, since) in tenants {
        let mut sweep = Sweep { tx, tenant, left };
        let deleted = tenants::delete_destinations(tx, tenant, left)?;
        sweep.left -= deleted;
        sweep.run(since)?;
        let still = sweep.left;
        tenants::count_removed(tx, tenant, left - deleted - still)?;
        left = still;
        if left == 0 {
            break;
        }
    }
    Ok(most - left)
}

struct Sweep<'t, 'c> {
    tx: &'t Tx<'c>,
    tenant: TenantId,
    /// Rows that may still be removed.
    left: usize,
}

impl Sweep<'_, '_> {
    fn run(&mut self, since: Timestamp) -> Outcome<()> {
        for (table, columns) in AT_ONCE {
            self.chunk(table, columns)?;
        }
        // The sweep of destinations ends what is under way, and then removes them: until then nothing else goes.
        let sql = "SELECT 1 FROM destinations WHERE tenant_id = ?1";
        if self.left == 0 || self.tx.prepare(sql)?.exists([key(self.tenant)])? {
            return Ok(());
        }
        self.dead_letters()?;
        while self.left > 0 && self.millisecond()? {}
        // What was accepted just before all processes knew comes late.
        if self.left > 0 && self.tx.now >= since + LATE {
            self.chunk("audit_log", "id")?;
            if self.left > 0 {
                self.tx.execute("DELETE FROM tenants WHERE id = ?1", [key(self.tenant)])?;
                self.left -= 1;
            }
        }
        Ok(())
    }

    fn chunk(&mut self, table: &str, columns: &str) -> Outcome<()> {
        let selected = columns.trim_matches(['(', ')']);
        let mut statement = self.tx.prepare(&format!(
            "DELETE FROM {table} WHERE {columns} IN (SELECT {selected} FROM {table} WHERE tenant_id = ?1 LIMIT ?2)"
        ))?;
        self.left -= statement.execute(params![key(self.tenant), self.limit()])?;
        Ok(())
    }

    fn limit(&self) -> i64 {
        i64::try_from(self.left).unwrap_or(i64::MAX)
    }

    fn dead_letters(&mut self) -> Outcome<()> {
        self.left -= retention::drop_letters(self.tx, "tenant_id = ?1", params![key(self.tenant), self.limit()])?;
        Ok(())
    }

    /// Removes the oldest events that share a millisecond, which their deliveries share, too: attempts, then deliveries, then
    /// events, so that what is left refers to nothing that is gone. False where there is none.
    fn millisecond(&mut self) -> Outcome<bool> {
        let first = self.tx.row(
            "SELECT id FROM events WHERE tenant_id = ?1 ORDER BY id LIMIT 1",
            [key(self.tenant)],
            |row| id::<EventKind>(row, 0),
        )?;
        let Some(first) = first else { return Ok(false) };
        let at = first.created_at();
        let (from, to) = (key(EventId::floor(at)), key(ceiling::<EventKind>(at)));
        let deliveries: Vec<DeliveryId> = self.tx.rows(
            "SELECT id FROM deliveries WHERE id >= ?1 AND id < ?2 AND tenant_id = ?3 ORDER BY id LIMIT ?4",
            params![from, to, key(self.tenant), self.limit()],
            |row| id::<DeliveryKind>(row, 0),
        )?;
        for delivery in deliveries {
            self.left -= self.tx.execute(
                "DELETE FROM attempts WHERE delivery_id = ?1
                     AND number IN (SELECT number FROM attempts WHERE delivery_id = ?1 LIMIT ?2)",
                params![key(delivery), self.limit()],
            )?;
            if self.left == 0 {
                return Ok(true);
            }
            self.left -= self.tx.execute("DELETE FROM deliveries WHERE id = ?1", [key(delivery)])?;
            if self.left == 0 {
                return Ok(true);
            }
        }
        self.left -= self.tx.execute(
            "DELETE FROM events WHERE id IN
                 (SELECT id FROM events WHERE tenant_id = ?1 AND id >= ?2 AND id < ?3 LIMIT ?4)",
            params![key(self.tenant), from, to, self.limit()],
        )?;
        Ok(true)
    }
}
