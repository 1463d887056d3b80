//! What is known of circuits (I8), from the answers of the limits themselves: what lies behind them is not believed.
//!
//! A dispatcher knows that a circuit is open once the limits told it, and for a while after it stands in the store. One that the
//! limits do not answer goes by its own picture.

use std::{collections::BTreeMap, time::Duration};

use signalpost_core::{CircuitRecord, CircuitState, DestinationId};
use signalpost_limits::{CircuitView, Owner};
use tokio::time::Instant;

use super::Checker;

/// How long the answer of the limits may be under way.
const TOLD: Duration = Duration::from_secs(1);

/// How long a record in the store may be unknown to a dispatcher that begins requests.
const RECORDED: Duration = Duration::from_secs(3);

/// A circuit, as the limits told it last.
#[derive(Debug, Clone, Default)]
pub(super) struct Circuit {
    /// Open: since when, and until when at least.
    open: Option<(Instant, Instant)>,
    /// Who was told so, and when first.
    told: BTreeMap<String, Instant>,
    /// When the store was told.
    recorded: Option<Instant>,
}

impl Circuit {
    /// For how long it has been open, where this dispatcher may send nothing now.
    fn refuses(&self, life: &str, now: Instant) -> Option<Duration> {
        let (since, until) = self.open?;
        let before = |at: &Instant, by: Duration| now.saturating_duration_since(*at) > by;
        let is_known = self.told.get(life).is_some_and(|at| before(at, TOLD))
            || self.recorded.is_some_and(|at| before(&at, RECORDED));
        (is_known && now < until).then(|| now.saturating_duration_since(since))
    }
}

impl Checker {
    /// For how long a circuit has been open, where this dispatcher may send nothing now.
    pub(super) fn circuit_refuses(&self, destination: DestinationId, life: &str, now: Instant) -> Option<Duration> {
        if self.alone.contains(&(life.to_owned(), destination)) {
            return None;
        }
        self.destinations.get(&destination)?.circuit.refuses(life, now)
    }

    /// Whose calls an owner makes.
    pub fn owner_is(&mut self, owner: Owner, life: &str) {
        self.owners.insert(owner, life.to_owned());
    }

    /// The limits answered a dispatcher that asked for circuits, or did not.
    pub fn circuits_asked(&mut self, life: &str, of: impl Iterator<Item = DestinationId>, is_answered: bool) {
        for destination in of {
            let asked = (life.to_owned(), destination);
            if is_answered {
                self.alone.remove(&asked);
            } else {
                self.alone.insert(asked);
            }
        }
    }

    /// The limits told how a circuit is.
    pub fn circuit_seen(&mut self, owner: Owner, destination: DestinationId, view: &CircuitView, now: Instant) {
        let Some(expected) = self.destinations.get_mut(&destination) else { return };
        let circuit = &mut expected.circuit;
        if view.state == CircuitState::Open {
            let since = circuit.open.map_or(now, |(since, _)| since);
            circuit.open = Some((since, now + view.open_for));
            if let Some(life) = self.owners.get(&owner) {
                circuit.told.entry(life.clone()).or_insert(now);
            }
        } else {
            *circuit = Circuit::default();
        }
    }

    /// The store was told.
    pub fn circuits_recorded(&mut self, records: &[(DestinationId, CircuitRecord)], now: Instant) {
        for (destination, record) in records {
            if record.state == CircuitState::Open
                && let Some(expected) = self.destinations.get_mut(destination)
                && expected.circuit.open.is_some()
            {
                expected.circuit.recorded.get_or_insert(now);
            }
        }
    }
}
