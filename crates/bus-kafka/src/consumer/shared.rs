//! Where the reading thread and the dispatcher's half meet. Holds no librdkafka object.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rdkafka::message::OwnedHeaders;
use signalpost_bus::{BusError, Delivered, Message, Partition, Place};
use signalpost_core::DeliveryId;
use tokio::sync::Notify;

use crate::observer::Standing;

/// What waits here for the dispatcher before reading pauses.
const MOST_READY: usize = 2000;
const MOST_READY_BYTES: usize = 16 * 1024 * 1024;

/// How long the dispatcher has to let go of what it loses.
pub(super) const RELEASE_TIME: Duration = Duration::from_secs(5);

/// A message as Kafka has it.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    pub(super) key: Option<Vec<u8>>,
    pub(super) headers: OwnedHeaders,
    pub(super) value: Option<Vec<u8>>,
    pub(super) error: String,
}

/// What the reader found at an offset.
#[derive(Debug)]
pub(super) enum Found {
    Message { message: Arc<Message>, bytes: usize },
    Undecodable { delivery_id: Option<DeliveryId>, raw: Box<Raw> },
}

/// A partition that is ours now.
#[derive(Debug, Clone, Copy)]
struct Assignment {
    epoch: u32,
    /// What lies below was there before the assignment. None: not known, so all of it may have been.
    high: Option<i64>,
    /// The last offset that was read.
    last: Option<i64>,
    /// The offset to commit.
    next: Option<i64>,
    /// The offset that librdkafka was last told to commit, unless that failed.
    told: Option<i64>,
    /// Where the broker was seen to be, by the last look.
    seen: Option<Standing>,
    /// The broker went back: what was told is of a topic that is gone, and is not to be told to the one that is there.
    is_outdated: bool,
}

/// How far a partition is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Read {
    /// Of its assignment.
    pub(super) epoch: u32,
    /// The offset after the last one that was read. None: nothing was read yet.
    pub(super) next: Option<i64>,
}

#[derive(Debug, Default)]
struct State {
    /// For the dispatcher, with its weight in bytes.
    ready: VecDeque<(Delivered, usize)>,
    ready_bytes: usize,
    assigned: BTreeMap<Partition, Assignment>,
    /// Assignments so far.
    epochs: u32,
    /// Revoked, and not yet released by the dispatcher.
    releasing: BTreeSet<Partition>,
    /// Until they are committed or revoked.
    unreadable: BTreeMap<Place, Raw>,
    error: Option<String>,
    closed: bool,
    /// The client that has a say. One that was replaced, and has not ended yet, has none.
    client: u32,
}

impl State {
    fn assign(&mut self, partition: Partition, high: Option<i64>) {
        self.epochs = self.epochs.wrapping_add(1);
        let (epoch, seen, is_outdated) = (self.epochs, None, false);
        let fresh = Assignment { epoch, high, last: None, next: None, told: None, seen, is_outdated };
        self.assigned.insert(partition, fresh);
    }

    /// Takes back what the dispatcher has not seen yet, and tells it what it loses, before all else.
    fn revoke(&mut self, partitions: &[Partition]) {
        self.ready.retain(|(item, _)| match item {
            Delivered::Message { place, .. } | Delivered::Undecodable { place, .. } => {
                !partitions.contains(&place.partition)
            }
            Delivered::Revoked(_) => true,
        });
        self.unreadable.retain(|place, _| !partitions.contains(&place.partition));
        self.ready.push_front((Delivered::Revoked(partitions.to_vec()), 0));
        self.ready_bytes = self.ready.iter().map(|(_, bytes)| bytes).sum();
    }
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Told to the dispatcher's half: there is something to receive.
    pub(super) arrived: Notify,
    /// Told to the thread: room, a release or the end.
    changed: Condvar,
}

/// The side of the dispatcher.
impl Shared {
    pub(super) fn take(&self, most: usize) -> Result<Option<Vec<Delivered>>, BusError> {
        let mut state = self.state();
        if !state.ready.is_empty() {
            let count = most.max(1).min(state.ready.len());
            let taken: Vec<_> = state.ready.drain(..count).collect();
            state.ready_bytes -= taken.iter().map(|(_, bytes)| bytes).sum::<usize>();
            self.changed.notify_all();
            return Ok(Some(taken.into_iter().map(|(item, _)| item).collect()));
        }
        if state.closed {
            return Err(BusError::Closed);
        }
        state.error.take().map_or(Ok(None), |error| Err(BusError::Unavailable(error)))
    }

    pub(super) fn commit(&self, next: Place) {
        let mut state = self.state();
        let Some(assignment) = state.assigned.get_mut(&next.partition) else { return };
        if assignment.epoch != next.epoch || assignment.next.is_some_and(|offset| offset >= next.offset) {
            return;
        }
        assignment.next = Some(next.offset);
        let first = Place { offset: i64::MIN, ..next };
        let done: Vec<Place> = state.unreadable.range(first..next).map(|(place, _)| *place).collect();
        for place in done {
            state.unreadable.remove(&place);
        }
    }

    pub(super) fn released(&self, partitions: &[Partition]) {
        let mut state = self.state();
        for partition in partitions {
            state.releasing.remove(partition);
        }
        self.changed.notify_all();
    }

    pub(super) fn unreadable(&self, place: Place) -> Option<Raw> {
        self.state().unreadable.get(&place).cloned()
    }

    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
        self.arrived.notify_one();
    }
}

/// The side of the thread.
impl Shared {
    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    pub(super) fn fail(&self, error: String) {
        self.state().error = Some(error);
        self.arrived.notify_one();
    }

    /// From now on that client has a say, and nobody before it. What those held is given up.
    pub(super) fn switch_to(&self, client: u32) {
        let mut state = self.state();
        state.client = client;
        state.releasing.clear();
        let held: Vec<Partition> = state.assigned.keys().copied().collect();
        if !held.is_empty() && !state.closed {
            state.revoke(&held);
            state.assigned.clear();
        }
        drop(state);
        self.arrived.notify_one();
        self.changed.notify_all();
    }

    pub(super) fn assign(&self, client: u32, highs: &BTreeMap<Partition, Option<i64>>) {
        let mut state = self.state();
        if state.client != client {
            return;
        }
        for (partition, high) in highs {
            state.assign(*partition, *high);
        }
    }

    /// Partitions whose watermark could not be read when they were assigned.
    pub(super) fn without_high(&self) -> Vec<Partition> {
        let state = self.state();
        state
            .assigned
            .iter()
            .filter(|(_, assignment)| assignment.high.is_none())
            .map(|(partition, _)| *partition)
            .collect()
    }

    /// A watermark that was read later is good, too: what lies below it may be a reread.
    pub(super) fn set_highs(&self, highs: &BTreeMap<Partition, i64>) {
        let mut state = self.state();
        for (partition, high) in highs {
            if let Some(assignment) = state.assigned.get_mut(partition) {
                assignment.high.get_or_insert(*high);
            }
        }
    }

    /// Hands over what was read, in one go. An offset that goes back in its partition means that the partition was
    /// made anew: what was read before is revoked, and this is a new assignment.
    pub(super) fn arrive(&self, found: impl Iterator<Item = (Partition, i64, Found)>) {
        let mut state = self.state();
        for (partition, offset, found) in found {
            let Some(mut assignment) = state.assigned.get(&partition).copied() else { continue };
            if assignment.last.is_some_and(|last| offset <= last) {
                state.revoke(&[partition]);
                state.assign(partition, None);
                assignment = state.assigned[&partition];
            }
            if let Some(known) = state.assigned.get_mut(&partition) {
                known.last = Some(offset);
            }
            let place = Place { partition, epoch: assignment.epoch, offset };
            let reread = assignment.high.is_none_or(|high| offset < high);
            let (item, bytes) = match found {
                Found::Message { message, bytes } => (Delivered::Message { place, message, reread }, bytes),
                Found::Undecodable { delivery_id, raw } => {
                    let error = raw.error.clone();
                    state.unreadable.insert(place, *raw);
                    (Delivered::Undecodable { place, delivery_id, error }, 0)
                }
            };
            state.ready.push_back((item, bytes));
            state.ready_bytes += bytes;
        }
        drop(state);
        self.arrived.notify_one();
    }

    pub(super) fn is_full(&self) -> bool {
        full(&self.state(), 1)
    }

    /// Whether there is room again, with some distance to full.
    pub(super) fn has_room(&self) -> bool {
        !full(&self.state(), 2)
    }

    /// Waits for room, so long and no longer.
    pub(super) fn wait_for_room(&self, time: Duration) {
        let state = self.state();
        let waited = self.changed.wait_timeout_while(state, time, |state| full(state, 2) && !state.closed);
        drop(waited);
    }

    /// Waits for the end, so long and no longer.
    pub(super) fn wait_for_end(&self, time: Duration) {
        let state = self.state();
        drop(self.changed.wait_timeout_while(state, time, |state| !state.closed));
    }

    /// How far each of our partitions is read.
    pub(super) fn read(&self) -> BTreeMap<Partition, Read> {
        let assigned = &self.state().assigned;
        let read =
            |assignment: &Assignment| Read { epoch: assignment.epoch, next: assignment.last.map(|last| last + 1) };
        assigned.iter().map(|(partition, assignment)| (*partition, read(assignment))).collect()
    }

    /// Tells the dispatcher and, unless somebody else has the partitions already (`lost`), waits until it has let go.
    pub(super) fn revoke(&self, client: u32, partitions: &[Partition], lost: bool) {
        let mut state = self.state();
        if state.closed || state.client != client {
            return;
        }
        state.revoke(partitions);
        self.arrived.notify_one();
        if lost {
            return;
        }
        state.releasing = partitions.iter().copied().collect();
        let waited = self.changed.wait_timeout_while(state, RELEASE_TIME, |state| {
            !state.releasing.is_empty() && !state.closed && state.client == client
        });
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.client == client {
            state.releasing.clear();
        }
    }

    pub(super) fn forget(&self, client: u32, partitions: &[Partition]) {
        let mut state = self.state();
        if state.client != client {
            return;
        }
        for partition in partitions {
            state.assigned.remove(partition);
        }
    }

    /// What is to be committed and librdkafka was not told yet.
    pub(super) fn uncommitted(&self, client: u32) -> Vec<(Partition, i64)> {
        let mut state = self.state();
        let mut offsets = Vec::new();
        if state.client != client {
            return offsets;
        }
        for (partition, assignment) in &mut state.assigned {
            if let Some(next) = assignment.next.filter(|_| assignment.next != assignment.told) {
                assignment.told = Some(next);
                offsets.push((*partition, next));
            }
        }
        offsets
    }

    /// What the broker does not know is told again: nobody tells that a commit has failed (a rebalance was under way, the
    /// group was new).
    pub(super) fn check_commits(&self, standings: &BTreeMap<Partition, Standing>) {
        let mut state = self.state();
        for (partition, standing) in standings {
            let Some(assignment) = state.assigned.get_mut(partition) else { continue };
            let before = assignment.seen.replace(*standing);
            assignment.is_outdated |= assignment.high.is_some_and(|high| standing.high < high)
                || before.is_some_and(|before| standing.next < before.next || standing.high < before.high);
            let is_missing = assignment.told.is_some_and(|told| standing.next < told && told <= standing.high);
            // What was told a moment ago may be on its way: the second look decides.
            if is_missing && before.is_some() && !assignment.is_outdated {
                assignment.told = None;
            }
        }
    }

    /// A commit was not taken: it is told again.
    pub(super) fn commit_failed(&self, partitions: impl Iterator<Item = Partition>) {
        let mut state = self.state();
        for partition in partitions {
            if let Some(assignment) = state.assigned.get_mut(&partition) {
                assignment.told = None;
            }
        }
    }

    /// Every change under the lock is complete at each step, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether more waits than one `part` of what may.
fn full(state: &State, part: usize) -> bool {
    state.ready.len() >= MOST_READY / part || state.ready_bytes >= MOST_READY_BYTES / part
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(offset: i64) -> (Partition, i64, Found) {
        let raw = Raw { key: None, headers: OwnedHeaders::new(), value: None, error: "broken".to_owned() };
        (0, offset, Found::Undecodable { delivery_id: None, raw: Box::new(raw) })
    }

    fn places(shared: &Shared) -> Vec<Option<Place>> {
        let items = shared.take(100).unwrap().unwrap_or_default();
        let place = |item: &Delivered| match item {
            Delivered::Message { place, .. } | Delivered::Undecodable { place, .. } => Some(*place),
            Delivered::Revoked(_) => None,
        };
        items.iter().map(place).collect()
    }

    fn place(epoch: u32, offset: i64) -> Place {
        Place { partition: 0, epoch, offset }
    }

    #[test]
    fn an_offset_that_goes_back_starts_a_new_epoch() {
        let shared = Shared::default();
        shared.assign(0, &BTreeMap::from([(0, Some(0))]));
        shared.arrive([raw(7), raw(8)].into_iter());
        assert_eq!(places(&shared), [Some(place(1, 7)), Some(place(1, 8))]);
        shared.arrive([raw(9), raw(0)].into_iter());
        assert_eq!(places(&shared), [None, Some(place(2, 0))]);
        // The old epoch has no say any more, and the watermark of the new one is to be asked.
        shared.commit(place(1, 9));
        assert_eq!(shared.uncommitted(0), []);
        assert_eq!(shared.without_high(), [0]);
        shared.commit(place(2, 1));
        assert_eq!(shared.uncommitted(0), [(0, 1)]);
    }

    #[test]
    fn commits_never_go_back_and_failed_ones_are_repeated() {
        let shared = Shared::default();
        shared.assign(0, &BTreeMap::from([(0, Some(0))]));
        shared.commit(place(1, 5));
        shared.commit(place(1, 3));
        assert_eq!(shared.uncommitted(0), [(0, 5)]);
        assert_eq!(shared.uncommitted(0), []);
        shared.commit_failed([0].into_iter());
        assert_eq!(shared.uncommitted(0), [(0, 5)]);
    }

    #[test]
    fn a_commit_that_the_broker_does_not_know_is_told_again() {
        let shared = Shared::default();
        shared.assign(0, &BTreeMap::from([(0, Some(0))]));
        shared.commit(place(1, 5));
        let at = |next, high| BTreeMap::from([(0, Standing { next, high })]);
        assert_eq!(shared.uncommitted(0), [(0, 5)]);
        shared.check_commits(&at(3, 9));
        assert_eq!(shared.uncommitted(0), [], "it may be on its way");
        shared.check_commits(&at(3, 9));
        assert_eq!(shared.uncommitted(0), [(0, 5)]);
        shared.check_commits(&at(5, 9));
        assert_eq!(shared.uncommitted(0), [], "it is known");
    }

    #[test]
    fn a_commit_of_a_topic_that_is_gone_is_not_told_again() {
        for (seen, then) in [((4, 9), (0, 9)), ((5, 9), (0, 7)), ((0, 2), (0, 6))] {
            let shared = Shared::default();
            shared.assign(0, &BTreeMap::from([(0, Some(3))]));
            shared.commit(place(1, 5));
            assert_eq!(shared.uncommitted(0), [(0, 5)]);
            for (next, high) in [seen, then, then] {
                shared.check_commits(&BTreeMap::from([(0, Standing { next, high })]));
                assert_eq!(shared.uncommitted(0), [], "{seen:?}, then {then:?}");
            }
        }
    }

    #[test]
    fn a_client_that_was_replaced_has_no_say() {
        let shared = Shared::default();
        shared.assign(0, &BTreeMap::from([(0, Some(0)), (1, Some(0))]));
        shared.commit(place(1, 5));
        shared.switch_to(1);
        assert!(matches!(shared.take(9).unwrap().unwrap()[..], [Delivered::Revoked(ref lost)] if *lost == [0, 1]));
        shared.assign(1, &BTreeMap::from([(0, Some(0))]));
        shared.forget(0, &[0]);
        shared.revoke(0, &[0], false);
        shared.assign(0, &BTreeMap::from([(1, Some(0))]));
        assert_eq!(shared.read().keys().copied().collect::<Vec<_>>(), [0]);
        assert!(shared.take(9).unwrap().is_none());
        shared.commit(place(3, 7));
        assert_eq!(shared.uncommitted(0), []);
        assert_eq!(shared.uncommitted(1), [(0, 7)]);
    }

    #[test]
    fn unreadable_ones_are_kept_until_they_are_committed() {
        let shared = Shared::default();
        shared.assign(0, &BTreeMap::from([(0, Some(0))]));
        shared.arrive([raw(7), raw(8)].into_iter());
        shared.commit(place(1, 8));
        assert!(shared.unreadable(place(1, 7)).is_none());
        assert!(shared.unreadable(place(1, 8)).is_some());
        shared.revoke(0, &[0], true);
        assert!(shared.unreadable(place(1, 8)).is_none());
    }

    #[test]
    fn a_revocation_waits_for_the_release() {
        let shared = Arc::new(Shared::default());
        shared.assign(0, &BTreeMap::from([(0, Some(0)), (1, Some(0))]));
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.revoke(0, &[0, 1], false)
        });
        while !matches!(shared.take(1), Ok(Some(items)) if matches!(items[..], [Delivered::Revoked(_)])) {
            std::thread::yield_now();
        }
        shared.released(&[0]);
        assert!(!thread.is_finished());
        shared.commit(place(1, 4));
        shared.released(&[1]);
        thread.join().unwrap();
        assert_eq!(shared.uncommitted(0), [(0, 4)]);
    }
}
