//! An event over 10,000 destinations: nine in ten name their types, the others have wildcards.

#![allow(clippy::expect_used, reason = "a bench that cannot go on panics")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use signalpost_api::router::Table;
use signalpost_core::{
    DestinationId, DestinationState, Guarantee, Timestamp, ordering::Ordering, pattern::EventPattern,
};
use signalpost_store::ingest::{Route, Routes};

const DESTINATIONS: i64 = 10_000;

/// What the destination of that number wants.
fn types(number: i64) -> Vec<String> {
    match number % 100 {
        0 if number % 200 == 0 => vec!["invoice.paid".to_owned()],
        0 => vec!["invoice.*".to_owned()],
        50..60 => vec![format!("shop{number}.*.failed")],
        _ => vec![format!("shop{number}.order.created"), format!("shop{number}.order.paid")],
    }
}

fn table() -> Table {
    let route = |number| Route {
        destination_id: DestinationId::floor(Timestamp::from_millis(number)),
        destination_version: 1,
        event_types: types(number).into_iter().map(|text| EventPattern::new(text).expect("a pattern")).collect(),
        ordering: Ordering::default(),
        guarantee: Guarantee::default(),
        state: DestinationState::Active,
    };
    Table::new(Routes { version: 1, routes: (0..DESTINATIONS).map(route).collect() })
}

fn routing(criterion: &mut Criterion) {
    let table = table();
    let mut group = criterion.benchmark_group("routing/10000 destinations");
    for (event_type, found) in [("shop1.order.created", 1), ("invoice.paid", 100), ("nobody.wants.this", 0)] {
        assert_eq!(table.route(event_type).len(), found, "{event_type}");
        group.bench_function(format!("{found} found"), |bencher| {
            bencher.iter(|| table.route(black_box(event_type)).len());
        });
    }
    group.finish();
}

criterion_group!(benches, routing);
criterion_main!(benches);
