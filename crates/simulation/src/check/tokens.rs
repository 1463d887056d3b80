//! The bound of a rate limit (I7): in any t at most `burst + 1.02 × rate × t` requests.

use signalpost_core::destination::RateLimit;
use tokio::time::Instant;

/// A token is used within 50 ms of its grant, and a grant may be 50 ms under way.
const UNDER_WAY: f64 = 0.1;

/// A bucket that fills a little faster than the limit's own: a request that finds it empty breaks the bound over some
/// window, and the reverse.
#[derive(Debug)]
pub struct Allowance {
    per_second: f64,
    most: f64,
    tokens: f64,
    at: Instant,
}

impl Allowance {
    /// Full.
    pub fn new(limit: RateLimit, now: Instant) -> Self {
        let per_second = limit.per_second * 1.02;
        let most = limit.burst() + per_second * UNDER_WAY;
        Self { per_second, most, tokens: most, at: now }
    }

    /// One request; how many tokens it lacks, where it does.
    pub fn take(&mut self, now: Instant) -> Option<f64> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.most) - 1.0;
        self.at = now;
        (self.tokens < -1e-6).then_some(-self.tokens)
    }
}
