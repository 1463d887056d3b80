//! A million deliveries wait for a destination that is gone: the memory of every process, and what the others notice.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use signalpost_services::free_port;

use super::{
    isolation::compare,
    neighbours::{Neighbours, TROUBLED},
};
use crate::{
    load::{Event, Range},
    processes::{Sampler, usage},
    ranges::{at_least_one, positive},
    report::{Report, count_of},
    run::Run,
    target::{self, Size},
};

/// Events of a batch.
const BATCH: usize = 1_000;
/// Batches that are out at once.
const WORKERS: usize = 4;
/// How much a process of ours may grow from a tenth of the backlog to its end, in MiB: "flat", with room for caches.
const FLAT_MIB: f64 = 32.0;

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    /// How many deliveries wait.
    #[arg(long, default_value_t = 1_000_000, value_parser = at_least_one::<usize>)]
    waiting: usize,
    /// Runs before, and as many after.
    #[arg(long, default_value_t = 5, value_parser = at_least_one::<usize>)]
    pairs: usize,
    /// Seconds of each.
    #[arg(long, default_value_t = 20, value_parser = at_least_one::<u64>)]
    seconds: u64,
    /// The share of the measured capacity that is posted for healthy destinations.
    #[arg(long, default_value_t = 0.2, value_parser = positive)]
    load: f64,
    /// Events each second, instead of a share of the capacity.
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Healthy destinations.
    #[arg(long, default_value_t = 99, value_parser = at_least_one::<usize>)]
    healthy: usize,
    /// Bytes of the data of an event that waits.
    #[arg(long, default_value_t = 200)]
    bytes: usize,
    /// Requests of the producers that may be out at once.
    #[arg(long, default_value_t = 512, value_parser = at_least_one::<usize>)]
    workers: usize,
    /// Seconds of the bursts that measure the capacity.
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    capacity_seconds: f64,
}

/// Runs it.
///
/// # Errors
/// Something does not start, or refuses what it should take.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    let run = Run::start(target, Size::ONE, &[]).await?;
    let sampler = Sampler::start(run.epoch, run.target.pids.clone(), Duration::from_secs(1));
    let mut marks = vec![mark(&run, "started")];
    let neighbours = Neighbours::create(&run, options.healthy, 500, options.workers).await?;
    let rate = match options.rate {
        Some(rate) => rate,
        None => neighbours.capacity(&run, options.capacity_seconds).await? * options.load,
    };
    let length = Duration::from_secs(options.seconds);
    let mut before = Vec::new();
    for _ in 0..options.pairs {
        run.target.quiet(Duration::from_secs(60)).await;
        before.push(neighbours.measure(&run, rate, length, &[], false).await?);
    }
    marks.push(mark(&run, "before the backlog"));

    // Nothing listens there: every connection is refused.
    let url = format!("http://127.0.0.1:{}/", free_port()?);
    run.target.api.create_destination(&url, "dead.0", &json!({})).await?;
    let event =
        Event { event_type: "dead.0".to_owned(), ordering_key: None, bytes: options.bytes, group: TROUBLED, api: None };
    let mut took = Duration::ZERO;
    for (share, name) in [(0.1, "a tenth waits"), (0.4, "half waits"), (0.5, "all wait")] {
        let part = super::neighbours::whole(count_of(options.waiting) * share);
        let filled = fill(&run, &event, part).await?;
        took += filled.range.ended.saturating_sub(filled.range.began);
        marks.push(mark(&run, name));
    }
    let mut after = Vec::new();
    for _ in 0..options.pairs {
        run.target.quiet(Duration::from_secs(20)).await;
        after.push(neighbours.measure(&run, rate, length, &[], true).await?);
    }
    marks.push(mark(&run, "at the end"));

    let mut report = Report::new("backlog-dead", run.target.name(), serde_json::to_value(options)?);
    report.tell("healthy events posted", rate, "/s");
    report.tell("backlog posted", count_of(options.waiting) / took.as_secs_f64(), "/s");
    compare(&mut report, &after.into_iter().zip(before).collect::<Vec<_>>())?;
    tell_memory(&mut report, &marks);
    report.keep("memory_marks", &marks);
    report.keep("processes", sampler.samples());
    Ok(report)
}

/// The memory of every service at a moment.
#[derive(Debug, Serialize)]
struct Mark {
    name: &'static str,
    at: f64,
    mib: Vec<(String, f64)>,
}

fn mark(run: &Run, name: &'static str) -> Mark {
    let mib = usage(&run.target.pids).into_iter().map(|(name, mib, _cpu)| (name, mib)).collect();
    Mark { name, at: run.epoch.now().as_secs_f64(), mib }
}

fn tell_memory(report: &mut Report, marks: &[Mark]) {
    let Some(first) = marks.first().filter(|mark| !mark.mib.is_empty()) else {
        report.remark("memory is not judged: it is known only of what was started here");
        return;
    };
    for (service, _) in &first.mib {
        let of = |mark: &Mark| mark.mib.iter().find(|(name, _)| name == service).map_or(0.0, |(_, mib)| *mib);
        for mark in marks {
            report.tell(format!("{service}: memory, {}", mark.name), of(mark), "MiB");
        }
        let tenth = marks.iter().find(|mark| mark.name == "a tenth waits").map_or(0.0, of);
        let later = marks.iter().filter(|mark| ["all wait", "at the end"].contains(&mark.name)).map(of);
        let grown = later.fold(0.0, f64::max) - tenth;
        let name = format!("{service}: growth from a tenth of the backlog on");
        // What we stand on has caches of its own, which its own settings bound.
        if !crate::processes::is_ours(service) {
            report.tell(name, grown, "MiB");
        } else {
            report.at_most(name, grown, "MiB", FLAT_MIB);
        }
    }
}

/// A backlog that was posted.
#[derive(Debug, Clone, Copy)]
pub struct Filled {
    /// Its numbers.
    pub range: Range,
}

/// Posts that many events like this one, in batches.
///
/// # Errors
/// A batch was not accepted.
pub async fn fill(run: &Run, event: &Event, count: usize) -> anyhow::Result<Filled> {
    let load = run.load("filling", count, WORKERS, Duration::from_secs(60));
    let began = run.epoch.now();
    let first = run.ledger.reserve(0);
    let mut left = count;
    let mut posting = tokio::task::JoinSet::new();
    while left > 0 || !posting.is_empty() {
        while left > 0 && posting.len() < WORKERS {
            let size = left.min(BATCH);
            left -= size;
            let (load, events) = (load.clone(), vec![event.clone(); size]);
            posting.spawn(async move { load.post_batch(&events).await });
        }
        if let Some(posted) = posting.join_next().await {
            anyhow::ensure!(posted?, "a batch was not accepted");
        }
    }
    load.progress.finish_and_clear();
    Ok(Filled { range: Range { first, count, began, ended: run.epoch.now() } })
}
