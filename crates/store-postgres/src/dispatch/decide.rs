//! What a write makes of a delivery. Pure.

use signalpost_core::{
    AttemptOutcome, DeadReason, DeliveryId, DeliveryState, DestinationId, EventId, Guarantee, LaneId, TenantId,
    Timestamp, WaitReason,
};
use signalpost_store::{
    HANDOVER_LEASE,
    dispatch::{Attempt, DeliveryWrite, Next},
};

use crate::{lanes::LaneKey, queues::micros};

/// A delivery as it is stored, locked.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) delivery_id: DeliveryId,
    pub(super) tenant_id: TenantId,
    pub(super) destination_id: DestinationId,
    pub(super) event_id: EventId,
    pub(super) event_type: String,
    pub(super) state: DeliveryState,
    pub(super) attempts: u32,
    /// It was sent again already, before it ended: when it dies, it is no dead letter.
    pub(super) is_replayed: bool,
    /// Of the attempt with the number `attempts`.
    pub(super) last_outcome: Option<AttemptOutcome>,
    /// Nothing has arrived at its destination for a while.
    pub(super) was_failing: bool,
    pub(super) guarantee: Guarantee,
    pub(super) lane: Option<LaneId>,
    pub(super) place: Option<i64>,
    /// Its row in `waiting`; read only where it matters.
    pub(super) waits: Option<Waits>,
}

/// How a delivery waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    pub(super) reason: WaitReason,
    /// Microseconds; not positive where it is due. None: it follows others in its lane.
    pub(super) due_us: Option<i64>,
    /// The same by the store's clock: where it is leased, the mark of its lease.
    pub(super) due_at: Timestamp,
    pub(super) leased: bool,
    /// Of the one request that an at-most-once delivery gets.
    pub(super) claim: Option<i64>,
}

impl Waits {
    /// A request of it is out, detached or claimed, and its deadline has not passed.
    fn request_is_out(&self) -> bool {
        self.reason == WaitReason::InFlight && self.due_us.is_some_and(|due_us| due_us > 0)
    }

    /// Whether a dispatcher may have it, to send it, under another lease than this. One whose request was out is leased to be
    /// recorded, and one with a longer lease is on the bus.
    fn is_anothers(&self, mark: Timestamp) -> bool {
        let may_be_taken = self.leased && self.due_us.is_some_and(|left| left > 0 && left <= micros(HANDOVER_LEASE));
        may_be_taken && self.due_at != mark && self.reason != WaitReason::InFlight
    }

    /// Whether the one who parks it knows how it stands. Not one who decided it before a request went out that is detached
    /// or claimed now, or before an attempt after which it pauses; nor is a follower in a lane anybody's to park. Who gives back
    /// its claim knows; but for one that was fed past its deadline, to end as unknown.
    fn may_be_parked(&self, after_us: i64, claim: Option<i64>) -> bool {
        let Some(due_us) = self.due_us else { return false };
        if self.claim.is_some() {
            return self.claim == claim && !self.leased;
        }
        let pauses = self.reason == WaitReason::Retry && !self.leased && due_us > after_us;
        !self.request_is_out() && !pauses
    }

    /// Whether that request may go out: none is out, as far as anybody can know, and no other one holds the claim. Once its
    /// deadline has passed and it was fed, it is about to end as unknown.
    fn may_be_claimed(&self, claim: i64) -> bool {
        match self.claim {
            _ if self.due_us.is_none() => false,
            None => !self.request_is_out(),
            Some(holder) => holder == claim && !self.leased,
        }
    }
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change<'w> {
    /// A request to record.
    pub(super) attempt: Option<&'w Attempt>,
    /// Where the delivery goes.
    pub(super) to: To,
}

/// Where a delivery goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    Delivered,
    Cancelled,
    Dead(DeadReason),
    /// Due after that many microseconds. `hold`: and its queue not before.
    Waiting {
        due_us: i64,
        reason: WaitReason,
        hold: bool,
        /// The request for which it waits, at most once.
        claim: Option<i64>,
    },
    /// It still follows others in its lane.
    Following,
}

impl To {
    const fn waiting(due_us: i64, reason: WaitReason) -> Self {
        Self::Waiting { due_us, reason, hold: false, claim: None }
    }

    /// Nothing follows.
    pub(super) const fn is_end(self) -> bool {
        matches!(self, Self::Delivered | Self::Cancelled | Self::Dead(_))
    }
}

/// None: superseded.
pub(super) fn decide<'w>(found: &Found, write: &'w DeliveryWrite) -> Option<Change<'w>> {
    if found.state.is_final() || found.tenant_id != write.target().tenant_id {
        return None;
    }
    if let (Some(mark), Some(waits)) = (write.target().lease, found.waits)
        && waits.is_anothers(mark)
    {
        return None;
    }
    match write {
        DeliveryWrite::Attempt { attempt, next, .. } => {
            // An interrupted attempt that is recorded already: no news.
            let repeated = attempt.outcome == AttemptOutcome::Interrupted && attempt.number == found.attempts;
            if repeated || !found.takes(attempt.number) {
                return None;
            }
            let to = match next {
                Next::Delivered => To::Delivered,
                Next::Dead { reason } => To::Dead(*reason),
                Next::Retry { .. } if found.is_follower() => To::Following,
                Next::Retry { after } => To::waiting(micros(*after), WaitReason::Retry),
            };
            Some(Change { attempt: Some(attempt), to })
        }
        DeliveryWrite::Park { reason, after, hold_queue, claim, .. } => {
            let (due_us, claim) = (micros(*after), claim.map(u64::cast_signed));
            found.waits.is_none_or(|waits| waits.may_be_parked(due_us, claim)).then_some(Change {
                attempt: None,
                to: To::Waiting { due_us, reason: *reason, hold: *hold_queue, claim: None },
            })
        }
        // Never in the place of an interrupted one: what waits now is the next.
        DeliveryWrite::Detach { attempt, deadline, .. } => (found.is_next(*attempt) && !found.is_follower())
            .then_some(Change { attempt: None, to: To::waiting(micros(*deadline), WaitReason::InFlight) }),
        DeliveryWrite::Claim { claim, deadline, .. } => {
            let (claim, due_us) = (claim.cast_signed(), micros(*deadline));
            let is_free = found.guarantee == Guarantee::AtMostOnce
                && found.attempts == 0
                && found.waits.is_none_or(|waits| waits.may_be_claimed(claim));
            is_free.then_some(Change {
                attempt: None,
                to: To::Waiting { due_us, reason: WaitReason::InFlight, hold: false, claim: Some(claim) },
            })
        }
        DeliveryWrite::End { dead, .. } => Some(Change { attempt: None, to: dead.map_or(To::Cancelled, To::Dead) }),
    }
}

impl Found {
    /// Its lane, with its destination.
    pub(super) fn lane_key(&self) -> Option<LaneKey> {
        self.lane.map(|lane| (self.destination_id, lane))
    }

    fn is_follower(&self) -> bool {
        self.waits.is_some_and(|waits| waits.due_us.is_none())
    }

    fn is_next(&self, number: u32) -> bool {
        number == self.attempts.saturating_add(1)
    }

    /// Whether an attempt with that number may be recorded: it is the next one, or takes the place of the last one,
    /// which nobody knew the outcome of; in a lane only while nobody may be sending it again.
    fn takes(&self, number: u32) -> bool {
        let was_interrupted = number == self.attempts && self.last_outcome == Some(AttemptOutcome::Interrupted);
        self.is_next(number) || (was_interrupted && !(self.lane.is_some() && self.is_in_hand()))
    }

    /// Somebody has it for its next attempt.
    fn is_in_hand(&self) -> bool {
        self.waits.is_some_and(|waits| waits.leased || waits.request_is_out())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use signalpost_core::id::Id;
    use signalpost_store::{NEVER, dispatch::Target};

    use super::*;

    fn found(state: DeliveryState, attempts: u32, last_outcome: Option<AttemptOutcome>) -> Found {
        let at = Timestamp::from_millis(1);
        Found {
            delivery_id: Id::floor(at),
            tenant_id: TenantId::DEFAULT,
            destination_id: Id::floor(at),
            event_id: Id::floor(at),
            event_type: "a".to_owned(),
            state,
            attempts,
            is_replayed: false,
            last_outcome,
            was_failing: false,
            guarantee: Guarantee::AtLeastOnce,
            lane: None,
            place: None,
            waits: None,
        }
    }

    fn attempt(number: u32) -> DeliveryWrite {
        let at = Timestamp::from_millis(1);
        DeliveryWrite::Attempt {
            target: Target {
                delivery_id: Id::floor(at),
                tenant_id: TenantId::DEFAULT,
                destination_id: Id::floor(at),
                event_id: Id::floor(at),
                lease: None,
            },
            attempt: Attempt {
                number,
                started_at: at,
                duration: Duration::ZERO,
                outcome: AttemptOutcome::Delivered,
                status_code: Some(200),
                response_excerpt: Bytes::new(),
                error: None,
            },
            next: Next::Delivered,
        }
    }

    #[test]
    fn only_the_next_attempt_counts_or_the_one_that_was_interrupted() {
        let interrupted = Some(AttemptOutcome::Interrupted);
        for (state, attempts, last, number, accepted) in [
            (DeliveryState::Queued, 0, None, 1, true),
            (DeliveryState::Queued, 0, None, 2, false),
            (DeliveryState::Waiting, 1, Some(AttemptOutcome::Retry), 1, false),
            (DeliveryState::Waiting, 1, Some(AttemptOutcome::Retry), 2, true),
            (DeliveryState::Waiting, 1, interrupted, 1, true),
            (DeliveryState::Waiting, 2, interrupted, 1, false),
            (DeliveryState::Waiting, 2, interrupted, 2, true),
            (DeliveryState::Delivered, 1, Some(AttemptOutcome::Delivered), 2, false),
            (DeliveryState::Cancelled, 0, None, 1, false),
        ] {
            let write = attempt(number);
            let change = decide(&found(state, attempts, last), &write);
            assert_eq!(change.is_some(), accepted, "{state:?} {attempts} {last:?} {number}");
        }
    }

    #[test]
    fn what_a_lane_sends_again_is_not_ended_by_what_came_late() {
        let mut found = found(DeliveryState::Waiting, 1, Some(AttemptOutcome::Interrupted));
        for (waits, in_lane) in [
            (waits(WaitReason::Retry, Some(0), false, None), true),
            (waits(WaitReason::Retry, Some(9), true, None), false),
            (waits(WaitReason::InFlight, Some(9), false, None), false),
            (waits(WaitReason::InFlight, Some(-9), false, None), true),
        ] {
            found.waits = Some(waits);
            found.lane = None;
            assert!(decide(&found, &attempt(1)).is_some(), "{waits:?}");
            found.lane = Some(LaneId::of("a"));
            assert_eq!(decide(&found, &attempt(1)).is_some(), in_lane, "{waits:?}");
            assert!(decide(&found, &attempt(2)).is_some(), "{waits:?}");
        }
    }

    fn waits(reason: WaitReason, due_us: Option<i64>, leased: bool, claim: Option<i64>) -> Waits {
        let due_at = due_us.map_or(NEVER, Timestamp::from_micros);
        Waits { reason, due_us, due_at, leased, claim }
    }

    #[test]
    fn what_another_has_in_a_lane_is_not_written_however_late() {
        let mut found = found(DeliveryState::Waiting, 0, None);
        found.lane = Some(LaneId::of("a"));
        for (waits, mark, accepted) in [
            (waits(WaitReason::Turn, Some(9), true, None), 9, true),
            (waits(WaitReason::Turn, Some(9), true, None), 3, false),
            (waits(WaitReason::Turn, Some(-9), true, None), 3, true),
            (waits(WaitReason::Turn, Some(60_000_000), true, None), 3, true),
            (waits(WaitReason::Turn, Some(0), false, None), -9, true),
            (waits(WaitReason::InFlight, Some(9), false, None), 3, true),
            (waits(WaitReason::InFlight, Some(9), true, None), 3, true),
        ] {
            found.waits = Some(waits);
            let mut write = attempt(1);
            assert!(decide(&found, &write).is_some(), "who names no lease: {waits:?}");
            let DeliveryWrite::Attempt { target, .. } = &mut write else { unreachable!() };
            target.lease = Some(Timestamp::from_micros(mark));
            assert_eq!(decide(&found, &write).is_some(), accepted, "{waits:?} {mark}");
        }
    }

    #[test]
    fn who_does_not_know_how_it_waits_does_not_park_it() {
        for (waits, after_us, accepted) in [
            (waits(WaitReason::Turn, Some(0), true, None), 5, true),
            (waits(WaitReason::Slot, Some(9), false, None), 5, true),
            (waits(WaitReason::Retry, Some(9), true, None), 5, true),
            (waits(WaitReason::Retry, Some(9), false, None), 5, false),
            (waits(WaitReason::Retry, Some(9), false, None), 10, true),
            (waits(WaitReason::InFlight, Some(9), false, None), 5, false),
            (waits(WaitReason::InFlight, Some(-9), true, None), 5, true),
            (waits(WaitReason::InFlight, Some(-9), true, Some(1)), 5, false),
            (waits(WaitReason::Lane, None, false, None), 5, false),
        ] {
            assert_eq!(waits.may_be_parked(after_us, None), accepted, "{waits:?} {after_us}");
        }
        // Its own claim is given back, until it is about to end.
        for (leased, claim, accepted) in [(false, 7, true), (false, 8, false), (true, 7, false)] {
            let waits = waits(WaitReason::InFlight, Some(9), leased, Some(7));
            assert_eq!(waits.may_be_parked(0, Some(claim)), accepted, "{waits:?} {claim}");
        }
    }

    #[test]
    fn only_one_request_is_ever_claimed() {
        for (waits, accepted) in [
            (waits(WaitReason::Turn, Some(9), true, None), true),
            (waits(WaitReason::InFlight, Some(9), false, None), false),
            (waits(WaitReason::InFlight, Some(9), false, Some(7)), true),
            (waits(WaitReason::InFlight, Some(9), false, Some(8)), false),
            (waits(WaitReason::InFlight, Some(-9), false, Some(8)), false),
            (waits(WaitReason::InFlight, Some(-9), true, Some(7)), false),
            (waits(WaitReason::Lane, None, false, None), false),
        ] {
            assert_eq!(waits.may_be_claimed(7), accepted, "{waits:?}");
        }
    }
}
