//! `docs/state-machine.md` and the store name the same transitions, of states and of what a delivery waits for.
//!
//! Triggers note every transition that the whole suite of the port makes. Each must stand in the document, and each of the
//! document must have been made.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use signalpost_core::{DeliveryState, WaitReason};
use signalpost_store::NEVER;

/// Of what, from, to: the numbers of states or reasons. -1: it was not there, or is not any more.
pub type Noted = BTreeSet<(String, i64, i64)>;

/// Notes what happens in a database from now on.
pub fn watch(connection: &Connection) {
    let note = |what: &str, on: &str, when: &str, from: &str, to: &str| {
        format!(
            "CREATE TRIGGER {what}_{on} AFTER {on} ON {what} WHEN {when} BEGIN
                 INSERT INTO transitions SELECT '{what}', {from}, {to}
                     WHERE NOT EXISTS (SELECT 1 FROM transitions WHERE what = '{what}' AND a = {from} AND b = {to});
             END;"
        )
    };
    // What follows in a lane has no due time, and nothing else has none.
    let follower = |on: &str| {
        let (never, lane) = (NEVER.as_micros(), WaitReason::Lane as u8);
        format!(
            "CREATE TRIGGER follower_{on} AFTER {on} ON waiting WHEN (new.due_at = {never}) <> (new.reason = {lane})
             BEGIN INSERT INTO transitions SELECT 'lane', new.reason, new.due_at = {never}
                       WHERE NOT EXISTS (SELECT 1 FROM transitions WHERE what = 'lane'); END;"
        )
    };
    let sql = [
        "CREATE TABLE transitions (what TEXT, a INTEGER, b INTEGER);".to_owned(),
        note("deliveries", "INSERT", "true", "-1", "new.state"),
        note("deliveries", "UPDATE", "old.state <> new.state", "old.state", "new.state"),
        note("waiting", "INSERT", "true", "-1", "new.reason"),
        note(
            "waiting",
            "UPDATE",
            "old.reason <> new.reason OR old.due_at <> new.due_at OR old.leased <> new.leased",
            "old.reason",
            "new.reason",
        ),
        note("waiting", "DELETE", "true", "old.reason", "-1"),
        follower("INSERT"),
        follower("UPDATE"),
    ];
    connection.execute_batch(&sql.concat()).unwrap();
}

/// What has happened since.
pub fn noted(connection: &Connection) -> Noted {
    let mut statement = connection.prepare("SELECT what, a, b FROM transitions").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// A row of the document's tables: the transitions that it stands for.
type Rows = BTreeMap<String, BTreeSet<(i64, i64)>>;

/// The rows of the first table after this text that begins with the columns `from` and `to`.
fn rows(document: &str, heading: &str, number: &dyn Fn(&str) -> Option<i64>, all: &[i64]) -> Rows {
    let (_, after) = document.split_once(heading).unwrap();
    let lines =
        after.lines().skip_while(|line| !line.starts_with("| from | to |")).take_while(|line| line.starts_with('|'));
    let numbers = |cell: &str| -> Option<Vec<i64>> {
        match cell.trim() {
            "any" => Some(all.to_vec()),
            names => names.split(',').map(|name| number(name.trim())).collect(),
        }
    };
    let mut rows = Rows::new();
    for line in lines.skip(2) {
        let mut cells = line.trim_start_matches('|').split('|');
        let (from, to) = (cells.next().unwrap(), cells.next().unwrap().trim());
        let numbers = |cell: &str| numbers(cell).unwrap_or_else(|| panic!("{line}"));
        let from = numbers(from);
        let pairs = match to {
            "the same" => from.iter().map(|a| (*a, *a)).collect(),
            to => {
                let to = numbers(to);
                from.iter().flat_map(|a| to.iter().map(|b| (*a, *b))).collect()
            }
        };
        rows.insert(line.to_owned(), pairs);
    }
    assert!(rows.len() > 3, "no table behind {heading}");
    rows
}

/// Holds what happened in all databases to the document.
pub fn check(noted: &Noted) {
    let of = |what: &str| -> BTreeSet<(i64, i64)> {
        noted.iter().filter(|(of, ..)| of == what).map(|(_, a, b)| (*a, *b)).collect()
    };
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/state-machine.md");
    let document = std::fs::read_to_string(path).unwrap();

    let state = |name: &str| match name {
        "–" => Some(-1),
        name => DeliveryState::ALL.into_iter().find(|state| format!("{state:?}") == name).map(|s| i64::from(s as u8)),
    };
    let reason = |name: &str| match name {
        "–" => Some(-1),
        name => WaitReason::ALL.iter().find(|reason| format!("{reason:?}") == name).map(|r| i64::from(*r as u8)),
    };
    let all_states: Vec<i64> = DeliveryState::ALL.iter().map(|state| i64::from(*state as u8)).collect();
    let all_reasons: Vec<i64> = WaitReason::ALL.iter().map(|reason| i64::from(*reason as u8)).collect();
    let states = rows(&document, "## Transitions", &state, &all_states);
    let waits = rows(&document, "## What it waits for", &reason, &all_reasons);
    for (what, made, rows) in [("states", of("deliveries"), states), ("reasons", of("waiting"), waits)] {
        let told: BTreeSet<(i64, i64)> = rows.values().flatten().copied().collect();
        let untold: Vec<_> = made.difference(&told).collect();
        assert!(untold.is_empty(), "of {what} the document does not tell {untold:?}");
        for (row, of_row) in rows {
            // From Waiting to Waiting is a transition of the second table.
            let unmade = of_row.iter().all(|pair| !made.contains(pair) && (what, *pair) != ("states", (1, 1)));
            assert!(!unmade, "of {what} the store never made: {row}");
        }
    }
    assert_eq!(
        of("lane"),
        BTreeSet::new(),
        "a due time without end stands for a follower in a lane, and for nothing else"
    );
}
