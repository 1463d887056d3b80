//! The successes of the last while, of destinations of which nothing is reported: how many of the last half minute, and whether there was any
//! for as long as a row of failures is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::Duration,
};

use signalpost_core::{DestinationId, circuit::machine::ROW_KEPT};

/// Counted in spans of that length, of which two are kept.
const SPAN: Duration = Duration::from_secs(15);
/// When so many are known to have succeeded, those that did before them are forgotten.
const MOST: usize = 65_536;

/// Two spans of counts, and two longer ones of who is in none of them any more.
#[derive(Debug, Default)]
pub(super) struct Successes {
    present: BTreeMap<DestinationId, u32>,
    before: BTreeMap<DestinationId, u32>,
    since: Duration,
    lately: BTreeSet<DestinationId>,
    earlier: BTreeSet<DestinationId>,
    lately_since: Duration,
}

impl Successes {
    pub(super) fn add(&mut self, id: DestinationId, now: Duration) {
        self.turn(now);
        let count = self.present.entry(id).or_default();
        *count = count.saturating_add(1);
    }

    /// How many there were, which are forgotten; where that was long ago, one stands for all.
    pub(super) fn take(&mut self, id: DestinationId, now: Duration) -> u32 {
        self.turn(now);
        let before = self.before.remove(&id).unwrap_or(0);
        let counted = self.present.remove(&id).unwrap_or(0).saturating_add(before);
        let (lately, earlier) = (self.lately.remove(&id), self.earlier.remove(&id));
        counted.max(u32::from(lately || earlier))
    }

    fn turn(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.since);
        if passed < SPAN {
            return;
        }
        if now.saturating_sub(self.lately_since) >= ROW_KEPT || self.lately.len() >= MOST {
            self.earlier = mem::take(&mut self.lately);
            self.lately_since = now;
        }
        let present = mem::take(&mut self.present);
        // What is counted no more is remembered.
        self.lately.extend(mem::replace(&mut self.before, present).into_keys());
        if passed >= 2 * SPAN {
            self.lately.extend(mem::take(&mut self.before).into_keys());
        }
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::destination_id;

    #[test]
    fn a_while_is_counted_and_an_hour_remembered() {
        let mut successes = Successes::default();
        let (id, other) = (destination_id(1), destination_id(2));
        for second in 0..5 {
            successes.add(id, SPAN + Duration::from_secs(second));
        }
        assert_eq!(successes.take(id, SPAN + Duration::from_secs(20)), 5);
        assert_eq!(successes.take(id, SPAN + Duration::from_secs(20)), 0, "once");
        // Others go on meanwhile, or nobody does.
        for others in [100, 0] {
            let (start, end) = (successes.since + SPAN, successes.since + ROW_KEPT);
            successes.add(id, start);
            successes.add(id, start);
            for number in 1..=others {
                successes.add(other, start + (end - start) / 100 * number);
            }
            assert_eq!(successes.take(id, end), 1);
            assert_eq!(successes.take(id, end), 0);
        }
        // It is no heap without a bottom.
        successes.add(id, successes.since);
        for hours in 1..4 {
            successes.add(other, successes.since + ROW_KEPT * hours);
        }
        assert_eq!(successes.take(id, successes.since), 0);
    }
}
