//! Token buckets by destination.
//!
//! A bucket fills at its rate up to its burst, and its tokens are ready when they are whole: in any time t at most `burst + rate × t`
//! of a destination's tokens become ready. What will be whole soon ([`TOKENS_AHEAD`]) is granted before, and the bucket is in debt for
//! it. It starts full, or, where buckets were begun at some moment, with what came since. A bucket that must be full again by now is
//! forgotten, as a new one is the same.

use std::{collections::HashMap, time::Duration};

use signalpost_core::{DestinationId, destination::RateLimit};

use crate::{TOKENS_AHEAD, TokenGrant, TokenRequest};

/// Below this there is nothing to prune.
const PRUNE_ABOVE: usize = 1024;

/// What sums of floating-point refills may lack to a whole token.
const TOLERANCE: f64 = 1e-9;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Negative: granted ahead.
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

    /// Takes what there is or soon will be, up to what is wanted.
    pub fn take(&mut self, now: Duration, request: &TokenRequest) -> TokenGrant {
        let limit = request.limit;
        let bucket = self.filled(now, request.destination_id, limit);
        let granted = whole(bucket.tokens + ahead(limit)).min(request.wanted);
        let ready = whole(bucket.tokens).min(granted);
        let next_in = time_for(f64::from(ready) + 1.0 - bucket.tokens, limit);
        bucket.tokens -= f64::from(granted);
        bucket.full_at = now + time_for(limit.burst() - bucket.tokens, limit);
        let mut grant =
            TokenGrant { granted, ready, next_in, every: time_for(1.0, limit), retry_after: Duration::ZERO };
        if granted < request.wanted {
            let soonest = Duration::from_nanos(1);
            grant.retry_after = grant.whole_in(granted).saturating_sub(TOKENS_AHEAD).max(soonest);
        }
        grant
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
        // After a change of the rate, no longer in debt than it may be.
        bucket.tokens = (bucket.tokens + came).min(burst).max(first.min(0.0) - ahead(limit));
        bucket.at = now;
        bucket
    }
}

/// How many tokens come in the time for which a bucket may be in debt.
fn ahead(limit: RateLimit) -> f64 {
    limit.per_second * TOKENS_AHEAD.as_secs_f64()
}

/// Whole tokens in it.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates: none where it is in debt")]
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
        let all = buckets.take(now, &request(limit, 2));
        assert_eq!((all.granted, all.ready, all.retry_after), (2, 2, Duration::ZERO));
        for _ in 0..10 {
            let none = buckets.take(now, &request(limit, 5));
            assert_eq!(none.granted, 0);
            let early = buckets.take(now + none.retry_after - Duration::from_micros(1), &request(limit, 5));
            assert_eq!(early.granted, 0);
            now += none.retry_after;
            let ahead = buckets.take(now, &request(limit, 1));
            assert_eq!((ahead.granted, ahead.ready), (1, 0));
            assert!(ahead.next_in.abs_diff(TOKENS_AHEAD) < Duration::from_micros(1), "{ahead:?}");
            now += ahead.next_in;
        }
    }

    #[test]
    fn tokens_are_ready_one_after_the_other() {
        let mut buckets = TokenBuckets::default();
        let grant = buckets.take(Duration::from_secs(1), &request(limit(100.0, 2), 9));
        let ready_in: Vec<_> = grant.ready_in().map(|time| time.as_micros() / 100).collect();
        assert_eq!(ready_in, [0, 0, 100, 200, 300, 400, 500]);
        assert_eq!(grant.retry_after.as_micros() / 100, 100);
    }

    #[test]
    fn a_changed_limit_applies_at_once() {
        let mut buckets = TokenBuckets::default();
        let now = Duration::from_secs(1);
        assert_eq!(buckets.take(now, &request(limit(1.0, 100), 1)).granted, 1);
        assert_eq!(buckets.take(now, &request(limit(1.0, 3), 100)).granted, 3);
        let grant = buckets.take(now + Duration::from_secs(1), &request(limit(50.0, 100), 100));
        assert_eq!((grant.granted, grant.ready), (52, 50));
        // What was granted ahead at a high rate is not waited for at a low one.
        let slow = buckets.take(now + Duration::from_secs(1), &request(limit(0.1, 1), 1));
        assert!(slow.retry_after <= Duration::from_secs(11), "{slow:?}");
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
        let wait = Duration::from_millis(1200);
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
            // What may become ready now, and when that was right.
            let (mut allowed, mut at) = (limit.burst(), now);
            for (pause_us, wanted) in calls {
                now += Duration::from_micros(pause_us);
                let grant = buckets.take(now, &request(limit, wanted));
                prop_assert!(grant.granted <= wanted);
                prop_assert_eq!(grant.granted == wanted, grant.retry_after.is_zero());
                for ready_in in grant.ready_in() {
                    let ready_at = now + ready_in;
                    prop_assert!(ready_at >= at && ready_in <= TOKENS_AHEAD + Duration::from_micros(1), "{ready_in:?}");
                    allowed = (allowed + per_second * (ready_at - at).as_secs_f64()).min(limit.burst()) - 1.0;
                    prop_assert!(allowed >= -1e-3, "{allowed}");
                    at = ready_at;
                }
            }
        }

        #[test]
        fn who_is_late_gets_the_whole_rate(
            per_second in 0.5_f64..2000.0,
            late_us in prop::collection::vec(0_u64..50_000, 1..50),
        ) {
            let limit = limit(per_second, 1);
            let mut buckets = TokenBuckets::default();
            let start = Duration::from_secs(5);
            let (mut now, mut sum) = (start, 0_u32);
            let mut late_us = late_us.iter().cycle();
            while now < start + Duration::from_secs(10) {
                let grant = buckets.take(now, &request(limit, 1000));
                sum += grant.granted;
                now += grant.retry_after + late_us.next().map_or(Duration::ZERO, |us| Duration::from_micros(*us));
            }
            prop_assert!(f64::from(sum) + 1.0 >= per_second * 10.0, "{sum}");
        }
    }
}
