//! The table `failing`: destinations to which nothing has arrived since their first failure, and what comes of them.
//!
//! Its rows are locked last of all and in order, in a statement of its own, which a batch needs only where something failed, or
//! arrived at a destination that has a row.

use std::{collections::BTreeMap, time::Duration};

use signalpost_core::{
    AttemptOutcome, DestinationId, DestinationState, TenantId, Timestamp, destination::DisableAfter,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    dispatch,
    error::Failure,
    ids::uuids,
    queues::micros,
    rows::{big_count, id, optional_json, time},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Attempts of a batch, by destination.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    tallies: BTreeMap<DestinationId, Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    /// Something arrived, before what failed last.
    arrived: bool,
    /// There is a row.
    was_failing: bool,
    /// How many failed after that.
    failed: i64,
}

impl Tallies {
    /// An attempt, in the order of the batch. What was interrupted tells nothing of the destination.
    pub(crate) fn add(&mut self, destination: DestinationId, outcome: AttemptOutcome, was_failing: bool) {
        let tally = self.tallies.entry(destination).or_default();
        tally.was_failing |= was_failing;
        match outcome {
            AttemptOutcome::Delivered => (tally.arrived, tally.failed) = (true, 0),
            AttemptOutcome::Retry | AttemptOutcome::Dead => tally.failed += 1,
            AttemptOutcome::Interrupted => {}
        }
    }

    /// Writes them.
    pub(crate) async fn apply(self, transaction: &mut PgConnection) -> Result<(), Failure> {
        let (mut healed, mut begun, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for (destination, tally) in self.tallies {
            if tally.failed > 0 {
                failed.push((destination.uuid(), tally.failed));
                if tally.arrived {
                    begun.push(destination.uuid());
                }
            } else if tally.arrived && tally.was_failing {
                healed.push(destination.uuid());
            }
        }
        if healed.is_empty() && failed.is_empty() {
            return Ok(());
        }
        let (failed, counts): (Vec<Uuid>, Vec<i64>) = failed.into_iter().unzip();
        // All rows that are there are locked first and in order, whatever then becomes of them.
        sqlx::query(
            "WITH locked AS MATERIALIZED (
                 SELECT destination_id FROM failing WHERE destination_id = ANY($1 || $2) ORDER BY destination_id FOR UPDATE
             ), healed AS (
                 DELETE FROM failing WHERE destination_id = ANY(ARRAY(SELECT destination_id FROM locked))
                     AND destination_id = ANY($1)
             )
             INSERT INTO failing AS f (destination_id, since, attempts)
             SELECT i.destination_id, statement_timestamp(), i.failed
             FROM unnest($2::uuid[], $3::bigint[]) AS i(destination_id, failed)
             WHERE (SELECT count(*) FROM locked) >= 0
             ON CONFLICT (destination_id) DO UPDATE SET
                 since = CASE WHEN f.destination_id = ANY($4) THEN EXCLUDED.since ELSE f.since END,
                 attempts = CASE WHEN f.destination_id = ANY($4) THEN 0 ELSE f.attempts END + EXCLUDED.attempts",
        )
        .bind(healed)
        .bind(failed)
        .bind(counts)
        .bind(begun)
        .execute(transaction)
        .await?;
        Ok(())
    }
}

/// They begin anew.
pub(crate) async fn forget(transaction: &mut PgConnection, destinations: &[DestinationId]) -> Result<(), Failure> {
    sqlx::query("DELETE FROM failing WHERE destination_id = ANY($1)")
        .bind(uuids(destinations.iter().copied()))
        .execute(transaction)
        .await?;
    Ok(())
}

/// Active destinations that may have failed for too long, those that fail longest first. One that is paused gets no attempts: it
/// is judged when it is resumed.
pub(crate) async fn candidates(
    connection: &mut PgConnection,
    most: usize,
) -> Result<Vec<(TenantId, DestinationId)>, Failure> {
    let usual = DisableAfter::default();
    let rows = sqlx::query(
        "SELECT d.tenant_id, d.id FROM failing f JOIN destinations d ON d.id = f.destination_id
         WHERE d.state = $1
           AND f.since <= statement_timestamp() - COALESCE((d.spec #>> '{disable_after,days}')::bigint, $2) * interval '24 hours'
           AND f.attempts >= COALESCE((d.spec #>> '{disable_after,attempts}')::bigint, $3)
         ORDER BY f.since, d.id LIMIT $4",
    )
    .bind(DestinationState::Active.as_str())
    .bind(i64::from(usual.days.get()))
    .bind(i64::from(usual.attempts.get()))
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((id(row, "tenant_id")?, id(row, "id")?))).collect()
}

/// Disables one of them, if it still fails. Gives whether it was.
pub(crate) async fn disable(
    transaction: &mut PgConnection,
    tenant: TenantId,
    destination: DestinationId,
) -> Result<bool, Failure> {
    let row = sqlx::query(
        "SELECT statement_timestamp() AS now, f.since, f.attempts, (d.spec -> 'disable_after')::text AS disable_after
         FROM destinations d JOIN failing f ON f.destination_id = d.id
         WHERE d.id = $1 AND d.state = $2 FOR UPDATE OF d",
    )
    .bind(destination.uuid())
    .bind(DestinationState::Active.as_str())
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(row) = row else { return Ok(false) };
    let limit: DisableAfter = optional_json(&row, "disable_after")?.unwrap_or_default();
    let (since, attempts) = (time(&row, "since")?, big_count(&row, "attempts")?);
    let Some(reason) = too_long(since, time(&row, "now")?, attempts, limit) else { return Ok(false) };
    dispatch::disable(transaction, tenant, destination, &reason).await?;
    forget(transaction, &[destination]).await?;
    Ok(true)
}

/// Why, in words.
fn too_long(since: Timestamp, now: Timestamp, attempts: u64, limit: DisableAfter) -> Option<String> {
    let fails_for = now.since(since);
    if fails_for < DAY * limit.days.get() || attempts < u64::from(limit.attempts.get()) {
        return None;
    }
    let days = micros(fails_for) / micros(DAY);
    let unit = if days == 1 { "day" } else { "days" };
    let since = Timestamp::from_millis(since.as_secs() * 1000);
    Some(format!("nothing arrived for {days} {unit}: {attempts} attempts since {since} failed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_must_be_passed() {
        let limit = DisableAfter::default();
        let since = Timestamp::from_millis(1_700_000_000_123);
        assert_eq!(too_long(since, since + DAY * 4, 1000, limit), None);
        assert_eq!(too_long(since, since + DAY * 6, 99, limit), None);
        assert_eq!(
            too_long(since, since + DAY * 6, 100, limit).as_deref(),
            Some("nothing arrived for 6 days: 100 attempts since 2023-11-14T22:13:20Z failed")
        );
    }
}
