//! What was posted: each event of a run has a number, and its row here says when it should have been posted, when it was
//! answered, and which group of the load it belongs to. Held against the receiver's log at the end.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::receiver::Entry;

/// One event of a load.
#[derive(Debug, Clone, Copy)]
pub struct Posted {
    /// When it was to be posted, since the epoch: latencies count from here, so a late producer hides nothing.
    pub intended: Duration,
    /// When its 202 came; None: it was refused, or nobody knows.
    pub accepted: Option<Duration>,
    /// A group of the load (a destination, a lane), as the scenario counts them.
    pub group: u32,
    /// How often it was posted until it was accepted.
    pub tries: u32,
}

/// All of them, by number.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Vec<Option<Posted>>>);

impl Ledger {
    fn rows(&self) -> MutexGuard<'_, Vec<Option<Posted>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets that many numbers aside; the first.
    pub fn reserve(&self, count: usize) -> u64 {
        let mut rows = self.rows();
        let first = rows.len();
        rows.resize(first + count, None);
        u64::try_from(first).unwrap_or(u64::MAX)
    }

    /// Notes what became of an event.
    pub fn note(&self, number: u64, posted: Posted) {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        if let Some(row) = self.rows().get_mut(place) {
            *row = Some(posted);
        }
    }

    /// Those of a range of numbers that were posted.
    pub fn posted(&self, first: u64, count: usize) -> Vec<(u64, Posted)> {
        let start = usize::try_from(first).unwrap_or(usize::MAX);
        let rows = self.rows();
        let range = rows.iter().enumerate().skip(start).take(count);
        range.filter_map(|(number, row)| Some((u64::try_from(number).ok()?, (*row)?))).collect()
    }
}

/// What became of the accepted events of a load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Account {
    /// Events of the load.
    pub posted: usize,
    /// Answered with 202.
    pub accepted: usize,
    /// Accepted, and never answered with 2xx by the receiver.
    pub lost: usize,
    /// Further requests for what the receiver had answered with 2xx already.
    pub duplicates: usize,
    /// Arrived although no 202 was seen for them (an answer was lost): no fault.
    pub unannounced: usize,
}

/// Holds the ledger against the log: each accepted event must have been answered with 2xx at one path, once.
pub fn account(posted: &[(u64, Posted)], log: &[Entry]) -> Account {
    let mut good: HashMap<u64, usize> = HashMap::with_capacity(posted.len());
    for entry in log.iter().filter(|entry| entry.accepted()) {
        if let Some(number) = entry.number {
            *good.entry(number).or_default() += 1;
        }
    }
    let mut account = Account { posted: posted.len(), ..Account::default() };
    for (number, posted) in posted {
        let times = good.get(number).copied().unwrap_or(0);
        let accepted = posted.accepted.is_some();
        account.accepted += usize::from(accepted);
        account.lost += usize::from(accepted && times == 0);
        account.unannounced += usize::from(!accepted && times > 0);
        account.duplicates += times.saturating_sub(1);
    }
    account
}

/// When the first 2xx of each event was about to leave the receiver, by number.
pub fn first_arrivals(log: &[Entry]) -> HashMap<u64, Duration> {
    let mut first = HashMap::with_capacity(log.len());
    for entry in log.iter().filter(|entry| entry.accepted()) {
        if let Some(number) = entry.number {
            let at = first.entry(number).or_insert(entry.start);
            *at = entry.start.min(*at);
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Account, Ledger, Posted, account};
    use crate::receiver::Entry;

    #[test]
    fn what_is_lost_and_what_comes_twice_is_found() {
        let ledger = Ledger::default();
        let first = ledger.reserve(4);
        let posted = |accepted| Posted { intended: Duration::ZERO, accepted, group: 0, tries: 1 };
        for number in 0..3 {
            ledger.note(first + number, posted(Some(Duration::ZERO)));
        }
        ledger.note(first + 3, posted(None));
        let entry = |number, status| Entry {
            number: Some(number),
            path: 0,
            attempt: 1,
            start: Duration::ZERO,
            end: Some(Duration::ZERO),
            status: Some(status),
        };
        // 0 fails and arrives, 1 arrives twice, 2 only ever fails, 3 arrives although nobody was told.
        let log = [entry(0, 500), entry(0, 200), entry(1, 200), entry(1, 200), entry(2, 500), entry(3, 200)];
        let found = account(&ledger.posted(first, 4), &log);
        assert_eq!(found, Account { posted: 4, accepted: 3, lost: 1, duplicates: 1, unannounced: 1 });
    }
}
