//! `signalpost-dispatcher`: sends deliveries to destinations and records what came of them.

use std::process::ExitCode;

use clap::Parser as _;
use signalpost_cluster::{Args, dispatcher};

fn main() -> ExitCode {
    let args = Args::parse();
    signalpost_wiring::run(|shutdown| dispatcher::run(args, shutdown))
}
