//! `cargo xtask simulate`: whole Signalposts from seeds. Builds the simulation and hands its arguments on; `--help` is its own.

use std::process::ExitCode;

use clap::Args;

/// What it is built with: unoptimised is fast enough, and what tests have built is used again.
const PROFILE: &str = "dev";

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Options {
    /// `--seeds N`, `--first F`, `--seed S`, `--twice`, `--keep-going`, `--lie L`; see `--help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let status = crate::cargo()
        .args(["build", "--quiet", "--profile", PROFILE, "--package", "signalpost-simulation"])
        .args(["--bin", "signalpost-simulate"])
        .status()?;
    anyhow::ensure!(status.success(), "the build failed");
    let folder = if PROFILE == "dev" { "debug" } else { PROFILE };
    let program = crate::target().join(folder).join("signalpost-simulate");
    let status = std::process::Command::new(program).args(&options.arguments).status()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
