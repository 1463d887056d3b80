//! The offsets of a partition, from being read to being committed.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use signalpost_dispatcher::Tracker;

const OFFSETS: i64 = 10_000;

/// Each is done before the next one comes.
fn in_order() -> Option<i64> {
    let mut tracker = Tracker::default();
    let mut commit = None;
    for offset in 0..OFFSETS {
        tracker.add(black_box(offset));
        commit = tracker.done(black_box(offset));
    }
    commit
}

/// The first one is done last, and all others are held until then.
fn behind_a_gap() -> Option<i64> {
    let mut tracker = Tracker::default();
    for offset in 0..=OFFSETS {
        tracker.add(black_box(offset));
    }
    for offset in 1..=OFFSETS {
        tracker.done(black_box(offset));
    }
    tracker.done(black_box(0))
}

fn tracker(criterion: &mut Criterion) {
    assert_eq!((in_order(), behind_a_gap()), (Some(OFFSETS), Some(OFFSETS + 1)));
    let mut group = criterion.benchmark_group("tracker/10000 offsets");
    group.throughput(Throughput::Elements(OFFSETS.unsigned_abs()));
    group.bench_function("in order", |bencher| bencher.iter(in_order));
    group.bench_function("behind a gap", |bencher| bencher.iter(behind_a_gap));
    group.finish();
}

criterion_group!(benches, tracker);
criterion_main!(benches);
