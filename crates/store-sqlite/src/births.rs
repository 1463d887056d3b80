//! Deliveries that are born in the store: rows, links between a delivery and its replay, and the return of an event
//! that only a dead letter still has.

use std::sync::LazyLock;

use rusqlite::params;
use signalpost_core::{
    DeliveryId, DeliveryState, DestinationId, EventId, Guarantee, LaneId, TenantId, Timestamp, WaitReason,
    ordering::{LaneKeys, OrderingMode},
};
use signalpost_store::dispatch::Target;

use crate::{
    columns::{self, EVENT, key},
    destinations,
    failure::Outcome,
    rows::Insert,
    tx::{Place, Tx},
};

/// What is fixed for a delivery at its birth, beside its ids.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Terms {
    pub(crate) replay_of: Option<DeliveryId>,
    pub(crate) place: Option<Place>,
    pub(crate) guarantee: Guarantee,
    pub(crate) born_at: Option<Timestamp>,
}

/// A new delivery.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Birth {
    pub(crate) target: Target,
    pub(crate) state: DeliveryState,
    pub(crate) terms: Terms,
}

static DELIVERIES: LazyLock<Insert> = LazyLock::new(|| {
    let into = "INSERT OR FAIL INTO deliveries (id, tenant_id, event_id, destination_id, state, replay_of, lane, \
                lane_seq, guarantee, born_at)";
    Insert::new(into, 10)
});

impl Tx<'_> {
    /// Writes the rows of new deliveries; best in the order of their ids.
    pub(crate) fn insert_deliveries(&self, births: &[Birth]) -> Outcome<()> {
        self.insert(&DELIVERIES, births, |Birth { target, state, terms }, values| {
            values.bind(key(target.delivery_id))?;
            values.bind(key(target.tenant_id))?;
            values.bind(key(target.event_id))?;
            values.bind(key(target.destination_id))?;
            values.bind(*state as u8)?;
            values.bind(terms.replay_of.map(key))?;
            values.bind(terms.place.map(|place| *place.lane.as_bytes()))?;
            values.bind(terms.place.map(|place| place.seq))?;
            values.bind(terms.guarantee as u8)?;
            values.bind(terms.born_at.map(Timestamp::as_micros))
        })
    }

    /// Writes the row of a new delivery that waits.
    fn insert_waiting(&self, target: Target, terms: Terms) -> Outcome<()> {
        self.insert_deliveries(&[Birth { target, state: DeliveryState::Waiting, terms }])
    }

    /// Creates a delivery of a large fan-out, due now. Its event is its birth; lanes are not expanded later.
    pub(crate) fn expand(&self, tenant_id: TenantId, event_id: EventId, destination_id: DestinationId) -> Outcome<()> {
        let delivery_id = DeliveryId::new(event_id.created_at(), self.entropy);
        let target = Target { delivery_id, tenant_id, destination_id, event_id, lease: None };
        let spec = destinations::present_spec(self.connection, destination_id)?;
        let terms =
            Terms { guarantee: spec.map_or_else(Guarantee::default, |spec| spec.guarantee), ..Terms::default() };
        self.insert_waiting(target, terms)?;
        self.anchor(&target, DeliveryState::Queued, self.now, WaitReason::Turn)
    }

    /// Sends an event (again): a new delivery, due now as far as its lane allows. As a replay it keeps lane and guarantee of the
    /// old one, which is linked to it and is no dead letter any more. It joins its lane at the tail; but where the old one blocks
    /// the lane, it takes its place.
    pub(crate) fn give_birth(
        &self,
        tenant_id: TenantId,
        event_id: EventId,
        destination_id: DestinationId,
        replay_of: Option<DeliveryId>,
    ) -> Outcome<DeliveryId> {
        let delivery_id = DeliveryId::new(event_id.created_at(), self.entropy);
        let target = Target { delivery_id, tenant_id, destination_id, event_id, lease: None };
        let before = replay_of.map_or(Ok(None), |old| self.terms_of(old))?;
        let (lane, old_place, guarantee) = match before {
            Some((place, guarantee)) => (place.map(|place| place.lane), place, guarantee),
            None => {
                let (lane, guarantee) = self.present_terms(event_id, destination_id)?;
                (lane, None, guarantee)
            }
        };
        let place = match (lane, old_place, replay_of) {
            (None, ..) => {
                self.anchor(&target, DeliveryState::Queued, self.now, WaitReason::Turn)?;
                None
            }
            (Some(_), Some(place), Some(old)) if self.take_place(&target, place, old)? => Some(place),
            (Some(lane), ..) => Some(self.join_lane(&target, lane, WaitReason::Turn)?),
        };
        let terms = Terms { replay_of, place, guarantee, born_at: Some(self.now) };
        self.insert_waiting(target, terms)?;
        if let Some(old) = replay_of {
            self.execute("UPDATE deliveries SET replayed_by = ?2 WHERE id = ?1", params![key(old), key(delivery_id)])?;
            self.execute("DELETE FROM dead_letters WHERE delivery_id = ?1", [key(old)])?;
        }
        Ok(delivery_id)
    }

    /// What was fixed for a delivery, as itself or its dead letter tells.
    fn terms_of(&self, delivery: DeliveryId) -> Outcome<Option<(Option<Place>, Guarantee)>> {
        self.row(
            "SELECT lane, lane_seq, guarantee FROM deliveries WHERE id = ?1
             UNION ALL SELECT lane, lane_seq, guarantee FROM dead_letters WHERE delivery_id = ?1 LIMIT 1",
            [key(delivery)],
            |row| Ok((columns::place(row, 0)?, columns::guarantee(row, 2)?)),
        )
    }

    /// What its destination asks for now.
    fn present_terms(&self, event: EventId, destination: DestinationId) -> Outcome<(Option<LaneId>, Guarantee)> {
        let Some(spec) = destinations::present_spec(self.connection, destination)? else {
            return Ok((None, Guarantee::default()));
        };
        if spec.ordering.mode == OrderingMode::None {
            return Ok((None, spec.guarantee));
        }
        let mut statement = self.prepare(&format!("SELECT {EVENT} FROM events e WHERE e.id = ?1"))?;
        let mut rows = statement.query([key(event)])?;
        let lane = match rows.next()? {
            Some(row) => LaneKeys::new(&columns::event(row, 0)?).lane(&spec.ordering),
            None => None,
        };
        Ok((lane, spec.guarantee))
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
