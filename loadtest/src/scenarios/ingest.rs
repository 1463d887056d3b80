//! Accepting alone: nobody wants the events, or who wants them is paused; then all of them wait, and arrive when it is
//! resumed at the end.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;

use crate::{
    flow::{self, Flow, Line, Load, percentiles, tallies, tell_memory, tell_runs},
    ranges::at_least_one,
    report::Report,
    target,
    wire::Tally,
};

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    #[command(flatten)]
    flow: flow::Options,
    /// Events of a run.
    #[arg(long, default_value_t = 50_000, value_parser = at_least_one::<u64>)]
    count: u64,
    /// Runs; the medians are told.
    #[arg(long, default_value_t = 3, value_parser = at_least_one::<usize>)]
    runs: usize,
    /// Who wants them.
    #[arg(long, value_enum, default_value = "nobody")]
    wanted_by: WantedBy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum WantedBy {
    /// No destination.
    Nobody,
    /// A paused destination.
    Paused,
}

/// Runs it.
///
/// # Errors
/// Something does not start, or refuses what it should take.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    let flow = Flow::start(target, &options.flow).await?;
    let destination = flow.destination("ingest.wanted", &json!({})).await?;
    let paused = options.wanted_by == WantedBy::Paused;
    flow.warm(&Load::closed("warming", flow.requests(&[&destination.event_type]), 0)).await?;
    if paused {
        flow.pause(&destination, true).await?;
    }
    let event_type = if paused { &destination.event_type } else { "ingest.unwanted" };
    let load = Load::closed("ingest", flow.requests(&[event_type]), options.count).fan(0);
    let mut report = Report::new("ingest", flow.target.name(), serde_json::to_value(options)?);
    let first = flow.mark();
    let mut lines = Vec::new();
    let mut answers = Vec::new();
    let mut last = None;
    for _ in 0..options.runs {
        flow.target.quiet(Duration::from_secs(20)).await;
        let direct = flow.direct().await?;
        let measured = flow.run(&load).await?;
        lines.push(Line::of(&measured, Some(direct)));
        answers.extend_from_slice(&measured.ran.answers);
        last = Some(measured);
    }
    tell_runs(&mut report, &lines);
    tell_memory(&mut report, &flow.target.pids);
    flow.tell_account(&mut report, tallies(&lines)).await;
    if let Some(mut last) = last {
        percentiles(&mut report, &last.api, None);
        if paused {
            // All of them, of all runs.
            last.ran.answers = answers;
            flow.pause(&destination, false).await?;
            let all = Load { events: options.count * u64::try_from(lines.len())?, ..load.fan(1) };
            let drained = flow.arrived(&all, last.ran, &first).await?;
            let all: Tally = [drained.tally, flow.came_late().await].into_iter().sum();
            report.none("lost, when it is resumed", usize::try_from(all.lost)?);
            report.none("came twice, when it is resumed", usize::try_from(all.duplicates)?);
            report.keep("when_resumed", all);
        }
    }
    Ok(report)
}
