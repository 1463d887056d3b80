//! A signature of a delivery's body, by each scheme.

#![allow(clippy::expect_used, reason = "a bench that cannot go on panics")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use signalpost_benches::{SIZES, order};
use signalpost_signing::{Canonical, Encoding, HmacHeader, Secret, SigningKey};

const ID: &str = "evt_01jbq9x5c8f6t9v0m2n4p6r8s0";
const TIMESTAMP: i64 = 1_700_000_000;

fn signing(criterion: &mut Criterion) {
    let secret = Secret::from_bytes(&[7; 32]).expect("a secret");
    let key = SigningKey::from_seed(&[7; 32]);
    let sorted = HmacHeader::new(&[7; 32], "sha256=", Encoding::Hex, Canonical::SortedKeys);
    let mut group = criterion.benchmark_group("signing");
    for (name, bytes) in SIZES {
        let body = order(bytes);
        let body = body.as_bytes();
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("standard", name), |bencher| {
            bencher.iter(|| secret.sign(ID, TIMESTAMP, black_box(body)));
        });
        group.bench_function(BenchmarkId::new("ed25519", name), |bencher| {
            bencher.iter(|| key.sign(ID, TIMESTAMP, black_box(body)));
        });
        group.bench_function(BenchmarkId::new("hmac sorted_keys", name), |bencher| {
            bencher.iter(|| sorted.sign(black_box(body)));
        });
    }
    group.finish();
}

criterion_group!(benches, signing);
criterion_main!(benches);
