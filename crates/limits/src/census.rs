//! How many dispatchers there are, as far as one of them knows: for its part of a limit while the shared state is away.

use std::time::Duration;

/// How long after a dispatcher was first counted all of them know of it; and for how long a count is believed.
const KNOWN_AFTER: Duration = Duration::from_secs(5);

/// What one dispatcher was told. Times are of one monotonic clock.
#[derive(Debug, Default)]
pub struct Census {
    /// Since when it is counted without a gap, and when it was told last.
    told: Option<(Duration, Duration)>,
    count: u32,
}

impl Census {
    /// So many live, this one included.
    pub fn counted(&mut self, count: u32, now: Duration) {
        let since =
            self.told.filter(|(_, last)| now.saturating_sub(*last) < KNOWN_AFTER).map_or(now, |(since, _)| since);
        (self.told, self.count) = (Some((since, now)), count.max(1));
    }

    /// By how many a limit is divided. None: nobody knows. Who is new is not known to the others, which still have its part, and may
    /// not know of all of them; nor is who was not counted for a while.
    pub fn parts(&self, now: Duration) -> Option<u32> {
        let (since, last) = self.told?;
        let is_known = now.saturating_sub(since) >= KNOWN_AFTER && now.saturating_sub(last) < KNOWN_AFTER;
        is_known.then_some(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_known_once_all_know_of_it_and_while_it_is_counted() {
        let at = Duration::from_millis;
        let mut census = Census::default();
        assert_eq!(census.parts(at(9000)), None, "it was never counted");
        for (now, count) in [(10_000, 1), (11_000, 3), (14_000, 3)] {
            census.counted(count, at(now));
            assert_eq!(census.parts(at(now)), None, "it is new");
        }
        assert_eq!(census.parts(at(15_000)), Some(3));
        census.counted(2, at(15_001));
        assert_eq!(census.parts(at(20_000)), Some(2));
        assert_eq!(census.parts(at(20_001)), None, "that was long ago");
        census.counted(4, at(21_000));
        assert_eq!(census.parts(at(21_000)), None, "it is as new");
        census.counted(0, at(25_000));
        assert_eq!(census.parts(at(26_000)), Some(1));
    }
}
