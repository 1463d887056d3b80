//! Every input that fuzzing found worth keeping, through the target that it belongs to.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::{collections::BTreeSet, fs, path::Path};

use signalpost_fuzzing::TARGETS;

#[test]
fn what_was_found_once_is_not_found_again() {
    let corpus = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus"));
    for (name, target) in TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")) {
            let path = entry.unwrap().path();
            let input = fs::read(&path).unwrap();
            let outcome = std::panic::catch_unwind(|| target(&input));
            assert!(outcome.is_ok(), "{}", path.display());
            inputs += 1;
        }
        assert!(inputs > 0, "{name} has no corpus");
        target(&[]);
    }
}

/// Else a target is written and never run.
#[test]
fn every_target_is_a_binary_of_the_fuzzer() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz"));
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let files = |path: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(folder.join(path)).unwrap();
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(files("fuzz_targets"), known);
    assert_eq!(files("corpus"), known);
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for name in known {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}
