//! What a circuit that is not simply closed lets through.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use signalpost_core::DestinationId;

/// Of one destination; where there is none, everything goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Nothing. What comes before `until` goes to the store for that long; what comes later waits for an answer.
    Open {
        /// By the process's clock.
        until: Duration,
    },
    /// So many more requests, to try. What else there is waits for an answer.
    Trying {
        /// Not yet begun.
        left: u32,
    },
    /// As many out at once.
    Ramp {
        /// At least 1.
        most: u32,
    },
}

impl Gate {
    /// How many may be out, when so many are.
    pub(super) fn most(self, in_flight: usize) -> usize {
        match self {
            Self::Open { .. } => in_flight,
            Self::Trying { left } => in_flight.saturating_add(as_usize(left)),
            Self::Ramp { most } => as_usize(most).max(1),
        }
    }

    /// For how long nothing goes through for certain.
    pub(super) fn shut_for(self, now: Duration) -> Duration {
        match self {
            Self::Open { until } => until.saturating_sub(now),
            Self::Trying { .. } | Self::Ramp { .. } => Duration::ZERO,
        }
    }

    /// Whether the circuit is what its destination's jobs wait for.
    pub(super) const fn holds(self) -> bool {
        !matches!(self, Self::Ramp { .. })
    }
}

/// Which circuits are open, for tasks: what they were started under may have changed since. The queues write, tasks read.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenCircuits(Arc<Mutex<BTreeSet<DestinationId>>>);

impl OpenCircuits {
    pub(super) fn note(&self, id: DestinationId, gate: Option<Gate>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Gate::Open { .. }) = gate {
            open.insert(id);
        } else {
            open.remove(&id);
        }
    }

    /// Whether that of this destination is.
    pub(crate) fn contains(&self, id: DestinationId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }
}

fn as_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
