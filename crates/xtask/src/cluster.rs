//! `cargo xtask cluster`: a whole cluster on this machine, without containers, until Ctrl-C.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use nix::sys::signal::{SigSet, Signal};
use signalpost_services::{
    Cluster, ClusterSpec,
    cluster::ADMIN_KEY,
    requirements::{self, Requirement},
};

#[derive(Debug, Args)]
pub struct Options {
    /// How many API services.
    #[arg(long, default_value_t = 1)]
    apis: usize,
    /// How many dispatchers.
    #[arg(long, default_value_t = 2)]
    dispatchers: usize,
    /// How many retry services.
    #[arg(long, default_value_t = 1)]
    retries: usize,
    /// The build profile of our services.
    #[arg(long, default_value = "release")]
    profile: String,
    /// PostgreSQL without fsync (faster, for trying only).
    #[arg(long)]
    no_fsync: bool,
}

pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if let Err(line) = requirements::ensure(&Requirement::ALL) {
        eprintln!("{line}");
        return Ok(ExitCode::from(crate::MISSING));
    }
    let status = crate::cargo()
        .args(["build", "--profile", &options.profile])
        .args(crate::PROGRAMS)
        .args(crate::CLUSTER)
        .status()?;
    anyhow::ensure!(status.success(), "the build failed");
    // From here on Ctrl-C waits to be asked for, so that everything is stopped in order.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let profile_folder = if options.profile == "dev" { "debug" } else { &options.profile };
    let mut cluster = Cluster::start(&ClusterSpec {
        binaries: crate::target().join(profile_folder),
        cache: crate::target().join("services"),
        apis: options.apis,
        dispatchers: options.dispatchers,
        retries: options.retries,
        durable: !options.no_fsync,
        env: Vec::new(),
    })?;
    println!("PostgreSQL   {}", cluster.postgres.url());
    println!("Kafka        {}", cluster.kafka.brokers());
    println!("Redis        {}", cluster.redis.url());
    for (kind, services) in [("api", &cluster.apis), ("dispatcher", &cluster.dispatchers), ("retry", &cluster.retries)]
    {
        for service in services {
            let id = service.process.as_ref().map_or(0, signalpost_services::Process::id);
            println!("{kind:<12} {}  (process {id})", service.url());
        }
    }
    println!("logs         {}", cluster.folder.path().display());
    println!("operator key {ADMIN_KEY}");
    println!("Ctrl-C stops everything.");
    signals.wait().context("cannot wait for a signal")?;
    println!("stopping");
    for service in cluster.services() {
        service.stop()?;
    }
    Ok(ExitCode::SUCCESS)
}
