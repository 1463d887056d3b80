//! The receiver answers every first request with 503: all deliveries come a second time.

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::{
    flow::{self, Flow, Line, Load, percentiles, plot_curve, tell_memory, tell_runs},
    ranges::at_least_one,
    report::{Report, count_of},
    target,
};

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    #[command(flatten)]
    flow: flow::Options,
    /// Events.
    #[arg(long, default_value_t = 20_000, value_parser = at_least_one::<u64>)]
    count: u64,
    /// Milliseconds between the first request for an event and the second, before the jitter of a fifth.
    #[arg(long, default_value_t = 1_000)]
    retry_ms: u64,
    /// Whether the circuit of the destination may open.
    #[arg(long)]
    circuit: bool,
}

/// Runs it.
///
/// # Errors
/// Something does not start, or refuses what it should take.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    let flow = Flow::start(target, &options.flow).await?;
    let further = json!({
        "retry": {"strategy": "schedule", "delays_ms": vec![options.retry_ms; 20]},
        "circuit": {"enabled": options.circuit},
    });
    let destination = flow.destination("storm.0", &further).await?;
    let load = Load::closed("storm", flow.requests(&[&destination.event_type]), options.count);
    flow.warm(&load).await?;
    let mut load = load;
    load.patience = std::time::Duration::from_secs(400);
    let direct = flow.direct().await?;
    flow.sink.fail_first(true);
    let measured = flow.run(&load).await?;
    let mut report = Report::new("retry-storm", flow.target.name(), serde_json::to_value(options)?);
    let line = Line::of(&measured, Some(direct));
    tell_runs(&mut report, std::slice::from_ref(&line));
    let requests = count_of(measured.arrivals.len());
    report.tell("requests to the receiver", requests, "");
    report.tell("requests each second", requests / measured.took.as_secs_f64(), "/s");
    if line.knows_cpu() {
        report.tell("CPU of all services for a request", measured.cpu_seconds() * 1e6 / requests.max(1.0), "us");
    }
    tell_memory(&mut report, &flow.target.pids);
    flow.tell_account(&mut report, [line.tally]).await;
    plot_curve(&mut report, &measured.curve(load.requests.batch, 1));
    percentiles(&mut report, &measured.api, Some(&measured.end_to_end));
    Ok(report)
}
