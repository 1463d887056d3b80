//! Token buckets by destination.
//!
//! A bucket fills at its rate up to its burst, and gives whole tokens only: in any time t a destination gets at most
//! `burst + rate × t`. It starts full, or, where buckets were begun at some moment, with what came since. A bucket that must be full
//! again by now is forgotten, as a new one is the same.

use std::{collections::HashMap, time::Duration};

use signalpost_core::{DestinationId, destination::RateLimit};

use crate::{TokenGrant, TokenRequest};

/// Below this there is nothing to prune.
const PRUNE_ABOVE: usize = 1024;

/// What sums of floating-point refills may lack to a whole token.
const TOLERANCE: f64 = 1e-9;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    /// When `tokens` was right.
    at: Duration,
    /// By when it is full if nobody takes any.
    full_at: Duration,
}

/// Buckets of one process. Times are of one monotonic clock.
#[derive(Debug, Default)]
pub struct TokenBuckets {
    buckets: HashMap<DestinationId, Bucket>,
    /// Prune when there are more.
    prune_at: usize,
    /// When all buckets were empty; None: they start full.
    empty_at: Option<Duration>,
}

impl TokenBuckets {
    /// Buckets that are all empty at that moment, and stay so until then.
    pub fn empty_at(moment: Duration) -> Self {
        Self { empty_at: Some(moment), ..Self::default() }
    }

    /// Takes what there is, up to what is wanted.
    pub fn take(&mut self, now: Duration, request: &TokenRequest) -> TokenGrant {
        let bucket = self.filled(now, request.destination_id, request.limit);
        let granted = whole(bucket.tokens).min(request.wanted);
        bucket.tokens -= f64::from(granted);
        bucket.full_at = now + time_for(request.limit.burst() - bucket.tokens, request.limit);
        let retry_after =
            if granted < request.wanted { time_for(1.0 - bucket.tokens, request.limit) } else { Duration::ZERO };
        TokenGrant { granted, retry_after }
    }

    /// How many buckets are kept.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    fn filled(&mut self, now: Duration, id: DestinationId, limit: RateLimit) -> &mut Bucket {
        if self.buckets.len() >= self.prune_at.max(PRUNE_ABOVE) {
            self.buckets.retain(|_, bucket| bucket.full_at > now);
            // Twice what is left: pruning costs a constant per new bucket.
            self.prune_at = self.buckets.len().saturating_mul(2);
        }
        let burst = limit.burst();
        let first = match self.empty_at {
            None => burst,
            // Less than none before that moment.
            Some(moment) => ((now.as_secs_f64() - moment.as_secs_f64()) * limit.per_second).min(burst),
        };
        let bucket = self.buckets.entry(id).or_insert(Bucket { tokens: first, at: now, full_at: now });
        let came = now.saturating_sub(bucket.at).as_secs_f64() * limit.per_second;
        bucket.tokens = (bucket.tokens + came).min(burst);
        bucket.at = now;
        bucket
    }
}

/// Whole tokens in it.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is never negative")]
fn whole(tokens: f64) -> u32 {
    (tokens + TOLERANCE).floor() as u32
}

/// How long until so many tokens have come, to the nanosecond above.
fn time_for(tokens: f64, limit: RateLimit) -> Duration {
    let seconds = tokens.max(0.0) / limit.per_second;
    Duration::try_from_secs_f64(seconds)
        .map_or(Duration::MAX / 4, |time| (time + Duration::from_nanos(1)).min(Duration::MAX / 4))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;
    use signalpost_core::Timestamp;

    use super::*;

    fn id(number: u16) -> DestinationId {
        let mut random = [0; 10];
        random[8..].copy_from_slice(&number.to_be_bytes());
        DestinationId::from_parts(Timestamp::from_millis(1), random)
    }

    fn request(limit: RateLimit, wanted: u32) -> TokenRequest {
        TokenRequest { destination_id: id(0), limit, wanted }
    }

    fn limit(per_second: f64, burst: u32) -> RateLimit {
        RateLimit { per_second, burst: NonZeroU32::new(burst) }
    }

    #[test]
    fn what_is_missing_comes_after_what_it_says() {
        let mut buckets = TokenBuckets::default();
        let limit = limit(4.0, 2);
        let mut now = Duration::from_secs(100);
        assert_eq!(buckets.take(now, &request(limit, 2)), TokenGrant { granted: 2, retry_after: Duration::ZERO });
        for _ in 0..10 {
            let none = buckets.take(now, &request(limit, 5));
            assert_eq!(none.granted, 0);
            let early = buckets.take(now + none.retry_after - Duration::from_micros(1), &request(limit, 5));
            assert_eq!(early.granted, 0);
            now += none.retry_after;
            assert_eq!(buckets.take(now, &request(limit, 1)).granted, 1);
        }
    }

    #[test]
    fn a_changed_limit_applies_at_once() {
        let mut buckets = TokenBuckets::default();
        let now = Duration::from_secs(1);
        assert_eq!(buckets.take(now, &request(limit(1.0, 100), 1)).granted, 1);
        assert_eq!(buckets.take(now, &request(limit(1.0, 3), 100)).granted, 3);
        assert_eq!(buckets.take(now + Duration::from_secs(1), &request(limit(50.0, 100), 100)).granted, 50);
    }

    #[test]
    fn full_buckets_are_forgotten_and_others_are_not() {
        let mut buckets = TokenBuckets::default();
        let now = Duration::from_secs(1);
        let slow = TokenRequest { destination_id: id(u16::MAX), limit: limit(0.001, 1), wanted: 1 };
        assert_eq!(buckets.take(now, &slow).granted, 1);
        for round in 0..20_u16 {
            let now = now + Duration::from_secs(u64::from(round));
            for number in 0..1000 {
                let request =
                    TokenRequest { destination_id: id(round * 1000 + number), limit: limit(10.0, 1), wanted: 1 };
                buckets.take(now, &request);
            }
        }
        assert!(buckets.len() < 4096, "{}", buckets.len());
        assert_eq!(buckets.take(now + Duration::from_secs(30), &slow).granted, 0);
    }

    #[test]
    fn buckets_that_were_empty_hold_what_came_since() {
        let begun = Duration::from_secs(10);
        let mut buckets = TokenBuckets::empty_at(begun);
        let limit = limit(4.0, 3);
        let early = buckets.take(begun - Duration::from_secs(1), &request(limit, 2));
        assert_eq!(early.granted, 0);
        let wait = Duration::from_millis(1250);
        assert!(early.retry_after >= wait && early.retry_after < wait + Duration::from_micros(1), "{early:?}");
        assert_eq!(buckets.take(begun, &request(limit, 2)).granted, 0);
        assert_eq!(buckets.take(begun + Duration::from_millis(500), &request(limit, 3)).granted, 2);
        let other = TokenRequest { destination_id: id(1), ..request(limit, 9) };
        assert_eq!(buckets.take(begun + Duration::from_millis(500), &other).granted, 2);
        let third = TokenRequest { destination_id: id(2), ..request(limit, 9) };
        assert_eq!(buckets.take(begun + Duration::from_secs(9), &third).granted, 3, "no more than the burst");
    }

    proptest! {
        #[test]
        fn no_window_gets_more_than_burst_and_rate(
            per_second in 0.001_f64..100_000.0,
            burst in prop::option::of(1_u32..1000),
            calls in prop::collection::vec((0_u64..3_000_000, 1_u32..500), 1..60),
        ) {
            let limit = RateLimit { per_second, burst: burst.and_then(NonZeroU32::new) };
            let mut buckets = TokenBuckets::default();
            let mut now = Duration::from_secs(5);
            let mut grants = Vec::new();
            for (pause_us, wanted) in calls {
                now += Duration::from_micros(pause_us);
                let grant = buckets.take(now, &request(limit, wanted));
                prop_assert!(grant.granted <= wanted);
                prop_assert_eq!(grant.granted == wanted, grant.retry_after.is_zero());
                grants.push((now, grant.granted));
            }
            for start in 0..grants.len() {
                let mut sum = 0.0;
                for (at, granted) in &grants[start..] {
                    sum += f64::from(*granted);
                    let allowed = limit.burst() + per_second * (*at - grants[start].0).as_secs_f64();
                    prop_assert!(sum <= allowed + 1e-6, "{sum} of {allowed}");
                }
            }
        }

        #[test]
        fn a_patient_taker_gets_the_whole_rate(per_second in 0.5_f64..2000.0) {
            let limit = RateLimit { per_second, burst: None };
            let mut buckets = TokenBuckets::default();
            let start = Duration::from_secs(5);
            let (mut now, mut sum) = (start, 0_u32);
            while now < start + Duration::from_secs(10) {
                let grant = buckets.take(now, &request(limit, 1000));
                sum += grant.granted;
                now += grant.retry_after;
            }
            prop_assert!(f64::from(sum) + 1.0 >= per_second * 10.0, "{sum}");
        }
    }
}
