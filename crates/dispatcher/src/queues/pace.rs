//! How fast something moves: how often it happened lately.

use std::time::Duration;

/// It is counted in windows of that length.
const WINDOW: Duration = Duration::from_millis(500);

/// A count of the present window and the one before.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Pace {
    since: Duration,
    count: u32,
    before: u32,
}

impl Pace {
    /// It happened so often.
    pub(super) fn tick(&mut self, times: usize, now: Duration) {
        let passed = now.saturating_sub(self.since);
        if passed >= WINDOW {
            self.before = if passed < 2 * WINDOW { self.count } else { 0 };
            self.count = 0;
            self.since = now;
        }
        self.count = self.count.saturating_add(u32::try_from(times).unwrap_or(u32::MAX));
    }

    /// How long so many more take at this pace. None: nothing moves.
    pub(super) fn time_for(&self, count: usize, now: Duration) -> Option<Duration> {
        let per_window = match now.saturating_sub(self.since) {
            passed if passed < WINDOW => self.count.max(self.before),
            passed if passed < 2 * WINDOW => self.count,
            _ => 0,
        };
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        (per_window > 0).then(|| WINDOW.mul_f64(count as f64 / f64::from(per_window)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_is_expected_to_go_on_and_what_stopped_is_not() {
        let ms = Duration::from_millis;
        let mut pace = Pace::default();
        assert_eq!(pace.time_for(10, ms(0)), None);
        pace.tick(5, ms(100));
        assert_eq!(pace.time_for(10, ms(100)), Some(ms(1000)));
        pace.tick(1, ms(600));
        assert_eq!(pace.time_for(10, ms(600)), Some(ms(1000)), "the window before was a whole one");
        assert_eq!(pace.time_for(10, ms(1100)), Some(ms(5000)));
        assert_eq!(pace.time_for(10, ms(1600)), None);
        pace.tick(2, ms(5000));
        assert_eq!(pace.time_for(2, ms(5000)), Some(ms(500)));
    }
}
