//! The limits of a standalone Signalpost: tokens and claims, a batch at once.

#![allow(clippy::expect_used, reason = "a bench that cannot go on panics")]

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::FutureExt as _;
use signalpost_core::{Clock, DeliveryId, DestinationId, Timestamp, destination::RateLimit};
use signalpost_limits::{Claim, Claimed, Limits as _, TokenRequest, local::LocalLimits};

/// How many destinations, or deliveries, are asked for at once.
const COUNTS: [i64; 2] = [1, 10_000];

/// A millisecond goes by at every look: the bucket has a token each time.
#[derive(Debug, Default)]
struct Steps(AtomicU64);

impl Clock for Steps {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

fn limiter(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limiter");
    for count in COUNTS {
        group.throughput(Throughput::Elements(count.unsigned_abs()));
        let limits = LocalLimits::new(Arc::new(Steps::default()));
        let limit = RateLimit { per_second: 1_000.0, burst: None };
        let requests: Vec<_> = (0..count)
            .map(|number| DestinationId::floor(Timestamp::from_millis(number)))
            .map(|destination_id| TokenRequest { destination_id, limit, wanted: 1 })
            .collect();
        let take = || limits.take_tokens(black_box(&requests)).now_or_never().expect("it never waits");
        assert!(take().expect("grants").iter().all(|grant| grant.granted == 1));
        group.bench_function(BenchmarkId::new("take_tokens", count), |bencher| bencher.iter(take));

        let claims: Vec<_> = (0..count)
            .map(|number| Claim { delivery_id: DeliveryId::floor(Timestamp::from_millis(number)), attempt: 1 })
            .collect();
        let claim = || {
            let claimed = limits.claim(1, black_box(&claims)).now_or_never().expect("it never waits");
            limits.release(1, black_box(&claims)).now_or_never().expect("it never waits").expect("released");
            claimed
        };
        assert!(claim().expect("claims").iter().all(|claimed| *claimed == Claimed::Ours));
        group.bench_function(BenchmarkId::new("claim and release", count), |bencher| bencher.iter(claim));
    }
    group.finish();
}

criterion_group!(benches, limiter);
criterion_main!(benches);
