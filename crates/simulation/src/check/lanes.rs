//! Checks of lanes (I5): who joins where, who is open, and who stands before whom.

use std::collections::{BTreeMap, BTreeSet};

use signalpost_core::{DeadReason, DeliveryId, DeliveryState, DestinationId, EventId};

use super::{Checker, Invariant, Known, Violation};

/// A lane: a destination and a key.
pub(super) type LaneKey = (DestinationId, [u8; 16]);

/// What is known of one lane, by places.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Those that have not ended.
    open: BTreeMap<i64, DeliveryId>,
    /// Those that died and block it, as long as their destination asks for that.
    dead: BTreeMap<i64, DeliveryId>,
    /// Those that blocked it, where nobody knows whether the destination still asks for that.
    unsure: BTreeMap<i64, DeliveryId>,
    /// Those that are sent again already: they block nothing, whenever they die.
    replayed: BTreeSet<DeliveryId>,
    /// The last place that was given.
    last: i64,
}

/// One that joined a lane in this call.
pub(super) struct Joined {
    pub(super) lane: LaneKey,
    pub(super) place: i64,
    pub(super) delivery: DeliveryId,
    pub(super) event: EventId,
    pub(super) replay_of: Option<DeliveryId>,
}

impl Checker {
    /// A delivery joins its lane: at the tail, or in the place of the dead one that it replays.
    pub(super) fn joins(&mut self, joined: &Joined) -> Result<(), Violation> {
        let Joined { lane, place, delivery, replay_of, .. } = joined;
        let known = self.lanes.entry(*lane).or_default();
        let stood = [&known.dead, &known.unsure].map(|among| among.get(place).copied());
        let replaced = replay_of.filter(|of| stood.contains(&Some(*of)));
        if let Some(other) = known.open.insert(*place, *delivery) {
            let text = format!("{delivery} has the place of {other}, which has not ended");
            return Violation::of(Invariant::Order, text);
        }
        if *place <= known.last && replaced.is_none() {
            let text = format!("{delivery} joins its lane at {place}, which has come to {}", known.last);
            return Violation::of(Invariant::Order, text);
        }
        known.last = known.last.max(*place);
        if let Some(of) = replay_of {
            known.replayed.insert(*of);
            known.dead.retain(|_, dead| dead != of);
            known.unsure.retain(|_, dead| dead != of);
        }
        Ok(())
    }

    /// Those that joined in one call stand in the order of their batch, or of what they replay.
    pub(super) fn in_order(&self, joined: &[Joined]) -> Result<(), Violation> {
        let mut lanes: BTreeMap<LaneKey, Vec<&Joined>> = BTreeMap::new();
        for one in joined {
            lanes.entry(one.lane).or_default().push(one);
        }
        for together in lanes.values_mut() {
            together.sort_unstable_by_key(|one| one.place);
            for pair in together.windows(2) {
                let [one, next] = pair else { continue };
                if let (Some(first), Some(second)) = (self.origin(one), self.origin(next))
                    && first > second
                {
                    let text = format!("{} is replayed before {}, which came first", one.delivery, next.delivery);
                    return Violation::of(Invariant::Order, text);
                }
                if let (Some((request, first)), Some((other, second))) = (self.post_of(one), self.post_of(next))
                    && request == other
                    && first > second
                {
                    let text =
                        format!("{} stands before {}, which was before it in its batch", one.delivery, next.delivery);
                    return Violation::of(Invariant::Order, text);
                }
            }
        }
        Ok(())
    }

    /// Where the delivery stood that it replays: its millisecond and its place.
    fn origin(&self, joined: &Joined) -> Option<(i64, i64)> {
        let of = joined.replay_of?;
        let (_, place) = self.deliveries.get(&of)?.lane?;
        // One that takes the place of what blocked the lane stands there, before all others.
        if place == joined.place {
            return None;
        }
        Some((of.created_at().as_millis(), place))
    }

    /// The request that brought the event, and the event's place in it, as producers write them into uids.
    fn post_of(&self, joined: &Joined) -> Option<(&str, u64)> {
        let uid = self.uid_of.get(&joined.event).filter(|_| joined.replay_of.is_none())?;
        let (request, index) = uid.rsplit_once('-')?;
        Some((request, index.parse().ok()?))
    }

    /// A delivery ended.
    pub(super) fn leaves(&mut self, delivery: DeliveryId, state: DeliveryState) {
        let Some(known) = self.deliveries.get(&delivery) else { return };
        let Some((lane, place)) = known.lane else { return };
        let key = (known.destination, lane);
        // Of one that nobody was told of, nobody knows either.
        let blocks = self.destinations.get(&key.0).and_then(|expected| expected.blocks);
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        if lane.open.get(&place) == Some(&delivery) {
            lane.open.remove(&place);
            if state == DeliveryState::Dead && !lane.replayed.contains(&delivery) {
                match blocks {
                    Some(true) => lane.dead.insert(place, delivery),
                    None => lane.unsure.insert(place, delivery),
                    Some(false) => None,
                };
            }
        }
    }

    /// Why it is dead changed.
    pub(super) fn judged(&mut self, delivery: DeliveryId, reason: Option<DeadReason>) {
        let Some(known) = self.deliveries.get(&delivery).filter(|_| reason == Some(DeadReason::Discarded)) else {
            return;
        };
        let Some((lane, place)) = known.lane else { return };
        if let Some(lane) = self.lanes.get_mut(&(known.destination, lane)) {
            lane.dead.remove(&place);
            lane.unsure.remove(&place);
        }
    }

    /// A destination that blocked its lanes on dead deliveries may do so no more: it is being told.
    pub fn unblocks(&mut self, destination: DestinationId) {
        if let Some(expected) = self.destinations.get_mut(&destination)
            && expected.blocks != Some(false)
        {
            expected.blocks = None;
        }
        for ((of, _), lane) in &mut self.lanes {
            if *of == destination {
                lane.unsure.append(&mut lane.dead);
            }
        }
    }

    /// It does so no more for certain.
    pub fn unblocked(&mut self, destination: DestinationId) {
        if let Some(expected) = self.destinations.get_mut(&destination) {
            expected.blocks = Some(false);
        }
        for ((of, _), lane) in &mut self.lanes {
            if *of == destination {
                lane.unsure.clear();
            }
        }
    }

    /// Whether a delivery may start, as far as its lane goes.
    pub(super) fn may_start(&self, delivery: DeliveryId, known: &Known) -> Result<(), Violation> {
        let Some((lane, place)) = known.lane else { return Ok(()) };
        let Some(lane) = self.lanes.get(&(known.destination, lane)) else { return Ok(()) };
        if let Some((_, blocker)) = lane.dead.range(..place).next() {
            let text = format!("{delivery} starts behind {blocker}, which is dead and blocks its lane");
            return Violation::of(Invariant::Order, text);
        }
        let Some((first, earlier)) = lane.open.iter().next() else { return Ok(()) };
        if *first < place {
            let text = format!("{delivery} starts while {earlier}, which is before it in its lane, has not ended");
            return Violation::of(Invariant::Order, text);
        }
        if known.state.is_final() && known.state != DeliveryState::Cancelled {
            let text = format!("{delivery} has ended and starts again, behind {earlier} in its lane");
            return Violation::of(Invariant::Order, text);
        }
        Ok(())
    }
}
