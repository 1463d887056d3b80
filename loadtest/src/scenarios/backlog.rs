//! Many deliveries wait for a paused destination, and it is resumed: how fast they drain.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::{
    flow::{self, Flow, Load, figure, plot_cpu, plot_curve, tell_memory},
    processes::Sampler,
    ranges::at_least_one,
    report::Report,
    stats::median,
    target,
};

/// Events in a request of those that fill it.
const BATCH: u64 = 100;

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    #[command(flatten)]
    flow: flow::Options,
    /// Deliveries that wait.
    #[arg(long, default_value_t = 200_000, value_parser = at_least_one::<u64>)]
    waiting: u64,
    /// Runs; the medians are told.
    #[arg(long, default_value_t = 3, value_parser = at_least_one::<usize>)]
    runs: usize,
}

/// One run.
#[derive(Debug, Clone, Serialize)]
struct Drained {
    per_second: f64,
    filled_per_second: f64,
    seconds: f64,
    first_after_ms: f64,
    cpu_us: f64,
    by_process: Vec<(String, f64)>,
}

/// Runs it.
///
/// # Errors
/// Something does not start, or refuses what it should take.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    options.flow.one_by_one("backlog, whose backlog comes in batches of 100,")?;
    let flow = Flow::start(target, &options.flow).await?;
    let destination = flow.destination("backlog.0", &json!({})).await?;
    let requests = flow.batches(&[&destination.event_type], BATCH);
    let load = Load::closed("filling", requests, options.waiting);
    flow.warm(&Load { requests: flow.requests(&[&destination.event_type]), ..load.clone() }).await?;
    let mut report = Report::new("backlog", flow.target.name(), serde_json::to_value(options)?);
    let mut runs = Vec::new();
    let mut tallies = Vec::new();
    for nth in 0..options.runs {
        flow.pause(&destination, true).await?;
        let ran = flow.post(&load).await?;
        let filled_per_second = figure(load.requests() * BATCH) / ran.ended.saturating_sub(ran.began).as_secs_f64();
        flow.target.quiet(Duration::from_secs(30)).await;
        let sampler = Sampler::of_cpu(flow.epoch, flow.target.pids.clone(), Duration::from_millis(250));
        let mark = flow.mark();
        flow.pause(&destination, false).await?;
        let measured = flow.arrived(&load, ran, &mark).await?;
        let deliveries = measured.deliveries();
        let us = |seconds: f64| seconds * 1e6 / deliveries.max(1.0);
        let first = measured.arrivals.iter().map(|arrival| arrival.at).min().unwrap_or(mark.at);
        runs.push(Drained {
            per_second: deliveries / measured.took.as_secs_f64(),
            filled_per_second,
            seconds: measured.took.as_secs_f64(),
            first_after_ms: first.saturating_sub(mark.at).as_secs_f64() * 1e3,
            cpu_us: us(measured.cpu_seconds()),
            by_process: measured.cpu.iter().map(|(name, cpu)| (name.clone(), us(*cpu))).collect(),
        });
        tallies.push(measured.tally.clone());
        if nth + 1 == options.runs {
            plot_curve(&mut report, &measured.curve(BATCH, 1));
            plot_cpu(&mut report, &sampler.samples(), mark.at.as_secs_f64());
        }
    }
    let middle = |of: fn(&Drained) -> f64| median(runs.iter().map(of));
    report.tell("drained, from the call that resumes to the last arrival", middle(|run| run.per_second), "/s");
    report.tell("which took", middle(|run| run.seconds), "s");
    report.tell("first arrival after", middle(|run| run.first_after_ms), "ms");
    if !runs[0].by_process.is_empty() {
        report.tell("CPU of all services for a delivery", middle(|run| run.cpu_us), "us");
    }
    for (place, (name, _)) in runs[0].by_process.iter().enumerate() {
        report.tell(format!("CPU of {name}"), median(runs.iter().map(|run| run.by_process[place].1)), "us");
    }
    report.tell(format!("filled, in batches of {BATCH}"), middle(|run| run.filled_per_second), "/s");
    tell_memory(&mut report, &flow.target.pids);
    flow.tell_account(&mut report, tallies).await;
    report.keep("runs", runs);
    Ok(report)
}
