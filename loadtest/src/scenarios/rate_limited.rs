//! A destination takes five requests a second, and events come in bursts, a fifth of the requests twice: in every window at
//! most what the limit allows, nothing lost, nothing delivered twice.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::{
    flow::{self, Flow, Load, plot_curve},
    ranges::{at_least_one, positive},
    report::{Report, count_of},
    stats::most_in,
    target,
};

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    #[command(flatten)]
    flow: flow::Options,
    /// Requests each second that the destination takes.
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    per_second: f64,
    /// As many at once.
    #[arg(long, default_value_t = 5, value_parser = at_least_one::<u32>)]
    burst: u32,
    /// Requests of a burst of the producers.
    #[arg(long, default_value_t = 50, value_parser = at_least_one::<u64>)]
    count: u64,
    /// Bursts.
    #[arg(long, default_value_t = 3, value_parser = at_least_one::<usize>)]
    bursts: usize,
    /// Every so-manieth request repeats the one before.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..))]
    repeat_every: u64,
}

/// Runs it.
///
/// # Errors
/// Something does not start, or refuses what it should take.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    options.flow.one_by_one("rate-limited")?;
    let flow = Flow::start(target, &options.flow).await?;
    let further = json!({"rate_limit": {"per_second": options.per_second, "burst": options.burst}});
    let destination = flow.destination("limited.0", &further).await?;
    // Through the limit it would take hours. Another system has no destination for it.
    if !flow.is_other() {
        let unlimited = flow.destination("limited.warming", &json!({})).await?;
        flow.warm(&Load::closed("warming", flow.requests(&[&unlimited.event_type]), 0)).await?;
    }
    let requests = flow.keyed(&[&destination.event_type]);
    let load = Load::closed("limited", requests, options.count).repeating(options.repeat_every);
    let mut mark = flow.mark();
    let mut ran = flow.post(&load).await?;
    mark.at = ran.began;
    for _ in 1..options.bursts {
        // The burst before is still waiting.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let more = flow.post(&load).await?;
        ran.answers.extend(more.answers);
        ran.ended = more.ended;
    }
    let all = Load { events: options.count * u64::try_from(options.bursts)?, ..load };
    let measured = flow.arrived(&all, ran, &mark).await?;
    let mut times: Vec<Duration> = measured.arrivals.iter().map(|arrival| arrival.at).collect();
    times.sort_unstable();
    let mut report = Report::new("rate-limited", flow.target.name(), serde_json::to_value(options)?);
    report.tell("requests to the receiver", count_of(times.len()), "");
    report.tell("deliveries each second", count_of(times.len()) / measured.took.as_secs_f64(), "/s");
    for seconds in [1, 10] {
        let window = Duration::from_secs(seconds);
        let most = f64::from(options.burst) + 1.02 * options.per_second * window.as_secs_f64();
        report.at_most(format!("most in any {seconds} s"), count_of(most_in(&times, window)), "", most);
    }
    let all = flow.tell_account(&mut report, [measured.tally.clone()]).await;
    report.none("delivered twice", usize::try_from(all.duplicates)?);
    report.tell("requests that repeated another", flow::figure(all.repeated), "");
    report.none("repetitions that were not answered as such", usize::try_from(all.unknown)?);
    plot_curve(&mut report, &measured.curve(1, 1));
    Ok(report)
}
