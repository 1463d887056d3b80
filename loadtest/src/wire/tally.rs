//! What was accepted held against what arrived, by number: what is missing, and what came more than once.

use std::time::Duration;

use super::{Answered, Arrival};

/// So many numbers of what was lost, and of what came twice, are told.
const TOLD: usize = 20;

/// What became of the events of a load.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Events of all requests; one that was repeated counts once.
    pub posted: u64,
    /// Answered with 2xx.
    pub accepted: u64,
    /// Deliveries of accepted events that never arrived.
    pub lost: u64,
    /// Further requests for what the receiver had answered with 2xx.
    pub duplicates: u64,
    /// Of these, how many came when the load of their event had been counted.
    pub late: u64,
    /// Deliveries of events for which no 2xx was seen (an answer was lost): no fault.
    pub unannounced: u64,
    /// Accepted requests that repeated another.
    pub repeated: u64,
    /// Of these, how many were not answered as such.
    pub unknown: u64,
    /// The first events that were lost.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost_numbers: Vec<u64>,
    /// The first events that came twice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub duplicate_numbers: Vec<u64>,
}

impl Tally {
    /// Further requests for an event.
    pub(super) fn came_again(&mut self, number: u64, late: bool) {
        self.duplicates += 1;
        self.late += u64::from(late);
        tell(&mut self.duplicate_numbers, &[number]);
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |mut sum, tally| {
            sum.posted += tally.posted;
            sum.accepted += tally.accepted;
            sum.lost += tally.lost;
            sum.duplicates += tally.duplicates;
            sum.late += tally.late;
            sum.unannounced += tally.unannounced;
            sum.repeated += tally.repeated;
            sum.unknown += tally.unknown;
            tell(&mut sum.lost_numbers, &tally.lost_numbers);
            tell(&mut sum.duplicate_numbers, &tally.duplicate_numbers);
            sum
        })
    }
}

/// Appends what is told of these numbers.
fn tell(told: &mut Vec<u64>, numbers: &[u64]) {
    let room = TOLD.saturating_sub(told.len());
    told.extend(numbers.iter().take(room));
}

/// What answers and arrivals, held against each other, say.
#[derive(Debug, Default)]
pub struct Held {
    /// In counts.
    pub tally: Tally,
    /// From the intended start of the request to the first arrival at each path.
    pub latencies: Vec<Duration>,
    /// Events, and how many of their deliveries may still come, whether or not they were accepted.
    pub missing: Vec<(u64, u64)>,
    /// Arrivals, answered with 2xx, of events of other loads.
    pub others: Vec<Arrival>,
}

/// Holds answers against arrivals: each accepted event is to arrive at `fan` paths.
pub fn tally(answers: &[Answered], events: u64, arrivals: &[Arrival], fan: u64) -> Held {
    let mut arrived: Vec<Arrival> = arrivals.iter().filter(|arrival| arrival.accepted).copied().collect();
    // By number, then path, then time: the first of each is the arrival, the others are duplicates.
    arrived.sort_unstable();
    // A request that was repeated has two answers: the earlier start counts, and either acceptance.
    let mut answers: Vec<&Answered> = answers.iter().collect();
    answers.sort_unstable_by_key(|answer| (answer.first, answer.intended));

    let mut held = Held { latencies: Vec::with_capacity(arrived.len()), ..Held::default() };
    let tally = &mut held.tally;
    let mut arrived = arrived.into_iter().peekable();
    for same in answers.chunk_by(|one, other| one.first == other.first) {
        let accepted = same.iter().any(|answer| answer.accepted());
        let good = same.iter().filter(|answer| answer.accepted());
        let repeated = count(good.clone().count().saturating_sub(1));
        tally.repeated += repeated;
        tally.unknown += repeated.saturating_sub(count(good.filter(|answer| answer.known).count()));
        for number in same[0].first..same[0].first + events {
            while let Some(other) = arrived.next_if(|arrival| arrival.number < number) {
                held.others.push(other);
            }
            let (mut times, mut last) = (0, None);
            while let Some(arrival) = arrived.next_if(|arrival| arrival.number == number) {
                if last == Some(arrival.path) {
                    tally.came_again(number, false);
                    continue;
                }
                last = Some(arrival.path);
                held.latencies.push(arrival.at.saturating_sub(same[0].intended));
                times += 1;
            }
            if times < fan {
                held.missing.push((number, fan - times));
            }
            tally.posted += 1;
            if accepted {
                tally.accepted += 1;
                tally.lost += fan.saturating_sub(times);
                if times < fan {
                    tell(&mut tally.lost_numbers, &[number]);
                }
            } else {
                tally.unannounced += times;
            }
        }
    }
    held.others.extend(arrived);
    held
}

fn count(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Held, TOLD, Tally, tally};
    use crate::wire::{Answered, Arrival};

    fn answered(first: u64, intended_ms: u64, status: u16) -> Answered {
        let intended = Duration::from_millis(intended_ms);
        Answered { first, intended, answered: intended, status, known: false }
    }

    fn arrival(number: u64, path: u32, at_ms: u64, accepted: bool) -> Arrival {
        Arrival { number, path, at: Duration::from_millis(at_ms), accepted }
    }

    #[test]
    fn what_is_lost_and_what_comes_twice_is_found() {
        // Requests of two events each: 10 and 11 accepted, 12 and 13 unknown, 14 and 15 accepted at the second try.
        let answers = [answered(12, 2, 0), answered(14, 9, 202), answered(10, 1, 202), answered(14, 4, 503)];
        let arrivals = [
            arrival(9, 0, 1, true), // of a load before
            arrival(10, 0, 5, true),
            arrival(10, 1, 6, true),
            arrival(10, 1, 7, true),  // twice
            arrival(11, 0, 8, false), // failed there,
            arrival(11, 0, 11, true), // but not the second time; never at path 1
            arrival(12, 0, 9, true),  // nobody was told
            arrival(14, 0, 10, true),
            arrival(14, 1, 10, true),
        ];
        let Held { tally: found, mut latencies, missing, others } = tally(&answers, 2, &arrivals, 2);
        // 15 is missing at both, 11 at one.
        let (lost_numbers, duplicate_numbers) = (vec![11, 15], vec![10]);
        let wanted = Tally { posted: 6, accepted: 4, lost: 3, duplicates: 1, unannounced: 1, ..Tally::default() };
        assert_eq!(found, Tally { lost_numbers, duplicate_numbers, ..wanted });
        // Of what nobody was told, too, may still come what did not.
        assert_eq!(missing, [(11, 1), (12, 1), (13, 2), (15, 2)]);
        assert_eq!(others, arrivals[..1]);
        latencies.sort_unstable();
        assert_eq!(latencies, [4, 5, 6, 6, 7, 10].map(Duration::from_millis));
    }

    #[test]
    fn a_repetition_is_told_as_one_or_counted() {
        let mut told = answered(10, 2, 202);
        told.known = true;
        let answers = [answered(10, 1, 202), told, answered(11, 1, 202), answered(11, 2, 202)];
        let found = tally(&answers, 1, &[arrival(10, 0, 5, true), arrival(11, 0, 5, true)], 1).tally;
        assert_eq!(found, Tally { posted: 2, accepted: 2, repeated: 2, unknown: 1, ..Tally::default() });
    }

    #[test]
    fn the_sum_tells_the_first_numbers_only() {
        let lost = |first: u64| Tally {
            posted: 15,
            lost: 15,
            lost_numbers: (first..first + 15).collect(),
            ..Tally::default()
        };
        let sum: Tally = [lost(100), lost(200)].into_iter().sum();
        assert_eq!((sum.posted, sum.lost, sum.lost_numbers.len()), (30, 30, TOLD));
        assert_eq!(sum.lost_numbers[14..16], [114, 200]);
    }
}
