//! Each event goes to several destinations.

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::burst::bursts;
use crate::{
    flow::{self, Flow, Load, tallies},
    ranges::at_least_one,
    report::Report,
    target,
};

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    #[command(flatten)]
    flow: flow::Options,
    /// Destinations of each event.
    #[arg(long, default_value_t = 5, value_parser = at_least_one::<usize>)]
    fan: usize,
    /// Deliveries of a run.
    #[arg(long, default_value_t = 100_000, value_parser = at_least_one::<u64>)]
    deliveries: u64,
    /// Runs; the medians are told.
    #[arg(long, default_value_t = 3, value_parser = at_least_one::<usize>)]
    runs: usize,
}

/// Runs it.
///
/// # Errors
/// Something does not start, or refuses what it should take.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    let fan = u64::try_from(options.fan)?;
    let flow = Flow::start(target, &options.flow).await?;
    flow.destinations(options.fan, |_| "fanout.0".to_owned(), &json!({})).await?;
    let load = Load::closed("fanout", flow.requests(&["fanout.0"]), options.deliveries / fan).fan(fan);
    let mut report = Report::new("fanout", flow.target.name(), serde_json::to_value(options)?);
    let lines = bursts(&flow, &load, options.runs, &mut report).await?;
    flow.tell_account(&mut report, tallies(&lines)).await;
    Ok(report)
}
