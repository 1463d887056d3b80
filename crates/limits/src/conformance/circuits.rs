//! Circuits: one picture for all, through every state.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use futures::future::join_all;
use signalpost_core::{CircuitPolicy, CircuitRecord, CircuitState};

use super::{DEADLINE, World, asked, surely};
use crate::{CircuitReport, CircuitView, Limits};

const PROBES: u32 = 3;

/// How often it is asked while something is waited for.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) async fn exercise(one: &Arc<dyn Limits>, two: &Arc<dyn Limits>, world: &World) {
    answers_in_order(&**one, world).await;
    walks_through_all_states(&**one, &**two, world).await;
    opens_once_for_many(one, two, world).await;
    grants_no_probe_twice(one, two, world).await;
    opens_on_a_row_that_lasts(&**one, &**two, world).await;
    is_tried_when_its_destination_changed(&**one, &**two, world).await;
}

/// Nothing seen of a new destination that opens for a moment.
fn report(world: &World) -> CircuitReport {
    let probes = NonZeroU32::MIN.saturating_add(PROBES - 1);
    CircuitReport {
        destination_id: world.destination(),
        policy: CircuitPolicy { open_ms: 400, max_open_ms: 2000, probes, ..CircuitPolicy::default() },
        successes: 0,
        failures: 0,
        succeeded_last: false,
        probes_succeeded: 0,
        probes_failed: 0,
        probes_void: 0,
        probes_wanted: 0,
        probe_timeout: Duration::from_secs(60),
        reason: None,
        trips: 0,
        version: 1,
    }
}

async fn tell(limits: &dyn Limits, report: &CircuitReport) -> CircuitView {
    let reports = std::slice::from_ref(report);
    let view = surely(limits, async || limits.circuits(1, reports).await).await.remove(0);
    assert_eq!(view.state, view.record.state);
    assert_eq!(view.open_for.is_zero(), view.state != CircuitState::Open, "{view:?}");
    assert!(view.probes_granted <= if view.state == CircuitState::HalfOpen { report.probes_wanted } else { 0 });
    view
}

/// Asks until the circuit is there.
async fn until(limits: &dyn Limits, report: &CircuitReport, state: CircuitState) -> CircuitView {
    let asking = async {
        loop {
            let view = tell(limits, report).await;
            if view.state == state {
                return view;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(DEADLINE, asking).await.unwrap_or_else(|_| panic!("the circuit becomes {state:?}"))
}

async fn answers_in_order(limits: &dyn Limits, world: &World) {
    let mut reports: Vec<_> = (0..300).map(|_| report(world)).collect();
    for failing in reports.iter_mut().step_by(3) {
        failing.failures = 20;
    }
    let views = surely(limits, async || limits.circuits(1, &reports).await).await;
    assert_eq!(views.len(), reports.len());
    for (view, report) in views.iter().zip(&reports) {
        let expected = if report.failures > 0 { CircuitState::Open } else { CircuitState::Closed };
        assert_eq!(view.state, expected);
    }
    assert!(asked(async || limits.circuits(1, &[]).await).await.is_empty());
}

async fn walks_through_all_states(one: &dyn Limits, two: &dyn Limits, world: &World) {
    let quiet = report(world);
    // Closed, and it stays so while it works.
    let works = CircuitReport { successes: 50, succeeded_last: true, ..quiet.clone() };
    let closed = tell(one, &works).await;
    assert_eq!((closed.record, closed.ramp), (CircuitRecord::default(), None));
    // Each sees a part of the failures: together they are enough.
    let fails = CircuitReport { failures: 30, reason: Some("503".to_owned()), ..quiet.clone() };
    tell(two, &fails).await;
    let open = until(one, &CircuitReport { failures: 30, ..fails }, CircuitState::Open).await;
    assert_eq!(open.record.trips, 1);
    let reason = open.record.reason.as_deref().unwrap_or_default();
    assert!(reason.contains(" % of ") && reason.ends_with("attempts in 30 s failed, the last: 503"), "{reason}");
    assert!(open.open_for <= Duration::from_millis(480), "{open:?}");
    // The other knows.
    let elsewhere = tell(two, &quiet).await;
    if elsewhere.state == CircuitState::Open {
        assert_eq!(elsewhere.record, open.record);
    }

    // Half-open: so many probes in all, one fails.
    let wants = CircuitReport { probes_wanted: 2, ..quiet.clone() };
    let half_open = until(one, &CircuitReport { probes_wanted: 0, ..wants.clone() }, CircuitState::HalfOpen).await;
    assert!(half_open.record.since > open.record.since && half_open.record.reason == open.record.reason);
    assert_eq!(tell(one, &wants).await.probes_granted, 2);
    assert_eq!(tell(two, &wants).await.probes_granted, PROBES - 2);
    assert_eq!(tell(two, &wants).await.probes_granted, 0);
    // One that told nothing can be sent again.
    let void = CircuitReport { probes_void: 1, probes_wanted: 2, ..quiet.clone() };
    assert_eq!(tell(two, &void).await.probes_granted, 1);
    let failed = CircuitReport { failures: 1, probes_failed: 1, reason: Some("reset".to_owned()), ..quiet.clone() };
    let again = until(two, &failed, CircuitState::Open).await;
    assert_eq!(
        (again.record.trips, again.record.reason.as_deref()),
        (2, Some("1 of 3 probes failed, the last: reset"))
    );
    assert!(again.open_for > Duration::from_millis(480), "longer than the first time: {again:?}");

    // Half-open again; places of probes that are never heard of are free after their time.
    let gone = CircuitReport { probes_wanted: PROBES, probe_timeout: Duration::from_millis(300), ..quiet.clone() };
    let first = until(one, &gone, CircuitState::HalfOpen).await;
    assert_eq!(first.probes_granted, PROBES);
    let patient = CircuitReport { probes_wanted: 1, ..quiet.clone() };
    let mut granted = 0;
    let granting = async {
        while granted < PROBES {
            granted += tell(two, &patient).await.probes_granted;
            tokio::time::sleep(PAUSE).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, granting).await.is_ok(), "the places are free again");
    assert_eq!(tell(one, &patient).await.probes_granted, 0);

    // All succeed: it closes by a ramp.
    let well = CircuitReport { successes: PROBES, probes_succeeded: PROBES, succeeded_last: true, ..quiet.clone() };
    let closed = until(two, &well, CircuitState::Closed).await;
    assert_eq!((closed.record.trips, closed.record.reason), (2, None));
    let ramp = closed.ramp.unwrap_or_default();
    assert!(ramp >= PROBES, "{ramp}");
    let growing = async {
        while tell(one, &quiet).await.ramp.is_some_and(|now| now <= ramp) {
            tokio::time::sleep(PAUSE).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, growing).await.is_ok(), "the ramp grows");

    // Switched off while it is open.
    let off = CircuitReport { policy: CircuitPolicy { enabled: false, ..quiet.policy.clone() }, ..quiet.clone() };
    until(one, &CircuitReport { failures: 30, ..quiet.clone() }, CircuitState::Open).await;
    let view = tell(two, &CircuitReport { failures: 30, ..off }).await;
    assert_eq!((view.state, view.ramp, view.record.trips), (CircuitState::Closed, None, 3));
    assert_eq!(tell(one, &quiet).await.state, CircuitState::Closed);
}

/// Many report at once: nothing is lost, and it opens once.
async fn opens_once_for_many(one: &Arc<dyn Limits>, two: &Arc<dyn Limits>, world: &World) {
    let policy = CircuitPolicy { open_ms: 60_000, ..CircuitPolicy::default() };
    let fails = CircuitReport { policy, failures: 5, reason: Some("503".to_owned()), trips: 6, ..report(world) };
    let reporters = (0..8).map(|number: u32| {
        let limits = if number.is_multiple_of(2) { one } else { two };
        tell(&**limits, &fails)
    });
    join_all(reporters).await;
    for limits in [one, two] {
        let view = until(&**limits, &CircuitReport { failures: 0, ..fails.clone() }, CircuitState::Open).await;
        assert_eq!(view.record.trips, 7, "it goes on from what the store keeps");
    }
}

/// Many want probes at once.
async fn grants_no_probe_twice(one: &Arc<dyn Limits>, two: &Arc<dyn Limits>, world: &World) {
    let quiet = report(world);
    until(&**one, &CircuitReport { failures: 30, ..quiet.clone() }, CircuitState::Open).await;
    until(&**two, &quiet, CircuitState::HalfOpen).await;
    let wants = CircuitReport { probes_wanted: 2, ..quiet };
    let mut granted = 0;
    for _ in 0..3 {
        let reporters = (0..6).map(|number: u32| {
            let limits = if number.is_multiple_of(2) { one } else { two };
            tell(&**limits, &wants)
        });
        granted += join_all(reporters).await.iter().map(|view| view.probes_granted).sum::<u32>();
        assert!(granted <= PROBES, "{granted}");
    }
    assert!(granted > 0);
}

/// Few failures open it when nothing succeeds between them.
async fn opens_on_a_row_that_lasts(one: &dyn Limits, two: &dyn Limits, world: &World) {
    let fails = CircuitReport { failures: 1, reason: Some("timeout".to_owned()), ..report(world) };
    let healthy = CircuitReport { failures: 2, successes: 9, succeeded_last: true, ..report(world) };
    let start = world.clock.elapsed();
    let failing = async {
        let mut failures = 0;
        loop {
            for limits in [one, two] {
                failures += 1;
                let view = tell(limits, &fails).await;
                assert_eq!(tell(limits, &healthy).await.state, CircuitState::Closed);
                if view.state == CircuitState::Open {
                    return (failures, view);
                }
            }
            tokio::time::sleep(Duration::from_millis(900)).await;
        }
    };
    let Ok((failures, view)) = tokio::time::timeout(DEADLINE, failing).await else { panic!("the circuit opens") };
    assert!(failures >= 5 && world.clock.elapsed() - start >= Duration::from_secs(5));
    let reason = view.record.reason.unwrap_or_default();
    assert!(reason.contains(" failures in a row over ") && reason.ends_with(", the last: timeout"), "{reason}");
}

/// However long it is open, for all, and once.
async fn is_tried_when_its_destination_changed(one: &dyn Limits, two: &dyn Limits, world: &World) {
    let mut quiet = report(world);
    quiet.policy.open_ms = 600_000;
    quiet.policy.max_open_ms = 600_000;
    let open = until(one, &CircuitReport { failures: 30, ..quiet.clone() }, CircuitState::Open).await;
    let changed = CircuitReport { version: 2, ..quiet.clone() };
    let tried = until(two, &changed, CircuitState::HalfOpen).await;
    assert!(tried.record.since > open.record.since);
    // Who has not heard of the change sees the same.
    until(one, &quiet, CircuitState::HalfOpen).await;
    let failed = CircuitReport { failures: 1, probes_failed: 1, ..changed.clone() };
    assert_eq!(until(two, &failed, CircuitState::Open).await.record.trips, 2);
    for limits in [one, two] {
        assert_eq!(tell(limits, &changed).await.state, CircuitState::Open);
    }
}
