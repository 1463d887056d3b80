//! The course of a load, from what was posted and what the receiver noted, as plots: for the scenarios whose receiver looks
//! at single requests.

use std::time::Duration;

use crate::{
    ledger::{self, Posted},
    plot::Plot,
    receiver::Entry,
    report::{Report, count_of},
    stats::Latencies,
};

/// The narrowest bar of throughput over time, and how many there are at most.
const BAR: Duration = Duration::from_millis(250);
const BARS: u32 = 240;

/// Throughput and backlog over time, and latencies, from the first event that was to be posted.
///
/// # Errors
/// None: the bounds of latencies are in order.
pub fn plot(report: &mut Report, posted: &[(u64, Posted)], log: &[Entry]) -> anyhow::Result<()> {
    let arrivals = ledger::first_arrivals(log);
    let arrived: Vec<Duration> = posted.iter().filter_map(|(number, _)| arrivals.get(number).copied()).collect();
    let accepted: Vec<Duration> = posted.iter().filter_map(|(_, posted)| posted.accepted).collect();
    let failed: Vec<Duration> = log.iter().filter(|entry| !entry.accepted()).map(|entry| entry.start).collect();
    let from = posted.iter().map(|(_, posted)| posted.intended).min().unwrap_or_default();
    let width = width(from, [&accepted, &arrived, &failed]);
    let [accepted_in, arrived_in, failed_in] = [&accepted, &arrived, &failed].map(|times| counts(times, from, width));
    report.plot(
        Plot::over_time("Throughput over time", "each second")
            .line("events accepted", rates(&accepted_in, width))
            .line("deliveries", rates(&arrived_in, width))
            .line("requests that failed", rates(&failed_in, width)),
    );
    let (mut waiting, mut backlog) = (0.0, Vec::new());
    for bar in 0..accepted_in.len().max(arrived_in.len()) {
        let of = |counts: &[usize]| count_of(counts.get(bar).copied().unwrap_or(0));
        waiting += of(&accepted_in) - of(&arrived_in);
        backlog.push([start(bar, width), waiting]);
    }
    report.plot(Plot::over_time("Backlog", "deliveries that wait").line("waiting", backlog));
    let api = Latencies::of(posted.iter().filter_map(|(_, posted)| posted.accepted?.checked_sub(posted.intended)))?;
    let end_to_end =
        Latencies::of(posted.iter().filter_map(|(number, posted)| arrivals.get(number)?.checked_sub(posted.intended)))?;
    report.plot(
        Plot::percentiles("Latency percentiles", "milliseconds")
            .line("API answer", api.percentiles())
            .line("end to end", end_to_end.percentiles()),
    );
    Ok(())
}

/// Requests over time, from the first of them, beside what they may be.
pub fn plot_requests(report: &mut Report, times: &[Duration], most: f64) {
    let Some(from) = times.iter().min().copied() else { return };
    let width = width(from, [times]).max(Duration::from_secs(1));
    let requests = rates(&counts(times, from, width), width);
    let limit = requests.iter().map(|[at, _]| [*at, most]).collect();
    report.plot(Plot::over_time("Requests over time", "each second").line("requests", requests).line("limit", limit));
}

fn width<'a>(from: Duration, all: impl IntoIterator<Item = impl AsRef<[Duration]> + 'a>) -> Duration {
    let last = all.into_iter().flat_map(|times| times.as_ref().iter().max().copied()).max().unwrap_or(from);
    BAR.max(last.saturating_sub(from) / BARS)
}

/// How many fall into each bar.
fn counts(times: &[Duration], from: Duration, width: Duration) -> Vec<usize> {
    let mut counts = Vec::new();
    for time in times {
        let bar = usize::try_from(time.saturating_sub(from).as_nanos() / width.as_nanos()).unwrap_or(0);
        if counts.len() <= bar {
            counts.resize(bar + 1, 0);
        }
        counts[bar] += 1;
    }
    counts
}

fn rates(counts: &[usize], width: Duration) -> Vec<[f64; 2]> {
    let bar = |(bar, count): (usize, &usize)| [start(bar, width), count_of(*count) / width.as_secs_f64()];
    counts.iter().enumerate().map(bar).collect()
}

/// Seconds from the beginning to that bar.
fn start(bar: usize, width: Duration) -> f64 {
    count_of(bar) * width.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::{plot, plot_requests};
    use crate::{ledger::Posted, receiver::Entry, report::Report};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn plots(report: &Report) -> Vec<Value> {
        report.plots.iter().map(|plot| serde_json::to_value(plot).unwrap()).collect()
    }

    #[test]
    fn what_waits_is_what_was_accepted_and_has_not_arrived() {
        let posted = |accepted| Posted { intended: ms(1000), accepted: Some(ms(accepted)), group: 0, tries: 1 };
        let entry = |number, at, status| Entry {
            number: Some(number),
            path: 0,
            attempt: 1,
            start: ms(at),
            end: Some(ms(at)),
            status: Some(status),
        };
        let mut report = Report::new("ordered", "standalone", Value::Null);
        let log = [entry(0, 1100, 500), entry(0, 1600, 200), entry(1, 1300, 200), entry(1, 1700, 200)];
        plot(&mut report, &[(0, posted(1010)), (1, posted(1020))], &log).unwrap();
        let plots = plots(&report);
        let titles: Vec<_> = plots.iter().map(|plot| plot["title"].clone()).collect();
        assert_eq!(titles, ["Throughput over time", "Backlog", "Latency percentiles"]);
        // Bars of a quarter of a second: two accepted, one arrives in the second, one in the third.
        assert_eq!(plots[0]["lines"][0]["points"], json!([[0.0, 8.0]]));
        assert_eq!(plots[0]["lines"][1]["points"], json!([[0.0, 0.0], [0.25, 4.0], [0.5, 4.0]]));
        assert_eq!(plots[0]["lines"][2]["points"], json!([[0.0, 4.0]]));
        assert_eq!(plots[1]["lines"][0]["points"], json!([[0.0, 2.0], [0.25, 1.0], [0.5, 0.0]]));
        assert!(report.plots.iter().all(|plot| plot.svg().is_ok()));
    }

    #[test]
    fn requests_are_shown_beside_their_limit() {
        let mut report = Report::new("rate", "standalone", Value::Null);
        plot_requests(&mut report, &[], 5.0);
        assert!(report.plots.is_empty(), "nothing came");
        plot_requests(&mut report, &[ms(500), ms(900), ms(1700)], 5.0);
        let plots = plots(&report);
        assert_eq!(plots[0]["lines"][0]["points"], json!([[0.0, 2.0], [1.0, 1.0]]));
        assert_eq!(plots[0]["lines"][1]["points"], json!([[0.0, 5.0], [1.0, 5.0]]));
    }
}
