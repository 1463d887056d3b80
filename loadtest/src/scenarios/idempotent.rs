//! A tenth of the requests repeats another, at the same moment, with its idempotency key and body: the repetition is
//! answered as one, and nothing is delivered twice.

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
    /// Requests of a run.
    #[arg(long, default_value_t = 20_000, value_parser = at_least_one::<u64>)]
    count: u64,
    /// Every so-manieth request repeats the one before.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..))]
    repeat_every: u64,
    /// Runs; the medians are told.
    #[arg(long, default_value_t = 3, value_parser = at_least_one::<usize>)]
    runs: usize,
}

/// Runs it.
///
/// # Errors
/// Something does not start, or refuses what it should take.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    options.flow.one_by_one("idempotent")?;
    let flow = Flow::start(target, &options.flow).await?;
    let destination = flow.destination("idempotent.0", &json!({})).await?;
    let requests = flow.keyed(&[&destination.event_type]);
    let load = Load::closed("idempotent", requests, options.count).repeating(options.repeat_every);
    let mut report = Report::new("idempotent", flow.target.name(), serde_json::to_value(options)?);
    let lines = bursts(&flow, &load, options.runs, &mut report).await?;
    let all = flow.tell_account(&mut report, tallies(&lines)).await;
    report.tell("requests that repeated another", flow::figure(all.repeated), "");
    report.none("repetitions that were not answered as such", usize::try_from(all.unknown)?);
    report.none("delivered twice", usize::try_from(all.duplicates)?);
    Ok(report)
}
