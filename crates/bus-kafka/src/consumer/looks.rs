//! Whether there are messages that this client should read, and does not.

use std::collections::BTreeMap;

use signalpost_bus::Partition;

use super::shared::Read;
use crate::observer::Standing;

/// After how many looks that found the same a client is stuck that holds the partition.
const LOOKS: u32 = 3;

/// The same where it was busy with other partitions all the time.
const LOOKS_OF_THE_BUSY: u32 = 8;

/// The same for one that holds no partition at all: whoever holds the partition may only be slow.
const LOOKS_WITHOUT_ANY: u32 = 4;

/// How much more patience there is at most with a client whose predecessors were replaced.
const MOST_PATIENCE: u32 = 32;

/// What a client did between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    /// It had nothing to give at least once, and was never paused.
    Idle,
    /// It always had something to give.
    Busy,
    /// It was told to pause: it may have left all of it for later.
    Paused,
}

/// How a partition was found that has more, or less, than was read.
#[derive(Debug, Clone, Copy)]
struct Behind {
    /// Of our assignment. None: the partition is not ours.
    epoch: Option<u32>,
    /// What is to be read next, by us or by whoever has the partition.
    next: i64,
    /// Looks in a row that found it like this, where the client was idle before; the first one counts.
    idle: u32,
    /// All looks in a row that found it like this.
    all: u32,
}

/// What the looks so far have found.
#[derive(Debug)]
pub(super) struct Looks {
    behind: BTreeMap<Partition, Behind>,
    /// Grows with each client that is replaced in vain.
    patience: u32,
}

impl Default for Looks {
    fn default() -> Self {
        Self { behind: BTreeMap::new(), patience: 1 }
    }
}

impl Looks {
    /// The client is found stuck: the one after it gets more time.
    pub(super) fn be_patient(&mut self) {
        self.patience = (self.patience * 2).min(MOST_PATIENCE);
    }

    /// What was found so far does not count any more: a look found nothing out, or the client is a new one.
    pub(super) fn start_anew(&mut self) {
        self.behind.clear();
    }

    /// Takes in one look: how far our partitions were read, and how far all of them went a moment later. Tells whether the client is
    /// stuck: a partition stood still for all looks although there was more in it, or less than was read.
    ///
    /// A client without any partition looks at all of them, at what is committed there: it may be the one that should have one that
    /// stands still.
    pub(super) fn add(
        &mut self,
        ours: &BTreeMap<Partition, Read>,
        standings: &BTreeMap<Partition, Standing>,
        activity: Activity,
    ) -> bool {
        let before = std::mem::take(&mut self.behind);
        for (partition, standing) in standings {
            let read = ours.get(partition);
            if read.is_none() && !ours.is_empty() {
                continue;
            }
            let epoch = read.map(|read| read.epoch);
            let next = read.and_then(|read| read.next).unwrap_or(standing.next);
            if next == standing.high {
                continue;
            }
            let same = before.get(partition).filter(|before| (before.epoch, before.next) == (epoch, next));
            let (idle, all) = match (same, activity) {
                (None, _) | (_, Activity::Paused) => (1, 1),
                (Some(same), Activity::Busy) => (same.idle, same.all + 1),
                (Some(same), Activity::Idle) => (same.idle + 1, same.all + 1),
            };
            self.behind.insert(*partition, Behind { epoch, next, idle, all });
        }
        let has_moved = !before.is_empty() && self.behind.values().all(|behind| behind.all == 1);
        if self.behind.is_empty() || (has_moved && activity != Activity::Paused) {
            self.patience = 1;
        }
        let most = self.patience * if ours.is_empty() { LOOKS_WITHOUT_ANY } else { LOOKS };
        let most_of_the_busy = self.patience * LOOKS_OF_THE_BUSY;
        self.behind.values().any(|behind| behind.idle >= most || behind.all >= most_of_the_busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn read(epoch: u32, next: Option<i64>) -> Read {
        Read { epoch, next }
    }

    fn at(next: i64, high: i64) -> BTreeMap<Partition, Standing> {
        BTreeMap::from([(0, Standing { next, high })])
    }

    /// What each look says of a client that is idle.
    fn looks(found: &[(Option<Read>, i64, i64)]) -> Vec<bool> {
        let mut looks = Looks::default();
        let ours = |read: &Option<Read>| read.iter().map(|read| (0, *read)).collect();
        found.iter().map(|(read, next, high)| looks.add(&ours(read), &at(*next, *high), Activity::Idle)).collect()
    }

    #[test]
    fn what_is_read_to_its_end_is_not_behind() {
        let read = Some(read(1, Some(8)));
        assert_eq!(looks(&[(read, 5, 8), (read, 8, 8), (read, 8, 8), (read, 8, 8)]), [false; 4]);
    }

    #[test]
    fn more_or_less_than_was_read_in_three_looks_is_stuck() {
        let read = Some(read(1, Some(8)));
        assert_eq!(looks(&[(read, 8, 9), (read, 8, 12), (read, 8, 13)]), [false, false, true]);
        assert_eq!(looks(&[(read, 0, 3), (read, 0, 3), (read, 0, 3)]), [false, false, true]);
    }

    #[test]
    fn what_moves_or_is_assigned_again_is_not_stuck() {
        let found = [(Some(read(1, Some(8))), 8, 9), (Some(read(1, Some(9))), 9, 12), (Some(read(2, Some(9))), 9, 12)];
        assert_eq!(looks(&[found, found].concat()), [false; 6]);
    }

    #[test]
    fn where_nothing_was_read_yet_what_is_not_committed_should_be() {
        let read = Some(read(1, None));
        assert_eq!(looks(&[(read, 8, 8); 4]), [false; 4]);
        assert_eq!(looks(&[(read, 3, 8); 3]), [false, false, true]);
    }

    #[test]
    fn without_any_partition_one_that_stands_still_for_long_may_be_ours() {
        assert_eq!(looks(&[(None, 3, 8); 5]), [false, false, false, true, true]);
        assert_eq!(looks(&[(None, 8, 8); 5]), [false; 5]);
        let moving = [(None, 3, 8), (None, 3, 8), (None, 4, 8), (None, 4, 9), (None, 4, 9), (None, 4, 10)];
        assert_eq!(looks(&moving), [false, false, false, false, false, true]);
    }

    #[test]
    fn a_partition_of_another_member_is_its_own_matter() {
        let mut looks = Looks::default();
        let ours = BTreeMap::from([(1, read(1, Some(8)))]);
        for _ in 0..9 {
            assert!(!looks.add(&ours, &at(3, 8), Activity::Idle));
        }
    }

    #[test]
    fn who_is_busy_with_others_has_more_time_and_who_is_paused_all_of_it() {
        let ours = BTreeMap::from([(0, read(1, Some(3)))]);
        let mut looks = Looks::default();
        let busy: Vec<bool> = (0..8).map(|_| looks.add(&ours, &at(3, 8), Activity::Busy)).collect();
        assert_eq!(busy, [false, false, false, false, false, false, false, true]);
        assert!(!looks.add(&ours, &at(3, 8), Activity::Paused));
        assert!(!looks.add(&ours, &at(3, 8), Activity::Idle));
        looks.start_anew();
        assert!(!looks.add(&ours, &at(3, 8), Activity::Idle), "what was seen before a look that failed does not count");
        assert!(!looks.add(&ours, &at(3, 8), Activity::Idle));
        assert!(looks.add(&ours, &at(3, 8), Activity::Idle));
    }

    #[test]
    fn a_successor_has_twice_the_time_until_all_moves() {
        let at_3 = BTreeMap::from([(0, read(1, Some(3)))]);
        let mut looks = Looks::default();
        let until_stuck = |looks: &mut Looks| {
            let found = (1..).find(|_| looks.add(&at_3, &at(3, 8), Activity::Idle)).expect("it is stuck at some time");
            looks.be_patient();
            looks.start_anew();
            found
        };
        assert_eq!([until_stuck(&mut looks), until_stuck(&mut looks), until_stuck(&mut looks)], [3, 6, 12]);
        assert!(!looks.add(&at_3, &at(3, 3), Activity::Idle), "all is read");
        assert_eq!([until_stuck(&mut looks), until_stuck(&mut looks)], [3, 6]);
        for next in 1..4 {
            assert!(!looks.add(&BTreeMap::from([(0, read(1, Some(next)))]), &at(next, 8), Activity::Busy), "it moves");
        }
        looks.start_anew();
        assert_eq!(until_stuck(&mut looks), 3);
    }
}
