//! What a write makes of a delivery. Pure.

use signalpost_core::{
    AttemptOutcome, DeadReason, DeliveryId, DeliveryState, DestinationId, EventId, TenantId, WaitReason,
};
use signalpost_store::dispatch::{Attempt, DeliveryWrite, Next};

use crate::queues::micros;

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
    /// A request of it is out, detached, and its deadline has not passed.
    pub(super) in_flight: bool,
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
    },
}

/// None: superseded.
pub(super) fn decide<'w>(found: &Found, write: &'w DeliveryWrite) -> Option<Change<'w>> {
    if found.state.is_final() || found.tenant_id != write.target().tenant_id {
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
                Next::Retry { after } => To::Waiting { due_us: micros(*after), reason: WaitReason::Retry, hold: false },
            };
            Some(Change { attempt: Some(attempt), to })
        }
        // It was decided before the request went out; the request's outcome or its deadline brings the delivery on.
        DeliveryWrite::Park { .. } if found.in_flight => None,
        DeliveryWrite::Park { reason, after, hold_queue, .. } => Some(Change {
            attempt: None,
            to: To::Waiting { due_us: micros(*after), reason: *reason, hold: *hold_queue },
        }),
        // Never in the place of an interrupted one: what waits now is the next.
        DeliveryWrite::Detach { attempt, deadline, .. } => found.is_next(*attempt).then_some(Change {
            attempt: None,
            to: To::Waiting { due_us: micros(*deadline), reason: WaitReason::InFlight, hold: false },
        }),
        DeliveryWrite::End { dead, .. } => Some(Change { attempt: None, to: dead.map_or(To::Cancelled, To::Dead) }),
    }
}

impl Found {
    fn is_next(&self, number: u32) -> bool {
        number == self.attempts.saturating_add(1)
    }

    /// Whether an attempt with that number may be recorded: it is the next one, or takes the place of the last one,
    /// which nobody knew the outcome of.
    fn takes(&self, number: u32) -> bool {
        self.is_next(number) || (number == self.attempts && self.last_outcome == Some(AttemptOutcome::Interrupted))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use signalpost_core::{Timestamp, id::Id};
    use signalpost_store::dispatch::Target;

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
            in_flight: false,
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
}
