//! Claims on attempts, each with a lease.

use std::{collections::HashMap, time::Duration};

use crate::{CLAIM_LEASE, Claim, Claimed, Owner};

/// Below this there is nothing to prune.
const PRUNE_ABOVE: usize = 1024;

#[derive(Debug, Clone, Copy)]
struct Lease {
    owner: Owner,
    until: Duration,
}

/// Who has which attempt. Times are of one monotonic clock.
#[derive(Debug, Default)]
pub struct ClaimTable {
    leases: HashMap<Claim, Lease>,
    /// Prune when there are more.
    prune_at: usize,
}

impl ClaimTable {
    /// Takes a claim that is free, expired or one's own.
    pub fn claim(&mut self, now: Duration, owner: Owner, claim: Claim) -> Claimed {
        if self.leases.len() >= self.prune_at.max(PRUNE_ABOVE) {
            self.leases.retain(|_, lease| lease.until > now);
            self.prune_at = self.leases.len().saturating_mul(2);
        }
        if self.leases.get(&claim).is_some_and(|lease| lease.owner != owner && lease.until > now) {
            return Claimed::Others;
        }
        self.leases.insert(claim, Lease { owner, until: now + CLAIM_LEASE });
        Claimed::Ours
    }

    /// Extends one's own claim, even an expired one that nobody took since. Another's stays as it is.
    pub fn renew(&mut self, now: Duration, owner: Owner, claim: Claim) {
        if let Some(lease) = self.leases.get_mut(&claim).filter(|lease| lease.owner == owner) {
            lease.until = now + CLAIM_LEASE;
        }
    }

    /// Forgets one's own claim. Another's stays.
    pub fn release(&mut self, owner: Owner, claim: Claim) {
        if self.leases.get(&claim).is_some_and(|lease| lease.owner == owner) {
            self.leases.remove(&claim);
        }
    }
}

#[cfg(test)]
mod tests {
    use signalpost_core::{DeliveryId, Timestamp};

    use super::*;

    fn claim_of(number: u64) -> Claim {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&number.to_be_bytes());
        Claim { delivery_id: DeliveryId::from_parts(Timestamp::from_millis(1), random), attempt: 1 }
    }

    #[test]
    fn a_lease_ends_unless_it_is_renewed() {
        let mut table = ClaimTable::default();
        let (claim, start) = (claim_of(0), Duration::from_secs(1));
        assert_eq!(table.claim(start, 1, claim), Claimed::Ours);
        assert_eq!(table.claim(start, 1, claim), Claimed::Ours);
        assert_eq!(table.claim(start, 2, claim), Claimed::Others);
        let later = start + CLAIM_LEASE / 2;
        table.renew(later, 2, claim);
        table.renew(later, 1, claim);
        assert_eq!(table.claim(start + CLAIM_LEASE, 2, claim), Claimed::Others);
        assert_eq!(table.claim(later + CLAIM_LEASE, 2, claim), Claimed::Ours);
        table.release(1, claim);
        assert_eq!(table.claim(later + CLAIM_LEASE, 1, claim), Claimed::Others);
        table.release(2, claim);
        assert_eq!(table.claim(later + CLAIM_LEASE, 1, claim), Claimed::Ours);
    }

    #[test]
    fn expired_claims_are_forgotten() {
        let mut table = ClaimTable::default();
        for number in 0..100_000_u64 {
            table.claim(Duration::from_millis(number * 10), 1, claim_of(number));
        }
        assert!(table.leases.len() <= 2 * PRUNE_ABOVE, "{}", table.leases.len());
    }
}
