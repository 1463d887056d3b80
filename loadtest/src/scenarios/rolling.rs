//! The whole cluster is restarted in turn, ten times, under a steady load: nothing is lost, nothing comes twice.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use signalpost_services::Kind;
use tokio_util::sync::CancellationToken;

use super::neighbours::whole;
use crate::{
    course,
    flow::plot_cpu,
    ledger,
    load::{Event, Pace},
    payload,
    processes::Sampler,
    ranges::{at_least_one, positive},
    receiver::Behaviour,
    report::{Report, count_of},
    run::{Run, bar},
    stats::Latencies,
    target::{self, Size, roll},
};

/// The load ends after that at the latest.
const LONGEST: Duration = Duration::from_secs(3600);

/// How often CPU is looked at.
const SAMPLE: Duration = Duration::from_secs(1);

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    /// How often every service is restarted.
    #[arg(long, default_value_t = 10, value_parser = at_least_one::<usize>)]
    rounds: usize,
    /// Events each second.
    #[arg(long, default_value_t = 200.0, value_parser = positive)]
    rate: f64,
    /// How long the receiver takes to answer, in milliseconds: so that requests are out at every moment.
    #[arg(long, default_value_t = 30)]
    latency_ms: u64,
    /// Destinations.
    #[arg(long, default_value_t = 24, value_parser = at_least_one::<usize>)]
    destinations: usize,
    /// Between two restarts, in milliseconds.
    #[arg(long, default_value_t = 1_000)]
    pause_ms: u64,
}

/// Runs it.
///
/// # Errors
/// Something does not start, does not stop in order, or refuses what it should take.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    let mut run = Run::start(target, Size { apis: 2, dispatchers: 2, retries: 1 }, &[]).await?;
    run.target.cluster()?;
    let behaviour = Behaviour::OK.after(Duration::from_millis(options.latency_ms));
    let further = json!({"retry": payload::patient_retry()});
    let destinations = run.destinations(&run.target.api, "rolling", options.destinations, behaviour, &further).await?;
    let types: Vec<String> = destinations.iter().map(|destination| destination.event_type.clone()).collect();
    let stop = CancellationToken::new();
    let sampler = Sampler::of_cpu(run.epoch, run.target.pids.clone(), SAMPLE);
    let mut load = run.load("posting", whole(options.rate * LONGEST.as_secs_f64()), 256, Duration::from_secs(60));
    load.progress = bar("posting", 0);
    load.stop = stop.clone();
    let pace = Pace::PerSecond(options.rate);
    let count = whole(options.rate * LONGEST.as_secs_f64());
    let posting = tokio::spawn(async move {
        let make = move |nth: u64| {
            let event_type = types[usize::try_from(nth).unwrap_or(0) % types.len()].clone();
            Event { event_type, ordering_key: None, bytes: 500, group: 0, api: None }
        };
        load.run(count, pace, make).await
    });
    let progress = bar("restarts", options.rounds * 5);
    let mut restarts: usize = 0;
    let pause = Duration::from_millis(options.pause_ms);
    for _ in 0..options.rounds {
        for kind in [Kind::Api, Kind::Dispatcher, Kind::Retry] {
            for index in 0..run.target.cluster()?.of(kind).len() {
                tokio::time::sleep(pause).await;
                let cluster = run.target.cluster()?;
                tokio::task::block_in_place(|| roll(cluster, kind, index))?;
                run.target.ready().await?;
                restarts += 1;
                progress.inc(1);
            }
        }
    }
    progress.finish_and_clear();
    tokio::time::sleep(pause).await;
    stop.cancel();
    let range = posting.await?;
    let account = run.arrived(range, |_| true, 0, Duration::from_secs(120)).await;
    run.settled(&destinations, Duration::from_secs(120)).await?;

    let account = if account.lost == 0 { run.arrived(range, |_| true, 0, Duration::ZERO).await } else { account };
    let posted = run.ledger.posted(range.first, range.count);
    let log = run.receiver.log().since(0);
    let arrivals = ledger::first_arrivals(&log);
    let latencies =
        Latencies::of(posted.iter().filter_map(|(number, posted)| arrivals.get(number)?.checked_sub(posted.intended)))?;
    let mut report = Report::new("rolling", run.target.name(), serde_json::to_value(options)?);
    report.tell("restarts", count_of(restarts), "");
    report.tell("events accepted", count_of(account.accepted), "");
    report.none("refused", account.posted - account.accepted);
    report.none("lost", account.lost);
    report.none("duplicates", account.duplicates);
    report.tell("requests", count_of(log.len()), "");
    let again = posted.iter().filter(|(_, posted)| posted.tries > 1).count();
    report.tell("posts that had to be repeated", count_of(again), "");
    report.tell("p50, post to arrival", latencies.ms(0.5), "ms");
    report.tell("p99", latencies.ms(0.99), "ms");
    report.tell("max", latencies.ms(1.0), "ms");
    report.keep("account", account);
    course::plot(&mut report, &posted, &log)?;
    plot_cpu(&mut report, &sampler.samples(), range.began.as_secs_f64());
    Ok(report)
}
