//! The partitions that are ours: what is done in each, what goes to somebody else.

use std::{collections::BTreeMap, time::Duration};

use signalpost_bus::{Partition, Place};
use tokio_util::sync::CancellationToken;

use crate::tracker::Tracker;

struct Open {
    epoch: u32,
    tracker: Tracker,
    /// Cancelled when requests that are out must be detached now.
    detach: CancellationToken,
    revoked: bool,
}

struct Revocation {
    partitions: Vec<Partition>,
    deadline: Duration,
}

/// All partitions.
#[derive(Default)]
pub(crate) struct Partitions {
    open: BTreeMap<Partition, Open>,
    revocations: Vec<Revocation>,
    /// Commits that were not yet told.
    commits: BTreeMap<Partition, Place>,
}

impl Partitions {
    /// A message was received. False where it was received before in this epoch.
    pub(crate) fn add(&mut self, place: Place) -> bool {
        let open = self.open.entry(place.partition).or_insert_with(|| Open::new(place.epoch));
        if open.epoch != place.epoch {
            // A new assignment. What is still out of the old one is detached; its offsets are no more ours.
            open.detach.cancel();
            *open = Open::new(place.epoch);
        }
        open.tracker.add(place.offset)
    }

    /// Its delivery is safe.
    pub(crate) fn done(&mut self, place: Place) {
        if let Some(open) = self.of(place)
            && let Some(next) = open.tracker.done(place.offset)
        {
            self.commits.insert(place.partition, Place { offset: next, ..place });
        }
    }

    /// It is left to the next owner.
    pub(crate) fn abandon(&mut self, place: Place) {
        if let Some(open) = self.of(place) {
            open.tracker.abandon(place.offset);
        }
    }

    /// Whether its partition is still ours.
    pub(crate) fn is_ours(&mut self, place: Place) -> bool {
        self.of(place).is_some_and(|open| !open.revoked)
    }

    /// Told when requests from there must be detached now.
    pub(crate) fn detach(&mut self, place: Place) -> CancellationToken {
        self.of(place).map_or_else(
            || {
                let now = CancellationToken::new();
                now.cancel();
                now
            },
            |open| open.detach.clone(),
        )
    }

    /// They go to somebody else.
    pub(crate) fn revoke(&mut self, partitions: Vec<Partition>, deadline: Duration) {
        for partition in &partitions {
            if let Some(open) = self.open.get_mut(partition) {
                open.revoked = true;
                open.detach.cancel();
            }
        }
        self.revocations.push(Revocation { partitions, deadline });
    }

    /// Detaches everything.
    pub(crate) fn detach_all(&self) {
        for open in self.open.values() {
            open.detach.cancel();
        }
    }

    /// The largest gap between a commit and the newest message.
    pub(crate) fn gap(&self) -> usize {
        self.open.values().map(|open| open.tracker.gap()).max().unwrap_or(0)
    }

    /// What may be committed since the last time.
    pub(crate) fn commits(&mut self) -> impl Iterator<Item = Place> {
        std::mem::take(&mut self.commits).into_values()
    }

    /// Revoked partitions of which nothing is in hand any more, or whose time is up. They are forgotten.
    pub(crate) fn released(&mut self, now: Duration) -> Vec<Vec<Partition>> {
        let open = &self.open;
        let is_clear = |partition: &Partition| open.get(partition).is_none_or(|open| open.tracker.pending() == 0);
        let mut over = Vec::new();
        self.revocations.retain_mut(|revocation| {
            let is_over = revocation.deadline <= now || revocation.partitions.iter().all(is_clear);
            if is_over {
                over.push(std::mem::take(&mut revocation.partitions));
            }
            !is_over
        });
        for partition in over.iter().flatten() {
            if self.open.get(partition).is_some_and(|open| open.revoked) {
                self.open.remove(partition);
            }
        }
        over
    }

    /// When a revocation's time is up.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.revocations.iter().map(|revocation| revocation.deadline).min()
    }

    fn of(&mut self, place: Place) -> Option<&mut Open> {
        self.open.get_mut(&place.partition).filter(|open| open.epoch == place.epoch)
    }
}

impl Open {
    fn new(epoch: u32) -> Self {
        Self { epoch, tracker: Tracker::default(), detach: CancellationToken::new(), revoked: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn place(partition: Partition, epoch: u32, offset: i64) -> Place {
        Place { partition, epoch, offset }
    }

    #[test]
    fn what_an_earlier_assignment_left_moves_nothing() {
        let mut partitions = Partitions::default();
        assert!(partitions.add(place(0, 1, 5)));
        let old = partitions.detach(place(0, 1, 5));
        assert!(partitions.add(place(0, 2, 5)));
        assert!(old.is_cancelled());
        partitions.done(place(0, 1, 5));
        assert_eq!(partitions.commits().count(), 0);
        partitions.done(place(0, 2, 5));
        assert_eq!(partitions.commits().collect::<Vec<_>>(), [place(0, 2, 6)]);
    }

    #[test]
    fn a_revoked_partition_is_released_when_nothing_of_it_is_in_hand() {
        let mut partitions = Partitions::default();
        for offset in 0..3 {
            partitions.add(place(7, 1, offset));
        }
        partitions.revoke(vec![7, 8], Duration::from_secs(4));
        assert!(!partitions.is_ours(place(7, 1, 0)));
        partitions.done(place(7, 1, 0));
        partitions.abandon(place(7, 1, 1));
        assert!(partitions.released(Duration::ZERO).is_empty());
        partitions.done(place(7, 1, 2));
        assert_eq!(partitions.commits().collect::<Vec<_>>(), [place(7, 1, 1)]);
        assert_eq!(partitions.released(Duration::ZERO), [[7, 8]]);
        assert!(partitions.detach(place(7, 1, 2)).is_cancelled());
    }

    #[test]
    fn a_revocation_ends_at_its_deadline() {
        let mut partitions = Partitions::default();
        partitions.add(place(7, 1, 0));
        partitions.revoke(vec![7], Duration::from_secs(4));
        assert_eq!(partitions.next_deadline(), Some(Duration::from_secs(4)));
        assert_eq!(partitions.released(Duration::from_secs(4)), [[7]]);
        assert_eq!(partitions.next_deadline(), None);
    }
}
