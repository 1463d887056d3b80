//! What was accepted held against what arrived, by number: what is missing, and what came more than once.

use std::time::Duration;

use super::{Answered, Arrival};

/// What became of the events of a load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Events of all requests; one that was repeated counts once.
    pub posted: u64,
    /// Answered with 2xx.
    pub accepted: u64,
    /// Deliveries of accepted events that never arrived.
    pub lost: u64,
    /// Further requests for what the receiver had answered with 2xx.
    pub duplicates: u64,
    /// Deliveries of events for which no 2xx was seen (an answer was lost): no fault.
    pub unannounced: u64,
    /// Accepted requests that repeated another.
    pub repeated: u64,
    /// Of these, how many were not answered as such.
    pub unknown: u64,
}

/// Holds answers against arrivals: each accepted event is to arrive at `fan` paths. Latencies from the intended start of the
/// request to the first arrival at each path come beside it.
pub fn tally(answers: &[Answered], events: u64, arrivals: &[Arrival], fan: u64) -> (Tally, Vec<Duration>) {
    let mut arrived: Vec<Arrival> = arrivals.iter().filter(|arrival| arrival.accepted).copied().collect();
    // By number, then path, then time: the first of each is the arrival, the others are duplicates.
    arrived.sort_unstable();
    let all = arrived.len();
    arrived.dedup_by_key(|arrival| (arrival.number, arrival.path));
    // A request that was repeated has two answers: the earlier start counts, and either acceptance.
    let mut answers: Vec<&Answered> = answers.iter().collect();
    answers.sort_unstable_by_key(|answer| (answer.first, answer.intended));

    let mut tally = Tally { duplicates: count(all - arrived.len()), ..Tally::default() };
    let mut latencies = Vec::with_capacity(arrived.len());
    let mut arrived = arrived.into_iter().peekable();
    for same in answers.chunk_by(|one, other| one.first == other.first) {
        let accepted = same.iter().any(|answer| answer.accepted());
        let good = same.iter().filter(|answer| answer.accepted());
        let repeated = count(good.clone().count().saturating_sub(1));
        tally.repeated += repeated;
        tally.unknown += repeated.saturating_sub(count(good.filter(|answer| answer.known).count()));
        for number in same[0].first..same[0].first + events {
            // What belongs to another load.
            while arrived.next_if(|arrival| arrival.number < number).is_some() {}
            let mut times = 0;
            while let Some(arrival) = arrived.next_if(|arrival| arrival.number == number) {
                latencies.push(arrival.at.saturating_sub(same[0].intended));
                times += 1;
            }
            tally.posted += 1;
            if accepted {
                tally.accepted += 1;
                tally.lost += fan.saturating_sub(times);
            } else {
                tally.unannounced += times;
            }
        }
    }
    (tally, latencies)
}

fn count(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Tally, tally};
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
        let (found, mut latencies) = tally(&answers, 2, &arrivals, 2);
        // 15 is missing at both, 11 at one.
        assert_eq!(found, Tally { posted: 6, accepted: 4, lost: 3, duplicates: 1, unannounced: 1, ..Tally::default() });
        latencies.sort_unstable();
        assert_eq!(latencies, [4, 5, 6, 6, 7, 10].map(Duration::from_millis));
    }

    #[test]
    fn a_repetition_is_told_as_one_or_counted() {
        let mut told = answered(10, 2, 202);
        told.known = true;
        let answers = [answered(10, 1, 202), told, answered(11, 1, 202), answered(11, 2, 202)];
        let (found, _) = tally(&answers, 1, &[arrival(10, 0, 5, true), arrival(11, 0, 5, true)], 1);
        assert_eq!(found, Tally { posted: 2, accepted: 2, repeated: 2, unknown: 1, ..Tally::default() });
    }
}
