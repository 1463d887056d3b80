//! Runs seeds on all cores and tells which of them break something. `cargo xtask simulate` builds and starts it.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use signalpost_simulation::{Options, Outcome, breaks::Lie, run};

/// Simulate whole Signalposts, one per seed, and check every promise after every step.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask simulate", bin_name = "cargo xtask simulate")]
struct Cli {
    /// How many seeds to run.
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run this seed alone, and print its whole trace.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Run each seed twice and compare the traces.
    #[arg(long)]
    twice: bool,
    /// Go on after a seed that breaks something; tell all of them at the end.
    #[arg(long)]
    keep_going: bool,
    /// Break a promise of ours on purpose, to see what is told of it.
    #[arg(long)]
    lie: Option<Lie>,
    /// Lines of the trace shown of a seed that breaks something.
    #[arg(long, default_value_t = 40)]
    tail: usize,
}

fn main() -> ExitCode {
    match simulate(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What came of a seed.
struct Told {
    outcome: Outcome,
    /// The second run went another way.
    differs: bool,
}

/// Whether nothing is broken.
fn simulate(cli: &Cli) -> anyhow::Result<bool> {
    if let Some(seed) = cli.seed {
        let told = one(seed, cli, true)?;
        tell(&told, cli);
        return Ok(told.outcome.violation.is_none() && !told.differs);
    }
    let next = AtomicU64::new(cli.first);
    let end = cli.first.saturating_add(cli.seeds);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let bar = ProgressBar::new(cli.seeds);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {elapsed}, {eta} left {msg}")?);
    let failures = Mutex::new(BTreeMap::new());
    let (mut steps, mut requests, mut simulated) = (0, 0, std::time::Duration::ZERO);
    std::thread::scope(|scope| {
        let (done, told) = mpsc::channel();
        for _ in 0..threads {
            let (done, next) = (done.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || done.send(one(seed, cli, false)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        for told in told {
            let told = told?;
            bar.inc(1);
            steps += told.outcome.steps;
            requests += told.outcome.requests;
            simulated += told.outcome.lasted;
            if told.outcome.violation.is_some() || told.differs {
                bar.suspend(|| if cli.keep_going { tell_short(&told) } else { tell(&told, cli) });
                failures.lock().unwrap_or_else(PoisonError::into_inner).insert(told.outcome.seed, told);
                if !cli.keep_going {
                    next.store(end, Ordering::Relaxed);
                    break;
                }
            }
        }
        anyhow::Ok(())
    })?;
    bar.finish();
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    let hours = simulated.as_secs_f64() / 3600.0;
    println!(
        "{} seeds broke something; {steps} steps, {requests} requests, {hours:.1} simulated hours",
        failures.len()
    );
    Ok(failures.is_empty())
}

fn one(seed: u64, cli: &Cli, loud: bool) -> anyhow::Result<Told> {
    let outcome = run(seed, Options { lie: cli.lie, loud })?;
    let differs = cli.twice && run(seed, Options { lie: cli.lie, loud: false })?.hash != outcome.hash;
    Ok(Told { outcome, differs })
}

fn tell_short(told: &Told) {
    let Outcome { seed, violation, .. } = &told.outcome;
    let what = violation.as_ref().map_or_else(String::new, |broken| format!("{}: {}", broken.invariant, broken.text));
    println!("seed {seed}: {what}{}", if told.differs { " DIFFERS when run again" } else { "" });
}

fn tell(told: &Told, cli: &Cli) {
    let outcome = &told.outcome;
    if cli.seed.is_none() {
        for line in outcome.tail.iter().rev().take(cli.tail).rev() {
            println!("{line}");
        }
    }
    if told.differs {
        println!("seed {}: the same seed gave two traces", outcome.seed);
    }
    match &outcome.violation {
        Some(broken) => println!(
            "seed {}: {}\n  {}\nreplay it with: cargo xtask simulate --seed {}",
            outcome.seed, broken.invariant, broken.text, outcome.seed
        ),
        None => println!(
            "seed {}: nothing broken in {} steps, {} deliveries, {} requests, {:?}; trace {:016x}",
            outcome.seed, outcome.steps, outcome.deliveries, outcome.requests, outcome.lasted, outcome.hash
        ),
    }
}
