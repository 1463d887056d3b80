//! The receiver is away for a minute under a steady load, and comes back: how soon it is tried again, how fast what waits is
//! drained, and how gently it begins.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::{
    flow::{self, Bar, Flow, Line, Load, percentiles, plot_cpu, plot_curve, tell_memory},
    processes::Sampler,
    ranges::positive,
    report::Report,
    target,
};

/// The load before and after.
const BEFORE: Duration = Duration::from_secs(15);
/// How much of the load may wait when what waited counts as drained: a fifth of a second.
const CAUGHT_UP: f64 = 0.2;

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    #[command(flatten)]
    flow: flow::Options,
    /// Events each second.
    #[arg(long, default_value_t = 500.0, value_parser = positive)]
    rate: f64,
    /// Seconds without the receiver.
    #[arg(long, default_value_t = 60)]
    away: u64,
    /// Seconds of load after its return.
    #[arg(long, default_value_t = 60)]
    after: u64,
    /// Milliseconds for which the circuit stays open at most, and between two attempts at most.
    #[arg(long, default_value_t = 10_000)]
    wait_ms: u64,
}

/// Runs it.
///
/// # Errors
/// Something does not start, or refuses what it should take.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    let flow = Flow::start(target, &options.flow).await?;
    let further = json!({
        "retry": {"strategy": "exponential", "initial_ms": 500, "factor": 2, "max_ms": options.wait_ms, "max_attempts": 1000},
        "circuit": {"open_ms": (options.wait_ms / 4).max(100), "max_open_ms": options.wait_ms.max(100)},
    });
    let destination = flow.destination("outage.0", &further).await?;
    let requests = flow.requests(&[&destination.event_type]);
    flow.warm(&Load::closed("warming", requests.clone(), 0)).await?;
    flow.target.quiet(Duration::from_secs(10)).await;

    let away = Duration::from_secs(options.away);
    let length = BEFORE + away + Duration::from_secs(options.after);
    let mut load = Load::steady("outage", requests, options.rate, length);
    load.patience = Duration::from_secs(120);
    let sampler = Sampler::of_cpu(flow.epoch, flow.target.pids.clone(), Duration::from_millis(500));
    let mut mark = flow.mark();
    let (ran, returned) = tokio::join!(flow.post(&load), async {
        tokio::time::sleep(BEFORE).await;
        flow.sink.away(true);
        tokio::time::sleep(away).await;
        flow.sink.away(false);
        flow.epoch.now()
    });
    let ran = ran?;
    mark.at = ran.began;
    let measured = flow.arrived(&load, ran, &mark).await?;

    let mut report = Report::new("outage", flow.target.name(), serde_json::to_value(options)?);
    let back = returned.saturating_sub(mark.at).as_secs_f64();
    let curve = measured.curve(load.requests.batch, 1);
    report.tell("waiting at the return", waiting_at(&curve, back), "");
    let first = measured.arrivals.iter().map(|arrival| arrival.at).filter(|at| *at >= returned).min();
    let first = first.map_or(0.0, |first| first.saturating_sub(mark.at).as_secs_f64());
    report.tell("first arrival after the return", first - back, "s");
    match caught_up(&curve, back, options.rate * CAUGHT_UP) {
        Some((at, delivered)) => {
            report.tell("drained after the return", at - back, "s");
            report.tell("drained, from the first arrival, beside the load", delivered / (at - first).max(0.001), "/s");
        }
        None => report.none("not drained while the load lasted", 1),
    }
    for seconds in [1.0, 2.0, 5.0] {
        let within = |bar: &&Bar| bar.at >= first && bar.at < first + seconds;
        let width = curve.get(1).map_or(0.0, |bar| bar.at);
        let arrived = curve.iter().filter(within).map(|bar| bar.delivered * width).sum::<f64>();
        report.tell(format!("arrivals in the first {seconds} s of them"), arrived, "");
    }
    let line = Line::of(&measured, None);
    if line.knows_cpu() {
        report.tell("CPU of all services for an event", line.cpu_us_sum, "us");
    }
    report.tell("API answer, p99", line.api_p99_ms, "ms");
    tell_memory(&mut report, &flow.target.pids);
    flow.tell_account(&mut report, [line.tally]).await;
    plot_curve(&mut report, &curve);
    plot_cpu(&mut report, &sampler.samples(), mark.at.as_secs_f64());
    percentiles(&mut report, &measured.api, Some(&measured.end_to_end));
    report.keep("curve", &curve);
    Ok(report)
}

fn waiting_at(curve: &[Bar], at: f64) -> f64 {
    curve.iter().take_while(|bar| bar.at <= at).last().map_or(0.0, |bar| bar.waiting)
}

/// When what waited is down to that, and how many arrived until then; None: never.
fn caught_up(curve: &[Bar], back: f64, left: f64) -> Option<(f64, f64)> {
    let width = curve.get(1)?.at;
    let mut delivered = 0.0;
    for bar in curve.iter().filter(|bar| bar.at > back) {
        delivered += bar.delivered * width;
        if bar.waiting <= left.max(1.0) && delivered > 0.0 {
            return Some((bar.at + width, delivered));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{caught_up, waiting_at};
    use crate::flow::Bar;

    #[test]
    fn the_return_is_found_in_the_curve() {
        let bar = |at, delivered, waiting| Bar { at, accepted: 10.0, delivered, waiting };
        let curve = [
            bar(0.0, 10.0, 0.0),
            bar(2.0, 0.0, 20.0),
            bar(4.0, 0.0, 40.0),
            bar(6.0, 20.0, 20.0),
            bar(8.0, 20.0, 0.0),
            bar(10.0, 10.0, 0.0),
        ];
        assert!((waiting_at(&curve, 5.0) - 40.0).abs() < f64::EPSILON);
        assert_eq!(caught_up(&curve, 5.0, 2.0), Some((10.0, 80.0)));
        assert_eq!(caught_up(&curve[..4], 5.0, 2.0), None);
    }
}
