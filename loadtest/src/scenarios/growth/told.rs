//! What was found at each size, as figures and as plots.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use super::Of;
use crate::{
    flow::{Line, figure, tallies},
    plot::Plot,
    report::Report,
    stats::median,
    wire::Tally,
};

/// One size.
#[derive(Debug, Serialize)]
pub struct Point {
    /// As it was asked for.
    pub size: u64,
    /// Where it lies: of what is stored there may be more than was asked for, as warming up stores, too.
    pub measured_at: u64,
    /// Deliveries of each event.
    pub fan: u64,
    /// What the store kept on disk before the bursts, in MiB, by part.
    pub stored_mib: Vec<(&'static str, f64)>,
    /// What became of the events that were put there before.
    pub filled: Vec<Tally>,
    /// The bursts.
    pub runs: Vec<Line>,
    /// What came twice beside them.
    pub late: Tally,
}

impl Point {
    fn middle(&self, of: impl Fn(&Line) -> f64) -> f64 {
        median(self.runs.iter().map(of))
    }

    /// CPU microseconds of all services for a delivery, the median of the bursts.
    pub fn cpu_of_delivery(&self) -> f64 {
        self.middle(|line| line.cpu_us_delivery)
    }

    /// CPU microseconds of producers and receiver for a direct request: the mood of the machine.
    pub fn cpu_of_direct(&self) -> f64 {
        self.middle(|line| line.direct.map_or(0.0, |direct| direct.producers_us + direct.sink_us))
    }

    /// CPU microseconds for a delivery by kind of service, all processes of it together.
    fn cpu_by_kind(&self) -> Vec<(String, f64)> {
        let mut kinds: Vec<&str> =
            self.runs.iter().flat_map(|line| line.cpu_us.keys()).map(|name| kind(name)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let of = |line: &Line, wanted: &str| -> f64 {
            let processes = line.cpu_us.iter().filter(|(name, _)| kind(name) == wanted);
            processes.filter_map(|(_, us)| Value::as_f64(us)).sum::<f64>() / figure(self.fan)
        };
        kinds.into_iter().map(|kind| (kind.to_owned(), self.middle(|line| of(line, kind)))).collect()
    }

    /// What became of all events that count.
    pub fn tallies(&self) -> impl Iterator<Item = Tally> {
        self.filled.iter().cloned().chain(tallies(&self.runs)).chain([self.late.clone()])
    }

    /// The medians of its bursts.
    pub fn tell(&self, of: Of, report: &mut Report) {
        let here = of.sized(self.size);
        let mut tell = |name: &str, value: f64, unit| report.tell(format!("{here}: {name}"), value, unit);
        if of == Of::Stored {
            tell("stored in fact", figure(self.measured_at), "");
            for (part, mib) in &self.stored_mib {
                tell(&format!("on disk, {part}"), *mib, "MiB");
            }
        }
        tell("events", self.middle(|line| line.events_per_second), "/s");
        tell("deliveries", self.middle(|line| line.deliveries_per_second), "/s");
        tell("share of direct", self.middle(|line| line.share_of_direct(line.events_per_second)), "%");
        if self.runs.iter().any(Line::knows_cpu) {
            tell("CPU of all services for an event", self.middle(|line| line.cpu_us_sum), "us");
            tell("CPU of all services for a delivery", self.cpu_of_delivery(), "us");
        }
        for (kind, us) in self.cpu_by_kind() {
            tell(&format!("CPU of {kind} for a delivery"), us, "us");
        }
    }
}

/// The name of a process without its number.
fn kind(process: &str) -> &str {
    match process.rsplit_once('-') {
        Some((kind, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => kind,
        _ => process,
    }
}

/// Throughput, and CPU by process, over the size.
pub fn plot(report: &mut Report, of: Of, points: &[Point]) {
    report.plot(throughput(of, points));
    if points.iter().any(|point| point.cpu_of_delivery() > 0.0) {
        report.plot(cpu(of, points));
    }
}

fn throughput(of: Of, points: &[Point]) -> Plot {
    let line =
        |rate: fn(&Line) -> f64| points.iter().map(|point| [figure(point.measured_at), point.middle(rate)]).collect();
    let plot = Plot::over_size("Throughput", "each second", of.counted());
    let plot = plot.line("events", line(|line| line.events_per_second));
    // Else they are the same.
    if of == Of::Fan { plot.line("deliveries", line(|line| line.deliveries_per_second)) } else { plot }
}

fn cpu(of: Of, points: &[Point]) -> Plot {
    let all = points.iter().map(|point| [figure(point.measured_at), point.cpu_of_delivery()]).collect();
    let mut kinds: BTreeMap<String, Vec<[f64; 2]>> = BTreeMap::new();
    for point in points {
        for (kind, us) in point.cpu_by_kind() {
            kinds.entry(kind).or_default().push([figure(point.measured_at), us]);
        }
    }
    let unit = if of == Of::Fan { "microseconds for a delivery" } else { "microseconds for an event" };
    let mut plot = Plot::over_size("CPU", unit, of.counted());
    // One process is all of them.
    if kinds.len() > 1 {
        plot = plot.line("all services", all);
    }
    kinds.into_iter().fold(plot, |plot, (kind, points)| plot.line(kind, points))
}

/// Writes each plot as `<of>-<plot>.svg` into a folder, which exists.
///
/// # Errors
/// One cannot be drawn or written.
pub fn write(report: &Report, of: Of, folder: &Path) -> anyhow::Result<()> {
    for plot in &report.plots {
        let file = folder.join(format!("{}-{}.svg", of.word(), plot.title.to_lowercase().replace(' ', "-")));
        std::fs::write(&file, plot.svg()?).with_context(|| format!("the plot {}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::{Value, json};

    use super::{Of, Point, plot, write};
    use crate::{flow::Line, report::Report, wire::Tally};

    /// A burst of two dispatchers and a store, in which an event cost that much.
    fn burst(cpu: f64, fan: f64) -> Line {
        let Value::Object(cpu_us) =
            json!({"dispatcher-0": cpu / 4.0, "dispatcher-1": cpu / 4.0, "postgres": cpu / 2.0})
        else {
            unreachable!("an object was written");
        };
        Line {
            direct: None,
            events_per_second: 1_000.0,
            deliveries_per_second: 1_000.0 * fan,
            accepted_per_second: 1_000.0,
            cpu_us,
            thread_us: serde_json::Map::new(),
            cpu_us_sum: cpu,
            cpu_us_delivery: cpu / fan,
            load_us: 8.0,
            api_p50_ms: 1.0,
            api_p99_ms: 2.0,
            end_to_end_p50_ms: 3.0,
            end_to_end_p99_ms: 4.0,
            tally: Tally { posted: 10, accepted: 10, ..Tally::default() },
        }
    }

    fn point(size: u64, fan: u64) -> Point {
        let runs = [80.0, 400.0, 100.0].map(|cpu| burst(cpu, f64::from(u32::try_from(fan).unwrap()))).to_vec();
        let filled = vec![Tally { posted: 5, accepted: 5, ..Tally::default() }];
        Point { size, measured_at: size, fan, stored_mib: vec![("data", 12.0)], filled, runs, late: Tally::default() }
    }

    #[test]
    fn a_point_is_the_median_of_its_bursts_for_a_delivery_and_by_kind_of_service() {
        let point = point(5, 5);
        assert!((point.cpu_of_delivery() - 20.0).abs() < 1e-9);
        assert_eq!(point.cpu_by_kind(), [("dispatcher".to_owned(), 10.0), ("postgres".to_owned(), 10.0)]);
        assert_eq!(point.tallies().map(|tally| tally.accepted).sum::<u64>(), 35);
        let mut report = Report::new("growth", "cluster", Value::Null);
        point.tell(Of::Fan, &mut report);
        let table = report.table();
        assert!(table.contains("5 destinations of an event: deliveries "), "{table}");
        assert!(!table.contains("on disk"), "{table}");
        point.tell(Of::Stored, &mut report);
        assert!(report.table().contains("5 events stored: on disk, data "), "{}", report.table());
    }

    #[test]
    fn each_plot_becomes_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut report = Report::new("growth", "cluster", Value::Null);
        plot(&mut report, Of::Destinations, &[point(10, 1), point(100, 1)]);
        write(&report, Of::Destinations, folder.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let (cpu, throughput) = (read("destinations-cpu.svg"), read("destinations-throughput.svg"));
        for name in ["all services", "dispatcher", "postgres"] {
            assert!(cpu.contains(name) && !throughput.contains(name), "{name}");
        }
        assert!(throughput.contains("events") && !throughput.contains("deliveries"), "{throughput}");
        assert!(write(&report, Of::Destinations, &folder.path().join("missing")).is_err());
    }
}
