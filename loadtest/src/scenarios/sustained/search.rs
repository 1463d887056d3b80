//! The highest rate that holds, by trying: up until one does not, then between the best that did and the worst that did not.

/// How much higher the next is while all hold, and how much lower while none does.
const UP: f64 = 1.4;
const DOWN: f64 = 0.6;

/// What was found so far.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    holds: Option<f64>,
    fails: Option<f64>,
    next: f64,
    /// It ends where the two are so close: 0.05 is 5 %.
    precision: f64,
}

impl Search {
    /// Begins with that rate.
    pub fn from(rate: f64, precision: f64) -> Self {
        Self { holds: None, fails: None, next: rate, precision }
    }

    /// What is to be tried next; None when it is found, or when not even one in a second holds.
    pub fn next(&self) -> Option<f64> {
        match (self.holds, self.fails) {
            (Some(holds), Some(fails)) if fails <= holds * (1.0 + self.precision) => None,
            (None, _) if self.next < 1.0 => None,
            _ => Some(self.next),
        }
    }

    /// Whether the rate that was tried holds.
    pub fn tried(&mut self, rate: f64, holds: bool) {
        if holds {
            self.holds = Some(self.holds.map_or(rate, |best| best.max(rate)));
        } else {
            self.fails = Some(self.fails.map_or(rate, |worst| worst.min(rate)));
            // What held once and then did not, does not.
            self.holds = self.holds.filter(|best| *best < rate);
        }
        self.next = match (self.holds, self.fails) {
            (Some(holds), Some(fails)) => f64::midpoint(holds, fails),
            (Some(holds), None) => holds * UP,
            (None, Some(fails)) => fails * DOWN,
            (None, None) => self.next,
        };
    }

    /// The highest that held.
    pub fn found(&self) -> Option<f64> {
        self.holds
    }
}

#[cfg(test)]
mod tests {
    use super::Search;

    fn search(from: f64, limit: f64) -> (Option<f64>, usize) {
        let mut search = Search::from(from, 0.05);
        let mut tries = 0;
        while let Some(rate) = search.next() {
            search.tried(rate, rate <= limit);
            tries += 1;
        }
        (search.found(), tries)
    }

    #[test]
    fn the_limit_is_found_from_above_and_from_below() {
        for (from, limit) in [(10_000.0, 11_000.0), (10_000.0, 3_000.0), (500.0, 11_000.0), (10_000.0, 10_000.0)] {
            let (found, tries) = search(from, limit);
            let found = found.unwrap_or(0.0);
            assert!(found <= limit && found > limit * 0.95, "{found} of {limit}");
            assert!(tries <= 16, "{tries} tries from {from} to {limit}");
        }
        assert_eq!(search(1_000.0, 0.0).0, None);
    }

    #[test]
    fn what_fails_later_does_not_hold() {
        let mut search = Search::from(1_000.0, 0.05);
        search.tried(1_000.0, true);
        search.tried(1_000.0, false);
        assert_eq!(search.found(), None);
        assert!(search.next().is_some_and(|next| next < 1_000.0));
    }
}
