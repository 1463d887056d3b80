//! Thousands of connections that mean harm (slow heads, slow bodies, answers that nobody reads, idle ones), and what the
//! producers beside them notice: rate, latency, and the memory of the process.

mod clients;

use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};

use anyhow::Context as _;
use clap::Args;
use clients::{Crowd, Kind};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;

use crate::{
    load::{Event, Pace},
    plot::Plot,
    processes::usage,
    ranges::{at_least_one, positive},
    receiver::Behaviour,
    report::{Report, count_of},
    run::Run,
    stats::Latencies,
    target::{self, Size},
};

/// The memory that a connection may cost, in KiB, and what may be added whatever their number, in MiB: of both, the
/// bound of this process is made.
const CONNECTION_KIB: f64 = 32.0;
const BESIDE_MIB: f64 = 64.0;

/// How long all of them may take to come.
const COMING: Duration = Duration::from_secs(20);

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    /// Connections that are slow: a third with their heads, a third with bodies, a third that read no answer.
    #[arg(long, default_value_t = 1000)]
    slow: usize,
    /// Connections that are idle.
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Events each second of the producers beside them.
    #[arg(long, default_value_t = 300.0, value_parser = positive)]
    rate: f64,
    /// Seconds of each of the two measurements: alone, and with all of them there.
    #[arg(long, default_value_t = 40, value_parser = at_least_one::<u64>)]
    seconds: u64,
    /// Bytes of the data of an event.
    #[arg(long, default_value_t = 500)]
    bytes: usize,
    /// Requests of the producers that may be out at once.
    #[arg(long, default_value_t = 256, value_parser = at_least_one::<usize>)]
    workers: usize,
}

/// Runs it.
///
/// # Errors
/// Something does not start, or refuses what it should take.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    let run = Run::start(target, Size::ONE, &[]).await?;
    let address: SocketAddr = run.target.api.address().parse().context("the API's address is no IP and port")?;
    let destination = run.destinations(&run.target.api, "hostile", 1, Behaviour::OK, &serde_json::json!({})).await?;
    let event_type = destination[0].event_type.clone();
    let mut report = Report::new("hostile", run.target.name(), serde_json::to_value(options)?);

    // Buffers and caches have the size that they need from then on.
    measure(&run, options, &event_type, 5, "warming up").await?;
    let alone = measure(&run, options, &event_type, options.seconds, "alone").await?;
    let before = memory(&run);
    let third = options.slow / 3;
    let key = &target.key;
    let crowds = [
        ("idle", Crowd::start(address, key, Kind::Idle, options.idle, 1)),
        ("slow heads", Crowd::start(address, key, Kind::Head, options.slow - 2 * third, 2)),
        ("slow bodies", Crowd::start(address, key, Kind::Body, third, 3)),
        ("unread answers", Crowd::start(address, key, Kind::Answer, third, 4)),
    ];
    let all = options.slow + options.idle;
    let mut held = 0_usize;
    for _ in 0..COMING.as_secs() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        held = held.max(crowds.iter().map(|(_, crowd)| crowd.tally.held.load(Ordering::Relaxed)).sum());
        if held == all {
            break;
        }
    }
    let beside = measure(&run, options, &event_type, options.seconds, "with them").await?;
    let after = memory(&run);

    report.at_least("connections held at once", count_of(held), "", 0.99 * count_of(all));
    for (name, crowd) in &crowds {
        let tally = &crowd.tally;
        report.tell(format!("{name}: held at the end"), count_of(tally.held.load(Ordering::Relaxed)), "");
        report.tell(format!("{name}: cut"), count_of(tally.cut.load(Ordering::Relaxed)), "");
        report.tell(format!("{name}: refused"), count_of(tally.refused.load(Ordering::Relaxed)), "");
    }
    for (name, found) in [("alone", &alone), ("with them", &beside)] {
        report.tell(format!("events accepted, {name}"), found.rate, "/s");
        report.tell(format!("p50, {name}"), found.latencies.ms(0.5), "ms");
        report.tell(format!("p99, {name}"), found.latencies.ms(0.99), "ms");
        report.none(format!("events refused, {name}"), found.refused);
    }
    report.plot(
        Plot::percentiles("API answer, percentiles", "milliseconds")
            .line("alone", alone.latencies.percentiles())
            .line("with them", beside.latencies.percentiles()),
    );
    report.at_least("accepted, with them / alone", beside.rate / alone.rate, "", 0.95);
    let most = BESIDE_MIB + CONNECTION_KIB / 1024.0 * count_of(all);
    if before > 0.0 {
        report.tell("memory, alone", before, "MiB");
        report.at_most("memory, growth with them", after - before, "MiB", most);
        report.tell("memory for each of them", (after - before) * 1024.0 / count_of(held.max(1)), "KiB");
    } else {
        report.remark("memory is not judged: it is known only of what was started here");
    }
    Ok(report)
}

struct Found {
    rate: f64,
    latencies: Latencies,
    refused: usize,
}

async fn measure(run: &Run, options: &Options, event_type: &str, seconds: u64, what: &str) -> anyhow::Result<Found> {
    let event =
        Event { event_type: event_type.to_owned(), ordering_key: None, bytes: options.bytes, group: 0, api: None };
    let length = Duration::from_secs(seconds);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of events")]
    let count = (options.rate * length.as_secs_f64()) as usize;
    let load = run.load(what, count, options.workers, Duration::ZERO);
    let range = load.run(count, Pace::PerSecond(options.rate), move |_| event.clone()).await;
    load.progress.finish_and_clear();
    let posted = run.ledger.posted(range.first, range.count);
    let latencies = posted.iter().filter_map(|(_, posted)| Some(posted.accepted?.saturating_sub(posted.intended)));
    let accepted = latencies.clone().count();
    let took = range.ended.saturating_sub(range.began).as_secs_f64();
    Ok(Found { rate: count_of(accepted) / took, latencies: Latencies::of(latencies)?, refused: count - accepted })
}

/// Of all that was started, in MiB.
fn memory(run: &Run) -> f64 {
    usage(&run.target.pids).into_iter().map(|(_, mib, _)| mib).sum()
}
