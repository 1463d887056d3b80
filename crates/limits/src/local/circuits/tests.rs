use std::{collections::BTreeSet, time::Duration};

use signalpost_core::{CircuitPolicy, CircuitState};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn report(number: u64) -> CircuitReport {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    CircuitReport {
        destination_id: DestinationId::from_parts(Timestamp::from_millis(1), random),
        policy: CircuitPolicy::default(),
        successes: 0,
        failures: 0,
        succeeded_last: false,
        probes_succeeded: 0,
        probes_failed: 0,
        probes_void: 0,
        probes_wanted: 0,
        probe_timeout: 20 * SECOND,
        reason: None,
        trips: 0,
        version: 1,
    }
}

#[test]
fn circuits_are_apart_and_told_in_full() {
    let mut table = CircuitTable::default();
    let start = Timestamp::from_millis(1_000_000);
    let fails = CircuitReport { failures: 19, reason: Some("503".to_owned()), trips: 4, ..report(1) };
    assert_eq!(table.report(start, &fails).state, CircuitState::Closed);
    let view = table.report(start + 6 * SECOND, &fails);
    assert_eq!(view.state, CircuitState::Open);
    let record = CircuitRecord {
        state: CircuitState::Open,
        since: Some(start + 6 * SECOND),
        trips: 5,
        reason: Some("38 failures in a row over 6 s, the last: 503".to_owned()),
    };
    assert_eq!(view.record, record);
    assert_eq!(table.report(start + 7 * SECOND, &report(1)).record, record, "the same while the state is");
    assert_eq!(table.report(start + 7 * SECOND, &report(2)).record, CircuitRecord::default());
}

#[test]
fn one_that_is_taken_over_as_closed_is_told_as_later_than_what_was_kept() {
    let mut table = CircuitTable::default();
    let opened = Timestamp::from_millis(1_000_000);
    let fails = CircuitReport { failures: 19, ..report(1) };
    table.report(opened, &fails);
    let kept = table.report(opened + 6 * SECOND, &fails).record;
    assert_eq!((kept.state, kept.trips), (CircuitState::Open, 1));
    // All that was shared is lost.
    let mut table = CircuitTable::default();
    let told = table.report(opened + 9 * SECOND, &CircuitReport { trips: kept.trips, ..report(1) }).record;
    assert_eq!(told.state, CircuitState::Closed);
    assert!((told.trips, told.since) > (kept.trips, kept.since), "{told:?} is older than {kept:?}");
}

#[test]
fn open_times_differ_between_destinations_and_openings() {
    let mut times = BTreeSet::new();
    for number in 0..100 {
        for trips in 0..3 {
            let mut table = CircuitTable::default();
            let fails = CircuitReport { failures: 19, trips, ..report(number) };
            table.report(Timestamp::from_millis(0), &fails);
            let open_for = table.report(Timestamp::from_millis(6000), &fails).open_for;
            assert!((24 * SECOND..=36 * SECOND).contains(&open_for), "{open_for:?}");
            times.insert(open_for);
        }
    }
    assert!(times.len() > 290, "{}", times.len());
    assert!(times.first().unwrap() < &(25 * SECOND) && times.last().unwrap() > &(35 * SECOND));
}

#[test]
fn what_happened_long_ago_is_forgotten() {
    let mut table = CircuitTable::default();
    for number in 0..100_000 {
        let failed = CircuitReport { failures: 1, ..report(number) };
        table.report(Timestamp::from_millis(1000 * i64::try_from(number).unwrap()), &failed);
    }
    assert!(table.len() <= 2 * 3600 + PRUNE_ABOVE, "{}", table.len());
}
