//! The operator's binary: `dev`, `standalone`, `migrate`, `rotate-keys`, `doctor`, `send`, `receiver`, `health`.
//!
//! Exit codes: 0 after a drained stop, 2 for a bad setting or argument, 1 otherwise.

mod data_dir;
mod doctor;
mod health;
mod inbox;
mod migrate;
mod receiver;
mod rotate_keys;
mod scheme;
mod send;
mod standalone;
mod terminal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use signalpost_config::Kind;
use signalpost_runtime::Shutdown;
use signalpost_wiring::Failure;

/// Signalpost takes events over HTTP and delivers each one, signed, to every webhook destination that asked for it
#[derive(Debug, Parser)]
#[command(name = "signalpost", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all of it here to try it: SQLite, an inbox to send to, a line per attempt
    Dev(standalone::Args),
    /// Run all of it in one process, on SQLite
    Standalone(standalone::Args),
    Migrate(migrate::Args),
    RotateKeys(rotate_keys::Args),
    Doctor(doctor::Args),
    Send(send::Args),
    Receiver(receiver::Args),
    Health(health::Args),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    signalpost_wiring::run(|shutdown| start(command, shutdown))
}

async fn start(command: Command, shutdown: Shutdown) -> Result<(), Failure> {
    match command {
        Command::Dev(args) => Box::pin(standalone::run(Kind::Dev, args, shutdown)).await,
        Command::Standalone(args) => Box::pin(standalone::run(Kind::Standalone, args, shutdown)).await,
        Command::Migrate(args) => Box::pin(migrate::run(args)).await,
        Command::RotateKeys(args) => Box::pin(rotate_keys::run(args, shutdown)).await,
        Command::Doctor(args) => Box::pin(doctor::run(args)).await,
        Command::Send(args) => Box::pin(send::run(args, shutdown)).await,
        Command::Receiver(args) => Box::pin(receiver::run(args, shutdown)).await,
        Command::Health(args) => health::run(args).await,
    }
}
