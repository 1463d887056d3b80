//! One destination in trouble gets as many events as ninety-nine healthy ones together: what do these notice? Pairs of
//! runs, with and without it, in turn, on the same Signalpost; the figures are ratios within a pair, so the mood of the
//! machine falls out.

use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueEnum};
use http::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    backlog_dead::fill,
    neighbours::{Fared, Neighbours, TROUBLED},
};
use crate::{
    load::Event,
    plot::Plot,
    ranges::{at_least_one, positive},
    receiver::{Behaviour, Failure},
    report::Report,
    run::{Destination, Run},
    stats::{Latencies, median},
    target::{self, Size},
};

/// The throughput of the healthy ones, with against without, must be at least that.
const LEAST_THROUGHPUT: f64 = 0.9;
/// Their p99 must be at most that often the one without …
const MOST_P99: f64 = 1.5;
/// … and that many milliseconds.
const P99_ALLOWANCE_MS: f64 = 5.0;

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    /// Pairs of runs.
    #[arg(long, default_value_t = 5, value_parser = at_least_one::<usize>)]
    pairs: usize,
    /// Seconds of each run.
    #[arg(long, default_value_t = 20, value_parser = at_least_one::<u64>)]
    seconds: u64,
    /// Seconds of the same load before, of healthy ones, that count for nothing.
    #[arg(long, default_value_t = 15)]
    warm: u64,
    /// What is wrong with the one.
    #[arg(long, value_enum, default_value = "hang")]
    trouble: Trouble,
    /// The share of the measured capacity that is posted with it: half of it to the one.
    #[arg(long, default_value_t = 0.4, value_parser = positive)]
    load: f64,
    /// Events each second in all, instead of a share of the capacity.
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// What the run without is.
    #[arg(long, value_enum, default_value = "absent")]
    without: Without,
    /// Its time-out, in milliseconds.
    #[arg(long, default_value_t = 15_000, value_parser = at_least_one::<u32>)]
    timeout_ms: u32,
    /// Whether its circuit may open, where that is not as by default.
    #[arg(long)]
    circuit: Option<bool>,
    /// So many deliveries of it wait from the start.
    #[arg(long, default_value_t = 0)]
    waiting: usize,
    /// Healthy destinations.
    #[arg(long, default_value_t = 99, value_parser = at_least_one::<usize>)]
    healthy: usize,
    /// With `many-destinations`: how many the other tenant has.
    #[arg(long, default_value_t = 10_000, value_parser = at_least_one::<usize>)]
    destinations: usize,
    /// Bytes of an event's data.
    #[arg(long, default_value_t = 500)]
    bytes: usize,
    /// Requests of the producers that may be out at once.
    #[arg(long, default_value_t = 512, value_parser = at_least_one::<usize>)]
    workers: usize,
    /// Seconds of the bursts that measure the capacity.
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    capacity_seconds: f64,
}

/// What may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Trouble {
    /// It does not answer until the time-out.
    Hang,
    /// It answers a byte a second.
    Drip,
    /// It resets every connection.
    Reset,
    /// It answers 500.
    #[value(name = "500")]
    #[serde(rename = "500")]
    Status500,
    /// It is paused.
    Paused,
    /// Nothing: but there are thousands of it, of another tenant, that take turns, and the healthy ones are two.
    ManyDestinations,
}

/// What a run without trouble is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Without {
    /// The one is not there, nor are its events.
    Absent,
    /// It is there, gets its events, and is healthy; in place of the tenant with thousands of destinations, one with two.
    Healthy,
}

/// Runs it.
///
/// # Errors
/// Something does not start, or refuses what it should take.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    let run = Run::start(target, Size::ONE, &[]).await?;
    let many = options.trouble == Trouble::ManyDestinations;
    let healthy = if many { 2 } else { options.healthy };
    let neighbours = Neighbours::create(&run, healthy, options.bytes, options.workers).await?;
    let others = if many { Some(Others::create(&run, options).await?) } else { None };
    let capacity = match options.rate {
        Some(_) => None,
        None => Some(neighbours.capacity(&run, options.capacity_seconds).await?),
    };
    let rate = options.rate.or(capacity.map(|capacity| capacity * options.load)).unwrap_or(100.0);
    let length = Duration::from_secs(options.seconds);
    if options.warm > 0 {
        let events = others.as_ref().map_or(&[][..], |others| &others.crowded);
        neighbours.measure(&run, rate / 2.0, Duration::from_secs(options.warm), events, false).await?;
    }
    let mut fared: Vec<(Fared, Fared)> = Vec::new();
    for pair in 0..options.pairs {
        let mut halves = Vec::new();
        // The order changes from pair to pair: so what grows over time weighs on both alike.
        for with in if pair % 2 == 0 { [true, false] } else { [false, true] } {
            run.target.quiet(Duration::from_secs(60)).await;
            let mut one = None;
            let events = match (&others, with, options.without) {
                (Some(others), true, _) => others.crowded.clone(),
                (Some(others), false, Without::Healthy) => others.small.clone(),
                (_, false, Without::Absent) => Vec::new(),
                (None, _, _) => vec![event(options, one.insert(troubled(&run, options, with).await?))],
            };
            halves.push(neighbours.measure(&run, rate / 2.0, length, &events, with).await?);
            if let Some(one) = one {
                run.target.api.delete_destination(&one.id).await?;
            }
        }
        halves.sort_by_key(|half| !half.with);
        if let Ok([with, without]) = <[Fared; 2]>::try_from(halves) {
            fared.push((with, without));
        }
    }
    report(&run, options, capacity, rate, &fared)
}

fn report(
    run: &Run,
    options: &Options,
    capacity: Option<f64>,
    rate: f64,
    fared: &[(Fared, Fared)],
) -> anyhow::Result<Report> {
    let settings = serde_json::to_value(options).unwrap_or_default();
    let mut report = Report::new("isolation", run.target.name(), settings);
    if let Some(capacity) = capacity {
        report.tell("capacity", capacity, "/s");
    }
    report.tell("posted in all, with", rate, "/s");
    compare(&mut report, fared)?;
    Ok(report)
}

/// A figure of a run: its name, its unit, how it is read.
type Kind = (&'static str, &'static str, fn(&Fared) -> f64);

/// The ratios of pairs of runs, and their id-level check.
///
/// # Errors
/// None: all latencies have the same bounds.
pub fn compare(report: &mut Report, fared: &[(Fared, Fared)]) -> anyhow::Result<()> {
    let of = |figure: fn(&Fared) -> f64| {
        let with = median(fared.iter().map(|(with, _)| figure(with)));
        (with, median(fared.iter().map(|(_, without)| figure(without))))
    };
    let figures: [Kind; 5] = [
        ("healthy throughput", "/s", |fared| fared.arrived_per_second),
        ("healthy p50", "ms", |fared| fared.p50_ms),
        ("healthy p99", "ms", |fared| fared.p99_ms),
        ("healthy max", "ms", |fared| fared.max_ms),
        ("API p99", "ms", |fared| fared.api_p99_ms),
    ];
    for (name, unit, figure) in figures {
        let (with, without) = of(figure);
        report.tell(format!("{name}, without (median)"), without, unit);
        report.tell(format!("{name}, with (median)"), with, unit);
    }
    let throughput = median(fared.iter().map(|(with, without)| with.arrived_per_second / without.arrived_per_second));
    report.at_least("healthy throughput, with / without (median)", throughput, "", LEAST_THROUGHPUT);
    let p99 = median(fared.iter().map(|(with, without)| with.p99_ms / without.p99_ms));
    report.tell("healthy p99, with / without (median)", p99, "");
    let over = median(fared.iter().map(|(with, without)| (with.p99_ms - P99_ALLOWANCE_MS).max(0.0) / without.p99_ms));
    report.at_most("the same, less 5 ms", over, "", MOST_P99);
    let all = || fared.iter().flat_map(|(with, without)| [with, without]);
    report.none("healthy: lost", all().map(|fared| fared.account.lost).sum());
    report.none("healthy: refused", all().map(|fared| fared.account.posted - fared.account.accepted).sum());
    report.tell("healthy: duplicates", crate::report::count_of(all().map(|fared| fared.account.duplicates).sum()), "");
    report.keep("pairs", fared);
    let with = Latencies::all(fared.iter().map(|(with, _)| &with.latencies))?;
    let without = Latencies::all(fared.iter().map(|(_, without)| &without.latencies))?;
    report.plot(
        Plot::percentiles("Healthy destinations, post to arrival", "milliseconds")
            .line("without", without.percentiles())
            .line("with", with.percentiles()),
    );
    Ok(())
}

async fn troubled(run: &Run, options: &Options, in_trouble: bool) -> anyhow::Result<Destination> {
    let behaviour = match options.trouble {
        _ if !in_trouble => Behaviour::OK,
        Trouble::Hang => Behaviour::always(Failure::Hang),
        Trouble::Drip => Behaviour::always(Failure::Drip),
        Trouble::Reset => Behaviour::always(Failure::Reset),
        Trouble::Status500 => Behaviour::always(Failure::Status(500)),
        Trouble::Paused | Trouble::ManyDestinations => Behaviour::OK,
    };
    let mut further = json!({"timeout_ms": options.timeout_ms});
    if let Some(enabled) = options.circuit {
        further["circuit"] = json!({"enabled": enabled});
    }
    let mut created = run.destinations(&run.target.api, "troubled", 1, behaviour, &further).await?;
    let Some(one) = created.pop() else { bail!("no destination") };
    if in_trouble && options.trouble == Trouble::Paused {
        let path = format!("/v1/destinations/{}/pause", one.id);
        run.target.api.call(Method::POST, &path, &Value::Null).await?;
    }
    if in_trouble && options.waiting > 0 {
        fill(run, &event(options, &one), options.waiting).await?;
        run.target.quiet(Duration::from_secs(120)).await;
    }
    Ok(one)
}

fn event(options: &Options, one: &Destination) -> Event {
    let event_type = one.event_type.clone();
    Event { event_type, ordering_key: None, bytes: options.bytes, group: TROUBLED, api: None }
}

/// What two other tenants post, one event for each of their destinations.
struct Others {
    /// The one with thousands of destinations.
    crowded: Vec<Event>,
    /// The one with two.
    small: Vec<Event>,
}

impl Others {
    async fn create(run: &Run, options: &Options) -> anyhow::Result<Self> {
        let crowded = other_tenant(run, options, "crowded", options.destinations).await?;
        Ok(Self { crowded, small: other_tenant(run, options, "small", 2).await? })
    }
}

/// A tenant with so many destinations; an event for each.
async fn other_tenant(run: &Run, options: &Options, name: &str, destinations: usize) -> anyhow::Result<Vec<Event>> {
    let slug = format!("{name}-{}", run.epoch.tag());
    run.target.api.create_tenant(&slug, &json!({})).await?;
    let api = run.target.api.in_tenant(&slug);
    let bar = crate::run::bar("destinations", destinations);
    let path = run.receiver.path(Behaviour::OK);
    let mut left = futures::stream::FuturesUnordered::new();
    for number in 0..destinations {
        let (api, url) = (api.clone(), run.receiver.url(path));
        left.push(async move { api.create_destination(&url, &format!("crowd.{number}"), &json!({})).await });
        if left.len() >= 32 {
            finish_one(&mut left, &bar).await?;
        }
    }
    while !left.is_empty() {
        finish_one(&mut left, &bar).await?;
    }
    bar.finish_and_clear();
    let event = |number| Event {
        event_type: format!("crowd.{number}"),
        ordering_key: None,
        bytes: options.bytes,
        group: TROUBLED,
        api: Some(api.clone()),
    };
    Ok((0..destinations).map(event).collect())
}

async fn finish_one<F: Future<Output = anyhow::Result<String>>>(
    left: &mut futures::stream::FuturesUnordered<F>,
    bar: &indicatif::ProgressBar,
) -> anyhow::Result<()> {
    if let Some(created) = futures::StreamExt::next(left).await {
        created?;
        bar.inc(1);
    }
    Ok(())
}
