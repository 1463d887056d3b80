//! The successes of the last while, of destinations of which nothing is reported.

use std::{collections::BTreeMap, mem, time::Duration};

use signalpost_core::DestinationId;

/// Counted in spans of that length, of which two are kept.
const SPAN: Duration = Duration::from_secs(15);

/// Two spans.
#[derive(Debug, Default)]
pub(super) struct Successes {
    present: BTreeMap<DestinationId, u32>,
    before: BTreeMap<DestinationId, u32>,
    since: Duration,
}

impl Successes {
    pub(super) fn add(&mut self, id: DestinationId, now: Duration) {
        self.turn(now);
        let count = self.present.entry(id).or_default();
        *count = count.saturating_add(1);
    }

    /// How many there were, which are forgotten.
    pub(super) fn take(&mut self, id: DestinationId, now: Duration) -> u32 {
        self.turn(now);
        let before = self.before.remove(&id).unwrap_or(0);
        self.present.remove(&id).unwrap_or(0).saturating_add(before)
    }

    fn turn(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.since);
        if passed >= SPAN {
            self.before = mem::take(&mut self.present);
            self.since = now;
        }
        if passed >= 2 * SPAN {
            self.before.clear();
        }
    }
}
