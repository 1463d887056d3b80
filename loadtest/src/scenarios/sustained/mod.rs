//! Open loop: the n-th event is due at its time whatever became of the others, and its latency counts from then. Finds the
//! highest rate at which what is posted for a minute arrives within a second (p99); or measures one rate.

mod search;

use std::time::Duration;

use clap::Args;
use search::Search;
use serde::Serialize;
use serde_json::json;

use crate::{
    flow::{
        self, Flow, Line, Load, Measured, Requests, percentiles, plot_cpu, plot_curve, tell_beside, tell_memory,
        tell_runs,
    },
    processes::Sampler,
    ranges::{at_least_one, positive},
    report::Report,
    run::bar,
    target,
    wire::Tally,
};

/// Events of the closed loop that tells where to begin.
const FIRST: u64 = 20_000;
/// The share of its rate that is tried first.
const BEGIN: f64 = 0.8;
/// When the whole length does not hold at a rate, it is tried at that share of it, so often.
const LESS: f64 = 0.93;
const TRIES: usize = 6;
/// What the API's p99 may be at half of the highest rate, in milliseconds.
const API_P99_MS: f64 = 10.0;

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    #[command(flatten)]
    flow: flow::Options,
    /// Events each second: this rate only.
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Seconds of the measurement.
    #[arg(long, default_value_t = 60, value_parser = at_least_one::<u64>)]
    seconds: u64,
    /// Seconds of each trial before it.
    #[arg(long, default_value_t = 10, value_parser = at_least_one::<u64>)]
    probe_seconds: u64,
    /// Milliseconds from the intended start of a post to the arrival, p99, that a rate may have.
    #[arg(long, default_value_t = 1_000.0, value_parser = positive)]
    p99_ms: f64,
    /// How close the search comes: 0.05 is 5 %.
    #[arg(long, default_value_t = 0.05, value_parser = positive)]
    precision: f64,
    /// Seconds at half of the rate that was found; 0: not measured.
    #[arg(long, default_value_t = 20)]
    half_seconds: u64,
}

/// Runs it.
///
/// # Errors
/// Something does not start, or refuses what it should take.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    let flow = Flow::start(target, &options.flow).await?;
    let destination = flow.destination("sustained.0", &json!({})).await?;
    let requests = flow.requests(&[&destination.event_type]);
    flow.warm(&Load::closed("warming", requests.clone(), 0)).await?;
    let mut report = Report::new("sustained", flow.target.name(), serde_json::to_value(options)?);
    let sampler = Sampler::of_cpu(flow.epoch, flow.target.pids.clone(), Duration::from_millis(500));
    let length = Duration::from_secs(options.seconds);
    let mut trials = Vec::new();
    let (rate, measured) = match options.rate {
        Some(rate) => (rate, at(&flow, &requests, rate, length).await?),
        None => highest(&flow, options, &requests, &mut report, &mut trials).await?,
    };
    report.tell("rate", rate, "/s");
    if options.rate.is_none() {
        report.at_most("end to end, p99, for the whole time", measured.end_to_end.ms(0.99), "ms", options.p99_ms);
    }
    tell_runs(&mut report, &[Line::of(&measured, None)]);
    report.tell("end to end, p99.9", measured.end_to_end.ms(0.999), "ms");
    report.tell("end to end, max", measured.end_to_end.ms(1.0), "ms");
    tell_memory(&mut report, &flow.target.pids);
    plot_curve(&mut report, &measured.curve(requests.batch, 1));
    percentiles(&mut report, &measured.api, Some(&measured.end_to_end));
    let from = measured.from.as_secs_f64();
    let mut samples = sampler.samples();
    samples.values_mut().for_each(|samples| samples.retain(|sample| sample.at >= from));
    plot_cpu(&mut report, &samples, from);
    if options.rate.is_none() && options.half_seconds > 0 {
        let half = at(&flow, &requests, rate / 2.0, Duration::from_secs(options.half_seconds)).await?;
        report.tell("at half of it: API answer, p50", half.api.ms(0.5), "ms");
        report.at_most("at half of it: API answer, p99", half.api.ms(0.99), "ms", API_P99_MS);
        report.tell("at half of it: end to end, p50", half.end_to_end.ms(0.5), "ms");
        report.tell("at half of it: end to end, p99", half.end_to_end.ms(0.99), "ms");
        let line = Line::of(&half, None);
        if line.knows_cpu() {
            report.tell("at half of it: CPU of all services for an event", line.cpu_us_sum, "us");
        }
        tell_beside(&mut report, "at half of it", [half.tally]);
    }
    flow.tell_account(&mut report, [measured.tally]).await;
    if options.rate.is_none() {
        tell_beside(&mut report, "trials", trials);
    }
    Ok(report)
}

async fn at(flow: &Flow, requests: &Requests, rate: f64, length: Duration) -> anyhow::Result<Measured> {
    flow.target.quiet(Duration::from_secs(10)).await;
    let load = Load::steady("sustained", requests.clone(), rate, length);
    flow.run(&load).await
}

fn holds(measured: &Measured, options: &Options) -> bool {
    let tally = &measured.tally;
    tally.lost == 0 && tally.accepted == tally.posted && measured.end_to_end.ms(0.99) < options.p99_ms
}

/// One trial, for the JSON.
#[derive(Debug, Serialize)]
struct Trial {
    rate: f64,
    seconds: u64,
    p99_ms: f64,
    holds: bool,
}

/// The highest rate that holds for the whole time. What became of the events of all loads but that one is added to `beside`: a
/// rate that does not hold may be slow, and lose nothing.
async fn highest(
    flow: &Flow,
    options: &Options,
    requests: &Requests,
    report: &mut Report,
    beside: &mut Vec<Tally>,
) -> anyhow::Result<(f64, Measured)> {
    let burst = flow.run(&Load::closed("burst", requests.clone(), FIRST)).await?;
    let (burst, tally) = (burst.events_per_second(), burst.tally);
    beside.push(tally);
    report.tell("burst, for comparison", burst, "/s");
    let mut trials = Vec::new();
    let mut search = Search::from(burst * BEGIN, options.precision);
    let progress = bar("searching", 0);
    while let Some(rate) = search.next() {
        let measured = at(flow, requests, rate, Duration::from_secs(options.probe_seconds)).await?;
        let trial = trial(&measured, rate, options.probe_seconds, options);
        progress.println(format!("{rate:.0}/s: p99 {:.0} ms", trial.p99_ms));
        search.tried(rate, trial.holds);
        trials.push(trial);
        beside.push(measured.tally);
    }
    progress.finish_and_clear();
    let mut rate = search.found().unwrap_or(1.0);
    let mut tried = 0;
    loop {
        let measured = at(flow, requests, rate, Duration::from_secs(options.seconds)).await?;
        let trial = trial(&measured, rate, options.seconds, options);
        let holds = trial.holds;
        trials.push(trial);
        tried += 1;
        if holds || tried == TRIES {
            report.keep("trials", trials);
            return Ok((rate, measured));
        }
        beside.push(measured.tally);
        rate *= LESS;
    }
}

fn trial(measured: &Measured, rate: f64, seconds: u64, options: &Options) -> Trial {
    Trial { rate, seconds, p99_ms: measured.end_to_end.ms(0.99), holds: holds(measured, options) }
}
