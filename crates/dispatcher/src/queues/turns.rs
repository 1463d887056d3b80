//! Whose turn it is: tenants in turn, and the destinations of each in turn, so that ten thousand destinations of one
//! tenant weigh no more than two of another.

use std::collections::{BTreeMap, VecDeque};

use signalpost_core::{DestinationId, TenantId};

/// A line of destinations.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Those with a line, each once.
    tenants: VecDeque<TenantId>,
    /// No line is empty.
    lines: BTreeMap<TenantId, VecDeque<DestinationId>>,
}

impl Turns {
    /// At the end of its tenant's line.
    pub(super) fn push(&mut self, tenant: TenantId, id: DestinationId) {
        let line = self.lines.entry(tenant).or_default();
        if line.is_empty() {
            self.tenants.push_back(tenant);
        }
        line.push_back(id);
    }

    /// The next one.
    pub(super) fn pop(&mut self) -> Option<DestinationId> {
        self.pop_of(|_| true)
    }

    /// The next one of the tenants that may.
    pub(super) fn pop_of(&mut self, may: impl Fn(TenantId) -> bool) -> Option<DestinationId> {
        let place = self.tenants.iter().position(|tenant| may(*tenant))?;
        let tenant = self.tenants.remove(place)?;
        let line = self.lines.get_mut(&tenant)?;
        let id = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&tenant);
        } else {
            self.tenants.push_back(tenant);
        }
        id
    }
}
