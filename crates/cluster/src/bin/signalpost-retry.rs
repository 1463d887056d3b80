//! `signalpost-retry`: brings forward everything that time drives: retries, replays, leftovers, retention.

use std::process::ExitCode;

use clap::Parser as _;
use signalpost_cluster::{Args, retry};

fn main() -> ExitCode {
    let args = Args::parse();
    signalpost_wiring::run(|shutdown| retry::run(args, shutdown))
}
