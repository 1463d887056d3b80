//! The ceilings of the parts on this machine, each alone: what the stores take in large durable groups, what Kafka takes
//! and gives, what HTTP takes and gives with the libraries that Signalpost uses. What Signalpost does at most is told as a
//! share of them.

mod bus;
mod http;
mod store;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;
use signalpost_core::Clock as _;
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_services::{Kafka, Postgres, kafka};
use signalpost_store_postgres::{PostgresSettings, PostgresStore};
use signalpost_store_sqlite::SqliteStore;

use crate::{
    ceilings::{self, Ceiling, Ceilings},
    plot::Plot,
    processes::{self, Pids},
    ranges::at_least_one,
    report::{Report, count_of},
    run::bar,
    stats::median,
    target,
};

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    /// Events of each measurement.
    #[arg(long, default_value_t = 50_000, value_parser = at_least_one::<usize>)]
    count: usize,
    /// Bytes of the data of an event.
    #[arg(long, default_value_t = 500)]
    bytes: usize,
    /// Events in a group of the store, and messages in a batch of the bus.
    #[arg(long, default_value_t = 500, value_parser = at_least_one::<usize>)]
    group: usize,
    /// Groups that are out at once.
    #[arg(long, default_value_t = 2, value_parser = at_least_one::<usize>)]
    callers: usize,
    /// Connections of HTTP.
    #[arg(long, default_value_t = 64, value_parser = at_least_one::<usize>)]
    connections: usize,
    /// Measurements of each; the medians are told.
    #[arg(long, default_value_t = 3, value_parser = at_least_one::<usize>)]
    runs: usize,
    /// Which; default: all.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

/// What is measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Part {
    /// Requests in, and out.
    Http,
    /// The store of a standalone.
    Sqlite,
    /// The store of a cluster.
    Postgres,
    /// The bus of a cluster.
    Kafka,
}

/// One measurement of one part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// Events each second.
    per_second: f64,
    /// CPU microseconds of all who took part for an event, our own side with them.
    cpu_us: f64,
}

/// Counts while something is measured.
pub(crate) struct Watch {
    clock: SystemClock,
    pids: Pids,
    at: Duration,
    cpu: f64,
}

impl Watch {
    /// From now on; with what these processes use.
    pub(crate) fn start(pids: &Pids) -> Self {
        let clock = SystemClock::new();
        let cpu = processes::own_cpu() + processes::cpu_of_all(pids);
        Self { clock, pids: Arc::clone(pids), at: clock.elapsed(), cpu }
    }

    /// What so many events took.
    pub(crate) fn end(&self, events: usize) -> Found {
        let took = self.clock.elapsed().saturating_sub(self.at).as_secs_f64();
        let cpu = processes::own_cpu() + processes::cpu_of_all(&self.pids) - self.cpu;
        let events = count_of(events);
        Found { per_second: events / took.max(1e-6), cpu_us: cpu * 1e6 / events }
    }
}

/// Runs it, and keeps what it finds for the reports of other scenarios.
///
/// # Errors
/// Something does not start, or fails.
pub async fn run(target: &target::Options, options: &Options, results: &std::path::Path) -> anyhow::Result<Report> {
    anyhow::ensure!(target.url.is_empty(), "limits measures parts that it starts itself: without --url");
    let wanted = |part: Part| options.only.is_empty() || options.only.contains(&part);
    let mut found: Vec<(&'static str, Found)> = Vec::new();
    for nth in 0..options.runs {
        let progress = bar(&format!("run {}", nth + 1), 0);
        if wanted(Part::Http) {
            found.extend(http::measure(options).await?);
        }
        if wanted(Part::Sqlite) {
            let folder = tempfile::tempdir()?;
            let store = SqliteStore::open(folder.path(), Arc::new(SystemClock::new()), Arc::new(SystemEntropy))?;
            let [ingest, write] = store::measure(Arc::new(store), options, &Pids::default()).await?;
            found.extend([(ceilings::SQLITE_INGEST, ingest), (ceilings::SQLITE_WRITE, write)]);
        }
        if wanted(Part::Postgres) {
            let postgres = tokio::task::block_in_place(|| Postgres::start(!target.no_fsync))?;
            PostgresStore::migrate(&postgres.url()).await?;
            let store =
                PostgresStore::connect(&postgres.url(), PostgresSettings::default(), Arc::new(SystemEntropy)).await?;
            let pids = Pids::new(vec![("postgres".to_owned(), postgres.process.id())].into());
            let [ingest, write] = store::measure(Arc::new(store), options, &pids).await?;
            found.extend([(ceilings::POSTGRES_INGEST, ingest), (ceilings::POSTGRES_WRITE, write)]);
        }
        if wanted(Part::Kafka) {
            let kafka = tokio::task::block_in_place(|| start_kafka(target))?;
            let pids = Pids::new(vec![("kafka".to_owned(), kafka.process.id())].into());
            let [produce, consume] = bus::measure(&kafka.brokers(), options, &pids).await?;
            found.extend([(ceilings::KAFKA_PRODUCE, produce), (ceilings::KAFKA_CONSUME, consume)]);
        }
        progress.finish_and_clear();
    }
    let mut report = Report::new("limits", "parts", serde_json::to_value(options)?);
    let mut kept = Ceilings::read(results).unwrap_or_default();
    let mut bars = Vec::new();
    for stage in ceilings::ALL {
        let of = |value: fn(&Found) -> f64| {
            median(found.iter().filter(|(name, _)| *name == stage).map(|(_, found)| value(found)))
        };
        let per_second = of(|found| found.per_second);
        if per_second > 0.0 {
            report.tell(stage, per_second, "/s");
            report.tell(format!("{stage}: CPU of all who take part"), of(|found| found.cpu_us), "us");
            let (bytes, group) = (u64::try_from(options.bytes)?, u64::try_from(options.group)?);
            kept.set(stage, Ceiling { per_second, bytes, group });
            bars.push((stage.to_owned(), per_second));
        }
    }
    report.plot(Plot::bars("Ceilings", "events each second", bars));
    kept.write(results)?;
    Ok(report)
}

fn start_kafka(target: &target::Options) -> anyhow::Result<Kafka> {
    let cache = target.cache()?;
    Kafka::start(&kafka::jars(&cache).context("the jars of Kafka")?)
}
