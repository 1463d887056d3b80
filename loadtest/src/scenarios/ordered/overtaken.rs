//! What order means, by the receiver's log alone.

use std::{collections::BTreeMap, time::Duration};

use crate::{ledger::Posted, receiver::Entry};

/// The requests of one delivery.
#[derive(Debug, Clone, Copy)]
struct Span {
    first_start: Duration,
    /// None while one of them is in progress.
    last_end: Option<Duration>,
}

/// A delivery that started before an earlier one of its lane had ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Overtaking {
    /// Its lane.
    pub lane: u32,
    /// The number of the earlier one's event.
    pub earlier: u64,
    /// The number of its own.
    pub later: u64,
    /// How long before the end of the earlier one; the longest time where that has not come.
    pub by: Duration,
}

/// Every delivery that started before an earlier one of its lane ended; `posted` has the lane as its group, and within a
/// lane numbers follow acceptance. A second request for the earlier one, at any later time, is found, too: it ends
/// after the later one's start.
pub fn overtakings(posted: &[(u64, Posted)], log: &[Entry]) -> Vec<Overtaking> {
    let mut spans: BTreeMap<u64, Span> = BTreeMap::new();
    for entry in log {
        let Some(number) = entry.number else { continue };
        let span = Span { first_start: entry.start, last_end: entry.end };
        let known = spans.entry(number).or_insert(span);
        known.first_start = known.first_start.min(entry.start);
        known.last_end = known.last_end.zip(entry.end).map(|(one, other)| one.max(other));
    }
    // By number, so each lane is walked in the order of acceptance; with the latest end so far, and whose it is.
    let mut lanes: BTreeMap<u32, (u64, Duration)> = BTreeMap::new();
    let mut found = Vec::new();
    for (number, posted) in posted {
        let Some(span) = spans.get(number) else { continue };
        let end = span.last_end.unwrap_or(Duration::MAX);
        match lanes.get_mut(&posted.group) {
            Some((earlier, latest)) => {
                if span.first_start < *latest {
                    let by = latest.saturating_sub(span.first_start);
                    found.push(Overtaking { lane: posted.group, earlier: *earlier, later: *number, by });
                }
                if end > *latest {
                    (*earlier, *latest) = (*number, end);
                }
            }
            None => {
                lanes.insert(posted.group, (*number, end));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::overtakings;
    use crate::{ledger::Posted, receiver::Entry};

    fn request(number: u64, start: u64, end: Option<u64>) -> Entry {
        Entry {
            number: Some(number),
            path: 0,
            attempt: 1,
            start: Duration::from_millis(start),
            end: end.map(Duration::from_millis),
            status: None,
        }
    }

    fn in_lanes(lanes: &[u32]) -> Vec<(u64, Posted)> {
        let posted = |group| Posted { intended: Duration::ZERO, accepted: Some(Duration::ZERO), group, tries: 1 };
        (0..).zip(lanes.iter().map(|lane| posted(*lane))).collect()
    }

    fn found(lanes: &[u32], log: &[Entry]) -> Vec<(u64, u64)> {
        overtakings(&in_lanes(lanes), log).iter().map(|found| (found.earlier, found.later)).collect()
    }

    #[test]
    fn one_after_the_other_is_order_and_lanes_know_nothing_of_each_other() {
        let log =
            [request(0, 0, Some(10)), request(1, 5, Some(50)), request(0, 20, Some(30)), request(2, 30, Some(40))];
        assert_eq!(found(&[7, 8, 7], &log), []);
    }

    #[test]
    fn an_overlap_a_late_repetition_and_one_that_never_ends_are_found() {
        assert_eq!(found(&[7, 7], &[request(0, 0, Some(10)), request(1, 9, Some(20))]), [(0, 1)]);
        let repeated = [request(0, 0, Some(10)), request(1, 11, Some(20)), request(0, 30, Some(40))];
        assert_eq!(found(&[7, 7], &repeated), [(0, 1)]);
        assert_eq!(found(&[7, 7], &[request(0, 0, None), request(1, 11, Some(20))]), [(0, 1)]);
    }

    #[test]
    fn one_that_was_skipped_counts_against_the_next_but_one() {
        let log = [request(0, 0, Some(100)), request(2, 50, Some(60))];
        assert_eq!(found(&[7, 7, 7], &log), [(0, 2)]);
    }
}
