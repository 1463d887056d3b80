//! What an answer means for a delivery.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use signalpost_core::{
    Entropy,
    classify::{Answer, judge},
    retry_policy::RetryPolicy,
};

/// Costs nothing, so that what is measured is ours.
#[derive(Debug)]
struct Fixed;

impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0x55);
    }
}

const MAX_AGE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

fn classification(criterion: &mut Criterion) {
    let policy = RetryPolicy::default();
    let mut group = criterion.benchmark_group("classification");
    let status = |code, retry_after| Answer::Status { code, retry_after };
    for (name, answer) in [
        ("200", status(200, None)),
        ("400", status(400, None)),
        ("503 with Retry-After", status(503, Some(Duration::from_secs(30)))),
        ("unreachable", Answer::Unreachable),
    ] {
        group.bench_function(BenchmarkId::new("judge", name), |bencher| {
            bencher.iter(|| judge(black_box(answer), black_box(&policy), 3, Duration::from_secs(60), MAX_AGE, &Fixed));
        });
    }
    group.finish();
}

criterion_group!(benches, classification);
criterion_main!(benches);
