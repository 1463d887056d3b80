//! The rate of a replay job, over all processes that work on it.
//!
//! What a job is allowed is one moment, kept on its row and moved in the transaction that creates a piece: whoever takes the next
//! piece reads it there. So in any t seconds a job creates at most `rate × (t + 1) + 1` deliveries (and the rest of a millisecond
//! that must not be cut, which it makes up for), however many take turns.

use std::time::Duration;

use signalpost_core::Timestamp;

/// What is not used up within that time is lost.
const MOST_SAVED: Duration = Duration::from_secs(1);

/// How far a job with a rate has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    rate_per_second: f64,
    /// From when the next one is allowed, by the store's clock.
    paced_until: Timestamp,
    now: Timestamp,
}

impl Pace {
    /// Of a job, at a moment of the store's clock. `paced_until`: as kept by the one who created its last piece; None: it is new.
    #[must_use]
    pub fn new(rate_per_second: f64, paced_until: Option<Timestamp>, now: Timestamp) -> Self {
        Self { rate_per_second, paced_until: paced_until.map_or(now, |until| until.max(now - MOST_SAVED)), now }
    }

    /// How many may be created now. Of a new job one.
    #[must_use]
    pub fn allowed(&self) -> usize {
        if self.paced_until > self.now {
            return 0;
        }
        let saved = self.now.since(self.paced_until).as_secs_f64() * self.rate_per_second;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is not negative")]
        let saved = saved as usize;
        saved.saturating_add(1)
    }

    /// What to keep when so many are created.
    #[must_use]
    pub fn after(&self, created: usize) -> Timestamp {
        #[allow(clippy::cast_precision_loss, reason = "a piece is small")]
        let pause = Duration::try_from_secs_f64(created as f64 / self.rate_per_second);
        self.paced_until + pause.unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    #[test]
    fn the_rate_holds_whoever_asks_and_no_more_than_a_second_is_saved() {
        for rate in [0.1, 3.0, 40.0, 1000.0] {
            let (mut kept, mut created) = (None, 0);
            let mut take = |at: Duration| {
                let pace = Pace::new(rate, kept, START + at);
                let allowed = pace.allowed();
                kept = Some(pace.after(allowed));
                allowed
            };
            for tick in 0..1200 {
                created += take(Duration::from_millis(tick * 100));
                created += take(Duration::from_millis(tick * 100 + 7));
            }
            #[allow(clippy::cast_precision_loss)]
            let (created, expected) = (created as f64, 120.0 * rate);
            assert!((expected - 0.1 * rate..=expected + 1.0).contains(&created), "{rate}: {created}");
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let second = rate as usize;
            assert_eq!(take(Duration::from_secs(3600)), second + 1);
        }
    }

    #[test]
    fn what_was_created_beyond_the_rate_is_made_up_for() {
        let pace = Pace::new(10.0, None, START);
        assert_eq!(pace.allowed(), 1);
        let kept = pace.after(21);
        assert_eq!(kept, START + Duration::from_millis(2100));
        let at = |millis| Pace::new(10.0, Some(kept), START + Duration::from_millis(millis)).allowed();
        assert_eq!([at(0), at(2099), at(2100), at(2199), at(2200)], [0, 0, 1, 1, 2]);
    }
}
