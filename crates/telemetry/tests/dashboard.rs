//! The dashboard and the operator's guide name only metrics that exist.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeSet;

use signalpost_telemetry::names::ALL;

/// Every word in a text that looks like one of our metrics.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("signalpost_") && !word.ends_with('_'))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word))
        .collect()
}

fn check(path: &str, at_least: usize) {
    let text = std::fs::read_to_string(format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let used = metrics_in(&text);
    assert!(used.len() >= at_least, "{path} names only {used:?}");
    let unknown: Vec<_> = used.iter().filter(|name| !ALL.iter().any(|metric| metric.name == **name)).collect();
    assert_eq!(unknown, Vec::<&&str>::new(), "{path} names metrics that do not exist");
}

#[test]
fn the_dashboard_shows_metrics_that_exist() {
    check("deploy/grafana/dashboards/signalpost.json", 15);
}

#[test]
fn the_operators_guide_names_metrics_that_exist() {
    check("docs/operations.md", 5);
}
