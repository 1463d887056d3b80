//! `docs/metrics.md`, from the table of [`crate::names`].

use std::fmt::Write as _;

use crate::{
    metrics::buckets,
    names::{ALL, MetricKind},
};

/// The whole page.
pub fn metrics_page() -> String {
    let mut page = String::from(
        "# Metrics\n\n<!-- Generated from crates/telemetry/src/names.rs; cargo xtask generate writes \
         it anew. -->\n\n\
         Every service serves them at `GET /metrics` in Prometheus's text format. On a listener that is not loopback\n\
         they need the operator's key, unless `SIGNALPOST_METRICS_LISTEN` gives them an address of their own.\n\
         No label carries a tenant, a destination or an event: the number of series stays bounded.\n\n\
         | name | kind | unit | labels | meaning |\n|---|---|---|---|---|\n",
    );
    for metric in ALL {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let _infallible =
            writeln!(page, "| `{}` | {kind} | {} | {labels} | {} |", metric.name, metric.unit, metric.help);
    }
    page.push_str("\nUpper bounds of the histograms' buckets:\n\n| name | buckets |\n|---|---|\n");
    for metric in ALL.iter().filter(|metric| metric.kind == MetricKind::Histogram) {
        let bounds = buckets(metric).iter().map(f64::to_string).collect::<Vec<_>>().join(", ");
        let _infallible = writeln!(page, "| `{}` | {bounds} |", metric.name);
    }
    page
}
