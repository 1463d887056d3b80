//! Events as fast as so many connections can post them, to one destination, from the first request to the last arrival;
//! with the same producers straight to the same receiver just before, which takes the machine's mood out of the figure.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::{
    flow::{self, Flow, Line, Load, Measured, percentiles, plot_curve, tallies, tell_memory, tell_runs},
    ranges::at_least_one,
    report::Report,
    target,
};

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    #[command(flatten)]
    flow: flow::Options,
    /// Events of a run.
    #[arg(long, default_value_t = 20_000, value_parser = at_least_one::<u64>)]
    count: u64,
    /// Runs; the medians are told.
    #[arg(long, default_value_t = 3, value_parser = at_least_one::<usize>)]
    runs: usize,
}

/// Runs it.
///
/// # Errors
/// Something does not start, or refuses what it should take.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    let flow = Flow::start(target, &options.flow).await?;
    let destination = flow.destination("burst.0", &json!({})).await?;
    let requests = flow.requests(&[&destination.event_type]);
    let load = Load::closed("burst", requests, options.count);
    let mut report = Report::new("burst", flow.target.name(), serde_json::to_value(options)?);
    let lines = bursts(&flow, &load, options.runs, &mut report).await?;
    flow.tell_account(&mut report, tallies(&lines)).await;
    Ok(report)
}

/// Warms up, runs so many bursts, and tells how fast they were; plots are of the last. What became of their events is told by
/// the scenario, when it has no further load.
///
/// # Errors
/// As [`run`].
pub async fn bursts(flow: &Flow, load: &Load, runs: usize, report: &mut Report) -> anyhow::Result<Vec<Line>> {
    flow.warm(load).await?;
    let (lines, last) = repeated(flow, load, runs).await?;
    tell_runs(report, &lines);
    tell_memory(report, &flow.target.pids);
    if let Some(last) = last {
        plot_curve(report, &last.curve(load.requests.batch, load.fan));
        percentiles(report, &last.api, Some(&last.end_to_end));
    }
    Ok(lines)
}

/// So many bursts, each after a direct run, when what is measured is quiet; and all that is known of the last.
///
/// # Errors
/// As [`run`].
pub async fn repeated(flow: &Flow, load: &Load, runs: usize) -> anyhow::Result<(Vec<Line>, Option<Measured>)> {
    let mut lines = Vec::new();
    let mut last = None;
    for _ in 0..runs {
        flow.target.quiet(Duration::from_secs(20)).await;
        let direct = flow.direct().await?;
        let measured = flow.run(load).await?;
        lines.push(Line::of(&measured, Some(direct)));
        last = Some(measured);
    }
    Ok((lines, last))
}
