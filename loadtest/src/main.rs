//! Measures a Signalpost: its speed, and its order, limits and isolation under load and faults. `loadtest/README.md` says how to run it.
//!
//! Producers and receiver are in this process and share one clock; every event has a number that is found again in what
//! arrives, so each scenario says what was lost and what came twice.

mod address;
mod ceilings;
mod chance;
mod client;
mod conditions;
mod course;
mod created;
mod epoch;
mod flow;
mod ledger;
#[cfg(feature = "limits")]
mod limits;
mod load;
mod page;
mod payload;
mod plot;
mod processes;
mod ranges;
mod receiver;
mod report;
mod run;
mod scenarios;
mod stats;
mod stored;
mod target;
mod wire;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use ceilings::Ceilings;
use clap::{Parser, Subcommand};
use conditions::Conditions;
use report::Report;
use signalpost_core::Clock as _;
use signalpost_runtime::SystemClock;

#[derive(Debug, Parser)]
#[command(name = "signalpost-loadtest", about)]
struct Command {
    #[command(flatten)]
    target: target::Options,
    /// Where results are written, as a table and as JSON; default: `loadtest/results` where there is a folder `loadtest`, else
    /// `results`.
    #[arg(long, global = true)]
    results: Option<PathBuf>,
    #[command(subcommand)]
    scenario: Scenario,
}

impl Command {
    fn results(&self) -> PathBuf {
        let beside_the_sources = || if Path::new("loadtest").is_dir() { "loadtest/results" } else { "results" };
        self.results.clone().unwrap_or_else(|| beside_the_sources().into())
    }
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Events as fast as so many connections can post them, to one destination.
    Burst(scenarios::burst::Options),
    /// The highest rate that is delivered in time, open loop; or one rate.
    Sustained(scenarios::sustained::Options),
    /// Events that go to several destinations each.
    Fanout(scenarios::fanout::Options),
    /// Many deliveries wait for a paused destination; it is resumed.
    Backlog(scenarios::backlog::Options),
    /// Accepting only: nobody wants the events, or who does is paused.
    Ingest(scenarios::ingest::Options),
    /// Events that take turns among thousands of destinations, and among ten.
    ManyDestinations(scenarios::many_destinations::Options),
    /// What an event costs as destinations, tenants, stored events, fan-out, bytes, or dispatchers grow.
    Growth(scenarios::growth::Options),
    /// The receiver is away for a minute, and comes back.
    Outage(scenarios::outage::Options),
    /// A tenth of the requests repeats another, with its idempotency key.
    Idempotent(scenarios::idempotent::Options),
    /// Every delivery fails once.
    RetryStorm(scenarios::retry_storm::Options),
    /// Bursts and repetitions for a destination that takes five requests a second.
    RateLimited(scenarios::rate_limited::Options),
    /// Many minutes of a steady load: memory, file descriptors, and what the store keeps stay flat.
    Soak(scenarios::soak::Options),
    /// What the parts can do at most on this machine, each alone: stores, Kafka, HTTP.
    #[cfg(feature = "limits")]
    Limits(limits::Options),
    /// Lanes under failures, while a process is killed every few seconds: nothing is overtaken, all arrive.
    Ordered(scenarios::ordered::Options),
    /// What one destination in trouble does to the others.
    #[command(visible_alias = "slow-neighbour")]
    Isolation(scenarios::isolation::Options),
    /// A rate limit over every window, also while Redis is away.
    Rate(scenarios::rate::Options),
    /// A million deliveries waiting for a dead destination: memory, and what the others notice.
    BacklogDead(scenarios::backlog_dead::Options),
    /// Thousands of connections that are slow or idle: what the producers beside them notice, and memory.
    Hostile(scenarios::hostile::Options),
    /// Restarts of the whole cluster in turn, under load: nothing lost, nothing twice.
    Rolling(scenarios::rolling::Options),
}

// The main task starts the services and stays on the main thread: they are told to end when the thread that started them
// does, and worker threads come and go.
#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let command = Command::parse();
    let began = SystemClock::new().now();
    let found = run(&command).await;
    // Also of one that failed.
    command.target.clean_up().await;
    let mut report = found?;
    let started = ["standalone", "cluster"].contains(&report.deployment.as_str());
    report.conditions = Some(Conditions::of(&command.target, started, began));
    let results = command.results();
    if let Some(ceilings) = Ceilings::read(&results) {
        ceilings.tell(&mut report);
    }
    print!("{}", report.table());
    println!("written to {}", report.write(&results)?.display());
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run(command: &Command) -> anyhow::Result<Report> {
    let target = &command.target;
    match &command.scenario {
        Scenario::Burst(options) => scenarios::burst::run(target, options).await,
        Scenario::Sustained(options) => scenarios::sustained::run(target, options).await,
        Scenario::Fanout(options) => scenarios::fanout::run(target, options).await,
        Scenario::Backlog(options) => scenarios::backlog::run(target, options).await,
        Scenario::Ingest(options) => scenarios::ingest::run(target, options).await,
        Scenario::ManyDestinations(options) => scenarios::many_destinations::run(target, options).await,
        Scenario::Growth(options) => scenarios::growth::run(target, options).await,
        Scenario::Outage(options) => scenarios::outage::run(target, options).await,
        Scenario::Idempotent(options) => scenarios::idempotent::run(target, options).await,
        Scenario::RetryStorm(options) => scenarios::retry_storm::run(target, options).await,
        Scenario::RateLimited(options) => scenarios::rate_limited::run(target, options).await,
        Scenario::Soak(options) => scenarios::soak::run(target, options).await,
        #[cfg(feature = "limits")]
        Scenario::Limits(options) => limits::run(target, options, &command.results()).await,
        Scenario::Ordered(options) => scenarios::ordered::run(target, options).await,
        Scenario::Isolation(options) => scenarios::isolation::run(target, options).await,
        Scenario::Rate(options) => scenarios::rate::run(target, options).await,
        Scenario::BacklogDead(options) => scenarios::backlog_dead::run(target, options).await,
        Scenario::Hostile(options) => scenarios::hostile::run(target, options).await,
        Scenario::Rolling(options) => scenarios::rolling::run(target, options).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        super::Command::command().debug_assert();
    }
}
