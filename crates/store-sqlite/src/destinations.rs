//! Changes of destinations. Each bumps the destination's version and its tenant's routing version.

use rusqlite::{Connection, params};
use signalpost_core::{
    CircuitRecord, CircuitState, Destination, DestinationId, DestinationSpec, DestinationState, Kept, TenantId,
    WaitReason,
    ordering::{OnDead, OrderingMode},
};
use signalpost_store::{NEVER, manage::Created, secrets};

use crate::{
    columns::{self, DESTINATION, id, key},
    failure::{Failure, Outcome},
    holds, tenants,
    tx::Tx,
};

/// What one take of the feed yields at most of a rate-limited destination: two seconds of its rate.
fn feed_limit(spec: &DestinationSpec) -> Option<i64> {
    #[allow(clippy::cast_possible_truncation, reason = "saturates")]
    spec.rate_limit.map(|limit| ((limit.per_second * 2.0).ceil() as i64).max(1))
}

/// One destination of a tenant that is not deleted.
fn load(tx: &Tx<'_>, tenant: TenantId, destination: DestinationId) -> Outcome<Option<Destination>> {
    let mut statement = tx.prepare(&format!(
        "SELECT {DESTINATION} FROM destinations WHERE id = ?1 AND tenant_id = ?2 AND state <> 'deleted'"
    ))?;
    let mut rows = statement.query(params![key(destination), key(tenant)])?;
    rows.next()?.map(columns::destination).transpose()
}

/// What the owner of a destination asks for; None where it is gone or deleted.
pub(crate) fn present_spec(connection: &Connection, destination: DestinationId) -> Outcome<Option<DestinationSpec>> {
    let mut statement =
        connection.prepare_cached("SELECT spec FROM destinations WHERE id = ?1 AND state <> 'deleted'")?;
    let mut rows = statement.query([key(destination)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(serde_json::from_str(row.get_ref(0)?.as_str().map_err(Failure::internal)?)?))
}

/// Every change ends here.
fn changed(tx: &Tx<'_>, tenant: TenantId) -> Outcome<()> {
    let found = tx.execute("UPDATE tenants SET routing_version = routing_version + 1 WHERE id = ?1", [key(tenant)])?;
    if found == 0 {
        return Err(Failure::data(format!("there is no tenant {tenant}")));
    }
    tx.routing_moved();
    Ok(())
}

/// Creates one. Creating the same again changes nothing.
pub(crate) fn create(tx: &Tx<'_>, new: &Destination) -> Outcome<Created> {
    if let Some(uid) = &new.uid {
        let taken = tx.row(
            "SELECT id FROM destinations WHERE tenant_id = ?1 AND uid = ?2 AND state <> 'deleted'",
            params![key(new.tenant_id), uid],
            |row| id(row, 0),
        )?;
        if let Some(taken) = taken {
            return Ok(if taken == new.id { Created::Yes } else { Created::UidTaken(taken) });
        }
    }
    if load(tx, new.tenant_id, new.id)?.is_some() {
        return Ok(Created::Yes);
    }
    if !tenants::is_there(tx.connection, new.tenant_id)? {
        return Err(Failure::data(format!("there is no tenant {}", new.tenant_id)));
    }
    let columns = secrets::columns(&new.spec, &new.secrets)?;
    tx.execute(
        "INSERT INTO destinations (id, tenant_id, uid, spec, secret, state, disabled_reason, version, feed_limit,
             created_at, updated_at, sealed, sealed_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        params![
            key(new.id),
            key(new.tenant_id),
            new.uid,
            columns.spec,
            columns.secret,
            new.state.as_str(),
            new.disabled_reason,
            new.version,
            feed_limit(&new.spec),
            new.created_at.as_micros(),
            tx.now.as_micros(),
            columns.sealed,
            columns.sealed_by
        ],
    )?;
    changed(tx, new.tenant_id)?;
    Ok(Created::Yes)
}

/// Replaces what the owner sets.
pub(crate) fn update(
    tx: &Tx<'_>,
    tenant: TenantId,
    destination: DestinationId,
    expected_version: u32,
    spec: &DestinationSpec,
    kept: &Kept,
) -> Outcome<Option<Destination>> {
    let columns = secrets::columns(spec, kept)?;
    let updated = tx.execute(
        "UPDATE destinations
         SET spec = ?4, secret = ?5, feed_limit = ?6, version = version + 1, updated_at = ?7, sealed = ?8,
             sealed_by = ?9
         WHERE id = ?1 AND tenant_id = ?2 AND version = ?3 AND state <> 'deleted'",
        params![
            key(destination),
            key(tenant),
            expected_version,
            columns.spec,
            columns.secret,
            feed_limit(spec),
            tx.now.as_micros(),
            columns.sealed,
            columns.sealed_by
        ],
    )?;
    if updated == 0 {
        return Ok(None);
    }
    // It may be another receiver now: what its circuit held back is tried.
    holds::release_held(tx, destination)?;
    if spec.ordering.mode != OrderingMode::Key || spec.ordering.on_dead != OnDead::Block {
        tx.unblock_lanes(destination)?;
    }
    changed(tx, tenant)?;
    load(tx, tenant, destination)
}

/// Writes another state.
fn set_state(
    tx: &Tx<'_>,
    tenant: TenantId,
    destination: DestinationId,
    state: DestinationState,
    reason: Option<&str>,
) -> Outcome<()> {
    tx.execute(
        "UPDATE destinations SET state = ?2, disabled_reason = ?3, version = version + 1, updated_at = ?4 WHERE id = ?1",
        params![key(destination), state.as_str(), reason, tx.now.as_micros()],
    )?;
    if state == DestinationState::Active {
        // What waited for this is due now; other due times stay. The hold was for a state that is over.
        holds::release_held(tx, destination)?;
        tx.execute(
            "UPDATE waiting SET due_at = ?2
             WHERE destination_id = ?1 AND due_at > ?2 AND due_at < ?4 AND reason = ?3 AND leased = 0",
            params![key(destination), tx.now.as_micros(), WaitReason::Paused as u8, NEVER.as_micros()],
        )?;
        tx.execute(
            "UPDATE queues SET blocked = 0, hold_until = 0, paced_until = 0, next_due = ?2 WHERE destination_id = ?1",
            params![key(destination), tx.now.as_micros()],
        )?;
        tx.forget_failures(destination)?;
    } else {
        tx.execute("UPDATE queues SET blocked = 1 WHERE destination_id = ?1", [key(destination)])?;
    }
    changed(tx, tenant)
}

/// Pauses or resumes.
pub(crate) fn set_paused(
    tx: &Tx<'_>,
    tenant: TenantId,
    destination: DestinationId,
    paused: bool,
) -> Outcome<Option<Destination>> {
    let Some(found) = load(tx, tenant, destination)? else { return Ok(None) };
    let next = match (paused, found.state) {
        (true, DestinationState::Active) => DestinationState::Paused,
        (false, DestinationState::Paused | DestinationState::Disabled) => DestinationState::Active,
        // It is a change, so its circuit is tried.
        (false, DestinationState::Active) if found.circuit.state != CircuitState::Closed => DestinationState::Active,
        _ => return Ok(Some(found)),
    };
    set_state(tx, tenant, destination, next, None)?;
    load(tx, tenant, destination)
}

/// Disables one that is active or paused.
pub(crate) fn disable(tx: &Tx<'_>, tenant: TenantId, destination: DestinationId, reason: &str) -> Outcome<()> {
    match load(tx, tenant, destination)? {
        Some(found) if matches!(found.state, DestinationState::Active | DestinationState::Paused) => {
            set_state(tx, tenant, destination, DestinationState::Disabled, Some(reason))
        }
        _ => Ok(()),
    }
}

/// Marks one as deleted; the sweep does the rest.
pub(crate) fn delete(tx: &Tx<'_>, tenant: TenantId, destination: DestinationId) -> Outcome<bool> {
    if load(tx, tenant, destination)?.is_none() {
        return Ok(false);
    }
    set_state(tx, tenant, destination, DestinationState::Deleted, None)?;
    tx.unblock_lanes(destination)?;
    tx.forget_failures(destination)?;
    Ok(true)
}

/// Keeps what circuits did; what is older than that changes nothing.
pub(crate) fn record_circuits(tx: &Tx<'_>, records: &[(DestinationId, CircuitRecord)]) -> Outcome<()> {
    for (destination, record) in records {
        let kept = tx.row("SELECT circuit FROM destinations WHERE id = ?1", [key(*destination)], |row| {
            row.get::<_, Option<String>>(0)
        })?;
        let Some(kept) = kept else { continue };
        let kept: CircuitRecord =
            kept.map_or_else(|| Ok(CircuitRecord::default()), |kept| serde_json::from_str(&kept))?;
        if (record.trips, record.since) >= (kept.trips, kept.since) {
            tx.execute(
                "UPDATE destinations SET circuit = ?2, circuit_at = ?3 WHERE id = ?1",
                params![key(*destination), serde_json::to_string(record)?, tx.now.as_micros()],
            )?;
        }
    }
    Ok(())
}
