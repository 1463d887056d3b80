//! Lanes under failures and kills. A thousand lanes of twenty events, a receiver that fails three in ten, and a process
//! that is killed every five seconds and started again (one of two dispatchers; in standalone, all there is).

mod overtaken;

use std::{collections::HashSet, sync::Arc, time::Duration};

use clap::Args;
use overtaken::overtakings;
use serde::Serialize;
use serde_json::json;

use crate::{
    course,
    flow::plot_cpu,
    ledger::{self, Account, Posted},
    load::{Event, Load},
    payload,
    processes::Sampler,
    ranges::{at_least_one, none_or_positive, probability},
    receiver::{Behaviour, Entry},
    report::{Report, count_of},
    run::{Destination, Run, bar},
    stats::Latencies,
    target::{self, Running, Size, Target},
};

/// How often CPU is looked at.
const SAMPLE: Duration = Duration::from_millis(500);

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    /// Lanes.
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one::<usize>)]
    lanes: usize,
    /// Events of each.
    #[arg(long, default_value_t = 20, value_parser = at_least_one::<usize>)]
    events: usize,
    /// Destinations that the lanes are spread over.
    #[arg(long, default_value_t = 10, value_parser = at_least_one::<usize>)]
    destinations: usize,
    /// How often the receiver answers 500: from 0 to 1.
    #[arg(long, default_value_t = 0.3, value_parser = probability)]
    fails: f64,
    /// How long it takes to answer, in milliseconds.
    #[arg(long, default_value_t = 5)]
    latency_ms: u64,
    /// Events posted each second, so that they come in over many kills; 0: as fast as they are accepted.
    #[arg(long, default_value_t = 400.0, value_parser = none_or_positive)]
    rate: f64,
    /// So many events of a lane are posted one right after the other, before its producer turns to the next lane.
    #[arg(long, default_value_t = 5, value_parser = at_least_one::<usize>)]
    in_a_row: usize,
    /// These are posted as one batch.
    #[arg(long)]
    batch: bool,
    /// Seconds between two kills; 0: none.
    #[arg(long, default_value_t = 5.0, value_parser = none_or_positive)]
    kill_every: f64,
    /// The destinations ask for no order: shows that the check finds what is overtaken.
    #[arg(long)]
    unordered: bool,
    /// Producers; each has lanes of its own and posts their events one after the other.
    #[arg(long, default_value_t = 50, value_parser = at_least_one::<usize>)]
    producers: usize,
    /// Seconds after which what has not arrived counts as lost.
    #[arg(long, default_value_t = 600, value_parser = at_least_one::<u64>)]
    give_up: u64,
}

/// Runs it.
///
/// # Errors
/// Something does not start, or refuses what it should take.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    let mut run = Run::start(target, Size { apis: 1, dispatchers: 2, retries: 1 }, &[]).await?;
    let behaviour = Behaviour::fails(options.fails).after(Duration::from_millis(options.latency_ms));
    let mut further = json!({"retry": payload::patient_retry()});
    if !options.unordered {
        further["ordering"] = json!("key");
        further["circuit"] = json!({"enabled": false});
    }
    let destinations = run.destinations(&run.target.api, "ordered", options.destinations, behaviour, &further).await?;
    let total = options.lanes * options.events;
    let sampler = Sampler::of_cpu(run.epoch, run.target.pids.clone(), SAMPLE);
    let load = run.load("posting", total, options.producers, Duration::from_secs(120));
    let began = run.epoch.now();
    let mut producers = produce(&load, options, &destinations);
    let arriving = bar("arriving", total);
    let (mut kills, mut next_kill) = (0_usize, began + seconds(options.kill_every));
    let give_up = began + Duration::from_secs(options.give_up);
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        while producers.try_join_next().is_some() {}
        let posted = run.ledger.posted(0, total);
        let account = run.receiver.log().look(0, |log| ledger::account(&posted, log));
        arriving.set_position(u64::try_from(account.accepted - account.lost).unwrap_or(0));
        if (producers.is_empty() && account.lost == 0) || run.epoch.now() > give_up {
            break;
        }
        if options.kill_every > 0.0 && run.epoch.now() >= next_kill {
            tokio::task::block_in_place(|| kill(&mut run.target))?;
            kills += 1;
            next_kill = run.epoch.now() + seconds(options.kill_every);
        }
    }
    producers.shutdown().await;
    load.progress.finish_and_clear();
    arriving.finish_and_clear();
    let settled = run.settled(&destinations, Duration::from_secs(120)).await;
    let posted = run.ledger.posted(0, total);
    let log = run.receiver.log().since(0);
    let mut report = Report::new("ordered", run.target.name(), serde_json::to_value(options)?);
    tell(&mut report, options, &posted, &log)?;
    plot_cpu(&mut report, &sampler.samples(), began.as_secs_f64());
    report.tell("kills", count_of(kills), "");
    report.judge("nothing is left open", f64::from(u8::from(settled.is_ok())), "", "1".to_owned(), settled.is_ok());
    Ok(report)
}

fn tell(report: &mut Report, options: &Options, posted: &[(u64, Posted)], log: &[Entry]) -> anyhow::Result<()> {
    let account: Account = ledger::account(posted, log);
    let arrivals = ledger::first_arrivals(log);
    let latency = |(number, posted): &(u64, Posted)| arrivals.get(number)?.checked_sub(posted.intended);
    let latencies = Latencies::of(posted.iter().filter_map(latency))?;
    let first = posted.iter().map(|(_, posted)| posted.intended).min().unwrap_or_default();
    let last = arrivals.values().max().copied().unwrap_or(first);
    let took = last.saturating_sub(first).as_secs_f64();
    let overtaken = overtakings(posted, log);
    let total = options.lanes * options.events;
    report.judge("events accepted", count_of(account.accepted), "", format!("{total}"), account.accepted == total);
    report.none("lost", account.lost);
    report.none("started before an earlier one of its lane ended", overtaken.len());
    report.tell("requests", count_of(log.len()), "");
    report.tell("of them failed", count_of(log.iter().filter(|entry| !entry.accepted()).count()), "");
    report.tell("duplicates", count_of(account.duplicates), "");
    let attempts: HashSet<_> = log.iter().map(|entry| (entry.number, entry.attempt)).collect();
    report.tell("attempts that were made more than once", count_of(log.len() - attempts.len()), "");
    report.tell("from the first post to the last arrival", took, "s");
    report.tell("deliveries", count_of(arrivals.len()) / took.max(0.001), "/s");
    report.tell("p50, post to arrival", latencies.ms(0.5), "ms");
    report.tell("p99", latencies.ms(0.99), "ms");
    report.tell("max", latencies.ms(1.0), "ms");
    report.keep("overtakings", overtaken.iter().take(100).collect::<Vec<_>>());
    course::plot(report, posted, log)?;
    Ok(())
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.max(0.0))
}

/// Producers with lanes of their own. An event is posted when the one before it in its lane is accepted, so within a lane
/// numbers follow acceptance.
fn produce(load: &Load, options: &Options, destinations: &[Destination]) -> tokio::task::JoinSet<()> {
    let types: Arc<[String]> = destinations.iter().map(|destination| destination.event_type.clone()).collect();
    let mut producers = tokio::task::JoinSet::new();
    for producer in 0..options.producers {
        let (load, options, types) = (load.clone(), options.clone(), Arc::clone(&types));
        producers.spawn(async move {
            let lanes: Vec<usize> = (producer..options.lanes).step_by(options.producers).collect();
            let between =
                if options.rate > 0.0 { seconds(count_of(options.producers) / options.rate) } else { Duration::ZERO };
            let mut due = load.epoch.now() + between.mul_f64(count_of(producer) / count_of(options.producers));
            let mut done = 0;
            while done < options.events {
                let in_a_row = options.in_a_row.clamp(1, options.events - done);
                for lane in &lanes {
                    let events = vec![event(&options, &types, *lane); in_a_row];
                    for part in events.chunks(if options.batch { in_a_row } else { 1 }) {
                        load.epoch.sleep_until(due).await;
                        match part {
                            [event] => load.post_one(event, due).await,
                            events => drop(load.post_batch(events).await),
                        }
                        let next = due + between.mul_f64(count_of(part.len()));
                        due = if between.is_zero() { load.epoch.now() } else { next };
                    }
                }
                done += in_a_row;
            }
        });
    }
    producers
}

fn event(options: &Options, types: &[String], lane: usize) -> Event {
    Event {
        event_type: types[lane % types.len()].clone(),
        ordering_key: (!options.unordered).then(|| format!("lane-{lane}")),
        bytes: 500,
        group: u32::try_from(lane).unwrap_or(u32::MAX),
        api: None,
    }
}

/// Kills one of the dispatchers, or the one process, and starts it again.
fn kill(target: &mut Target) -> anyhow::Result<()> {
    match &mut target.running {
        Running::Standalone(standalone) => {
            standalone.kill()?;
            standalone.restart()
        }
        Running::Cluster(cluster) => {
            let Some(dispatcher) = cluster.dispatchers.last_mut() else { anyhow::bail!("there is no dispatcher") };
            dispatcher.kill()?;
            dispatcher.restart()
        }
        Running::Elsewhere => anyhow::bail!("what was not started here is not killed: --kill-every 0"),
    }
}
