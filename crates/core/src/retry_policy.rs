//! When a failed delivery is tried again.

use std::{num::NonZeroU32, time::Duration};

use serde::{Deserialize, Serialize};

use crate::Entropy;

/// The policy of a destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// How the pauses grow.
    #[serde(flatten)]
    pub strategy: Strategy,
    /// A pause is multiplied by a number uniform in `1 - jitter ..= 1 + jitter`; 0 to 1.
    #[serde(default = "default_jitter")]
    pub jitter: f64,
    /// What to do about a 4xx.
    #[serde(default)]
    pub on_4xx: On4xx,
}

/// How pauses grow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "strategy", rename_all = "snake_case")]
pub enum Strategy {
    /// `initial_ms × factor^(n - 1)`, at most `max_ms`, before attempt n + 1.
    Exponential {
        /// The first pause: 10 ms to 7 d.
        initial_ms: u64,
        /// 1 to 10.
        factor: f64,
        /// The longest pause: 10 ms to 7 d.
        max_ms: u64,
        /// Counts every request; None: no limit.
        max_attempts: Option<NonZeroU32>,
    },
    /// `delays_ms[i]` before attempt i + 2; three delays make four attempts.
    Schedule {
        /// At most 100, each 10 ms to 7 d.
        delays_ms: Vec<u64>,
    },
}

/// What to do about a 4xx that has no rule of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On4xx {
    /// Retry those that a deploy or a proxy gone wrong would answer.
    #[default]
    Auto,
    /// Retry them all.
    Always,
    /// Retry none but 408, 425 and 429.
    Never,
}

/// 20 %.
pub const fn default_jitter() -> f64 {
    0.2
}

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// The schedule that Standard Webhooks 1.0.0 gives as its example (section "Deliverability and reliability").
pub const STANDARD_DELAYS_MS: [u64; 9] =
    [5 * SECOND, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR];

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            strategy: Strategy::Schedule { delays_ms: STANDARD_DELAYS_MS.to_vec() },
            jitter: default_jitter(),
            on_4xx: On4xx::Auto,
        }
    }
}

impl RetryPolicy {
    /// How many requests are made at most; None: no limit.
    pub fn max_attempts(&self) -> Option<u32> {
        match &self.strategy {
            Strategy::Exponential { max_attempts, .. } => max_attempts.map(NonZeroU32::get),
            Strategy::Schedule { delays_ms } => {
                Some(u32::try_from(delays_ms.len()).unwrap_or(u32::MAX).saturating_add(1))
            }
        }
    }

    /// The pause after attempt number `attempt` (from 1) failed; None when no further attempt is allowed.
    pub fn pause_after(&self, attempt: u32, entropy: &dyn Entropy) -> Option<Duration> {
        if self.max_attempts().is_some_and(|most| attempt >= most) {
            return None;
        }
        let pause_ms = match &self.strategy {
            Strategy::Exponential { initial_ms, factor, max_ms, .. } => {
                let power = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
                #[allow(clippy::cast_precision_loss)]
                let (initial, most) = (*initial_ms as f64, *max_ms as f64);
                (initial * factor.powi(power)).min(most)
            }
            Strategy::Schedule { delays_ms } => {
                let index = usize::try_from(attempt.saturating_sub(1)).ok()?;
                #[allow(clippy::cast_precision_loss)]
                let delay = *delays_ms.get(index)? as f64;
                delay
            }
        };
        let spread = 1.0 + self.jitter * (2.0 * entropy.unit() - 1.0);
        Some(Duration::from_secs_f64((pause_ms * spread / 1000.0).max(0.0)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Fills with one byte: 0x00 draws 0, 0xff the largest number below 1.
    #[derive(Debug)]
    struct Always(u8);

    impl Entropy for Always {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    const LEAST: Always = Always(0x00);
    const MOST: Always = Always(0xff);

    fn seconds(pause: Option<Duration>) -> Option<f64> {
        pause.map(|pause| (pause.as_secs_f64() * 1e6).round() / 1e6)
    }

    #[test]
    fn the_default_is_the_schedule_of_standard_webhooks_with_a_jitter_of_a_fifth() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.max_attempts(), Some(10));
        let pauses = [5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0];
        for (attempt, pause) in (1..).zip(pauses) {
            assert_eq!(seconds(policy.pause_after(attempt, &LEAST)), Some(pause * 0.8), "after attempt {attempt}");
            let most = policy.pause_after(attempt, &MOST).unwrap().as_secs_f64();
            assert!(most <= pause * 1.2 && most > pause * 1.199_999, "after attempt {attempt}: {most}");
        }
        assert_eq!(policy.pause_after(10, &MOST), None);
        assert_eq!(policy.pause_after(u32::MAX, &MOST), None);
    }

    fn exponential(max_attempts: Option<u32>, jitter: f64) -> RetryPolicy {
        let max_attempts = max_attempts.and_then(NonZeroU32::new);
        let strategy = Strategy::Exponential { initial_ms: 50, factor: 1.5, max_ms: 2000, max_attempts };
        RetryPolicy { strategy, jitter, on_4xx: On4xx::Auto }
    }

    #[test]
    fn exponential_pauses_grow_to_their_bound() {
        let policy = exponential(Some(12), 0.0);
        let pauses: Vec<_> = (1..=12).map(|attempt| policy.pause_after(attempt, &MOST)).collect();
        let expected =
            [50.0, 75.0, 112.5, 168.75, 253.125, 379.6875, 569.53125, 854.296875, 1281.4453125, 1922.16796875];
        for (pause, expected) in pauses.iter().zip(expected) {
            let millis = pause.unwrap().as_secs_f64() * 1000.0;
            assert!((millis - expected).abs() < 1e-3, "{millis} for {expected}");
        }
        assert_eq!(pauses[10..], [Some(Duration::from_secs(2)), None]);
    }

    #[test]
    fn without_a_limit_there_is_always_a_next_attempt() {
        let policy = exponential(None, 0.2);
        assert_eq!(policy.max_attempts(), None);
        for attempt in [1, 100, 1_000_000, u32::MAX] {
            let pause = policy.pause_after(attempt, &MOST).unwrap();
            assert!(pause <= Duration::from_millis(2400), "{pause:?}");
        }
    }

    #[test]
    fn a_jitter_of_one_reaches_from_nothing_to_twice() {
        let policy = exponential(None, 1.0);
        assert_eq!(policy.pause_after(1, &LEAST), Some(Duration::ZERO));
        assert!(policy.pause_after(1, &MOST).unwrap() > Duration::from_millis(99));
    }

    #[test]
    fn three_delays_make_four_attempts() {
        let strategy = Strategy::Schedule { delays_ms: vec![10, 20, 30] };
        let policy = RetryPolicy { strategy, jitter: 0.0, on_4xx: On4xx::Auto };
        assert_eq!(policy.max_attempts(), Some(4));
        let pauses: Vec<_> = (1..=4).map(|attempt| policy.pause_after(attempt, &MOST)).collect();
        assert_eq!(pauses, [Some(10), Some(20), Some(30), None].map(|ms| ms.map(Duration::from_millis)));
        let none = RetryPolicy { strategy: Strategy::Schedule { delays_ms: Vec::new() }, ..policy };
        assert_eq!((none.max_attempts(), none.pause_after(1, &MOST)), (Some(1), None));
    }

    #[test]
    fn the_json_is_that_of_the_api() {
        let json =
            json!({"strategy": "exponential", "initial_ms": 50, "factor": 1.5, "max_ms": 2000, "max_attempts": 100});
        let policy: RetryPolicy = serde_json::from_value(json).unwrap();
        assert_eq!(policy, exponential(Some(100), 0.2));
        let json = json!({"strategy": "schedule", "delays_ms": [1000], "jitter": 0.5, "on_4xx": "never"});
        let policy: RetryPolicy = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(policy).unwrap(), json);
    }
}
