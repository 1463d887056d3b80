//! What an event costs as the work grows: destinations, tenants, what is stored, the fan-out, the size of an event, or the
//! number of dispatchers. One Signalpost is brought to each size in rising order and measured there with bursts (each number of
//! dispatchers is a cluster of its own).
//!
//! Machines are noisy, and the points lie minutes or hours apart: each is the median of several bursts, and the share of
//! `direct`, measured just before each, says what mood the machine was in.

mod cost;
mod grown;
mod of;
mod told;

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;
use serde::Serialize;

use self::{grown::Grown, of::Of, told::Point};
use crate::{
    flow::{self, tell_memory},
    ranges::at_least_one,
    report::Report,
    target::{self, Deployment},
};

/// How it is run.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    #[command(flatten)]
    flow: flow::Options,
    /// What grows.
    #[arg(long, value_enum)]
    of: Of,
    /// The sizes. Default: 10,100,1000,10000 destinations; 1,10,100,1000 tenants; 0,100000,1000000,10000000 events stored;
    /// 1,2,5,20,50 destinations of an event; 512,2048,7168,51200 bytes (--sizes does not count then); 1,2,3 dispatchers.
    #[arg(long, value_delimiter = ',')]
    points: Vec<u64>,
    /// Events of a burst; of fan-out, deliveries.
    #[arg(long, default_value_t = 20_000, value_parser = at_least_one::<u64>)]
    count: u64,
    /// Bursts at each size; the medians are told.
    #[arg(long, default_value_t = 3, value_parser = at_least_one::<usize>)]
    runs: usize,
    /// Also writes each plot into this folder, as `<of>-<plot>.svg`.
    #[arg(long, value_name = "FOLDER")]
    #[serde(skip)]
    svg: Option<PathBuf>,
}

impl Options {
    /// The sizes in rising order.
    fn sizes(&self) -> anyhow::Result<Vec<u64>> {
        let mut sizes = if self.points.is_empty() { self.of.points().to_vec() } else { self.points.clone() };
        sizes.sort_unstable();
        sizes.dedup();
        ensure!(self.of == Of::Stored || sizes.first() != Some(&0), "--points: only --of stored can begin with 0");
        Ok(sizes)
    }

    /// Whether what grows can grow in such a target.
    fn check(&self, target: &target::Options) -> anyhow::Result<()> {
        let ours = target.url.is_empty() && self.flow.other.is_none();
        ensure!(
            self.of != Of::Dispatchers || (ours && target.deployment == Deployment::Cluster),
            "growth --of dispatchers starts a cluster for each number of them: it needs --deployment cluster, without --url"
        );
        Ok(())
    }
}

/// Runs it.
///
/// # Errors
/// Something does not start, or refuses what it should take; a plot cannot be written.
pub async fn run(target: &target::Options, options: &Options) -> anyhow::Result<Report> {
    options.check(target)?;
    let sizes = options.sizes()?;
    // Hours may lie between here and the plots.
    if let Some(folder) = &options.svg {
        std::fs::create_dir_all(folder).with_context(|| format!("the folder of --svg, {}", folder.display()))?;
    }
    let mut grown = Grown::start(target, options, sizes[0]).await?;
    let mut points: Vec<Point> = Vec::new();
    for size in sizes {
        if options.of == Of::Dispatchers && !points.is_empty() {
            // Before the next cluster starts: there is no room for two.
            drop(grown);
            grown = Grown::start(target, options, size).await?;
        }
        points.push(grown.measure(size, options).await?);
    }
    let mut report = Report::new("growth", grown.flow.target.name(), serde_json::to_value(options)?);
    for point in &points {
        point.tell(options.of, &mut report);
    }
    cost::judge(&mut report, options.of, &points);
    grown.flow.tell_account(&mut report, points.iter().flat_map(Point::tallies)).await;
    tell_memory(&mut report, &grown.flow.target.pids);
    told::plot(&mut report, options.of, &points);
    report.keep("points", &points);
    if let Some(folder) = &options.svg {
        told::write(&report, options.of, folder)?;
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use clap::Parser as _;

    use super::{Of, Options};
    use crate::{Command, Scenario, target};

    fn parsed(line: &str) -> (target::Options, Options) {
        let words = ["signalpost-loadtest", "growth"].into_iter().chain(line.split(' '));
        let command = Command::try_parse_from(words).unwrap();
        let Scenario::Growth(options) = command.scenario else { panic!("another scenario") };
        (command.target, options)
    }

    #[test]
    fn sizes_rise_and_only_what_is_stored_begins_with_nothing() {
        let sizes = |line: &str| parsed(line).1.sizes();
        assert_eq!(sizes("--of fan --points 5,1,20,5").unwrap(), [1, 5, 20]);
        assert_eq!(sizes("--of stored").unwrap(), Of::Stored.points());
        assert!(sizes("--of tenants --points 0,1").is_err());
    }

    #[test]
    fn dispatchers_need_a_cluster_of_ours() {
        let allowed = |line: &str| {
            let (target, options) = parsed(line);
            options.check(&target).is_ok()
        };
        assert!(allowed("--of stored") && allowed("--of dispatchers --deployment cluster"));
        assert!(!allowed("--of dispatchers"));
        assert!(!allowed("--of dispatchers --deployment cluster --url http://127.0.0.1:1"));
    }
}
