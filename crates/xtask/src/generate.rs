//! `cargo xtask generate`: each generated file is written by the test that else holds it to the code.

use std::process::ExitCode;

/// What the names of those tests have in common.
const FILTER: &str = "generated";

pub fn run() -> anyhow::Result<ExitCode> {
    // The whole workspace as the tests build it, so that nothing is compiled a second time.
    let status = crate::cargo()
        .args(["test", "--quiet", "--workspace", "--features", "signalpost/cluster", "--lib", "--tests", "--", FILTER])
        .env("SIGNALPOST_REGENERATE", "1")
        .status()?;
    anyhow::ensure!(status.success(), "not every generated file could be written");
    Ok(ExitCode::SUCCESS)
}
