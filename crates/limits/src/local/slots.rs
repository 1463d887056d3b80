//! Slots by destination, shared by owners with leases.
//!
//! A destination's slots are given to those who want some. An owner may always have its fair part: `max` by the number of
//! owners that hold or want some now. It may have more where nobody else has less than its part. Who has more shrinks at
//! its next call, and until then what it was given counts as taken: so the sum never exceeds `max`, but for what is out
//! already when `max` shrinks. With more owners than slots, turns go round, one for each lease.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use signalpost_core::DestinationId;

use crate::{Owner, SLOT_LEASE, SlotUse};

/// Below this there is nothing to prune.
const PRUNE_ABOVE: usize = 1024;

/// What an owner has of a destination.
#[derive(Debug, Clone, Copy)]
struct Share {
    until: Duration,
    /// What it said to hold and to want.
    needed: u32,
    /// What it may have out until it calls again.
    taken: u32,
}

/// Who has how many slots. Times are of one monotonic clock.
#[derive(Debug, Default)]
pub struct SlotTable {
    shares: HashMap<DestinationId, BTreeMap<Owner, Share>>,
    /// Prune when there are more.
    prune_at: usize,
}

impl SlotTable {
    /// Takes in what an owner does, and returns how many requests it may have out in all until its lease ends.
    pub fn tell(&mut self, now: Duration, owner: Owner, used: &SlotUse) -> u32 {
        if self.shares.len() >= self.prune_at.max(PRUNE_ABOVE) {
            self.shares.retain(|_, owners| owners.values().any(|share| share.until > now));
            self.prune_at = self.shares.len().saturating_mul(2);
        }
        let needed = used.held.saturating_add(used.wanted);
        let owners = self.shares.entry(used.destination_id).or_default();
        owners.retain(|other, share| *other != owner && share.until > now);
        if needed == 0 {
            if owners.is_empty() {
                self.shares.remove(&used.destination_id);
            }
            return 0;
        }
        // With itself among them, so that everybody counts the same.
        owners.insert(owner, Share { until: now + SLOT_LEASE, needed, taken: used.held });
        let allowed = needed.min(may_have(now, owner, used.max, owners));
        if let Some(share) = owners.get_mut(&owner) {
            share.taken = allowed.max(used.held);
        }
        allowed
    }

    /// How many destinations are kept.
    pub fn len(&self) -> usize {
        self.shares.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }
}

fn may_have(now: Duration, owner: Owner, max: u32, owners: &BTreeMap<Owner, Share>) -> u32 {
    let present = u32::try_from(owners.len()).unwrap_or(u32::MAX).max(1);
    let turn = now.as_secs() / SLOT_LEASE.as_secs() % u64::from(present);
    let (mut fair, mut free, mut missing) = (0, max, 0);
    for (rank, (other, share)) in owners.iter().enumerate() {
        let part = if max >= present {
            max / present
        } else {
            // Ranks, turned round: the first `max` of them have one.
            let turned = (u64::try_from(rank).unwrap_or(u64::MAX) + turn) % u64::from(present);
            u32::from(turned < u64::from(max))
        };
        if *other == owner {
            fair = part;
        } else {
            free = free.saturating_sub(share.taken);
            missing += part.min(share.needed).saturating_sub(share.taken);
        }
    }
    free.min(fair.max(free.saturating_sub(missing)))
}

#[cfg(test)]
mod tests;
