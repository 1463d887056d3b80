//! Measures a Signalpost: its order, limits and isolation under load and faults. `loadtest/README.md` says how to run it.
//!
//! Producers and receiver are in this process and share one clock; every event has a number that is found again in what
//! arrives, so each scenario says what was lost and what came twice.

mod chance;
mod client;
mod epoch;
mod flow;
mod ledger;
mod load;
mod payload;
mod processes;
mod receiver;
mod report;
mod run;
mod scenarios;
mod stats;
mod target;
mod wire;

use std::{path::PathBuf, process::ExitCode};

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
    /// As many events as so many connections can post, to one destination: events each second, and CPU for each.
    Burst(scenarios::burst::Options),
    /// Lanes under failures, while a process is killed every few seconds: nothing is overtaken, all arrive.
    Ordered(scenarios::ordered::Options),
    /// What one destination in trouble does to the others.
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
    let report = match &command.scenario {
        Scenario::Burst(options) => scenarios::burst::run(&command.target, options).await?,
        Scenario::Ordered(options) => scenarios::ordered::run(&command.target, options).await?,
        Scenario::Isolation(options) => scenarios::isolation::run(&command.target, options).await?,
        Scenario::Rate(options) => scenarios::rate::run(&command.target, options).await?,
        Scenario::BacklogDead(options) => scenarios::backlog_dead::run(&command.target, options).await?,
        Scenario::Hostile(options) => scenarios::hostile::run(&command.target, options).await?,
        Scenario::Rolling(options) => scenarios::rolling::run(&command.target, options).await?,
    };
    print!("{}", report.table());
    println!("written to {}", report.write(&command.results)?.display());
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
