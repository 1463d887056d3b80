//! Developer and CI commands: `cargo xtask --help`.

mod bench_compare;
mod cluster;
mod compat;
mod dist;
mod generate;
mod revision;
mod simulate;
mod test;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Developer and CI commands of Signalpost.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every test of the workspace, with what they need: PostgreSQL, Redis, a real Apache Kafka.
    Test(test::Options),
    /// Start a whole cluster on this machine and wait: for trying, load tests, crash tests.
    Cluster(cluster::Options),
    /// Simulate whole Signalposts, one per seed, and check every promise after every step.
    Simulate(simulate::Options),
    /// Run the programs of an earlier version beside those of this one, under load: nothing lost, nothing twice.
    Compat(compat::Options),
    /// Measure the benches of another revision beside those of this work tree: what has become slower.
    BenchCompare(bench_compare::Options),
    /// Build the programs for many users: compiled twice, the second time by what they do under load.
    Dist(dist::Options),
    /// Write the generated files anew: docs/openapi.json, docs/configuration.md, docs/metrics.md, .env.example.
    Generate,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Test(options) => test::run(&options),
        Command::Cluster(options) => cluster::run(&options),
        Command::Simulate(options) => simulate::run(&options),
        Command::Compat(options) => compat::run(&options),
        Command::BenchCompare(options) => bench_compare::run(&options),
        Command::Dist(options) => dist::run(&options),
        Command::Generate => generate::run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Where the workspace is.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where builds go; what services need is kept beside them. Absolute: what we start runs in other folders.
fn target() -> PathBuf {
    let given = std::env::var_os("CARGO_TARGET_DIR").and_then(|given| std::path::absolute(given).ok());
    given.unwrap_or_else(|| root().join("target"))
}

/// The cargo that runs us.
fn cargo() -> std::process::Command {
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    if std::env::var_os("CARGO_TARGET_DIR").is_some() {
        cargo.env("CARGO_TARGET_DIR", target());
    }
    // `cargo run` set these for us. Some build scripts (ring's) look at them, and all that depends on those would be built anew
    // whenever cargo is run by hand and by us in turns.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// The packages of all our programs, for cargo.
const PROGRAMS: [&str; 4] = ["--package", "signalpost", "--package", "signalpost-cluster"];

/// The feature with which the operator's binary knows a cluster.
const CLUSTER: [&str; 2] = ["--features", "signalpost/cluster"];

/// What a missing requirement ends with.
const MISSING: u8 = 3;
