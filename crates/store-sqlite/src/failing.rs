//! Destinations at which nothing arrives: since when, how many attempts failed, and when that is too much.

use std::time::Duration;

use rusqlite::params;
use signalpost_core::{DestinationId, DestinationSpec, TenantId, Timestamp};

use crate::{
    columns::{id, key, time},
    destinations,
    failure::{Failure, Outcome},
    tx::Tx,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Tx<'_> {
    /// An attempt arrived there.
    pub(crate) fn arrived(&self, destination: DestinationId) {
        let mut arrivals = self.arrivals.borrow_mut();
        let of = arrivals.entry(destination).or_default();
        (of.any, of.failed) = (true, 0);
    }

    /// An attempt failed there.
    pub(crate) fn failed(&self, destination: DestinationId) {
        self.arrivals.borrow_mut().entry(destination).or_default().failed += 1;
    }

    /// Writes what was collected, one row per destination.
    pub(crate) fn settle_failing(&self) -> Outcome<()> {
        for (destination, arrivals) in std::mem::take(&mut *self.arrivals.borrow_mut()) {
            if arrivals.any {
                self.forget_failures(destination)?;
            }
            if arrivals.failed > 0 {
                self.execute(
                    "INSERT INTO failing (destination_id, since, attempts) VALUES (?1, ?2, ?3)
                     ON CONFLICT (destination_id) DO UPDATE SET attempts = attempts + excluded.attempts",
                    params![key(destination), self.now.as_micros(), arrivals.failed],
                )?;
            }
        }
        Ok(())
    }

    /// It begins anew.
    pub(crate) fn forget_failures(&self, destination: DestinationId) -> Outcome<()> {
        self.execute("DELETE FROM failing WHERE destination_id = ?1", [key(destination)])?;
        Ok(())
    }
}

struct Failing {
    destination: DestinationId,
    tenant: TenantId,
    since: Timestamp,
    attempts: u32,
    spec: String,
}

/// Disables active destinations that fail for longer than they want to be tried. One that is paused gets no attempts: it is
/// judged when it is resumed.
pub(crate) fn disable(tx: &Tx<'_>, most: usize) -> Outcome<usize> {
    // A day is the least that one can ask for. CROSS: looked up from the few that fail, not the other way round.
    let candidates = tx.rows(
        "SELECT f.destination_id, d.tenant_id, f.since, f.attempts, d.spec
         FROM failing f CROSS JOIN destinations d ON d.id = f.destination_id
         WHERE f.since <= ?1 AND d.state = 'active' ORDER BY f.since, f.destination_id",
        [(tx.now - DAY).as_micros()],
        |row| {
            Ok(Failing {
                destination: id(row, 0)?,
                tenant: id(row, 1)?,
                since: time(row, 2)?,
                attempts: row.get(3)?,
                spec: row.get(4)?,
            })
        },
    )?;
    let mut disabled = 0;
    for failing in candidates {
        if disabled >= most {
            break;
        }
        let spec: DestinationSpec = serde_json::from_str(&failing.spec).map_err(Failure::from)?;
        let Some(reason) = too_long(&failing, &spec, tx.now) else { continue };
        destinations::disable(tx, failing.tenant, failing.destination, &reason)?;
        tx.forget_failures(failing.destination)?;
        disabled += 1;
    }
    Ok(disabled)
}

/// Why, in words.
fn too_long(failing: &Failing, spec: &DestinationSpec, now: Timestamp) -> Option<String> {
    let limit = spec.disable_after;
    let failed_for = now.since(failing.since);
    if failed_for < DAY * limit.days.get() || failing.attempts < limit.attempts.get() {
        return None;
    }
    let days = failed_for.as_secs() / DAY.as_secs();
    let since = Timestamp::from_millis(failing.since.as_secs() * 1000);
    let unit = if days == 1 { "day" } else { "days" };
    Some(format!("nothing arrived for {days} {unit}: {} attempts since {since} failed", failing.attempts))
}
