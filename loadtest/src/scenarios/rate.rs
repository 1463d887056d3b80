//! A rate limit, held over every window: more waits than may be sent, two dispatchers share the limit, and, where that is
//! asked for, Redis goes away half-way and comes back.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;

use super::backlog_dead::fill;
use crate::{
    course,
    load::Event,
    ranges::{at_least_one, positive},
    receiver::Behaviour,
    report::{Report, count_of},
    run::{Run, bar},
    stats::{fewest_in, most_in},
    target::{self, Size},
};

/// The window of the bound that is judged.
const WINDOW: Duration = Duration::from_secs(10);

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    /// Requests each second.
    #[arg(long, default_value_t = 50.0, value_parser = positive)]
    per_second: f64,
    /// The burst.
    #[arg(long, default_value_t = 1, value_parser = at_least_one::<u32>)]
    burst: u32,
    /// How many deliveries wait.
    #[arg(long, default_value_t = 3_000, value_parser = at_least_one::<usize>)]
    waiting: usize,
    /// Half-way, Redis is away for a while.
    #[arg(long, value_enum, default_value = "no")]
    redis_outage: Outage,
    /// For so many seconds.
    #[arg(long, default_value_t = 20)]
    away: u64,
    /// Seconds between two kills (`kill -9`, started again) of the dispatchers in turn, so that the destination moves from
    /// one to the other; 0: none.
    #[arg(long, default_value_t = 0)]
    kill_every: u64,
    /// How long the receiver takes to answer, in milliseconds.
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// Seconds without any arrival after which it is given up.
    #[arg(long, default_value_t = 120, value_parser = at_least_one::<u64>)]
    give_up: u64,
}

/// How Redis goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outage {
    /// It does not.
    No,
    /// It is stopped, and comes back empty.
    Stop,
    /// It is frozen: connections stay open and nothing answers. It comes back with what it held.
    Freeze,
}

/// Runs it.
///
/// # Errors
/// Something does not start, or refuses what it should take.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    let mut run = Run::start(target, Size { apis: 1, dispatchers: 2, retries: 1 }, &[]).await?;
    if options.redis_outage != Outage::No || options.kill_every > 0 {
        run.target.cluster()?;
    }
    let limit = json!({"rate_limit": {"per_second": options.per_second, "burst": options.burst}});
    let behaviour = Behaviour::OK.after(Duration::from_millis(options.latency_ms));
    let destinations = run.destinations(&run.target.api, "limited", 1, behaviour, &limit).await?;
    let event_type = destinations[0].event_type.clone();
    let event = Event { event_type, ordering_key: None, bytes: 300, group: 0, api: None };
    let posted = fill(&run, &event, options.waiting).await?;

    let bar = bar("limited", options.waiting);
    let (mut away_from, mut back_at, mut outage) = (None, None, options.redis_outage);
    let mut last = (0, run.epoch.now());
    let (mut kills, mut next_kill) = (0, last.1 + Duration::from_secs(options.kill_every));
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (arrived, now) = (run.receiver.log().len(), run.epoch.now());
        bar.set_position(u64::try_from(arrived).unwrap_or(0));
        if arrived > last.0 {
            last = (arrived, now);
        }
        if outage != Outage::No && arrived >= options.waiting / 2 {
            // It takes a moment to stop, in which it answers nobody any more.
            away_from = Some(run.epoch.now());
            away(&mut run, outage)?;
            outage = Outage::No;
        }
        if let (Some(from), None) = (away_from, back_at)
            && now >= from + Duration::from_secs(options.away)
        {
            back(&mut run, options.redis_outage)?;
            back_at = Some(run.epoch.now());
        }
        if options.kill_every > 0 && now >= next_kill {
            let dispatchers = &mut run.target.cluster()?.dispatchers;
            let turn = kills % dispatchers.len();
            let dispatcher = &mut dispatchers[turn];
            tokio::task::block_in_place(|| dispatcher.kill().and_then(|()| dispatcher.restart()))?;
            kills += 1;
            next_kill = run.epoch.now() + Duration::from_secs(options.kill_every);
        }
        let account = run.arrived(posted.range, |_| true, 0, Duration::ZERO).await;
        if (account.lost == 0 && back_at.is_some() == away_from.is_some())
            || now > last.1 + Duration::from_secs(options.give_up)
        {
            break;
        }
    }
    bar.finish_and_clear();
    run.settled(&destinations, Duration::from_secs(60)).await?;
    let account = run.arrived(posted.range, |_| true, 0, Duration::ZERO).await;
    let mut report = report(&run, options, away_from.zip(back_at));
    report.none("lost", account.lost);
    report.tell("duplicates", count_of(account.duplicates), "");
    report.tell("kills", count_of(kills), "");
    Ok(report)
}

fn away(run: &mut Run, outage: Outage) -> anyhow::Result<()> {
    let redis = &mut run.target.cluster()?.redis;
    match outage {
        Outage::No => Ok(()),
        Outage::Stop => tokio::task::block_in_place(|| redis.halt()),
        Outage::Freeze => redis.process.freeze(),
    }
}

fn back(run: &mut Run, outage: Outage) -> anyhow::Result<()> {
    let redis = &mut run.target.cluster()?.redis;
    match outage {
        Outage::No => Ok(()),
        Outage::Stop => tokio::task::block_in_place(|| redis.resume()),
        Outage::Freeze => redis.process.thaw(),
    }
}

fn report(run: &Run, options: &Options, outage: Option<(Duration, Duration)>) -> Report {
    let settings = serde_json::to_value(options).unwrap_or_default();
    let mut report = Report::new("rate", run.target.name(), settings);
    let mut times: Vec<Duration> = run.receiver.log().look(0, |log| log.iter().map(|entry| entry.start).collect());
    times.sort_unstable();
    let (Some(first), Some(last)) = (times.first().copied(), times.last().copied()) else { return report };
    let rate = options.per_second;
    let took = last.saturating_sub(first).as_secs_f64();
    report.tell("requests", count_of(times.len()), "");
    report.tell("from the first to the last", took, "s");
    let most = |window: Duration| f64::from(options.burst) + 1.02 * rate * window.as_secs_f64();
    let least = |window: Duration| 0.98 * rate * window.as_secs_f64();
    report.at_most("most in any 10 s", count_of(most_in(&times, WINDOW)), "", most(WINDOW));
    for seconds in [1, 2, 5, 30] {
        let window = Duration::from_secs(seconds);
        let found = count_of(most_in(&times, window));
        report.tell(
            format!("most in any {seconds} s, as a share of burst + 1.02 x rate x t"),
            found / most(window),
            "",
        );
    }
    // A window that begins with the first request and ends before the last: work waits in all of it. With an outage, the
    // time with Redis, and the time without, each by itself.
    let spans = match outage {
        // A killed dispatcher's work moves when its session has ended: no floor is promised for that.
        None => vec![("", first, last, options.kill_every == 0)],
        Some((from, back)) => vec![
            (", before the outage", first, from, true),
            (", while Redis is away", from, back, false),
            (", from 5 s after its return", back + Duration::from_secs(5), last, true),
        ],
    };
    for (name, from, until, judged) in spans {
        let Some(fewest) = fewest_in(&times, WINDOW, from, until) else { continue };
        let (figure, fewest) = (format!("fewest in any 10 s{name}"), count_of(fewest));
        if judged {
            report.at_least(figure, fewest, "", least(WINDOW));
        } else {
            report.tell(figure, fewest, "");
        }
        let within = times.iter().filter(|time| **time >= from && **time < until).count();
        let share = count_of(within) / (until.saturating_sub(from).as_secs_f64() * rate);
        report.tell(format!("share of the rate{name}"), share, "");
    }
    let seconds: Vec<f64> = times.iter().map(|time| time.saturating_sub(first).as_secs_f64()).collect();
    report.keep("requests_at_seconds", seconds);
    course::plot_requests(&mut report, &times, rate);
    report.keep("outage", outage.map(|(from, back)| [from, back].map(|at| at.saturating_sub(first).as_secs_f64())));
    report
}
