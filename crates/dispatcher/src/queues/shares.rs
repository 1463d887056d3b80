//! This dispatcher's shares of the slots that a destination has for all dispatchers together.
//!
//! A share is asked for in blocks, when more would go out than it allows; it is renewed thrice in its lease while it is
//! used, and given back when it is not. While an answer is not there no more goes out than was told to be out: whoever
//! answers may give the rest to others.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use signalpost_core::DestinationId;
use signalpost_limits::{SLOT_LEASE, SlotUse};

/// A share is used until so long before its lease ends.
const MARGIN: Duration = Duration::from_millis(500);
/// When to ask again after getting none.
const AGAIN: Duration = Duration::from_millis(100);
/// Asked for at least, where there are as many.
const BLOCK: u32 = 16;
/// Uses told in one call.
const BATCH: usize = 500;

#[derive(Debug, Default)]
struct Share {
    /// Requests that may be out.
    allowed: u32,
    /// Until when.
    until: Duration,
    /// Not to ask before.
    ask_at: Duration,
    is_asking: bool,
    /// The most that were out since the last renewal.
    peak: u32,
    max: u32,
}

/// What a queue does with its slots.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Use {
    pub held: u32,
    pub waiting: u32,
    /// All there are; zero: the queue is idle and forgotten.
    pub max: u32,
}

/// All shares.
#[derive(Debug, Default)]
pub(super) struct Shares {
    shares: BTreeMap<DestinationId, Share>,
    /// Those that need more now.
    wanting: BTreeSet<DestinationId>,
    /// Those that are renewed in this round.
    renewing: BTreeSet<DestinationId>,
    /// Dispatchers alive, where that is known.
    alive: Option<u32>,
}

impl Shares {
    /// Takes a slot where the share allows one more. Else says when it may be looked at again, if nothing else tells.
    pub(super) fn take(&mut self, id: DestinationId, held: usize, now: Duration) -> Result<(), Option<Duration>> {
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        let share = self.shares.entry(id).or_default();
        if held < share.allowed && now < share.until {
            share.peak = share.peak.max(held + 1);
            return Ok(());
        }
        if share.is_asking {
            return Err(None);
        }
        if share.ask_at > now {
            return Err(Some(share.ask_at));
        }
        share.is_asking = true;
        self.wanting.insert(id);
        Err(None)
    }

    /// How many dispatchers live, where that is known.
    pub(super) const fn set_alive(&mut self, alive: Option<u32>) {
        self.alive = alive;
    }

    /// Whether there are any.
    pub(super) fn has_any(&self) -> bool {
        !self.shares.is_empty()
    }

    /// Begins a round of renewals.
    pub(super) fn renew(&mut self) {
        self.renewing.extend(self.shares.keys());
    }

    /// What is to be told and asked now: a call's worth.
    pub(super) fn wanted(&mut self, of: impl Fn(DestinationId) -> Use) -> Vec<SlotUse> {
        let mut uses = Vec::new();
        while uses.len() < BATCH
            && let Some(destination_id) = self.wanting.pop_first().or_else(|| self.renewing.pop_first())
        {
            self.renewing.remove(&destination_id);
            let Some(share) = self.shares.get_mut(&destination_id) else { continue };
            let Use { held, waiting, max } = of(destination_id);
            if max > 0 {
                share.max = max;
            }
            let asks = share.is_asking && waiting > 0;
            let block = if asks { BLOCK.max(held / 2) } else { 0 };
            let wanted = waiting.max(share.peak.saturating_sub(held)).max(block).min(share.max.saturating_sub(held));
            share.is_asking = true;
            share.peak = held;
            share.allowed = share.allowed.min(held);
            uses.push(SlotUse { destination_id, max: share.max.max(1), held, wanted });
        }
        uses
    }

    /// What came of asking. None: it could not be asked; then a fair part of all, or one where nobody knows what is fair.
    pub(super) fn granted(&mut self, told: &SlotUse, allowed: Option<u32>, asked_at: Duration, now: Duration) {
        if told.held == 0 && told.wanted == 0 {
            self.shares.remove(&told.destination_id);
            self.wanting.remove(&told.destination_id);
            return;
        }
        let Some(share) = self.shares.get_mut(&told.destination_id) else { return };
        share.is_asking = false;
        let own_part = || self.alive.map_or(1, |alive| (told.max / alive.max(1)).max(1));
        share.allowed = allowed.unwrap_or_else(own_part).min(told.max);
        share.until = asked_at + SLOT_LEASE.saturating_sub(MARGIN);
        if share.allowed < told.held.saturating_add(told.wanted) {
            share.ask_at = now + AGAIN;
        }
    }

    /// Gives everything back, at the end.
    pub(super) fn give_back(&mut self) -> Vec<SlotUse> {
        std::mem::take(&mut self.shares)
            .into_iter()
            .map(|(destination_id, share)| SlotUse { destination_id, max: share.max.max(1), held: 0, wanted: 0 })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::destination_id;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn using(held: u32, waiting: u32) -> impl Fn(DestinationId) -> Use {
        move |_| Use { held, waiting, max: 100 }
    }

    #[test]
    fn a_share_is_asked_for_once_in_blocks_and_then_costs_nothing() {
        let (mut shares, id) = (Shares::default(), destination_id(1));
        assert_eq!(shares.take(id, 0, ms(0)), Err(None));
        assert_eq!(shares.take(id, 0, ms(0)), Err(None), "one question at a time");
        let told = shares.wanted(using(0, 1));
        assert_eq!(told, [SlotUse { destination_id: id, max: 100, held: 0, wanted: 16 }]);
        shares.granted(&told[0], Some(16), ms(0), ms(1));
        for held in 0..16 {
            assert_eq!(shares.take(id, held, ms(100)), Ok(()));
        }
        assert_eq!(shares.wanted(using(15, 0)), []);
        assert_eq!(shares.take(id, 16, ms(100)), Err(None));
    }

    #[test]
    fn a_share_ends_with_its_lease_and_renewing_freezes_it_until_the_answer() {
        let (mut shares, id) = (Shares::default(), destination_id(1));
        shares.take(id, 0, ms(0)).unwrap_err();
        let told = shares.wanted(using(0, 1));
        shares.granted(&told[0], Some(16), ms(0), ms(1));
        assert_eq!(shares.take(id, 7, ms(4499)), Ok(()));
        assert_eq!(shares.take(id, 0, ms(4500)), Err(None), "the lease is counted from before the question");
        let told = shares.wanted(using(3, 2));
        assert_eq!((told[0].held, told[0].wanted), (3, 16));
        assert_eq!(shares.take(id, 3, ms(4500)), Err(None));
        shares.granted(&told[0], Some(4), ms(4500), ms(4510));
        assert_eq!(shares.take(id, 3, ms(4510)), Ok(()));
        assert_eq!(shares.take(id, 4, ms(4510)), Err(Some(ms(4610))), "not in a circle");
        shares.renew();
        let told = shares.wanted(using(4, 0));
        assert_eq!((told[0].held, told[0].wanted), (4, 0));
        assert_eq!(shares.take(id, 4, ms(4600)), Err(None));
        assert_eq!(shares.take(id, 3, ms(4600)), Ok(()), "as many as were told may be out");
    }

    #[test]
    fn what_is_not_used_is_given_back_after_a_round() {
        let (mut shares, id) = (Shares::default(), destination_id(1));
        shares.take(id, 0, ms(0)).unwrap_err();
        let told = shares.wanted(using(0, 1));
        shares.granted(&told[0], Some(16), ms(0), ms(0));
        shares.take(id, 0, ms(0)).unwrap();
        let idle = |_| Use::default();
        shares.renew();
        let told = shares.wanted(idle);
        assert_eq!((told[0].held, told[0].wanted, told[0].max), (0, 1, 100), "it was used in this round");
        shares.granted(&told[0], Some(1), ms(0), ms(0));
        shares.renew();
        let told = shares.wanted(idle);
        assert_eq!((told[0].held, told[0].wanted), (0, 0));
        shares.granted(&told[0], Some(0), ms(0), ms(0));
        shares.renew();
        assert_eq!(shares.wanted(idle), []);
    }

    #[test]
    fn without_an_answer_it_is_a_fair_part() {
        for (alive, part) in [(Some(3), 33), (Some(1000), 1), (None, 1)] {
            let (mut shares, id) = (Shares::default(), destination_id(1));
            shares.set_alive(alive);
            shares.take(id, 0, ms(0)).unwrap_err();
            let told = shares.wanted(using(0, 50));
            shares.granted(&told[0], None, ms(0), ms(0));
            assert_eq!(shares.take(id, part - 1, ms(0)), Ok(()));
            assert!(shares.take(id, part, ms(0)).is_err());
        }
    }
}
