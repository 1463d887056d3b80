//! How the loads of fast scenarios are told: the median of the runs, and each run in the JSON.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Direct, Measured};
use crate::{
    processes::{self, Pids},
    report::Report,
    stats::median,
    wire::Tally,
};

/// Services that are not ours.
const OTHERS: [&str; 3] = ["postgres", "kafka", "redis"];

/// One run in figures.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Straight to the sink, just before.
    pub direct: Direct,
    /// Accepted events, from the first request to the last arrival.
    pub events_per_second: f64,
    /// Deliveries, likewise.
    pub deliveries_per_second: f64,
    /// Accepted events, from the first request to the last answer.
    pub accepted_per_second: f64,
    /// CPU microseconds for each event, by service.
    pub cpu_us: Map<String, Value>,
    /// And of all of them.
    pub cpu_us_sum: f64,
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
    pub fn of(measured: &Measured, direct: Direct) -> Self {
        let events = super::used(measured.tally.accepted.max(1));
        let us = |seconds: f64| seconds * 1e6 / events;
        Self {
            direct,
            events_per_second: measured.events_per_second(),
            deliveries_per_second: measured.deliveries_per_second(),
            accepted_per_second: events / measured.posting.as_secs_f64().max(1e-6),
            cpu_us: measured.cpu.iter().map(|(name, cpu)| (name.clone(), us(*cpu).into())).collect(),
            cpu_us_sum: measured.cpu_us(),
            load_us: us(measured.ran.cpu + measured.sink_cpu),
            api_p50_ms: measured.api.ms(0.5),
            api_p99_ms: measured.api.ms(0.99),
            end_to_end_p50_ms: measured.end_to_end.ms(0.5),
            end_to_end_p99_ms: measured.end_to_end.ms(0.99),
            tally: measured.tally,
        }
    }
}

/// A rate as a percentage of the direct one.
fn share_of(direct: Direct, rate: f64) -> f64 {
    100.0 * rate / direct.per_second.max(1.0)
}

/// The medians of runs.
pub fn tell_runs(report: &mut Report, lines: &[Line], pids: &Pids) {
    let middle = |of: fn(&Line) -> f64| median(lines.iter().map(of));
    report.tell("events", middle(|line| line.events_per_second), "/s");
    report.tell("direct", middle(|line| line.direct.per_second), "/s");
    report.tell("share of direct", middle(|line| share_of(line.direct, line.events_per_second)), "%");
    report.tell("events accepted", middle(|line| line.accepted_per_second), "/s");
    report.tell("deliveries", middle(|line| line.deliveries_per_second), "/s");
    report.tell("CPU of all services, for each event", middle(|line| line.cpu_us_sum), "us");
    for name in lines.first().map(|line| line.cpu_us.keys().cloned().collect::<Vec<_>>()).unwrap_or_default() {
        let of = |line: &Line| line.cpu_us.get(&name).and_then(Value::as_f64);
        report.tell(format!("CPU of {name}"), median(lines.iter().filter_map(of)), "us");
    }
    report.tell("CPU of producers and receiver", middle(|line| line.load_us), "us");
    report.tell("API answer, p50", middle(|line| line.api_p50_ms), "ms");
    report.tell("API answer, p99", middle(|line| line.api_p99_ms), "ms");
    report.tell("end to end, p50", middle(|line| line.end_to_end_p50_ms), "ms");
    report.tell("end to end, p99", middle(|line| line.end_to_end_p99_ms), "ms");
    let (peaks, now) = (processes::peak_mib(pids), processes::usage(pids));
    let ours = |name: &str| !OTHERS.contains(&name);
    if let Some((name, mib)) =
        peaks.into_iter().filter(|(name, _)| ours(name)).max_by(|one, other| one.1.total_cmp(&other.1))
    {
        report.tell(format!("memory of our largest process at its peak (RSS, {name})"), mib, "MiB");
    }
    if let Some((name, mib, _)) =
        now.into_iter().filter(|(name, ..)| ours(name)).max_by(|one, other| one.1.total_cmp(&other.1))
    {
        report.tell(format!("memory of our largest process at the end (PSS, {name})"), mib, "MiB");
    }
    let sum =
        |of: fn(&Tally) -> u64| usize::try_from(lines.iter().map(|line| of(&line.tally)).sum::<u64>()).unwrap_or(0);
    report.none("refused", sum(|tally| tally.posted - tally.accepted));
    report.none("lost", sum(|tally| tally.lost));
    report.tell("duplicates", crate::report::count_of(sum(|tally| tally.duplicates)), "");
    report.keep("runs", lines);
}
