//! How the loads of fast scenarios are told: the median of the runs, and each run in the JSON.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Bar, Direct, Flow, Measured, figure};
use crate::{
    plot::Plot,
    processes::{self, Pids, Samples},
    report::Report,
    stats::{Latencies, median},
    wire::Tally,
};

/// From how many microseconds for an event on a kind of threads is told; the others stand in the JSON.
const STAGE: f64 = 0.5;

/// One run in figures.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Straight to the sink, just before; None where that was not asked for.
    pub direct: Option<Direct>,
    /// Accepted events, from the first request to the last arrival.
    pub events_per_second: f64,
    /// Deliveries, likewise.
    pub deliveries_per_second: f64,
    /// Accepted events, from the first request to the last answer.
    pub accepted_per_second: f64,
    /// CPU microseconds for each event, by service.
    pub cpu_us: Map<String, Value>,
    /// And by thread of our own services: each stage that has threads of its own.
    pub thread_us: Map<String, Value>,
    /// And of all of them.
    pub cpu_us_sum: f64,
    /// And for each delivery.
    pub cpu_us_delivery: f64,
    /// CPU microseconds of our own producers and receiver for each event.
    pub load_us: f64,
    #[allow(missing_docs)]
    pub api_p50_ms: f64,
    #[allow(missing_docs)]
    pub api_p99_ms: f64,
    #[allow(missing_docs)]
    pub end_to_end_p50_ms: f64,
    #[allow(missing_docs)]
    pub end_to_end_p99_ms: f64,
    /// By id.
    pub tally: Tally,
}

impl Line {
    /// Of one run.
    pub fn of(measured: &Measured, direct: Option<Direct>) -> Self {
        let events = figure(measured.tally.accepted.max(1));
        let us = |seconds: f64| seconds * 1e6 / events;
        let each = |of: &[(String, f64)]| of.iter().map(|(name, cpu)| (name.clone(), us(*cpu).into())).collect();
        Self {
            direct,
            events_per_second: measured.events_per_second(),
            deliveries_per_second: measured.deliveries() / measured.took.as_secs_f64(),
            accepted_per_second: events / measured.posting.as_secs_f64().max(1e-6),
            cpu_us: each(&measured.cpu),
            thread_us: each(&measured.threads),
            cpu_us_sum: us(measured.cpu_seconds()),
            cpu_us_delivery: measured.cpu_seconds() * 1e6 / measured.deliveries().max(1.0),
            load_us: us(measured.ran.cpu + measured.sink_cpu),
            api_p50_ms: measured.api.ms(0.5),
            api_p99_ms: measured.api.ms(0.99),
            end_to_end_p50_ms: measured.end_to_end.ms(0.5),
            end_to_end_p99_ms: measured.end_to_end.ms(0.99),
            tally: measured.tally.clone(),
        }
    }

    /// Whether any process of the services is known.
    pub fn knows_cpu(&self) -> bool {
        !self.cpu_us.is_empty()
    }

    /// What was measured as a percentage of the direct run, which counts requests one by one.
    pub fn share_of_direct(&self, rate: f64) -> f64 {
        self.direct.map_or(0.0, |direct| 100.0 * rate / direct.per_second.max(1.0))
    }
}

/// What became of the events of these runs.
pub fn tallies(lines: &[Line]) -> impl Iterator<Item = Tally> {
    lines.iter().map(|line| line.tally.clone())
}

/// The medians of runs.
pub fn tell_runs(report: &mut Report, lines: &[Line]) {
    let middle = |of: fn(&Line) -> f64| median(lines.iter().map(of));
    report.tell("events", middle(|line| line.events_per_second), "/s");
    if lines.iter().any(|line| line.direct.is_some()) {
        report.tell("direct", middle(|line| line.direct.map_or(0.0, |direct| direct.per_second)), "/s");
        report.tell("share of direct", middle(|line| line.share_of_direct(line.events_per_second)), "%");
    }
    report.tell("events accepted", middle(|line| line.accepted_per_second), "/s");
    let delivered = middle(|line| line.deliveries_per_second);
    if delivered > 0.0 {
        report.tell("deliveries", delivered, "/s");
    }
    let known = lines.iter().any(Line::knows_cpu);
    if known {
        report.tell("CPU of all services for an event", middle(|line| line.cpu_us_sum), "us");
    } else {
        report.remark("the CPU of the services is not known: no process of theirs is (--pid)");
    }
    let mut bars = middles(lines, |line| &line.cpu_us);
    for (name, us) in &bars {
        report.tell(format!("CPU of {name}"), *us, "us");
    }
    // Of a process that does all, its threads tell more.
    let stages: Vec<_> = middles(lines, |line| &line.thread_us).into_iter().filter(|(_, us)| *us >= STAGE).collect();
    for (name, us) in &stages {
        report.tell(format!("CPU of threads, {name}"), *us, "us");
    }
    if delivered > 0.0 && known {
        report.tell("CPU of all services for a delivery", middle(|line| line.cpu_us_delivery), "us");
    }
    report.tell("CPU of producers and receiver for an event", middle(|line| line.load_us), "us");
    report.tell("API answer, p50", middle(|line| line.api_p50_ms), "ms");
    report.tell("API answer, p99", middle(|line| line.api_p99_ms), "ms");
    if delivered > 0.0 {
        report.tell("end to end, p50", middle(|line| line.end_to_end_p50_ms), "ms");
        report.tell("end to end, p99", middle(|line| line.end_to_end_p99_ms), "ms");
    }
    bars.push(("producers and receiver".to_owned(), middle(|line| line.load_us)));
    report.plot(Plot::bars("CPU by process", "microseconds for an event", bars));
    if !stages.is_empty() {
        report.plot(Plot::bars("CPU by thread of our services", "microseconds for an event", stages));
    }
    report.keep("runs", lines);
}

/// The median of each figure that the first run has.
fn middles(lines: &[Line], of: fn(&Line) -> &Map<String, Value>) -> Vec<(String, f64)> {
    let names = lines.first().map(of).into_iter().flat_map(Map::keys);
    let middle = |name: &String| median(lines.iter().filter_map(|line| of(line).get(name).and_then(Value::as_f64)));
    names.map(|name| (name.clone(), middle(name))).collect()
}

impl Flow {
    /// What became of the events of these loads, with a last look for what comes late; the sum. Nothing may be refused or
    /// lost.
    pub async fn tell_account(&self, report: &mut Report, tallies: impl IntoIterator<Item = Tally>) -> Tally {
        let all: Tally = tallies.into_iter().chain([self.came_late().await]).sum();
        report.tell("accepted", figure(all.accepted), "");
        report.none("refused", count(all.posted - all.accepted));
        report.none("lost", count(all.lost));
        report.tell("duplicates", figure(all.duplicates), "");
        report.tell("of them when their load had been counted", figure(all.late), "");
        keep_numbers(report, "", &all);
        all
    }
}

/// What became of loads that serve another measurement, which may ask for more than can be taken: nothing may be lost.
pub fn tell_beside(report: &mut Report, name: &str, tallies: impl IntoIterator<Item = Tally>) {
    let all: Tally = tallies.into_iter().sum();
    report.tell(format!("{name}: accepted"), figure(all.accepted), "");
    report.tell(format!("{name}: refused"), figure(all.posted - all.accepted), "");
    report.none(format!("{name}: lost"), count(all.lost));
    report.tell(format!("{name}: duplicates"), figure(all.duplicates), "");
    keep_numbers(report, &format!("{}_", name.replace(' ', "_")), &all);
}

/// Which events were lost, and which came twice, where some were.
fn keep_numbers(report: &mut Report, prefix: &str, all: &Tally) {
    for (what, numbers) in [("lost", &all.lost_numbers), ("duplicate", &all.duplicate_numbers)] {
        if !numbers.is_empty() {
            report.keep(&format!("{prefix}{what}_numbers"), numbers);
        }
    }
}

fn count(of: u64) -> usize {
    usize::try_from(of).unwrap_or(usize::MAX)
}

/// The memory of our largest process.
pub fn tell_memory(report: &mut Report, pids: &Pids) {
    let ours = |(name, _): &(String, f64)| processes::is_ours(name);
    let largest = |all: Vec<(String, f64)>| all.into_iter().filter(ours).max_by(|one, other| one.1.total_cmp(&other.1));
    if let Some((name, mib)) = largest(processes::peak_mib(pids)) {
        report.tell(format!("memory of our largest process, peak RSS ({name})"), mib, "MiB");
    }
    let now = processes::usage(pids).into_iter().map(|(name, mib, _)| (name, mib)).collect();
    if let Some((name, mib)) = largest(now) {
        report.tell(format!("memory of our largest process, PSS at the end ({name})"), mib, "MiB");
    }
}

/// Throughput over time and backlog over time.
pub fn plot_curve(report: &mut Report, curve: &[Bar]) {
    let line = |of: fn(&Bar) -> f64| curve.iter().map(|bar| [bar.at, of(bar)]).collect();
    report.plot(
        Plot::over_time("Throughput over time", "each second")
            .line("events accepted", line(|bar| bar.accepted))
            .line("deliveries", line(|bar| bar.delivered)),
    );
    report.plot(Plot::over_time("Backlog", "deliveries that wait").line("waiting", line(|bar| bar.waiting)));
}

/// Latency percentiles.
pub fn percentiles(report: &mut Report, api: &Latencies, end_to_end: Option<&Latencies>) {
    let mut plot = Plot::percentiles("Latency percentiles", "milliseconds").line("API answer", api.percentiles());
    if let Some(end_to_end) = end_to_end {
        plot = plot.line("end to end", end_to_end.percentiles());
    }
    report.plot(plot);
}

/// CPU by process over time, where any is known.
pub fn plot_cpu(report: &mut Report, samples: &Samples, from: f64) {
    if samples.is_empty() {
        return;
    }
    let mut plot = Plot::over_time("CPU by process over time", "cores");
    for (name, samples) in samples {
        let cores = samples.windows(2).filter_map(|pair| match pair {
            // Less than before: it was started anew.
            [one, other] if other.at > one.at => {
                Some([other.at - from, (other.cpu - one.cpu).max(0.0) / (other.at - one.at)])
            }
            _ => None,
        });
        plot = plot.line(name, cores.collect());
    }
    report.plot(plot);
}
