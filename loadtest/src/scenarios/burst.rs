//! Events as fast as so many connections can post them, to one destination, from the first request to the last arrival;
//! with the same producers straight to the same receiver just before, which takes the machine's mood out of the figure.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::{
    flow::{self, Flow, Line, Load, tell_runs},
    report::Report,
    target::{self, Size},
};

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    #[command(flatten)]
    flow: flow::Options,
    /// Events of a run.
    #[arg(long, default_value_t = 20_000)]
    count: u64,
    /// Runs; the medians are told.
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

/// Runs it.
///
/// # Errors
/// Something does not start, or refuses what it should take.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    let flow = Flow::start(target, &options.flow, Size { apis: 1, dispatchers: 1, retries: 1 }).await?;
    let destination = flow.destinations("burst", 1, &json!({})).await?;
    let load = Load::closed("burst", flow.requests(&[&destination[0].event_type]), options.count);
    flow.warm(&load).await?;
    let mut lines = Vec::new();
    let mut curves = Vec::new();
    for _ in 0..options.runs {
        flow.target.quiet(Duration::from_secs(20)).await;
        let direct = flow.direct().await?;
        let measured = flow.run(&load).await?;
        lines.push(Line::of(&measured, direct));
        curves.push(measured.curve(options.flow.batch, 1));
    }
    let mut report = Report::new("burst", flow.target.name(), serde_json::to_value(options)?);
    tell_runs(&mut report, &lines, &flow.target.pids);
    report.keep("curves", curves);
    Ok(report)
}
