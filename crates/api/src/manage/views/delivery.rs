//! Deliveries, as the API shows them.

use serde::Serialize;
use signalpost_core::{
    CircuitState, DeadReason, DeliveryId, DeliveryState, DeliveryStatus, Destination, DestinationId, DestinationState,
    EventId, Timestamp, WaitReason,
};
use signalpost_store::{NEVER, read::DeliveryView};
use utoipa::ToSchema;

use super::attempt::AttemptBody;
use crate::openapi::types::{
    DeadReasonText, DeliveryIdText, DeliveryStatusText, DestinationIdText, EventIdText, TimeText, WaitingForText,
};

/// One event bound for one destination.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub struct DeliveryBody {
    #[allow(missing_docs)]
    #[schema(value_type = DeliveryIdText)]
    pub id: DeliveryId,
    /// Of which event.
    #[schema(value_type = EventIdText)]
    pub event_id: EventId,
    /// Of what type that is.
    pub event_type: String,
    /// Where to.
    #[schema(value_type = DestinationIdText)]
    pub destination_id: DestinationId,
    /// How it stands.
    #[schema(value_type = DeliveryStatusText)]
    pub status: DeliveryStatus,
    /// How many attempts are recorded.
    pub attempts: u32,
    /// When its next attempt is due; null where it is on its way, has ended, or waits for something without a time.
    #[schema(value_type = Option<TimeText>)]
    pub next_attempt_at: Option<Timestamp>,
    /// What it waits for; null where it is on its way or has ended.
    #[schema(value_type = Option<WaitingForText>)]
    pub waiting_for: Option<&'static str>,
    /// Why it failed for good; null unless it is dead.
    #[schema(value_type = Option<DeadReasonText>)]
    pub reason: Option<DeadReason>,
    /// The last attempt; null before the first.
    pub last_attempt: Option<AttemptBody>,
    /// The delivery that it sends again.
    #[schema(value_type = Option<DeliveryIdText>)]
    pub replay_of: Option<DeliveryId>,
    /// The delivery that sends it again.
    #[schema(value_type = Option<DeliveryIdText>)]
    pub replayed_by: Option<DeliveryId>,
    /// When its event was accepted: what `since` and `until` go by.
    #[schema(value_type = TimeText)]
    pub accepted_at: Timestamp,
    /// When it ended.
    #[schema(value_type = Option<TimeText>)]
    pub ended_at: Option<Timestamp>,
}

impl DeliveryBody {
    /// `held`: why its destination is not sent to, at this time.
    pub fn new(view: &DeliveryView, held: Option<Held>, now: Timestamp) -> Self {
        let (next_attempt_at, waiting_for) = waiting(view.state, view.waiting, held, now);
        Self {
            id: view.id,
            event_id: view.event_id,
            event_type: view.event_type.clone(),
            destination_id: view.destination_id,
            status: view.state.status(view.attempts),
            attempts: view.attempts,
            next_attempt_at,
            waiting_for,
            reason: view.reason,
            last_attempt: view
                .last_attempt
                .as_ref()
                .map(|attempt| AttemptBody::new(view.id, view.event_id, view.destination_id, attempt)),
            replay_of: view.replay_of,
            replayed_by: view.replayed_by,
            accepted_at: view.id.created_at(),
            ended_at: view.ended_at,
        }
    }
}

/// Why a destination is not sent to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It is paused or disabled.
    Paused,
    /// Its circuit is not closed.
    Circuit,
}

impl Held {
    /// None: it is sent to.
    pub fn of(destination: &Destination) -> Option<Self> {
        match (destination.state, destination.circuit.state) {
            (DestinationState::Paused | DestinationState::Disabled, _) => Some(Self::Paused),
            (_, CircuitState::Open | CircuitState::HalfOpen) => Some(Self::Circuit),
            (DestinationState::Active | DestinationState::Deleted, CircuitState::Closed) => None,
        }
    }
}

/// Until when a delivery waits, and for what. A destination that is not sent to explains it better than the reason of the
/// row, and a due time that only anchors (a turn, a request that is out) is none of an attempt.
fn waiting(
    state: DeliveryState,
    row: Option<(Timestamp, WaitReason)>,
    held: Option<Held>,
    now: Timestamp,
) -> (Option<Timestamp>, Option<&'static str>) {
    let Some((due, reason)) = row.filter(|_| state == DeliveryState::Waiting) else { return (None, None) };
    match reason {
        WaitReason::InFlight => (None, None),
        _ if held == Some(Held::Paused) => (None, Some("paused")),
        // Not before others of its lane have ended, whatever it waited for when it was its turn.
        _ if due == NEVER => (None, Some("lane")),
        // It could go, but for the circuit.
        _ if held == Some(Held::Circuit) && due <= now => (None, Some("circuit")),
        WaitReason::Retry | WaitReason::RateLimit | WaitReason::Slot | WaitReason::Circuit => {
            (Some(due), Some(reason.as_str()))
        }
        // Resumed, or the first of its lane by now: it is due, and only its turn is missing.
        WaitReason::Turn | WaitReason::Paused | WaitReason::Lane => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openapi::types::WAITING_FOR;

    #[test]
    fn what_a_delivery_waits_for() {
        let due = Timestamp::from_millis(5);
        let at = |now: i64, reason, held| {
            waiting(DeliveryState::Waiting, Some((due, reason)), held, Timestamp::from_millis(now))
        };
        let shown = |reason, paused: bool| at(4, reason, paused.then_some(Held::Paused));
        assert_eq!(shown(WaitReason::Retry, false), (Some(due), Some("retry")));
        assert_eq!(shown(WaitReason::Retry, true), (None, Some("paused")));
        assert_eq!(shown(WaitReason::Turn, false), (None, None));
        assert_eq!(shown(WaitReason::Turn, true), (None, Some("paused")));
        assert_eq!(shown(WaitReason::InFlight, true), (None, None));
        let shown_behind = |reason, paused: bool| {
            waiting(DeliveryState::Waiting, Some((NEVER, reason)), paused.then_some(Held::Paused), due)
        };
        assert_eq!(shown_behind(WaitReason::Lane, false), (None, Some("lane")));
        assert_eq!(shown_behind(WaitReason::Turn, false), (None, Some("lane")));
        assert_eq!(shown_behind(WaitReason::Lane, true), (None, Some("paused")));
        assert_eq!(at(4, WaitReason::Retry, Some(Held::Circuit)), (Some(due), Some("retry")));
        assert_eq!(at(5, WaitReason::Retry, Some(Held::Circuit)), (None, Some("circuit")));
        assert_eq!(at(6, WaitReason::Turn, Some(Held::Circuit)), (None, Some("circuit")));
        assert_eq!(at(4, WaitReason::Turn, Some(Held::Circuit)), (None, None), "it is fed: a probe");
        assert_eq!(waiting(DeliveryState::Dead, Some((due, WaitReason::Retry)), None, due), (None, None));
        assert_eq!(waiting(DeliveryState::Queued, None, Some(Held::Paused), due), (None, None));
    }

    #[test]
    fn every_name_is_documented() {
        for reason in WaitReason::ALL {
            for held in [None, Some(Held::Paused), Some(Held::Circuit)] {
                let now = Timestamp::default();
                let (_, name) = waiting(DeliveryState::Waiting, Some((now, *reason)), held, now);
                assert!(name.is_none_or(|name| WAITING_FOR.contains(&name)), "{reason}");
            }
        }
    }
}
