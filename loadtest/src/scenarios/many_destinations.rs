//! Events take turns among thousands of destinations, and then among ten of them: what a great number costs.

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::burst::bursts;
use crate::{
    flow::{self, Flow, Line, Load, tallies},
    ranges::at_least_one,
    report::Report,
    stats::median,
    target,
};

/// How many destinations are few.
const FEW: usize = 10;

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    #[command(flatten)]
    flow: flow::Options,
    /// Destinations.
    #[arg(long, default_value_t = 10_000, value_parser = at_least_one::<usize>)]
    destinations: usize,
    /// Events of a run.
    #[arg(long, default_value_t = 20_000, value_parser = at_least_one::<u64>)]
    count: u64,
    /// Runs of each; the medians are told.
    #[arg(long, default_value_t = 3, value_parser = at_least_one::<usize>)]
    runs: usize,
}

/// Runs it.
///
/// # Errors
/// Something does not start, or refuses what it should take.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    let flow = Flow::start(target, &options.flow).await?;
    let name = |nth| format!("many.{nth}");
    let settings = serde_json::to_value(options)?;
    // The few are measured while there are no others: it is the number of all that is in question.
    let mut among_few = Report::new("many-destinations", flow.target.name(), settings.clone());
    let few = flow.destinations(FEW, name, &json!({})).await?;
    let types: Vec<&str> = few.iter().map(|destination| &*destination.event_type).collect();
    let load = Load::closed("among ten", flow.requests(&types), options.count);
    let before = bursts(&flow, &load, options.runs, &mut among_few).await?;

    let mut report = Report::new("many-destinations", flow.target.name(), settings);
    let left = options.destinations.saturating_sub(FEW);
    let others = flow.destinations(left, |nth| name(FEW + nth), &json!({})).await?;
    let types: Vec<&str> = few.iter().chain(&others).map(|destination| &*destination.event_type).collect();
    let load = Load::closed("among all", flow.requests(&types), options.count);
    let after = bursts(&flow, &load, options.runs, &mut report).await?;

    let events = |lines: &[Line]| median(lines.iter().map(|line| line.events_per_second));
    let cpu = |lines: &[Line]| median(lines.iter().map(|line| line.cpu_us_sum));
    report.tell(format!("events, among {FEW}"), events(&before), "/s");
    report.tell("events, all / few", events(&after) / events(&before).max(1.0), "");
    if before.iter().any(Line::knows_cpu) {
        report.tell(format!("CPU of all services for an event, among {FEW}"), cpu(&before), "us");
        report.tell("CPU for an event, all / few", cpu(&after) / cpu(&before).max(0.001), "");
    }
    flow.tell_account(&mut report, tallies(&before).chain(tallies(&after))).await;
    report.keep("among_few", &among_few.series);
    Ok(report)
}
