//! Promises of ours broken on purpose: each lie is seen, by the invariant that it breaks, within a few seeds.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use signalpost_simulation::{Invariant, Options, breaks::Lie, run};

/// Within so many seeds each lie is seen. Most are in the first few: a seed has only some faults.
const SEEDS: u64 = 60;

/// The first seed that sees it, and what it says.
fn seen(lie: Lie) -> Option<(u64, Invariant, String)> {
    (0..SEEDS).find_map(|seed| {
        let broken = run(seed, Options { lie: Some(lie), loud: false }).expect("it begins").violation?;
        Some((seed, broken.invariant, broken.text))
    })
}

#[test]
fn every_lie_is_seen_by_the_invariant_that_it_breaks() {
    let seen: Vec<_> = std::thread::scope(|scope| {
        let each: Vec<_> = Lie::ALL.iter().map(|lie| scope.spawn(move || (*lie, seen(*lie)))).collect();
        each.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (lie, seen) in seen {
        let (seed, invariant, text) = seen.unwrap_or_else(|| panic!("{lie:?} is not seen in {SEEDS} seeds"));
        println!("{lie:?}: seed {seed}, {invariant}: {text}");
        assert_eq!(invariant, lie.breaks(), "{lie:?}: {text}");
    }
}

#[test]
fn every_invariant_has_a_lie_that_breaks_it() {
    use Invariant::{AtMostOnce, Circuit, Durable, Isolation, Limits, NeverForgotten, Order};
    let broken: Vec<Invariant> = Lie::ALL.iter().map(|lie| lie.breaks()).collect();
    for invariant in [Durable, NeverForgotten, Invariant::Accounted, AtMostOnce, Order, Isolation, Limits, Circuit] {
        assert!(broken.contains(&invariant), "{invariant}");
    }
}
