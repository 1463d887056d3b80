//! What cases about lanes are made of.

use std::collections::BTreeMap;

use signalpost_core::{
    DeliveryId, Destination, DestinationId, Event, Guarantee, LaneId, WaitReason,
    ordering::{OnDead, Ordering, OrderingMode},
};

use super::world::{TENANT, World, attempt, delivered, targets};
use crate::{
    NEVER,
    dispatch::{DeliveryWrite, Next, Target, WriteReport, Written},
    ingest::{EventOutcome, NewEvent, Start, UnitOutcome},
    schedule::DueDelivery,
};

/// Keyed by `/ordering_key`.
pub(super) fn by_key(on_dead: OnDead) -> Ordering {
    Ordering { mode: OrderingMode::Key, on_dead, ..Ordering::default() }
}

/// Which delivery that is.
pub(super) fn of(due: &DueDelivery) -> Target {
    Target {
        delivery_id: due.delivery_id,
        tenant_id: due.tenant_id,
        destination_id: due.destination_id,
        event_id: due.event.id,
        lease: None,
    }
}

/// The one attempt of an at-most-once delivery, of which nothing is known.
pub(super) fn unknown(target: Target) -> DeliveryWrite {
    DeliveryWrite::Attempt {
        target,
        attempt: attempt(1, signalpost_core::AttemptOutcome::Interrupted),
        next: Next::Dead { reason: signalpost_core::DeadReason::UnknownOutcome },
    }
}

impl World {
    /// A destination whose deliveries are ordered.
    pub(super) async fn ordered(&self, on_dead: OnDead) -> Destination {
        let mut destination = self.new_destination(TENANT).await;
        destination.spec.ordering = by_key(on_dead);
        self.create(&destination).await;
        destination
    }

    /// An event with that key, ready for a group, with a delivery to each of these in the lane of the key.
    pub(super) async fn new_keyed(&self, key: &str, to: &[DestinationId], start: Start) -> NewEvent {
        let mut event = self.event(TENANT).await;
        event.meta.ordering_key = Some(key.to_owned());
        self.keyed(event, to, start)
    }

    /// That event with deliveries in the lane of its key.
    pub(super) fn keyed(&self, event: Event, to: &[DestinationId], start: Start) -> NewEvent {
        let lane = event.meta.ordering_key.as_deref().map(LaneId::of);
        let mut new = self.new_event(event, to, start);
        for delivery in &mut new.deliveries {
            delivery.lane = lane;
        }
        new
    }

    /// Commits one group of one unit.
    pub(super) async fn commit(&self, events: Vec<NewEvent>) -> Vec<Target> {
        let posted = events.iter().flat_map(targets).collect();
        let accepted = vec![EventOutcome::Accepted; events.len()];
        let group = self.group(vec![self.unit(TENANT, events).await]).await;
        assert_eq!(self.store.ingest(&group).await.unwrap(), [UnitOutcome::Committed(accepted)]);
        posted
    }

    /// Commits one event for one destination, in the lane of that key.
    pub(super) async fn in_lane(&self, to: &Destination, key: &str) -> Target {
        let new = self.new_keyed(key, &[to.id], Start::Queued).await;
        self.commit(vec![new]).await[0]
    }

    /// So many, one after the other.
    pub(super) async fn line(&self, to: &Destination, key: &str, count: usize) -> Vec<Target> {
        let mut line = Vec::with_capacity(count);
        for _ in 0..count {
            line.push(self.in_lane(to, key).await);
        }
        line
    }

    /// Commits one event for one destination, to be sent once at most.
    pub(super) async fn once(&self, to: &Destination, start: Start) -> Target {
        let mut new = self.new_event(self.event(TENANT).await, &[to.id], start);
        new.deliveries[0].guarantee = Guarantee::AtMostOnce;
        self.commit(vec![new]).await[0]
    }

    /// Takes all that is due: which deliveries, in the order of their ids.
    pub(super) async fn taken(&self) -> Vec<DeliveryId> {
        let mut taken: Vec<_> = self.take_all().await.into_iter().map(|due| due.delivery_id).collect();
        taken.sort();
        taken
    }

    /// Whether it waits for those before it.
    pub(super) async fn follows(&self, target: Target) -> bool {
        self.standing(target.delivery_id).await.waiting == Some((NEVER, WaitReason::Lane))
    }

    /// Writes one thing, and takes over what comes next.
    pub(super) async fn write_on(&self, write: DeliveryWrite) -> WriteReport {
        let report = self.store.write(&[write], true).await.unwrap();
        assert_eq!(report.written, [Written::Done]);
        report
    }

    /// Delivers what is due until nothing is: the deliveries in the order in which they came. Asserts that no two of a lane are
    /// there at once.
    pub(super) async fn drain(&self) -> Vec<DeliveryId> {
        let mut order = Vec::new();
        loop {
            let due = self.take_all().await;
            if due.is_empty() {
                return order;
            }
            let mut lanes: BTreeMap<_, DeliveryId> = BTreeMap::new();
            for due in due {
                if let Some(lane) = due.lane {
                    let other = lanes.insert((due.destination_id, lane), due.delivery_id);
                    assert_eq!(other, None, "{} is of the same lane", due.delivery_id);
                }
                let arrived = delivered(of(&due), due.attempts + 1);
                assert_eq!(self.write(arrived).await, Written::Done);
                order.push(due.delivery_id);
            }
        }
    }
}

/// Their ids.
pub(super) fn ids(targets: &[Target]) -> Vec<DeliveryId> {
    targets.iter().map(|target| target.delivery_id).collect()
}
