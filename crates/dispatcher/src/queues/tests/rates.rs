//! Both bounds of a rate (I7), over dispatchers that wake up late and limits that answer late.

use proptest::prelude::*;
use signalpost_core::destination::RateLimit;
use signalpost_limits::{TokenRequest, local::tokens::TokenBuckets};

use super::*;

const ROOMY: Bounds = Bounds { in_flight: 1000, queued: 10_000, bytes: 1_000_000, ..BOUNDS };
/// How late a dispatcher may wake up, and how long an answer may take. It asks again with half a block (25 ms) in hand: to be late to ask,
/// the answer, and to be late for that take less one after the other. Where they take more, tokens are lost.
const LATE_US: u64 = 8_000;
const TIME: Duration = Duration::from_secs(10);

/// Numbers that repeat.
struct Delays<'a>(std::iter::Cycle<std::slice::Iter<'a, u64>>);

impl Delays<'_> {
    fn next(&mut self) -> Duration {
        Duration::from_micros(self.0.next().copied().unwrap_or(0))
    }
}

/// A dispatcher for which more waits than it may send.
struct Hungry {
    queues: Queues,
    spec: DestinationSpec,
    jobs: u32,
    asked: Option<(Duration, TokenRequest, TokenGrant)>,
    wakes_at: Duration,
    asks: u32,
}

impl Hungry {
    fn new(limit: RateLimit) -> Self {
        let mut spec = destination(1).spec;
        (spec.rate_limit, spec.max_in_flight) = (Some(limit), std::num::NonZeroU32::MAX);
        Self { queues: Queues::new(ROOMY), spec, jobs: 0, asked: None, wakes_at: ms(0), asks: 0 }
    }

    /// Does what is due, and says how many requests it starts.
    fn wake(&mut self, now: Duration, buckets: &mut TokenBuckets, delays: &mut Delays<'_>) -> usize {
        if let Some((_, request, grant)) = self.asked.take_if(|(at, ..)| *at <= now) {
            self.queues.granted(&request, Some(grant), now);
        }
        self.queues.overdue(now, false);
        while self.queues.load(destination_id(1)).0 < 500 {
            self.jobs += 1;
            if self.queues.push(job(self.jobs, 1, now), &self.spec, now).is_some() {
                break;
            }
        }
        let mut started = 0;
        while next(&mut self.queues, now).is_some() {
            started += 1;
            self.queues.ended(destination_id(1), now);
        }
        if self.asked.is_none()
            && let Some(request) = self.queues.wanted_tokens().pop()
        {
            self.asks += 1;
            self.asked = Some((now + delays.next(), request, buckets.take(now, &request)));
        }
        let answer = self.asked.as_ref().map(|(at, ..)| *at);
        let due = [answer, self.queues.next_timer()].into_iter().flatten().min().unwrap_or(now + ms(1));
        self.wakes_at = due.max(now) + delays.next() + Duration::from_micros(1);
        started
    }
}

/// When so many dispatchers start requests, and how often they ask.
fn run(limit: RateLimit, dispatchers: usize, delays: &[u64]) -> (Vec<Duration>, u32) {
    let mut delays = Delays(delays.iter().cycle());
    let mut buckets = TokenBuckets::default();
    let mut all: Vec<_> = (0..dispatchers).map(|_| Hungry::new(limit)).collect();
    let mut starts = Vec::new();
    while let Some(first) = all.iter_mut().min_by_key(|hungry| hungry.wakes_at)
        && first.wakes_at < TIME
    {
        let now = first.wakes_at;
        let started = first.wake(now, &mut buckets, &mut delays);
        starts.extend(std::iter::repeat_n(now, started));
    }
    (starts, all.iter().map(|hungry| hungry.asks).sum())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn both_bounds_hold_however_late_everybody_is(
        per_second in prop::sample::select(vec![0.5, 5.0, 30.0, 50.0, 500.0, 3000.0]),
        burst in prop::sample::select(vec![Some(1), Some(3), Some(40), None]),
        dispatchers in 1_usize..3,
        delays in prop::collection::vec(0..LATE_US, 1..40),
    ) {
        let limit = RateLimit { per_second, burst: burst.and_then(std::num::NonZeroU32::new) };
        let (starts, _) = run(limit, dispatchers, &delays);
        let least = 0.98 * per_second * TIME.as_secs_f64() - 1.0 - 2.0 * per_second * LATE_US as f64 / 1e6;
        prop_assert!(starts.len() as f64 >= least, "{} of {least}", starts.len());
        // A token is used so late at most: its answer is, then who wakes up for that, then who wakes up for its time.
        let most = limit.burst() + per_second * 3.0 * LATE_US as f64 / 1e6;
        let (mut allowed, mut at) = (most, ms(0));
        for start in starts {
            allowed = (allowed + 1.02 * per_second * (start - at).as_secs_f64()).min(most) - 1.0;
            prop_assert!(allowed >= -1e-6, "{allowed} at {start:?}");
            at = start;
        }
    }
}

#[test]
fn what_has_a_token_is_not_parked_before_that_is_ready() {
    let mut queues = Queues::new(BOUNDS);
    for delivery in 0..2 {
        queues.push(job(delivery, 1, ms(0)), &limited(1, 1.0 / 60.0).spec, ms(0));
    }
    next(&mut queues, ms(0));
    let wanted = queues.wanted_tokens();
    queues.granted(&wanted[0], Some(TokenGrant::none(ms(1990))), ms(0));
    queues.overdue(ms(1990), false);
    next(&mut queues, ms(1990));
    let grant = TokenGrant { granted: 1, next_in: ms(50), ..TokenGrant::none(ms(0)) };
    let wanted = queues.wanted_tokens();
    queues.granted(&wanted[0], Some(grant), ms(1990));
    assert!(next(&mut queues, ms(1990)).is_none());
    assert_eq!(queues.overdue(ms(2000), false).len(), 1);
    assert!(next(&mut queues, ms(2000)).is_none());
    assert_eq!(queues.next_timer(), Some(ms(2040)));
    assert_eq!(queues.overdue(ms(2040), false).len(), 0);
    assert!(next(&mut queues, ms(2040)).is_some());
}

#[test]
fn what_waits_for_a_slow_rate_is_away_until_its_token_is_near() {
    let mut queues = Queues::new(BOUNDS);
    let slow = limited(1, 0.1).spec;
    let ask = |queues: &mut Queues, now, token_in| {
        assert!(next(queues, now).is_none());
        let wanted = queues.wanted_tokens();
        queues.granted(&wanted[0], Some(TokenGrant::none(token_in)), now);
    };
    for delivery in 0..2 {
        assert!(queues.push(job(delivery, 1, ms(0)), &slow, ms(0)).is_none());
    }
    ask(&mut queues, ms(0), ms(10_000));
    let away = |parked: &Parked| (parked.reason, parked.after);
    let parked: Vec<_> = queues.overdue(ms(2000), false).iter().map(away).collect();
    assert_eq!(parked, [(WaitReason::RateLimit, ms(7000)); 2]);
    // What comes meanwhile goes as well, and what comes back in time stays.
    let parked = queues.push(job(2, 1, ms(3000)), &slow, ms(3000));
    assert_eq!(parked.as_ref().map(away), Some((WaitReason::RateLimit, ms(6000))));
    assert!(queues.push(job(3, 1, ms(9000)), &slow, ms(9000)).is_none());
    assert!(queues.overdue(ms(10_000), false).is_empty());
    // Not for ever, and no longer than its rate is as it was.
    ask(&mut queues, ms(10_000), ms(1_000_000));
    let parked = queues.push(job(4, 1, ms(10_000)), &slow, ms(10_000));
    assert_eq!(parked.as_ref().map(away), Some((WaitReason::RateLimit, ms(60_000))));
    assert!(queues.push(job(5, 1, ms(10_000)), &limited(1, 1.0).spec, ms(10_000)).is_none());
}

#[test]
fn tokens_of_a_high_rate_come_in_blocks_and_go_one_by_one() {
    let limit = RateLimit { per_second: 500.0, burst: std::num::NonZeroU32::new(1) };
    let (starts, asks) = run(limit, 1, &[0]);
    assert!(starts.len() >= 4990, "{}", starts.len());
    assert!(asks < 450, "asked {asks} times for {} tokens", starts.len());
    for two in starts.windows(2) {
        let gap = two[1] - two[0];
        assert!(gap >= Duration::from_micros(1950), "{gap:?} at {:?}", two[1]);
    }
}
