//! Many minutes of a steady load. What must be flat is flat: memory and file descriptors of every service, dead tuples; and
//! what the store keeps grows with the events, not faster.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::{
    flow::{self, Flow, Line, Load, percentiles, plot_cpu, plot_curve, tell_memory, tell_runs},
    plot::Plot,
    processes::{self, Sampler},
    ranges::positive,
    report::Report,
    run::bar,
    stats::median,
    stored::stored,
    target,
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(10);
/// What memory may grow from the middle third of the time to the last: a share, and MiB.
const MEMORY_SHARE: f64 = 0.10;
const MEMORY_MIB: f64 = 8.0;
/// What file descriptors may.
const DESCRIPTORS: f64 = 8.0;
/// How much more the store may grow for an event in the second half than in the first.
const GROWTH: f64 = 1.15;
/// Dead tuples, as often in the last third as in the middle one, and so many besides: a vacuum comes when it comes.
const DEAD_SHARE: f64 = 1.5;
const DEAD: f64 = 50_000.0;

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    #[command(flatten)]
    flow: flow::Options,
    /// Minutes.
    #[arg(long, default_value_t = 20.0, value_parser = positive)]
    minutes: f64,
    /// Events each second.
    #[arg(long, default_value_t = 1_000.0, value_parser = positive)]
    rate: f64,
}

/// A value over time, and whether it belongs to us.
#[derive(Debug, Clone, Serialize)]
struct Track {
    name: String,
    points: Vec<[f64; 2]>,
}

#[derive(Debug, Default, Serialize)]
struct Tracks {
    memory_mib: Vec<Track>,
    descriptors: Vec<Track>,
    /// Files, tables and indexes.
    stored_mib: Vec<Track>,
    dead_tuples: Vec<Track>,
}

/// Runs it.
///
/// # Errors
/// Something does not start, or refuses what it should take.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    let flow = Flow::start(target, &options.flow).await?;
    let destination = flow.destination("soak.0", &json!({})).await?;
    let requests = flow.requests(&[&destination.event_type]);
    flow.warm(&Load::closed("warming", requests.clone(), 0)).await?;
    let length = Duration::from_secs_f64(options.minutes * 60.0);
    let load = Load::steady("soak", requests, options.rate, length);
    let sampler = Sampler::of_cpu(flow.epoch, flow.target.pids.clone(), EVERY);
    let mut mark = flow.mark();
    let mut tracks = Tracks::default();
    let ran = {
        let posting = flow.post(&load);
        tokio::pin!(posting);
        loop {
            tokio::select! {
                ran = &mut posting => break ran?,
                () = tokio::time::sleep(EVERY) => tokio::task::block_in_place(|| look(&flow, mark.at, &mut tracks))?,
            }
        }
    };
    mark.at = ran.began;
    let measured = flow.arrived(&load, ran, &mark).await?;
    let closing = bar("judging", 0);
    let mut report = Report::new("soak", flow.target.name(), serde_json::to_value(options)?);
    tell_runs(&mut report, &[Line::of(&measured, None)]);
    tell_memory(&mut report, &flow.target.pids);
    flow.tell_account(&mut report, [measured.tally.clone()]).await;
    judge(&mut report, &tracks, options.rate);
    plot_curve(&mut report, &measured.curve(load.requests.batch, 1));
    plot_cpu(&mut report, &sampler.samples(), mark.at.as_secs_f64());
    let all = [
        ("Memory by process", "MiB", &tracks.memory_mib),
        ("File descriptors", "open", &tracks.descriptors),
        ("What the store keeps", "MiB", &tracks.stored_mib),
        ("Dead tuples", "rows", &tracks.dead_tuples),
    ];
    for (title, unit, tracks) in all.into_iter().filter(|(_, _, tracks)| !tracks.is_empty()) {
        let plot = tracks
            .iter()
            .fold(Plot::over_time(title, unit), |plot, track| plot.line(&track.name, track.points.clone()));
        report.plot(plot);
    }
    percentiles(&mut report, &measured.api, Some(&measured.end_to_end));
    report.keep("tracks", &tracks);
    closing.finish_and_clear();
    Ok(report)
}

fn note(tracks: &mut Vec<Track>, name: &str, at: f64, value: f64) {
    match tracks.iter_mut().find(|track| track.name == name) {
        Some(track) => track.points.push([at, value]),
        None => tracks.push(Track { name: name.to_owned(), points: vec![[at, value]] }),
    }
}

fn look(flow: &Flow, from: Duration, tracks: &mut Tracks) -> anyhow::Result<()> {
    let at = flow.epoch.now().saturating_sub(from).as_secs_f64();
    for (name, mib, _) in processes::usage(&flow.target.pids) {
        note(&mut tracks.memory_mib, &name, at, mib);
    }
    for (name, count) in processes::descriptors(&flow.target.pids) {
        note(&mut tracks.descriptors, &name, at, crate::report::count_of(count));
    }
    let stored = stored(&flow.target.running)?;
    for (name, mib) in stored.mib {
        note(&mut tracks.stored_mib, name, at, mib);
    }
    if let Some(dead) = stored.dead_tuples {
        note(&mut tracks.dead_tuples, "dead tuples", at, dead);
    }
    Ok(())
}

fn judge(report: &mut Report, tracks: &Tracks, rate: f64) {
    if tracks.memory_mib.is_empty() {
        report.remark(
            "memory and file descriptors are not judged: no process is known (--pid), or the time was too short",
        );
    }
    if tracks.stored_mib.is_empty() {
        report.remark(
            "what the store keeps is not judged: it is not one that was started here, or the time was too short",
        );
    }
    for track in &tracks.memory_mib {
        let (middle, last) = thirds(track);
        let name = format!("{}: memory, last third against the middle one", track.name);
        // The heap of a JVM and the caches of a database are theirs to bound.
        if !processes::is_ours(&track.name) {
            report.tell(name, last - middle, "MiB");
        } else {
            report.at_most(name, last - middle, "MiB", MEMORY_MIB + MEMORY_SHARE * middle);
        }
    }
    for track in &tracks.descriptors {
        let (middle, last) = thirds(track);
        let name = format!("{}: file descriptors, likewise", track.name);
        if !processes::is_ours(&track.name) {
            report.tell(name, last - middle, "");
        } else {
            report.at_most(name, last - middle, "", DESCRIPTORS);
        }
    }
    for track in &tracks.dead_tuples {
        let (middle, last) = thirds(track);
        report.tell("dead tuples, middle third", middle, "");
        report.at_most("dead tuples, last third", last, "", DEAD_SHARE * middle + DEAD);
    }
    for track in &tracks.stored_mib {
        let Some((first, second)) = halves(track) else { continue };
        let bytes = |mib_per_second: f64| mib_per_second * 1024.0 * 1024.0 / rate;
        report.tell(format!("{}: kept for an event, first half", track.name), bytes(first), "bytes");
        let name = format!("{}: kept for an event, second half", track.name);
        // A hundred bytes are the noise of pages that are made ahead.
        report.at_most(name, bytes(second), "bytes", bytes(first).max(0.0) * GROWTH + 100.0);
    }
}

/// The medians of the middle third and of the last.
fn thirds(track: &Track) -> (f64, f64) {
    let values: Vec<f64> = track.points.iter().map(|point| point[1]).collect();
    let (one, two) = (values.len() / 3, values.len() * 2 / 3);
    (median(values[one..two].iter().copied()), median(values[two..].iter().copied()))
}

/// The growth each second of the first half and of the second.
fn halves(track: &Track) -> Option<(f64, f64)> {
    let points = &track.points;
    let (first, middle, last) = (points.first()?, points.get(points.len() / 2)?, points.last()?);
    let growth = |one: &[f64; 2], other: &[f64; 2]| (other[1] - one[1]) / (other[0] - one[0]).max(1e-3);
    (points.len() >= 4).then(|| (growth(first, middle), growth(middle, last)))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{Track, Tracks, judge};
    use crate::report::Report;

    fn judged(memory: impl Fn(f64) -> f64, stored: impl Fn(f64) -> f64) -> bool {
        let track = |name: &str, of: &dyn Fn(f64) -> f64| Track {
            name: name.to_owned(),
            points: (0..60).map(|nth| f64::from(nth) * 10.0).map(|at| [at, of(at)]).collect(),
        };
        let tracks = Tracks {
            memory_mib: vec![track("standalone", &memory)],
            stored_mib: vec![track("data", &stored)],
            ..Tracks::default()
        };
        let mut report = Report::new("soak", "standalone", Value::Null);
        judge(&mut report, &tracks, 100.0);
        assert!(report.remarks.is_empty());
        report.holds()
    }

    #[test]
    fn what_is_not_judged_is_said() {
        let mut report = Report::new("soak", "running", Value::Null);
        judge(&mut report, &Tracks::default(), 100.0);
        assert_eq!((report.figures.len(), report.remarks.len()), (0, 2));
    }

    #[test]
    fn flat_is_flat_and_growth_is_found() {
        assert!(judged(|_| 50.0, |at| at * 0.1));
        assert!(!judged(|at| 50.0 + at / 10.0, |at| at * 0.1), "memory that grows by 20 MiB in a third");
        assert!(!judged(|_| 50.0, |at| at * at * 0.001), "a store that grows ever faster");
    }
}
