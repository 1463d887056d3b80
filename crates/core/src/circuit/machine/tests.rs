//! The circuit, walked through all states and edges in simulated time.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;

/// Always the same chance: 0 is 20 % less, 0.5 is the time itself.
#[derive(Debug)]
struct Chance(f64);

impl Entropy for Chance {
    fn fill(&self, bytes: &mut [u8]) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let number = ((self.0 * (1_u64 << 53) as f64) as u64) << 11;
        bytes.copy_from_slice(&number.to_le_bytes()[..bytes.len()]);
    }
}

const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// A circuit with its time.
struct World {
    circuit: Circuit,
    policy: CircuitPolicy,
    now: Timestamp,
    chance: f64,
}

impl World {
    fn new() -> Self {
        let policy = CircuitPolicy { open_ms: 10_000, max_open_ms: 60_000, ..CircuitPolicy::default() };
        Self { circuit: Circuit::default(), policy, now: Timestamp::from_millis(1_000_000), chance: 0.5 }
    }

    /// One that is half-open, with no probe out.
    fn half_open() -> Self {
        let mut world = Self::new();
        world.trip();
        world.passes(10.0);
        assert_eq!(world.step(Seen::default()).state, CircuitState::HalfOpen);
        world
    }

    fn passes(&mut self, seconds: f64) {
        self.now = self.now + Duration::from_secs_f64(seconds);
    }

    fn step(&mut self, seen: Seen<'_>) -> Permits {
        let seen = Seen { probe_timeout: PROBE_TIMEOUT, ..seen };
        // What is kept in shared memory is all that there is.
        let kept = serde_json::to_string(&self.circuit).unwrap();
        assert_eq!(serde_json::from_str::<Circuit>(&kept).unwrap(), self.circuit);
        self.circuit.step(self.now, &self.policy, &seen, &Chance(self.chance))
    }

    fn fails(&mut self, failures: u32) -> CircuitState {
        self.step(Seen { failures, reason: Some("503"), ..Seen::default() }).state
    }

    fn succeeds(&mut self, successes: u32) -> CircuitState {
        self.step(Seen { successes, succeeded_last: true, ..Seen::default() }).state
    }

    fn probes(&mut self, probes_wanted: u32) -> u32 {
        self.step(Seen { probes_wanted, ..Seen::default() }).probes
    }

    fn probes_end(&mut self, succeeded: u32, failed: u32, void: u32) -> Permits {
        self.step(Seen {
            successes: succeeded,
            probes_succeeded: succeeded,
            failures: failed,
            probes_failed: failed,
            probes_void: void,
            reason: Some("timeout"),
            ..Seen::default()
        })
    }

    /// Six failures in a row over 5 s.
    fn trip(&mut self) {
        assert_eq!(self.fails(5), CircuitState::Closed);
        self.passes(5.0);
        assert_eq!(self.fails(1), CircuitState::Open);
    }

    fn close(&mut self) {
        assert_eq!(self.probes(3), 3);
        assert_eq!(self.probes_end(3, 0, 0).state, CircuitState::Closed);
    }
}

#[test]
fn a_newer_destination_is_tried_at_once() {
    let mut world = World::new();
    let knows = |version| Seen { version, probes_wanted: 2, ..Seen::default() };
    // Of one that was opened by somebody who told no version nothing is known.
    world.trip();
    assert_eq!(world.step(knows(3)).state, CircuitState::Open);
    for version in [3, 2] {
        assert_eq!(world.step(knows(version)).state, CircuitState::Open, "{version}");
    }
    let tried = world.step(knows(4));
    assert_eq!((tried.state, tried.probes), (CircuitState::HalfOpen, 2));
    let again = world.step(Seen { failures: 1, probes_failed: 1, ..knows(4) });
    assert_eq!(
        (again.state, again.open_for),
        (CircuitState::Open, Duration::from_secs(20)),
        "as after any other trial"
    );
    assert_eq!(world.step(knows(4)).state, CircuitState::Open, "once");
    assert_eq!(world.step(knows(5)).state, CircuitState::HalfOpen);
    // While it is closed there is nothing to try.
    assert_eq!(world.probes_end(3, 0, 0).state, CircuitState::Closed);
    assert_eq!(world.step(knows(6)).state, CircuitState::Closed);
}

#[test]
fn a_healthy_circuit_stays_closed() {
    let mut world = World::new();
    for _ in 0..100 {
        assert_eq!(world.succeeds(50), CircuitState::Closed);
        world.passes(0.5);
    }
    assert_eq!((world.circuit.since(), world.circuit.trips(), world.circuit.reason()), (None, 0, None));
    assert_eq!(world.step(Seen::default()).ramp, None);
}

#[test]
fn it_opens_on_failures_in_a_row_that_last() {
    let mut world = World::new();
    // Many at once are one moment.
    assert_eq!(world.fails(19), CircuitState::Closed);
    world.passes(4.9);
    assert_eq!(world.succeeds(0), CircuitState::Closed);
    world.passes(0.1);
    // Time alone does not open it.
    assert_eq!(world.succeeds(0), CircuitState::Closed);
    world.passes(7.0);
    world.policy.failure_ratio = 1.0;
    assert_eq!(world.fails(1), CircuitState::Open);
    assert_eq!(world.circuit.reason(), Some("20 failures in a row over 12 s, the last: 503"));
    assert_eq!((world.circuit.trips(), world.circuit.since()), (1, Some(world.now)));
}

#[test]
fn too_few_in_a_row_do_not_open_it() {
    let mut world = World::new();
    for _ in 0..4 {
        assert_eq!(world.fails(1), CircuitState::Closed);
        world.passes(60.0);
    }
    assert_eq!(world.fails(1), CircuitState::Open);
}

#[test]
fn a_row_is_forgotten_when_nothing_failed_for_an_hour() {
    // One that has opened before is kept for longer than that.
    for trips in [0, 1] {
        let mut world = World::new();
        world.step(Seen { trips, ..Seen::default() });
        for _ in 0..3 {
            assert_eq!(world.fails(4), CircuitState::Closed);
            world.passes(3600.0);
        }
        assert_eq!(world.fails(4), CircuitState::Closed);
        world.passes(3599.0);
        assert_eq!(world.fails(1), CircuitState::Open);
    }
}

#[test]
fn rows_that_another_version_kept_are_read() {
    let kept = |row: &str| {
        serde_json::from_str::<Circuit>(&format!(
            r#"{{"state":{{"closed":{{"window":[],"row":{row},"ramp":null}}}},"since":null,"trips":3,"in_a_row":0,"reason":null,"version":1}}"#
        ))
    };
    let mut world = World::new();
    world.fails(4);
    let now = serde_json::to_value(world.now).unwrap();
    world.circuit = kept(&format!(r#"{{"failures":4,"since":{now}}}"#)).unwrap();
    world.passes(6.0);
    assert_eq!(world.fails(1), CircuitState::Open);
    // And what a later one adds.
    kept(&format!(r#"{{"failures":4,"since":{now},"latest":{now},"more":1}}"#)).unwrap();
}

#[test]
fn openings_that_are_taken_over_are_news_to_who_kept_them_and_to_nobody_else() {
    let mut world = World::new();
    let kept = Seen { trips: 3, ..Seen::default() };
    assert_eq!(world.step(kept).state, CircuitState::Closed);
    let first = world.now;
    assert_eq!((world.circuit.trips(), world.circuit.since(), world.circuit.told_since()), (3, None, Some(first)));
    world.passes(1.0);
    world.step(kept);
    assert_eq!(world.circuit.told_since(), Some(first), "once");
    world.policy.enabled = false;
    world.step(kept);
    assert_eq!(world.circuit.told_since(), Some(first));
    world.policy.enabled = true;
    world.trip();
    assert_eq!((world.circuit.trips(), world.circuit.told_since()), (4, Some(world.now)));
    // The clock is set back.
    let mut world = World::new();
    world.step(kept);
    world.now = Timestamp::from_millis(1);
    world.step(kept);
    assert_eq!(world.circuit.told_since(), Some(world.now));
}

#[test]
fn a_success_between_breaks_the_row() {
    let mut world = World::new();
    for _ in 0..10 {
        assert_eq!(world.fails(4), CircuitState::Closed);
        world.passes(6.0);
        assert_eq!(world.succeeds(10), CircuitState::Closed);
        world.passes(6.0);
    }
    // In the same report: what failed after it begins a row of at least one.
    let mixed = |succeeded_last| Seen { failures: 4, successes: 5, succeeded_last, ..Seen::default() };
    assert_eq!(world.step(mixed(true)).state, CircuitState::Closed);
    world.passes(6.0);
    assert_eq!(world.fails(4), CircuitState::Closed);
    assert_eq!(world.step(mixed(false)).state, CircuitState::Closed);
    world.passes(6.0);
    assert_eq!(world.fails(3), CircuitState::Closed);
    assert_eq!(world.fails(1), CircuitState::Open);
}

#[test]
fn it_opens_on_the_ratio_of_the_last_half_minute() {
    let mut world = World::new();
    let half = Seen {
        successes: 12,
        failures: 12,
        succeeded_last: true,
        reason: Some("connection refused"),
        ..Seen::default()
    };
    world.succeeds(1000);
    assert_eq!(world.step(half).state, CircuitState::Closed);
    world.passes(29.0);
    assert_eq!(world.step(half).state, CircuitState::Closed, "a thousand succeeded");
    world.passes(1.0);
    // The first second is out of the window now.
    let later = Seen { successes: 10, failures: 14, ..half };
    assert_eq!(world.step(later).state, CircuitState::Open);
    assert_eq!(world.circuit.reason(), Some("54 % of 48 attempts in 30 s failed, the last: connection refused"));
}

#[test]
fn few_attempts_have_no_ratio_and_successes_open_nothing() {
    let mut world = World::new();
    world.policy.failures = NonZeroU32::new(1000).unwrap();
    assert_eq!(world.fails(19), CircuitState::Closed);
    assert_eq!(world.succeeds(5), CircuitState::Closed, "19 of 24 failed, but it works now");
    assert_eq!(world.fails(1), CircuitState::Open);
}

#[test]
fn open_counts_nothing_and_waits() {
    let mut world = World::new();
    world.trip();
    for passed in 0..10 {
        let seen = Seen {
            successes: 9,
            failures: 9,
            probes_succeeded: 9,
            probes_failed: 1,
            probes_wanted: 9,
            ..Seen::default()
        };
        let permits = world.step(seen);
        let left = Duration::from_secs(10 - passed);
        assert_eq!(permits, Permits { state: CircuitState::Open, open_for: left, probes: 0, ramp: None });
        world.passes(1.0);
    }
    // What ended while it was open is told now, and is no probe's.
    let seen =
        Seen { successes: 3, probes_succeeded: 3, failures: 1, probes_failed: 1, probes_wanted: 2, ..Seen::default() };
    assert_eq!(
        world.step(seen),
        Permits { state: CircuitState::HalfOpen, open_for: Duration::ZERO, probes: 2, ramp: None }
    );
    assert_eq!((world.circuit.trips(), world.circuit.since()), (1, Some(world.now)));
    assert_eq!(world.circuit.reason(), Some("6 failures in a row over 5 s, the last: 503"));
}

#[test]
fn half_open_grants_so_many_probes_in_all() {
    let mut world = World::half_open();
    assert_eq!(world.probes(0), 0);
    assert_eq!(world.probes(2), 2);
    assert_eq!(world.probes(5), 1);
    assert_eq!(world.probes(5), 0);
    // A success keeps its place: there are three in all.
    assert_eq!(world.probes_end(2, 0, 0).state, CircuitState::HalfOpen);
    assert_eq!(world.probes(5), 0);
    // One that told nothing does not.
    assert_eq!(world.probes_end(0, 0, 1).state, CircuitState::HalfOpen);
    assert_eq!(world.probes(5), 1);
    assert_eq!(world.probes_end(1, 0, 0).state, CircuitState::Closed);
}

#[test]
fn a_probe_that_is_never_heard_of_gives_its_place_back() {
    let mut world = World::half_open();
    assert_eq!(world.probes(2), 2);
    world.passes(10.0);
    assert_eq!(world.probes(2), 1);
    world.passes(9.9);
    assert_eq!(world.probes(2), 0);
    world.passes(0.1);
    assert_eq!(world.probes(3), 2, "the first two are free, the third is out");
    world.passes(10.0);
    assert_eq!(world.probes(3), 1);
}

#[test]
fn what_is_no_probe_counts_for_nothing_in_half_open() {
    let mut world = World::half_open();
    assert_eq!(world.fails(100), CircuitState::HalfOpen);
    assert_eq!(world.succeeds(100), CircuitState::HalfOpen);
    assert_eq!(world.circuit.trips(), 1);
}

#[test]
fn one_probe_that_fails_opens_it_again_for_longer() {
    let mut world = World::half_open();
    for (number, open) in [20, 40, 60, 60].into_iter().enumerate() {
        assert_eq!(world.probes(3), 3);
        assert_eq!(world.probes_end(2, 0, 0).state, CircuitState::HalfOpen);
        let permits = world.probes_end(0, 1, 0);
        assert_eq!((permits.state, permits.open_for), (CircuitState::Open, Duration::from_secs(open)));
        assert_eq!(world.circuit.trips(), u32::try_from(number).unwrap() + 2);
        assert_eq!(world.circuit.reason(), Some("1 of 3 probes failed, the last: timeout"));
        world.passes(permits.open_for.as_secs_f64());
        assert_eq!(world.step(Seen::default()).state, CircuitState::HalfOpen);
    }
}

#[test]
fn the_open_time_is_spread_and_bounded() {
    for (chance, first, second, last) in [(0.0, 8.0, 16.0, 48.0), (0.999_999, 12.0, 24.0, 60.0)] {
        let mut world = World::new();
        world.chance = chance;
        world.trip();
        for open in [first, second, 2.0 * second, last, last] {
            let permits = world.step(Seen::default());
            assert!((permits.open_for.as_secs_f64() - open).abs() < 0.01, "{permits:?} instead of {open}");
            world.passes(permits.open_for.as_secs_f64());
            assert_eq!(world.probes(1), 1);
            world.probes_end(0, 1, 0);
        }
    }
}

#[test]
fn it_closes_by_a_ramp() {
    let mut world = World::half_open();
    world.close();
    assert_eq!((world.circuit.since(), world.circuit.trips(), world.circuit.reason()), (Some(world.now), 1, None));
    for second in 0..10 {
        let permits = world.step(Seen { successes: 1, succeeded_last: true, ..Seen::default() });
        assert_eq!((permits.state, permits.ramp), (CircuitState::Closed, Some(3 << second)));
        world.passes(1.0);
    }
    assert_eq!(world.step(Seen::default()).ramp, None);
}

#[test]
fn openings_during_the_ramp_are_in_a_row_and_later_ones_are_not() {
    let mut world = World::half_open();
    world.close();
    world.trip();
    assert_eq!(world.step(Seen::default()).open_for, Duration::from_secs(20));
    world.passes(20.0);
    world.step(Seen::default());
    world.close();
    world.passes(10.0);
    world.trip();
    assert_eq!(world.step(Seen::default()).open_for, Duration::from_secs(10));
    assert_eq!(world.circuit.trips(), 3);
}

#[test]
fn closing_forgets_what_failed_before() {
    let mut world = World::half_open();
    world.close();
    assert_eq!(world.fails(4), CircuitState::Closed);
    world.passes(6.0);
    assert_eq!(world.fails(1), CircuitState::Open);
}

#[test]
fn a_policy_that_is_switched_off_closes_and_forgets() {
    for mut world in [World::half_open(), {
        let mut open = World::new();
        open.trip();
        open
    }] {
        world.policy.enabled = false;
        let permits = world.step(Seen { failures: 1000, probes_wanted: 1, ..Seen::default() });
        assert_eq!(permits, Permits { state: CircuitState::Closed, open_for: Duration::ZERO, probes: 0, ramp: None });
        assert_eq!((world.circuit.since(), world.circuit.trips(), world.circuit.reason()), (Some(world.now), 1, None));
        world.policy.enabled = true;
        world.passes(6.0);
        assert_eq!(world.fails(4), CircuitState::Closed);
        world.passes(6.0);
        assert_eq!(world.fails(1), CircuitState::Open);
        assert_eq!(world.step(Seen::default()).open_for, Duration::from_secs(10));
    }
}

#[test]
fn a_changed_policy_applies_at_once() {
    let mut world = World::half_open();
    assert_eq!(world.probes(3), 3);
    world.probes_end(2, 0, 0);
    world.policy.probes = NonZeroU32::new(2).unwrap();
    assert_eq!(world.step(Seen::default()).state, CircuitState::Closed);
    world.policy.probes = NonZeroU32::new(7).unwrap();
    assert_eq!(world.step(Seen::default()).ramp, Some(7));
}

#[test]
fn trips_go_on_from_what_a_longer_memory_knows() {
    let mut world = World::new();
    world.step(Seen { trips: 7, ..Seen::default() });
    world.trip();
    assert_eq!(world.circuit.trips(), 8);
    world.step(Seen { trips: 3, ..Seen::default() });
    assert_eq!(world.circuit.trips(), 8);
}

#[test]
fn a_clock_that_is_set_back_only_delays() {
    let mut world = World::new();
    world.trip();
    world.passes(3.0);
    world.now = world.now - Duration::from_secs(3600);
    assert_eq!(world.step(Seen::default()).open_for, Duration::from_secs(10), "anew");
    world.passes(10.0);
    assert_eq!(world.probes(3), 3);
    world.now = world.now - Duration::from_secs(3600);
    assert_eq!(world.probes(3), 3, "nobody knows when they end");
    assert_eq!(world.probes_end(3, 0, 0).state, CircuitState::Closed);
    world.now = world.now - Duration::from_secs(3600);
    assert_eq!(world.step(Seen::default()).ramp, Some(3));
    world.fails(5);
    world.now = world.now - Duration::from_secs(3600);
    world.fails(1);
    world.passes(5.0);
    assert_eq!(world.fails(4), CircuitState::Open);
}

#[test]
fn a_reason_is_bounded() {
    let mut world = World::new();
    let long = "ä".repeat(10_000);
    world.fails(5);
    world.passes(5.0);
    world.step(Seen { failures: 1, reason: Some(&long), ..Seen::default() });
    assert_eq!(world.circuit.reason().unwrap().chars().count(), REASON_LENGTH);
    let mut world = World::new();
    world.fails(5);
    world.passes(5.0);
    world.step(Seen { failures: 1, ..Seen::default() });
    assert_eq!(world.circuit.reason(), Some("6 failures in a row over 5 s"));
}

#[test]
fn an_unknown_or_older_form_is_read() {
    assert_eq!(serde_json::from_str::<Circuit>("{}").unwrap(), Circuit::default());
    assert_eq!(serde_json::from_str::<Circuit>(r#"{"trips":3,"later":true}"#).unwrap().trips(), 3);
}

/// One thing that happens.
#[derive(Debug, Clone)]
struct Happens {
    after_ms: u64,
    successes: u32,
    failures: u32,
    succeeded_last: bool,
    /// Probes that end now, of those that are out.
    good: u32,
    bad: u32,
    void: u32,
    wanted: u32,
}

fn happens() -> impl Strategy<Value = Happens> {
    let results = (0_u64..4000, prop_oneof![Just(0), 0_u32..12], prop_oneof![Just(0), 0_u32..12], any::<bool>());
    let probes = (prop_oneof![Just(0), 0_u32..4], prop_oneof![6 => Just(0), 1 => Just(1_u32)], 0_u32..2, 0_u32..6);
    (results, probes).prop_map(|((after_ms, successes, failures, succeeded_last), (good, bad, void, wanted))| Happens {
        after_ms,
        successes,
        failures,
        succeeded_last,
        good,
        bad,
        void,
        wanted,
    })
}

proptest! {
    #[test]
    fn promises_hold_whatever_happens(
        steps in prop::collection::vec(happens(), 1..300),
        probes in 1_u32..6,
        failures in 1_u32..10,
        chance in 0.0_f64..1.0,
    ) {
        let mut world = World::new();
        world.chance = chance;
        world.policy.probes = NonZeroU32::new(probes).unwrap();
        world.policy.failures = NonZeroU32::new(failures).unwrap();
        // Probes that are out, by when their places end; and what ended well since it became half-open.
        let mut out: VecDeque<Timestamp> = VecDeque::new();
        let (mut succeeded, mut row, mut row_since) = (0, 0_u32, None);
        let mut before = (world.circuit.state(), world.circuit.trips());
        let mut until = None;
        for step in steps {
            world.passes(step.after_ms as f64 / 1000.0);
            let mut end = |wanted: u32| {
                let ended = as_len(wanted).min(out.len());
                out.drain(..ended);
                u32::try_from(ended).unwrap()
            };
            let (good, bad, void) = (end(step.good), end(step.bad), end(step.void));
            let seen = Seen {
                successes: step.successes + good,
                failures: step.failures + bad,
                succeeded_last: step.succeeded_last,
                probes_succeeded: good,
                probes_failed: bad,
                probes_void: void,
                probes_wanted: step.wanted,
                ..Seen::default()
            };
            let permits = world.step(seen);
            let (state, trips) = (permits.state, world.circuit.trips());
            out.retain(|until| *until > world.now);

            // The row as a person would count it.
            if before.0 == CircuitState::Closed && (seen.successes, seen.failures) != (0, 0) {
                if seen.successes == 0 {
                    row_since = row_since.or(Some(world.now));
                    row += seen.failures;
                } else if seen.succeeded_last || seen.failures == 0 {
                    (row, row_since) = (0, None);
                } else {
                    (row, row_since) = (1, Some(world.now));
                }
            }
            // Edges.
            match (before.0, state) {
                (CircuitState::Closed, CircuitState::Open) => {
                    prop_assert!(seen.failures > 0);
                    let by_row = row >= failures && row_since.is_some_and(|since| world.now.since(since) >= ROW_LASTS);
                    let by_ratio = world.circuit.reason().unwrap().contains('%');
                    prop_assert!(by_row || by_ratio, "{row} {:?}", world.circuit.reason());
                }
                (CircuitState::Closed, CircuitState::Closed) => {
                    let since = row_since.map(|since| world.now.since(since));
                    prop_assert!(seen.failures == 0 || row < failures || since.is_none_or(|time| time < ROW_LASTS));
                }
                (CircuitState::HalfOpen, CircuitState::Open) => prop_assert!(bad > 0),
                (CircuitState::HalfOpen, CircuitState::Closed) => {
                    prop_assert!(bad == 0 && succeeded + good >= probes, "{succeeded} and {good} of {probes}");
                    prop_assert_eq!(permits.ramp, Some(probes));
                }
                (CircuitState::Open, CircuitState::HalfOpen) => prop_assert!(until.is_some_and(|until| until <= world.now)),
                (CircuitState::Closed, CircuitState::HalfOpen) | (CircuitState::Open, CircuitState::Closed) => {
                    prop_assert!(false, "no such edge");
                }
                (CircuitState::HalfOpen, CircuitState::HalfOpen) => prop_assert_eq!(bad, 0),
                (CircuitState::Open, CircuitState::Open) => prop_assert!(until.is_some_and(|until| until > world.now)),
            }
            prop_assert_eq!(trips - before.1, u32::from(state == CircuitState::Open && before.0 != CircuitState::Open));
            prop_assert_eq!(world.circuit.reason().is_some(), state != CircuitState::Closed);
            // Grants.
            prop_assert!(permits.probes <= step.wanted);
            prop_assert_eq!(permits.open_for.is_zero(), state != CircuitState::Open);
            if state == CircuitState::HalfOpen {
                succeeded = if before.0 == CircuitState::HalfOpen { succeeded + good } else { 0 };
                if before.0 != CircuitState::HalfOpen {
                    // Probes of an earlier time are nobody's.
                    out.clear();
                }
                out.extend(std::iter::repeat_n(world.now + PROBE_TIMEOUT, as_len(permits.probes)));
                prop_assert!(u32::try_from(out.len()).unwrap() <= probes, "{} out at once", out.len());
            } else {
                prop_assert_eq!(permits.probes, 0);
                (row, row_since) = if state == CircuitState::Closed && before.0 == CircuitState::Closed { (row, row_since) } else { (0, None) };
            }
            until = (state == CircuitState::Open).then(|| world.now + permits.open_for);
            before = (state, trips);
        }
    }
}
