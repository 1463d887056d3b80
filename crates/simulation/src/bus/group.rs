//! Partitions and who owns them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use signalpost_bus::{Delivered, Message, Partition, Place};
use signalpost_core::Timestamp;
use tokio::time::Instant;

use crate::seed::Rng;

/// How long a revoked partition is left to its owner.
const RELEASE: Duration = Duration::from_secs(5);

/// A message in a partition.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) offset: i64,
    pub(super) message: Arc<Message>,
    pub(super) handed_over: Timestamp,
    pub(super) visible: Instant,
    pub(super) corrupt: bool,
}

pub(super) type MemberId = u64;

#[derive(Debug)]
struct Part {
    log: VecDeque<Record>,
    next: i64,
    /// Everything below is done.
    committed: i64,
    owner: Option<MemberId>,
    epoch: u32,
    /// Where its owner reads next.
    read: i64,
    /// What lay below at the assignment is read again.
    assigned_at: i64,
    /// It is being taken from its owner; it goes in any case at that time.
    goes_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Member {
    /// It died: the group notices then.
    expires: Option<Instant>,
    /// What it has to be told.
    revoked: Vec<Partition>,
    /// Commits under way.
    commits: VecDeque<(Instant, Place)>,
}

/// All partitions and all members.
#[derive(Debug)]
pub(super) struct Group {
    parts: Vec<Part>,
    members: BTreeMap<MemberId, Member>,
    joined: MemberId,
    turn: usize,
    scattered: bool,
    pub(super) rng: Rng,
}

impl Group {
    pub(super) fn new(partitions: Partition, scattered: bool, rng: Rng) -> Self {
        let part = |_| Part {
            log: VecDeque::new(),
            next: 0,
            committed: 0,
            owner: None,
            epoch: 0,
            read: 0,
            assigned_at: 0,
            goes_at: None,
        };
        Self {
            parts: (0..partitions.max(1)).map(part).collect(),
            members: BTreeMap::new(),
            joined: 0,
            turn: 0,
            scattered,
            rng,
        }
    }

    /// Puts a message into its partition: that of its destination, or any.
    pub(super) fn append(&mut self, mut record: Record) {
        let key =
            if self.scattered { u128::from(self.rng.next()) } else { record.message.destination_id.uuid().as_u128() };
        let key = key % (self.parts.len() as u128);
        let gap = if self.rng.chance(0.1) { 2 } else { 0 };
        let part = &mut self.parts[usize::try_from(key).unwrap_or(0)];
        part.next += gap;
        record.offset = part.next;
        part.next += 1;
        part.log.push_back(record);
    }

    pub(super) fn lose_everything(&mut self) -> usize {
        let mut lost = 0;
        for part in &mut self.parts {
            lost += part.log.len();
            part.log.clear();
            part.committed = part.next;
            part.read = part.next;
        }
        lost
    }

    /// The hand-over of the oldest message that is not committed.
    pub(super) fn consumed_until(&self) -> Option<Timestamp> {
        self.parts.iter().flat_map(|part| part.log.iter().map(|record| record.handed_over)).min()
    }

    pub(super) fn uncommitted(&self) -> u64 {
        self.parts.iter().map(|part| part.log.len() as u64).sum()
    }

    pub(super) fn join(&mut self, now: Instant) -> MemberId {
        self.joined += 1;
        self.members.insert(self.joined, Member::default());
        self.assign(now);
        self.joined
    }

    /// It leaves, its commits done.
    pub(super) fn leave(&mut self, member: MemberId, now: Instant) {
        if let Some(gone) = self.members.remove(&member) {
            for (_, place) in gone.commits {
                self.apply(member, place);
            }
            self.drop_owner(member);
            self.assign(now);
        }
    }

    /// It died: the group notices after a while. Commits that are not through yet may be lost.
    pub(super) fn lost(&mut self, member: MemberId, now: Instant) {
        let silence = self.rng.millis(1000, 6000);
        if let Some(member) = self.members.get_mut(&member) {
            member.expires = Some(now + silence);
            member.commits.retain(|(at, _)| *at <= now);
        }
    }

    pub(super) fn rotate(&mut self, now: Instant) {
        self.turn += 1;
        self.assign(now);
    }

    pub(super) fn commit(&mut self, member: MemberId, place: Place, now: Instant) {
        let delay = self.rng.millis(0, 800);
        if let Some(member) = self.members.get_mut(&member) {
            member.commits.push_back((now + delay, place));
        }
    }

    pub(super) fn released(&mut self, member: MemberId, partitions: &[Partition], now: Instant) {
        self.flush(member, partitions);
        for index in partitions {
            if let Some(part) = self.part(*index)
                && part.owner == Some(member)
                && part.goes_at.is_some()
            {
                (part.owner, part.goes_at) = (None, None);
            }
        }
        self.assign(now);
    }

    /// What is ready for a member now; else when to look again.
    pub(super) fn receive(
        &mut self,
        member: MemberId,
        most: usize,
        now: Instant,
    ) -> Result<Vec<Delivered>, Option<Instant>> {
        let Some(own) = self.members.get_mut(&member) else { return Err(None) };
        if !own.revoked.is_empty() {
            return Ok(vec![Delivered::Revoked(std::mem::take(&mut own.revoked))]);
        }
        let mut found = Vec::new();
        let mut again: Option<Instant> = None;
        let first = self.rng.index(self.parts.len());
        for step in 0..self.parts.len() {
            let index = (first + step) % self.parts.len();
            let part = &mut self.parts[index];
            if part.owner != Some(member) || part.goes_at.is_some() {
                continue;
            }
            let partition = Partition::try_from(index).unwrap_or(0);
            for record in part.log.iter().filter(|record| record.offset >= part.read) {
                if record.visible > now {
                    again = Some(again.map_or(record.visible, |sooner| sooner.min(record.visible)));
                    break;
                }
                if found.len() == most.max(1) {
                    break;
                }
                let place = Place { partition, epoch: part.epoch, offset: record.offset };
                found.push(if record.corrupt {
                    let delivery_id = Some(record.message.delivery_id);
                    Delivered::Undecodable { place, delivery_id, error: "garbled (simulated)".to_owned() }
                } else {
                    Delivered::Message {
                        place,
                        message: Arc::clone(&record.message),
                        reread: record.offset < part.assigned_at,
                    }
                });
            }
            if let Some(Delivered::Message { place, .. } | Delivered::Undecodable { place, .. }) = found.last()
                && place.partition == partition
            {
                part.read = place.offset + 1;
            }
        }
        if found.is_empty() { Err(again.into_iter().chain(self.next_deadline()).min()) } else { Ok(found) }
    }

    /// What time has brought.
    pub(super) fn tick(&mut self, now: Instant) {
        let ids: Vec<MemberId> = self.members.keys().copied().collect();
        for id in ids {
            while let Some(place) = self
                .members
                .get_mut(&id)
                .and_then(|member| member.commits.pop_front_if(|(at, _)| *at <= now).map(|(_, place)| place))
            {
                self.apply(id, place);
            }
        }
        let expired: Vec<MemberId> = self
            .members
            .iter()
            .filter(|(_, member)| member.expires.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        let mut moves = !expired.is_empty();
        for id in expired {
            self.members.remove(&id);
            self.drop_owner(id);
        }
        for part in &mut self.parts {
            if part.goes_at.is_some_and(|at| at <= now) {
                (part.owner, part.goes_at) = (None, None);
                moves = true;
            }
        }
        if moves {
            self.assign(now);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let going = self.parts.iter().filter_map(|part| part.goes_at);
        going.chain(self.members.values().filter_map(|member| member.expires)).min()
    }

    fn part(&mut self, index: Partition) -> Option<&mut Part> {
        usize::try_from(index).ok().and_then(|index| self.parts.get_mut(index))
    }

    /// The commits of a member for these partitions are through.
    fn flush(&mut self, id: MemberId, partitions: &[Partition]) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let (now, later) = std::mem::take(&mut member.commits)
            .into_iter()
            .partition(|(_, place)| partitions.contains(&place.partition));
        member.commits = later;
        let now: VecDeque<(Instant, Place)> = now;
        for (_, place) in now {
            self.apply(id, place);
        }
    }

    fn apply(&mut self, member: MemberId, place: Place) {
        if let Some(part) = self.part(place.partition)
            && part.owner == Some(member)
            && part.epoch == place.epoch
        {
            part.committed = part.committed.max(place.offset);
            let committed = part.committed;
            while part.log.pop_front_if(|record| record.offset < committed).is_some() {}
        }
    }

    fn drop_owner(&mut self, member: MemberId) {
        for part in &mut self.parts {
            if part.owner == Some(member) {
                (part.owner, part.goes_at) = (None, None);
            }
        }
    }

    /// Gives each partition to whom it belongs; where somebody else has it, asks for it back first.
    fn assign(&mut self, now: Instant) {
        let members: Vec<MemberId> = self.members.keys().copied().collect();
        if members.is_empty() {
            return;
        }
        for (index, part) in self.parts.iter_mut().enumerate() {
            let owner = members[(index + self.turn) % members.len()];
            match part.owner {
                Some(present) if present == owner || part.goes_at.is_some() => {}
                Some(present) => {
                    part.goes_at = Some(now + RELEASE);
                    if let Some(member) = self.members.get_mut(&present) {
                        member.revoked.push(Partition::try_from(index).unwrap_or(0));
                    }
                }
                None => {
                    part.owner = Some(owner);
                    part.epoch += 1;
                    part.read = part.committed;
                    part.assigned_at = part.next;
                }
            }
        }
    }
}
