//! What an answer, or the lack of one, means for a delivery. The table stands in `docs/api.md`.

use std::time::Duration;

use crate::{
    AttemptOutcome, DeadReason, Entropy, Guarantee,
    retry_policy::{On4xx, RetryPolicy},
};

/// What came back from a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A response, with its status, and the pause that it asked for (`Retry-After`).
    Status { code: u16, retry_after: Option<Duration> },
    /// No response: time-out, connection, TLS or DNS failure.
    Unreachable,
    /// The address is not allowed; nothing was sent.
    EgressDenied,
}

/// What follows for the delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It arrived.
    Delivered,
    /// It failed and is tried again after that pause.
    Retry {
        /// From now.
        after: Duration,
    },
    /// It failed for good.
    Dead {
        /// Why.
        reason: DeadReason,
        /// The destination said that it is gone (410): disable it.
        disable_destination: bool,
    },
}

impl Verdict {
    /// Under that guarantee: at most once, what would be tried again has failed for good.
    #[must_use]
    pub const fn under(self, guarantee: Guarantee) -> Self {
        match (guarantee, self) {
            (
                Guarantee::AtMostOnce,
                Self::Retry { .. } | Self::Dead { reason: DeadReason::Exhausted | DeadReason::Expired, .. },
            ) => Self::Dead { reason: DeadReason::FailedOnce, disable_destination: false },
            (_, verdict) => verdict,
        }
    }

    /// What the attempt is recorded as.
    pub const fn outcome(self) -> AttemptOutcome {
        match self {
            Self::Delivered => AttemptOutcome::Delivered,
            Self::Retry { .. } => AttemptOutcome::Retry,
            Self::Dead { .. } => AttemptOutcome::Dead,
        }
    }
}

/// The longest `Retry-After` that is honoured.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Judges attempt number `attempt` (from 1) of a delivery that is `age` old.
///
/// `max_age` ends a delivery as `expired` where its next attempt would come later than that.
pub fn judge(
    answer: Answer,
    policy: &RetryPolicy,
    attempt: u32,
    age: Duration,
    max_age: Duration,
    entropy: &dyn Entropy,
) -> Verdict {
    let dead = |reason| Verdict::Dead { reason, disable_destination: false };
    let (code, retry_after) = match answer {
        Answer::EgressDenied => return dead(DeadReason::EgressDenied),
        Answer::Unreachable => (None, None),
        Answer::Status { code, retry_after } => (Some(code), retry_after),
    };
    let retried = match code {
        Some(200..=299) => return Verdict::Delivered,
        Some(300..=399) => return dead(DeadReason::Redirect),
        Some(410) => return Verdict::Dead { reason: DeadReason::Gone, disable_destination: true },
        Some(408 | 425 | 429) | None => true,
        Some(401 | 403 | 404 | 405 | 407 | 409 | 421 | 423) => policy.on_4xx != On4xx::Never,
        Some(400..=499) => policy.on_4xx == On4xx::Always,
        // 5xx, and what is no HTTP status at all.
        Some(_) => true,
    };
    if !retried {
        return dead(DeadReason::Rejected);
    }
    let Some(pause) = policy.pause_after(attempt, entropy) else {
        return dead(DeadReason::Exhausted);
    };
    let asked =
        retry_after.filter(|_| matches!(code, Some(429 | 503))).map_or(Duration::ZERO, |d| d.min(MAX_RETRY_AFTER));
    let after = pause.max(asked);
    if age.saturating_add(after) > max_age {
        return dead(DeadReason::Expired);
    }
    Verdict::Retry { after }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry_policy::Strategy;

    #[derive(Debug)]
    struct Zero;

    impl Entropy for Zero {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0);
        }
    }

    const MAX_AGE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

    fn policy(on_4xx: On4xx) -> RetryPolicy {
        RetryPolicy { strategy: Strategy::Schedule { delays_ms: vec![10_000] }, jitter: 0.0, on_4xx }
    }

    fn of(answer: Answer, on_4xx: On4xx) -> Verdict {
        judge(answer, &policy(on_4xx), 1, Duration::ZERO, MAX_AGE, &Zero)
    }

    const fn status(code: u16) -> Answer {
        Answer::Status { code, retry_after: None }
    }

    const AGAIN: Verdict = Verdict::Retry { after: Duration::from_secs(10) };

    const fn dead(reason: DeadReason) -> Verdict {
        Verdict::Dead { reason, disable_destination: false }
    }

    #[test]
    fn every_status_has_its_verdict() {
        const REJECTED: Verdict = dead(DeadReason::Rejected);
        // Code, then what follows with on_4xx auto, always, never.
        for (codes, verdicts) in [
            (&[200, 201, 202, 204, 226, 299][..], [Verdict::Delivered; 3]),
            (&[300, 301, 302, 303, 304, 307, 308], [dead(DeadReason::Redirect); 3]),
            (&[410], [Verdict::Dead { reason: DeadReason::Gone, disable_destination: true }; 3]),
            (&[408, 425, 429], [AGAIN; 3]),
            (&[401, 403, 404, 405, 407, 409, 421, 423], [AGAIN, AGAIN, REJECTED]),
            (&[400, 402, 406, 411, 413, 414, 415, 418, 422, 424, 426, 431, 451, 499], [REJECTED, AGAIN, REJECTED]),
            (&[500, 501, 502, 503, 504, 511, 599, 100, 101, 600, 999], [AGAIN; 3]),
        ] {
            for code in codes {
                for (on_4xx, verdict) in [On4xx::Auto, On4xx::Always, On4xx::Never].into_iter().zip(verdicts) {
                    assert_eq!(of(status(*code), on_4xx), verdict, "{code} {on_4xx:?}");
                }
            }
        }
    }

    #[test]
    fn without_an_answer_it_is_tried_again_and_a_forbidden_address_never() {
        for on_4xx in [On4xx::Auto, On4xx::Always, On4xx::Never] {
            assert_eq!(of(Answer::Unreachable, on_4xx), AGAIN);
            assert_eq!(of(Answer::EgressDenied, on_4xx), dead(DeadReason::EgressDenied));
        }
    }

    #[test]
    fn retry_after_only_makes_the_pause_longer_and_only_where_it_has_a_meaning() {
        let day = 24 * 60 * 60;
        for (code, retry_after, expected) in [
            (429, 60, 60),
            (503, 60, 60),
            (429, 5, 10),
            (429, 0, 10),
            (503, 3 * day, day),
            (429, u64::MAX, day),
            (500, 60, 10),
            (404, 60, 10),
        ] {
            let answer = Answer::Status { code, retry_after: Some(Duration::from_secs(retry_after)) };
            let after = Duration::from_secs(expected);
            assert_eq!(of(answer, On4xx::Auto), Verdict::Retry { after }, "{code} {retry_after}");
        }
    }

    #[test]
    fn the_last_failure_is_exhausted_whatever_it_was() {
        for answer in [status(500), status(429), status(404), Answer::Unreachable] {
            let verdict = judge(answer, &policy(On4xx::Auto), 2, Duration::ZERO, MAX_AGE, &Zero);
            assert_eq!(verdict, dead(DeadReason::Exhausted), "{answer:?}");
        }
    }

    #[test]
    fn a_next_attempt_past_the_greatest_age_is_expired() {
        let judged = |age| judge(status(500), &policy(On4xx::Auto), 1, age, MAX_AGE, &Zero);
        assert_eq!(judged(MAX_AGE - Duration::from_secs(10)), AGAIN);
        assert_eq!(judged(MAX_AGE - Duration::from_secs(9)), dead(DeadReason::Expired));
        assert_eq!(judged(Duration::MAX), dead(DeadReason::Expired));
        let arrived = judge(status(200), &policy(On4xx::Auto), 1, Duration::MAX, MAX_AGE, &Zero);
        assert_eq!(arrived, Verdict::Delivered);
    }

    #[test]
    fn at_most_once_nothing_is_tried_again() {
        let once = dead(DeadReason::FailedOnce);
        for (verdict, under) in [
            (AGAIN, once),
            (dead(DeadReason::Exhausted), once),
            (dead(DeadReason::Expired), once),
            (dead(DeadReason::Rejected), dead(DeadReason::Rejected)),
            (Verdict::Delivered, Verdict::Delivered),
        ] {
            assert_eq!(verdict.under(Guarantee::AtMostOnce), under);
            assert_eq!(verdict.under(Guarantee::AtLeastOnce), verdict);
        }
    }

    #[test]
    fn a_verdict_is_recorded_under_its_name() {
        assert_eq!(Verdict::Delivered.outcome(), AttemptOutcome::Delivered);
        assert_eq!(AGAIN.outcome(), AttemptOutcome::Retry);
        assert_eq!(dead(DeadReason::Gone).outcome(), AttemptOutcome::Dead);
    }
}
