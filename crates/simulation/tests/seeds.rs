//! A few seeds with every `cargo test`; `cargo xtask simulate` runs as many as one likes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use std::sync::atomic::{AtomicU64, Ordering};

use signalpost_simulation::{Options, run};

/// So many seeds, from 0.
const SEEDS: u64 = 30;

#[test]
fn nothing_breaks_and_the_same_seed_goes_the_same_way() {
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS {
                return;
            }
            let first = run(seed, Options::default()).expect("it begins");
            if let Some(broken) = &first.violation {
                let tail = first.tail.join("\n");
                panic!("{tail}\n{}: {}\ncargo xtask simulate --seed {seed}", broken.invariant, broken.text);
            }
            assert!(first.deliveries > 0 && first.requests > 0, "seed {seed} does nothing");
            let again = run(seed, Options::default()).expect("it begins");
            assert_eq!((first.hash, first.steps), (again.hash, again.steps), "seed {seed} went two ways");
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
}

#[test]
fn another_seed_goes_another_way() {
    let (one, other) = (run(1, Options::default()).unwrap(), run(2, Options::default()).unwrap());
    assert_ne!(one.hash, other.hash);
}
