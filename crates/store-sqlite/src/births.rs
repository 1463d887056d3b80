//! Deliveries that are born in the store: rows, links between a delivery and its replay, and the return of an event
//! that only a dead letter still has.

use rusqlite::params;
use signalpost_core::{DeliveryId, DeliveryState, DestinationId, EventId, TenantId, WaitReason};
use signalpost_store::dispatch::Target;

use crate::{columns::key, failure::Outcome, tx::Tx};

impl Tx<'_> {
    /// Writes the row of a new delivery.
    pub(crate) fn insert_delivery(
        &self,
        target: &Target,
        state: DeliveryState,
        replay_of: Option<DeliveryId>,
    ) -> Outcome<()> {
        self.execute(
            "INSERT INTO deliveries (id, tenant_id, event_id, destination_id, state, replay_of)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                key(target.delivery_id),
                key(target.tenant_id),
                key(target.event_id),
                key(target.destination_id),
                state as u8,
                replay_of.map(key)
            ],
        )?;
        Ok(())
    }

    /// Creates a delivery that waits for its turn, due now. As a replay, it takes the old one's place: that one is
    /// linked to it, and is no dead letter any more.
    pub(crate) fn give_birth(
        &self,
        tenant_id: TenantId,
        event_id: EventId,
        destination_id: DestinationId,
        replay_of: Option<DeliveryId>,
    ) -> Outcome<DeliveryId> {
        let delivery_id = DeliveryId::new(event_id.created_at(), self.entropy);
        let target = Target { delivery_id, tenant_id, destination_id, event_id };
        self.insert_delivery(&target, DeliveryState::Waiting, replay_of)?;
        self.anchor(&target, DeliveryState::Queued, self.now, WaitReason::Turn)?;
        if let Some(old) = replay_of {
            self.execute("UPDATE deliveries SET replayed_by = ?2 WHERE id = ?1", params![key(old), key(delivery_id)])?;
            self.execute("DELETE FROM dead_letters WHERE delivery_id = ?1", [key(old)])?;
        }
        Ok(delivery_id)
    }

    /// Makes sure that the event of a delivery is there, from the copy in `dead_letters` where it must be. False where
    /// there is neither.
    pub(crate) fn revive_event(&self, event: EventId, delivery: DeliveryId) -> Outcome<bool> {
        if self.row("SELECT 1 FROM events WHERE id = ?1", [key(event)], |_| Ok(()))?.is_some() {
            return Ok(true);
        }
        let revived = self.execute(
            "INSERT INTO events (id, tenant_id, type, uid, source, meta, data)
             SELECT event_id, tenant_id, event_type, event_uid, event_source, event_meta, event_data
             FROM dead_letters WHERE delivery_id = ?1 AND event_id = ?2",
            params![key(delivery), key(event)],
        )?;
        Ok(revived > 0)
    }

    /// Whether deliveries may be created for this destination of this tenant: it is there and not deleted.
    pub(crate) fn takes_replays(&self, tenant: TenantId, destination: DestinationId) -> Outcome<bool> {
        let found = self.row(
            "SELECT 1 FROM destinations WHERE id = ?1 AND tenant_id = ?2 AND state <> 'deleted'",
            params![key(destination), key(tenant)],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }
}
