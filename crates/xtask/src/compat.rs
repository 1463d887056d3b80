//! `cargo xtask compat`: an earlier version beside this one. Not part of CI: it builds two versions.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use signalpost_services::requirements::{self, Requirement};

use crate::revision;

#[derive(Debug, Args)]
pub struct Options {
    /// The earlier version: a commit, tag or branch.
    #[arg(long)]
    base: String,
    /// How many events each step has at least.
    #[arg(long, default_value_t = 2_000)]
    events: usize,
}

pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if let Err(line) = requirements::ensure(&Requirement::ALL) {
        eprintln!("{line}");
        return Ok(ExitCode::from(crate::MISSING));
    }
    let earlier = build_earlier(&options.base)?;
    let target = crate::target();
    let status = crate::cargo().arg("build").args(crate::PROGRAMS).args(crate::CLUSTER).status()?;
    anyhow::ensure!(status.success(), "this version could not be built");
    let status = crate::cargo()
        .args(["run", "--package", "signalpost-cluster", "--example", "beside", "--"])
        .arg(&earlier)
        .arg(options.events.to_string())
        .env("SIGNALPOST_TEST_SERVICES_CACHE", target.join("services"))
        .status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the programs of a revision in a worktree and a target directory of their own; the folder with them.
fn build_earlier(base: &str) -> anyhow::Result<PathBuf> {
    let revision = revision::commit(base)?;
    let folder = crate::target().join("compat");
    let source = folder.join(&revision);
    if !source.is_dir() {
        revision::check_out(&revision, &source)?;
    }
    println!("building {revision} in {}", source.display());
    let built = folder.join("target");
    let status = crate::cargo()
        .current_dir(&source)
        .args(["build", "--locked"])
        .args(crate::PROGRAMS)
        .args(crate::CLUSTER)
        .env("CARGO_TARGET_DIR", &built)
        .status()?;
    anyhow::ensure!(status.success(), "{revision} could not be built");
    Ok(built.join("debug"))
}
