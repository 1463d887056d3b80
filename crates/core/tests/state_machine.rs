//! `docs/state-machine.md` and the code name the same transitions.

use std::collections::BTreeSet;

use signalpost_core::{DeliveryState, WaitReason};

#[test]
fn the_document_and_the_code_agree() {
    let document =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/state-machine.md")).unwrap();
    let state = |name: &str| DeliveryState::ALL.into_iter().find(|state| format!("{state:?}") == name);
    let pair = |from: &str, to: &str| Some((state(from.trim())?, state(to.trim())?));

    let table: BTreeSet<_> = document
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix('|')?.split('|');
            pair(cells.next()?, cells.next()?)
        })
        .collect();
    let diagram: BTreeSet<_> = document
        .lines()
        .filter_map(|line| {
            let (from, rest) = line.split_once("-->")?;
            pair(from, rest.split(':').next()?)
        })
        .collect();
    let code: BTreeSet<_> = DeliveryState::ALL
        .into_iter()
        .flat_map(|from| DeliveryState::ALL.into_iter().map(move |to| (from, to)))
        .filter(|(from, to)| from.may_become(*to))
        .collect();
    assert_eq!(table, code, "the table");
    assert_eq!(diagram, code, "the diagram");
}

#[test]
fn final_states_are_left_by_nothing_and_the_others_can_end() {
    for from in DeliveryState::ALL {
        let leaves = DeliveryState::ALL.into_iter().any(|to| from.may_become(to));
        assert_eq!(leaves, !from.is_final(), "{from:?}");
    }
}

#[test]
fn the_document_tells_of_every_reason_to_wait() {
    let document =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/state-machine.md")).unwrap();
    let (_, table) = document.split_once("| reason | due |").unwrap();
    let told: Vec<&str> = table
        .lines()
        .skip(2)
        .map_while(|line| line.strip_prefix('|'))
        .filter_map(|line| line.split('|').next().map(str::trim))
        .collect();
    let reasons: Vec<String> = WaitReason::ALL.iter().map(|reason| format!("{reason:?}")).collect();
    assert_eq!(told, reasons);
}
