//! Whether there are messages that this client should read, and does not.

use std::collections::BTreeMap;

use signalpost_bus::Partition;

use super::shared::Read;
use crate::observer::Standing;

/// After how many looks that found the same a client is stuck that holds the partition.
const LOOKS: u32 = 2;

/// The same for one that holds no partition at all: whoever holds the partition may only be slow.
const LOOKS_WITHOUT_ANY: u32 = 4;

/// How a partition was found that has more, or less, than was read.
#[derive(Debug, Clone, Copy)]
struct Behind {
    /// Of our assignment. None: the partition is not ours.
    epoch: Option<u32>,
    /// What is to be read next, by us or by whoever has the partition.
    next: i64,
    /// Looks in a row that found it like this.
    looks: u32,
}

/// What the looks so far have found.
#[derive(Debug, Default)]
pub(super) struct Looks {
    behind: BTreeMap<Partition, Behind>,
}

impl Looks {
    /// The client is a new one: what it does is still to be seen.
    pub(super) fn start_anew(&mut self) {
        self.behind.clear();
    }

    /// Takes in one look: how far our partitions were read, and how far all of them went a moment later. Tells whether the client is
    /// stuck: a partition stood still all the time although there was more in it, or less than was read. Where the client was not
    /// `idle` since the last look, it may have left something for later, and nothing counts.
    ///
    /// A client without any partition is stuck where the group as a whole is: it may be the one that should have it.
    pub(super) fn add(
        &mut self,
        ours: &BTreeMap<Partition, Read>,
        standings: &BTreeMap<Partition, Standing>,
        idle: bool,
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
            let same = before.get(partition).filter(|before| idle && (before.epoch, before.next) == (epoch, next));
            self.behind.insert(*partition, Behind { epoch, next, looks: same.map_or(1, |same| same.looks + 1) });
        }
        let most = if ours.is_empty() { LOOKS_WITHOUT_ANY } else { LOOKS };
        self.behind.values().any(|behind| behind.looks >= most)
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
        found.iter().map(|(read, next, high)| looks.add(&ours(read), &at(*next, *high), true)).collect()
    }

    #[test]
    fn what_is_read_to_its_end_is_not_behind() {
        let read = Some(read(1, Some(8)));
        assert_eq!(looks(&[(read, 5, 8), (read, 8, 8), (read, 8, 8)]), [false, false, false]);
    }

    #[test]
    fn more_or_less_than_was_read_in_two_looks_is_stuck() {
        let read = Some(read(1, Some(8)));
        assert_eq!(looks(&[(read, 8, 9), (read, 8, 12)]), [false, true]);
        assert_eq!(looks(&[(read, 0, 3), (read, 0, 3)]), [false, true]);
    }

    #[test]
    fn what_moves_or_is_assigned_again_is_not_stuck() {
        let found = [(Some(read(1, Some(8))), 8, 9), (Some(read(1, Some(9))), 9, 12), (Some(read(2, Some(9))), 9, 12)];
        assert_eq!(looks(&found), [false, false, false]);
    }

    #[test]
    fn where_nothing_was_read_yet_what_is_not_committed_should_be() {
        let read = Some(read(1, None));
        assert_eq!(looks(&[(read, 8, 8), (read, 8, 8)]), [false, false]);
        assert_eq!(looks(&[(read, 3, 8), (read, 3, 8)]), [false, true]);
    }

    #[test]
    fn without_any_partition_a_group_that_stands_still_for_long_is_stuck() {
        assert_eq!(looks(&[(None, 3, 8); 5]), [false, false, false, true, true]);
        assert_eq!(looks(&[(None, 8, 8); 5]), [false; 5]);
        let moving = [(None, 3, 8), (None, 3, 8), (None, 4, 8), (None, 4, 9), (None, 4, 9), (None, 4, 10)];
        assert_eq!(looks(&moving), [false, false, false, false, false, true]);
    }

    #[test]
    fn a_partition_of_another_member_is_its_own_matter() {
        let mut looks = Looks::default();
        let ours = BTreeMap::from([(1, read(1, Some(8)))]);
        for _ in 0..6 {
            assert!(!looks.add(&ours, &at(3, 8), true));
        }
    }

    #[test]
    fn nothing_counts_while_the_client_is_busy() {
        let mut looks = Looks::default();
        let ours = BTreeMap::from([(0, read(1, Some(3)))]);
        assert!(!looks.add(&ours, &at(3, 8), true));
        assert!(!looks.add(&ours, &at(3, 8), false));
        assert!(looks.add(&ours, &at(3, 8), true));
        looks.start_anew();
        assert!(!looks.add(&ours, &at(3, 8), true));
    }
}
