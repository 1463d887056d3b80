//! `cargo xtask bench-compare`: the benches of another revision beside those of this work tree, on the same machine in the
//! same minutes. What counts is the ratio: the figures themselves are the machine's.
//!
//! [`build`] makes the programs of both sides, [`measure`] runs them in turns, [`table`] compares.

mod build;
mod measure;
mod table;

use std::{process::ExitCode, time::Duration};

use clap::Args;

use crate::revision;

#[derive(Debug, Args)]
pub struct Options {
    /// What to compare with: a commit, tag or branch.
    revision: String,
    /// Only benches whose names this regular expression finds.
    #[arg(long)]
    filter: Option<String>,
    /// The highest ratio of now to base that is no regression.
    #[arg(long, default_value_t = 1.25, value_parser = bound)]
    bound: f64,
    /// How often each side is measured, in turns; the lowest median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..))]
    rounds: u32,
    /// How long each bench is measured in a round, in milliseconds; it is warmed up for half of that.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..))]
    measure_ms: u64,
}

fn bound(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(bound) if f64::is_finite(bound) && bound > 0.0 => Ok(bound),
        _ => Err("must be a number above 0".to_owned()),
    }
}

pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let commit = revision::commit(&options.revision)?;
    let base = build::base(&commit)?;
    let now = build::now()?;
    if base.is_empty() {
        println!("{commit} has no benches: there is nothing to compare with");
    }
    let plan = measure::Plan {
        filter: options.filter.as_deref(),
        rounds: options.rounds,
        time: Duration::from_millis(options.measure_ms),
        folder: build::folder().join("results"),
    };
    let (base, now) = measure::both(&base, &now, &plan)?;
    let rows = table::rows(&base, &now);
    anyhow::ensure!(!rows.is_empty(), "no bench has a name like that");
    print!("{}", table::text(&rows, &commit, options.bound));
    let slower = rows.iter().filter(|row| row.is_above(options.bound)).count();
    if slower > 0 {
        println!("{slower} of {} above {}", rows.len(), options.bound);
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
