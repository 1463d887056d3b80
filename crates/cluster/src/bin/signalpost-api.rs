//! `signalpost-api`: accepts events and manages destinations over HTTP.

use std::process::ExitCode;

use clap::Parser as _;
use signalpost_cluster::{Args, api};

fn main() -> ExitCode {
    let args = Args::parse();
    signalpost_wiring::run(|shutdown| api::run(args, shutdown))
}
