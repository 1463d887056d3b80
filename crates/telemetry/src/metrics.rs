//! The process's metrics recorder, rendered for Prometheus.

use std::{sync::OnceLock, time::Duration};

use ::metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::{
    TelemetryError,
    names::{self, ALL, Metric, MetricKind},
};

/// How often histograms fold their samples when nobody scrapes; bounds their memory.
const UPKEEP: Duration = Duration::from_secs(5);

const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0];

/// Deliveries that needed retries may take days.
const DELIVERY_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0,
    43_200.0, 86_400.0,
];

const SIZES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0];

/// The upper bounds of a histogram's buckets.
pub fn buckets(metric: &Metric) -> &'static [f64] {
    match (metric.name, metric.unit) {
        (names::DELIVERY_SECONDS, _) => DELIVERY_SECONDS,
        (_, "seconds") => SECONDS,
        _ => SIZES,
    }
}

static INSTALLED: OnceLock<Result<Metrics, String>> = OnceLock::new();

/// A handle of the recorder. Cloning gives another handle of the same.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Makes the process's recorder; later calls give the same one.
    ///
    /// # Errors
    /// Somebody else installed another recorder before.
    pub fn install() -> Result<Self, TelemetryError> {
        INSTALLED
            .get_or_init(|| {
                let recorder = recorder().map_err(|error| error.to_string())?;
                let metrics = Self { handle: recorder.handle() };
                ::metrics::set_global_recorder(recorder).map_err(|_| "there is another recorder".to_owned())?;
                describe_all();
                metrics.keep_up();
                Ok(metrics)
            })
            .clone()
            .map_err(TelemetryError::Metrics)
    }

    /// All metrics in Prometheus's text format 0.0.4.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds samples for as long as the process lives. A thread, so that nobody has to remember it.
    fn keep_up(&self) {
        let handle = self.handle.clone();
        let thread = std::thread::Builder::new().name("metrics-upkeep".to_owned()).spawn(move || {
            loop {
                std::thread::sleep(UPKEEP);
                handle.run_upkeep();
            }
        });
        if let Err(error) = thread {
            tracing::warn!(%error, "no thread for the upkeep of metrics: histograms grow until they are scraped");
        }
    }
}

fn recorder() -> Result<PrometheusRecorder, TelemetryError> {
    let mut builder = PrometheusBuilder::new();
    for metric in ALL.iter().filter(|metric| metric.kind == MetricKind::Histogram) {
        builder = builder
            .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets(metric))
            .map_err(|error| TelemetryError::Metrics(error.to_string()))?;
    }
    Ok(builder.build_recorder())
}

/// Gives every metric its help and unit, and starts the counters without labels at 0, so that their first
/// increment is seen as one.
fn describe_all() {
    for metric in ALL {
        let unit = if metric.unit == "seconds" { Unit::Seconds } else { Unit::Count };
        match metric.kind {
            MetricKind::Counter => {
                describe_counter!(metric.name, unit, metric.help);
                if metric.labels.is_empty() {
                    counter!(metric.name).increment(0);
                }
            }
            MetricKind::Gauge => describe_gauge!(metric.name, unit, metric.help),
            MetricKind::Histogram => describe_histogram!(metric.name, unit, metric.help),
        }
    }
}

#[cfg(test)]
mod tests {
    use ::metrics::{gauge, histogram, with_local_recorder};

    use super::*;

    #[test]
    fn every_metric_is_rendered_with_its_help_and_type() {
        let recorder = recorder().expect("the buckets are valid");
        let handle = recorder.handle();
        with_local_recorder(&recorder, || {
            describe_all();
            for metric in ALL {
                let labels = metric.labels.iter().map(|label| (*label, "x")).collect::<Vec<_>>();
                match metric.kind {
                    MetricKind::Counter => counter!(metric.name, &labels).increment(1),
                    MetricKind::Gauge => gauge!(metric.name, &labels).set(1.0),
                    MetricKind::Histogram => histogram!(metric.name, &labels).record(1.0),
                }
            }
        });
        let text = handle.render();
        for metric in ALL {
            let kind = format!("{:?}", metric.kind).to_lowercase();
            assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.help)), "{}\n{text}", metric.name);
            assert!(text.contains(&format!("# TYPE {} {kind}\n", metric.name)), "{}\n{text}", metric.name);
            if metric.kind == MetricKind::Histogram {
                assert!(text.contains(&format!("{}_bucket{{", metric.name)), "{}\n{text}", metric.name);
            }
        }
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut seen = std::collections::BTreeSet::new();
        for metric in ALL {
            assert!(seen.insert(metric.name), "{} stands twice", metric.name);
            assert!(metric.name.starts_with("signalpost_"), "{}", metric.name);
            assert_eq!(metric.kind == MetricKind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert_eq!(metric.unit == "seconds", metric.name.ends_with("_seconds"), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn the_recorder_is_one_for_the_process() {
        let first = Metrics::install().expect("no other recorder");
        counter!(names::FED).increment(3);
        let second = Metrics::install().expect("the same recorder");
        assert!(first.render().contains("signalpost_deliveries_fed_total 3"));
        assert!(second.render().contains("signalpost_deliveries_fed_total 3"));
    }

    #[test]
    fn the_generated_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        crate::generated::check(path, &crate::docs::metrics_page()).unwrap();
    }
}
