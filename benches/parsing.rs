//! The body of a request to events that are valid: what the API does to it before anything is routed.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use signalpost_api::benching;
use signalpost_benches::{SIZES, batch, cloud_event, event};

const BATCH: usize = 100;

fn parsing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parsing");
    for (name, bytes) in SIZES {
        let body = Bytes::from(event(bytes));
        assert!(benching::event(body.clone()));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("event", name), |bencher| {
            bencher.iter(|| benching::event(black_box(body.clone())));
        });
    }
    for (name, bytes) in SIZES {
        let body = Bytes::from(cloud_event(bytes));
        assert!(benching::cloud_event(body.clone()));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("CloudEvent", name), |bencher| {
            bencher.iter(|| benching::cloud_event(black_box(body.clone())));
        });
    }
    let (name, bytes) = SIZES[0];
    let body = batch(BATCH, bytes);
    assert_eq!(benching::batch(body.as_bytes()), BATCH);
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function(BenchmarkId::new(format!("batch of {BATCH}"), name), |bencher| {
        bencher.iter(|| benching::batch(black_box(body.as_bytes())));
    });
    group.finish();
}

criterion_group!(benches, parsing);
criterion_main!(benches);
