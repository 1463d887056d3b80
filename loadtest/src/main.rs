//! Measures a Signalpost: its speed, and its order, limits and isolation under load and faults. `loadtest/README.md` says how to run it.
//!
//! Producers and receiver are in this process and share one clock; every event has a number that is found again in what
//! arrives, so each scenario says what was lost and what came twice.

mod ceilings;
mod chance;
mod client;
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
mod receiver;
mod report;
mod run;
mod scenarios;
mod stats;
mod stored;
mod target;
mod wire;

use std::{path::PathBuf, process::ExitCode};

use ceilings::Ceilings;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "signalpost-loadtest", about)]
struct Command {
    #[command(flatten)]
    target: target::Options,
    /// Where results are written, as a table and as JSON.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"), global = true)]
    results: PathBuf,
    #[command(subcommand)]
    scenario: Scenario,
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
    let mut report = match &command.scenario {
        Scenario::Burst(options) => scenarios::burst::run(&command.target, options).await?,
        Scenario::Sustained(options) => scenarios::sustained::run(&command.target, options).await?,
        Scenario::Fanout(options) => scenarios::fanout::run(&command.target, options).await?,
        Scenario::Backlog(options) => scenarios::backlog::run(&command.target, options).await?,
        Scenario::Ingest(options) => scenarios::ingest::run(&command.target, options).await?,
        Scenario::ManyDestinations(options) => scenarios::many_destinations::run(&command.target, options).await?,
        Scenario::Growth(options) => scenarios::growth::run(&command.target, options).await?,
        Scenario::Outage(options) => scenarios::outage::run(&command.target, options).await?,
        Scenario::Idempotent(options) => scenarios::idempotent::run(&command.target, options).await?,
        Scenario::RetryStorm(options) => scenarios::retry_storm::run(&command.target, options).await?,
        Scenario::RateLimited(options) => scenarios::rate_limited::run(&command.target, options).await?,
        Scenario::Soak(options) => scenarios::soak::run(&command.target, options).await?,
        #[cfg(feature = "limits")]
        Scenario::Limits(options) => limits::run(&command.target, options, &command.results).await?,
        Scenario::Ordered(options) => scenarios::ordered::run(&command.target, options).await?,
        Scenario::Isolation(options) => scenarios::isolation::run(&command.target, options).await?,
        Scenario::Rate(options) => scenarios::rate::run(&command.target, options).await?,
        Scenario::BacklogDead(options) => scenarios::backlog_dead::run(&command.target, options).await?,
        Scenario::Hostile(options) => scenarios::hostile::run(&command.target, options).await?,
        Scenario::Rolling(options) => scenarios::rolling::run(&command.target, options).await?,
    };
    if let Some(ceilings) = Ceilings::read(&command.results) {
        ceilings.tell(&mut report);
    }
    print!("{}", report.table());
    println!("written to {}", report.write(&command.results)?.display());
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        super::Command::command().debug_assert();
    }
}
