//! What is known of circuits (I8), from the answers of the limits themselves: what lies behind them is not believed.

use std::time::Duration;

use signalpost_core::{CircuitState, DestinationId};
use signalpost_limits::CircuitView;
use tokio::time::Instant;

use super::Checker;

/// How long after its opening a circuit may still be unknown to a dispatcher that had nothing to report.
const UNKNOWN: Duration = Duration::from_secs(3);

/// A circuit, as the limits told it last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circuit {
    /// Open: since when, and until when at least.
    open: Option<(Instant, Instant)>,
}

impl Circuit {
    /// For how long it has been open, where nothing may be sent now.
    pub(super) fn refuses(&self, now: Instant) -> Option<Duration> {
        let (since, until) = self.open?;
        let open = now.saturating_duration_since(since);
        (open > UNKNOWN && now < until).then_some(open)
    }
}

impl Checker {
    /// The limits told how a circuit is.
    pub fn circuit_seen(&mut self, destination: DestinationId, view: &CircuitView, now: Instant) {
        let Some(expected) = self.destinations.get_mut(&destination) else { return };
        let before = expected.circuit.and_then(|circuit| circuit.open);
        let until = now + view.open_for;
        let open = (view.state == CircuitState::Open).then(|| (before.map_or(now, |(since, _)| since), until));
        expected.circuit = Some(Circuit { open });
    }
}
