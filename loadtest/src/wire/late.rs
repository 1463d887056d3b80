//! What arrives when the load of its event has been counted. All that was to come of it has come by then, so it is a
//! duplicate; unless it was lost until then, and counted as that.

use std::{collections::HashMap, ops::Range};

use super::{Arrival, Held, Tally};

/// The loads that were counted. Of what they hold it remembers but what is missing, which is little or nothing.
#[derive(Debug, Default)]
pub struct Late {
    /// The numbers of each load's events.
    loads: Vec<Range<u64>>,
    /// How many deliveries of an event may still come.
    missing: HashMap<u64, u64>,
    found: Tally,
}

impl Late {
    /// A load with these numbers has been counted.
    pub fn counted(&mut self, numbers: Range<u64>, held: &Held) {
        self.came(&held.others);
        self.loads.push(numbers);
        self.missing.extend(held.missing.iter().copied());
    }

    /// Arrivals outside of what is counted of a load: those of loads that were counted before are looked at.
    pub fn came(&mut self, arrivals: &[Arrival]) {
        for arrival in arrivals.iter().filter(|arrival| arrival.accepted) {
            let number = arrival.number;
            if !self.loads.iter().any(|load| load.contains(&number)) {
                continue;
            }
            match self.missing.get_mut(&number) {
                Some(left) if *left > 0 => *left -= 1,
                _ => self.found.came_again(number, true),
            }
        }
    }

    /// Duplicates of a load that nobody tells of.
    pub fn add(&mut self, tally: Tally) {
        let Tally { duplicates, duplicate_numbers, .. } = tally;
        let found = std::mem::take(&mut self.found);
        self.found = [found, Tally { duplicates, duplicate_numbers, ..Tally::default() }].into_iter().sum();
    }

    /// The duplicates since the last time that they were asked for.
    pub fn take(&mut self) -> Tally {
        std::mem::take(&mut self.found)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Late;
    use crate::wire::{Arrival, Held, Tally};

    fn arrivals(numbers: &[u64]) -> Vec<Arrival> {
        let of = |number: &u64| Arrival { number: *number, path: 1, at: Duration::ZERO, accepted: true };
        numbers.iter().map(of).collect()
    }

    fn found(duplicates: u64, late: u64, numbers: &[u64]) -> Tally {
        Tally { duplicates, late, duplicate_numbers: numbers.to_vec(), ..Tally::default() }
    }

    #[test]
    fn what_comes_after_its_load_was_counted_is_a_duplicate() {
        let mut late = Late::default();
        late.came(&arrivals(&[10]));
        assert_eq!(late.take(), Tally::default(), "its load has not been counted");
        late.counted(10..20, &Held::default());
        // While another load runs, and after the last.
        late.counted(20..30, &Held { others: arrivals(&[12, 35]), ..Held::default() });
        late.came(&arrivals(&[25, 12]));
        assert_eq!(late.take(), found(3, 3, &[12, 25, 12]));
        assert_eq!(late.take(), Tally::default());
    }

    #[test]
    fn what_was_lost_and_comes_is_none() {
        let mut late = Late::default();
        late.counted(10..20, &Held { missing: vec![(11, 2)], ..Held::default() });
        late.came(&arrivals(&[11, 11]));
        assert_eq!(late.take(), Tally::default());
        late.came(&arrivals(&[11]));
        assert_eq!(late.take(), found(1, 1, &[11]));
    }

    #[test]
    fn what_failed_at_the_receiver_is_none() {
        let mut late = Late::default();
        late.counted(10..20, &Held::default());
        let failed = arrivals(&[11]).into_iter().map(|arrival| Arrival { accepted: false, ..arrival });
        late.came(&failed.collect::<Vec<_>>());
        late.add(found(1, 0, &[15]));
        assert_eq!(late.take(), found(1, 0, &[15]));
    }
}
