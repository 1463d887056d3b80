//! Which offsets of a partition are done: out of order in, contiguous prefix out.
//!
//! For correctness: an offset is committed only when every message before it is done, so whatever a crash leaves undone
//! is read again by the next owner. Pure.

use std::collections::VecDeque;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In hand.
    Pending,
    /// Its delivery is safe without it.
    Done,
    /// Given up without being done: the next owner of the partition reads it again. Nothing past it is committed.
    Abandoned,
}

/// The offsets of one partition in one epoch.
#[derive(Debug, Default)]
pub struct Tracker {
    /// In growing order of offset; the first one is not done.
    known: VecDeque<(i64, State)>,
    /// The highest offset that was ever added.
    last: Option<i64>,
    pending: usize,
}

impl Tracker {
    /// A message was received. Offsets grow; one that does not was added before, and gives false.
    pub fn add(&mut self, offset: i64) -> bool {
        if self.last.is_some_and(|last| offset <= last) {
            return false;
        }
        self.last = Some(offset);
        self.known.push_back((offset, State::Pending));
        self.pending += 1;
        true
    }

    /// A message is done. Gives the offset after the contiguous prefix, where that moved. Repeating it is harmless.
    pub fn done(&mut self, offset: i64) -> Option<i64> {
        self.set(offset, State::Done);
        let mut next = None;
        while let Some((offset, State::Done)) = self.known.front() {
            next = Some(offset + 1);
            self.known.pop_front();
        }
        next
    }

    /// A message is given up. It stays undone for ever.
    pub fn abandon(&mut self, offset: i64) {
        self.set(offset, State::Abandoned);
    }

    /// How many are in hand.
    pub const fn pending(&self) -> usize {
        self.pending
    }

    /// How many messages lie between what may be committed and the newest.
    pub fn gap(&self) -> usize {
        self.known.len()
    }

    fn set(&mut self, offset: i64, state: State) {
        let Ok(place) = self.known.binary_search_by_key(&offset, |(offset, _)| *offset) else { return };
        let known = &mut self.known[place].1;
        if *known == State::Pending {
            *known = state;
            self.pending -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Growing offsets with gaps, and the order in which they end (an index into what is left, and whether it is done).
    fn runs() -> impl Strategy<Value = (Vec<i64>, Vec<(usize, bool)>)> {
        (
            proptest::collection::vec(1_i64..5, 1..60).prop_map(|steps| {
                let offsets = steps.into_iter().scan(0, |offset, step| {
                    *offset += step;
                    Some(*offset)
                });
                offsets.collect::<Vec<_>>()
            }),
            proptest::collection::vec((any::<usize>(), proptest::bool::weighted(0.9)), 0..80),
        )
    }

    proptest! {
        #[test]
        fn the_commit_is_always_the_contiguous_prefix((offsets, ends) in runs(), ahead in 1_usize..20) {
            let mut tracker = Tracker::default();
            let mut incoming = offsets.iter().copied().peekable();
            let mut open: Vec<i64> = Vec::new();
            let mut undone = BTreeSet::new();
            let mut committed = offsets[0];
            for (pick, is_done) in ends {
                while open.len() < ahead && let Some(offset) = incoming.next() {
                    prop_assert!(tracker.add(offset));
                    prop_assert!(!tracker.add(offset));
                    open.push(offset);
                    undone.insert(offset);
                }
                if open.is_empty() {
                    break;
                }
                let offset = open.swap_remove(pick % open.len());
                if is_done {
                    undone.remove(&offset);
                    if let Some(next) = tracker.done(offset) {
                        prop_assert!(next > committed, "the commit went back");
                        committed = next;
                    }
                    prop_assert_eq!(tracker.done(offset), None, "done twice moves nothing");
                } else {
                    tracker.abandon(offset);
                }
                prop_assert_eq!(tracker.pending(), open.len());
                // Nothing undone is below the commit, and everything below it is as far as it can be.
                let added: Vec<_> = offsets.iter().take_while(|at| Some(**at) <= tracker.last).collect();
                match undone.first() {
                    Some(first) => {
                        prop_assert!(committed <= *first);
                        prop_assert!(added.iter().all(|at| **at >= committed || !undone.contains(*at)));
                        prop_assert!(!added.iter().any(|at| **at >= committed && **at < *first));
                    }
                    None => prop_assert_eq!(Some(committed), tracker.last.map(|last| last + 1)),
                }
                prop_assert_eq!(tracker.gap(), added.iter().filter(|at| ***at >= committed).count());
            }
        }
    }

    #[test]
    fn what_is_abandoned_holds_the_commit_for_ever() {
        let mut tracker = Tracker::default();
        for offset in [3, 4, 9] {
            tracker.add(offset);
        }
        tracker.abandon(4);
        assert_eq!(tracker.done(9), None);
        assert_eq!(tracker.done(3), Some(4));
        assert_eq!(tracker.done(4), None);
        assert_eq!((tracker.pending(), tracker.gap()), (0, 2));
    }

    #[test]
    fn an_unknown_offset_changes_nothing() {
        let mut tracker = Tracker::default();
        tracker.add(5);
        assert_eq!(tracker.done(4), None);
        assert_eq!(tracker.done(6), None);
        assert_eq!(tracker.pending(), 1);
    }
}
