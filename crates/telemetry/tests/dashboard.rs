//! The dashboard, the alerting rules and the operator's guide name only metrics that exist, by the names and labels that
//! Prometheus knows them by; and the guide says what to do about every rule.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeSet;

use signalpost_telemetry::names::{ALL, Metric, MetricKind};

const DASHBOARD: &str = "deploy/grafana/dashboards/signalpost.json";
const ALERTS: &str = "deploy/prometheus/alerts.yml";
const GUIDE: &str = "docs/operations.md";

/// What Prometheus adds, by its scrape jobs and of itself.
const TARGET_LABELS: [&str; 3] = ["job", "instance", "service"];

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Every word in a text that looks like one of our metrics.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    text.split(|c| !is_word(c)).filter(|word| word.starts_with("signalpost_") && !word.ends_with('_')).collect()
}

fn metric(name: &str) -> Option<&'static Metric> {
    ALL.iter().find(|metric| metric.name == name)
}

/// The metric that a time series belongs to. Those of a histogram have names of their own.
fn metric_of(series: &str) -> Option<&'static Metric> {
    let is_histogram = |metric: &&Metric| metric.kind == MetricKind::Histogram;
    ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|suffix| metric(series.strip_suffix(suffix)?).filter(is_histogram))
        .or_else(|| metric(series).filter(|metric| !is_histogram(metric)))
}

#[test]
fn no_metric_has_a_label_that_a_target_has() {
    for metric in ALL {
        // Prometheus would rename ours.
        assert!(!metric.labels.iter().any(|label| TARGET_LABELS.contains(label)), "{}", metric.name);
    }
}

/// The words before an operator in what is between the braces of a selector: its labels.
fn labels_of(selector: &str) -> impl Iterator<Item = &str> {
    // Every other part is a value.
    selector.split('"').step_by(2).map(|part| part.trim_matches(|c| !is_word(c))).filter(|label| !label.is_empty())
}

/// Series and labels of a file with queries.
fn check_queries(path: &str, at_least: usize) {
    let text = read(path).replace("\\\"", "\"");
    let used = metrics_in(&text);
    assert!(used.len() >= at_least, "{path} names only {used:?}");
    let unknown: Vec<_> = used.iter().filter(|series| metric_of(series).is_none()).collect();
    assert!(unknown.is_empty(), "{path} names series that do not exist: {unknown:?}");

    for (at, _) in text.match_indices("signalpost_") {
        let rest = &text[at..];
        let (series, after) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
        let Some(selector) = after.strip_prefix('{').and_then(|after| after.split('}').next()) else { continue };
        let known = metric_of(series).unwrap().labels;
        for label in labels_of(selector) {
            let is_known = known.contains(&label) || TARGET_LABELS.contains(&label) || label == "le";
            assert!(is_known, "{path}: {series} has no label {label}");
        }
    }
}

/// Where a query groups by labels: each is one of a metric it names, or of the targets.
fn check_groups(path: &str, query: &str) {
    let known: BTreeSet<_> =
        metrics_in(query).into_iter().filter_map(metric_of).flat_map(|metric| metric.labels).collect();
    for group in query.split(" by (").skip(1) {
        for label in group.split(')').next().unwrap().split(',').map(str::trim) {
            let is_known = known.contains(&label) || TARGET_LABELS.contains(&label) || label == "le";
            assert!(is_known, "{path}: no label {label} in {query}");
        }
    }
}

/// Of each rule its text, beginning with its name.
fn rules(alerts: &str) -> Vec<&str> {
    alerts.split("- alert: ").skip(1).collect()
}

/// What follows a key in the text of a rule, up to the end of the line.
fn field<'a>(rule: &'a str, key: &str) -> Option<&'a str> {
    let value = rule.split(&format!(" {key}: ")).nth(1)?.lines().next()?.trim();
    (!value.is_empty()).then_some(value)
}

/// The part of the guide below a heading.
fn section<'a>(guide: &'a str, heading: &str) -> &'a str {
    guide.split(&format!("\n{heading}\n")).nth(1).unwrap().split("\n#").next().unwrap()
}

#[test]
fn the_dashboard_shows_series_that_exist() {
    check_queries(DASHBOARD, 30);
    let dashboard: serde_json::Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels with the id {}", panel["id"]);
        assert!(places.insert(panel["gridPos"].to_string()), "{} lies on another panel", panel["title"]);
        for target in panel["targets"].as_array().unwrap() {
            check_groups(DASHBOARD, target["expr"].as_str().unwrap());
        }
    }
}

#[test]
fn the_alerts_watch_series_that_exist() {
    check_queries(ALERTS, 15);
    for rule in rules(&read(ALERTS)) {
        check_groups(ALERTS, rule);
    }
}

#[test]
fn the_operators_guide_names_metrics_that_exist() {
    let guide = read(GUIDE);
    let used = metrics_in(&guide);
    assert!(used.len() >= 15, "{GUIDE} names only {used:?}");
    let unknown: Vec<_> = used.iter().filter(|name| metric(name).is_none()).collect();
    assert!(unknown.is_empty(), "{GUIDE} names metrics that do not exist: {unknown:?}");
}

#[test]
fn what_the_guide_says_to_watch_is_what_the_alerts_watch() {
    let (guide, alerts) = (read(GUIDE), read(ALERTS));
    let watched: BTreeSet<_> = metrics_in(&alerts).into_iter().map(|series| metric_of(series).unwrap().name).collect();
    assert_eq!(metrics_in(section(&guide, "### What to watch")), watched);
}

#[test]
fn every_alert_says_how_bad_it_is_and_where_to_look() {
    let (guide, alerts) = (read(GUIDE), read(ALERTS));
    let anchors: BTreeSet<_> = guide
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
        .collect();
    let rules = rules(&alerts);
    let names: BTreeSet<_> = rules.iter().map(|rule| rule.lines().next().unwrap()).collect();
    assert_eq!(names.len(), rules.len(), "two rules with one name");
    for rule in rules {
        for key in ["expr", "summary", "description"] {
            assert!(field(rule, key).is_some(), "no {key}: {rule}");
        }
        let severities = ["critical", "warning", "info"].map(|severity| format!("{{ severity: {severity} }}"));
        assert!(severities.iter().any(|severity| field(rule, "labels") == Some(severity)), "no severity: {rule}");
        let anchor = field(rule, "runbook").and_then(|runbook| runbook.strip_prefix(GUIDE)?.strip_prefix('#'));
        assert!(anchor.is_some_and(|anchor| anchors.contains(anchor)), "{anchor:?} is no heading of {GUIDE}: {rule}");
    }
}

#[test]
fn prometheus_loads_the_alerts() {
    assert!(read("deploy/prometheus/prometheus.yml").contains("\nrule_files: [alerts.yml]\n"));
    assert!(read("docker-compose.yml").contains(&format!("- ./{ALERTS}:/etc/prometheus/alerts.yml:ro\n")));
}
