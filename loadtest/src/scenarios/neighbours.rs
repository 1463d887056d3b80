//! Healthy destinations under a steady load, and how they fare: what `isolation` and `backlog-dead` measure, each before
//! and while something is wrong with another destination.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::json;

use crate::{
    ledger,
    load::{Event, Pace},
    receiver::Behaviour,
    report::count_of,
    run::{Destination, Run},
    stats::Latencies,
};

/// The group of events for healthy destinations.
pub const HEALTHY: u32 = 0;
/// The group of events for the one in trouble.
pub const TROUBLED: u32 = 1;

/// How long healthy deliveries may lag behind the end of the load before they count as lost.
const PATIENCE: Duration = Duration::from_secs(120);

/// The healthy ones.
#[derive(Debug, Clone)]
pub struct Neighbours {
    destinations: Vec<Destination>,
    bytes: usize,
    workers: usize,
}

/// How the healthy ones fared in one run.
#[derive(Debug, Clone, Serialize)]
pub struct Fared {
    /// Whether the other one was in trouble.
    pub with: bool,
    /// Events for healthy destinations each second, as posted.
    pub posted_per_second: f64,
    /// Their arrivals each second, from the first post until the last was due.
    pub arrived_per_second: f64,
    /// From the intended start of the post to the arrival.
    pub p50_ms: f64,
    #[allow(missing_docs)]
    pub p99_ms: f64,
    #[allow(missing_docs)]
    pub max_ms: f64,
    /// From the intended start of the post to its answer.
    pub api_p99_ms: f64,
    /// From the intended start of the post to the arrival.
    #[serde(skip)]
    pub latencies: Latencies,
    /// What the id-level check found.
    pub account: ledger::Account,
    /// Requests to the one in trouble.
    pub troubled_requests: usize,
}

impl Neighbours {
    /// Creates that many.
    ///
    /// # Errors
    /// One is refused.
    pub async fn create(run: &Run, count: usize, bytes: usize, workers: usize) -> anyhow::Result<Self> {
        let destinations = run.destinations(&run.target.api, "healthy", count, Behaviour::OK, &json!({})).await?;
        Ok(Self { destinations, bytes, workers })
    }

    fn event(&self, nth: u64) -> Event {
        let place = usize::try_from(nth).unwrap_or(0) % self.destinations.len();
        Event {
            event_type: self.destinations[place].event_type.clone(),
            ordering_key: None,
            bytes: self.bytes,
            group: HEALTHY,
            api: None,
        }
    }

    /// Events each second, from the first post to the last arrival, when producers post as fast as they are answered for
    /// about that long. The first, as long, only warms up.
    ///
    /// # Errors
    /// Something accepted did not arrive.
    pub async fn capacity(&self, run: &Run, seconds: f64) -> anyhow::Result<f64> {
        let mut rate = 200.0;
        // The first bursts find the size of one that takes as long as was asked for.
        for share in [0.1, 0.4, 1.0, 1.0] {
            let count = whole((rate * seconds * share).max(64.0));
            let log_from = run.receiver.log().len();
            let neighbours = self.clone();
            let load = run.load("capacity", count, 64, Duration::ZERO);
            let range = load.run(count, Pace::Closed, move |nth| neighbours.event(nth)).await;
            load.progress.finish_and_clear();
            let account = run.arrived(range, |_| true, log_from, PATIENCE).await;
            anyhow::ensure!(account.lost == 0, "{} of {count} did not arrive in {PATIENCE:?}", account.lost);
            let last = run.receiver.log().look(log_from, |log| log.iter().map(|entry| entry.start).max());
            let took = last.unwrap_or(range.ended).saturating_sub(range.began);
            rate = count_of(count) / took.as_secs_f64().max(0.001);
        }
        Ok(rate)
    }

    /// A load of `healthy_rate` each second for them, and as much of the events in `troubled`, in turn, where there are any,
    /// for that long. How the healthy ones fared.
    ///
    /// # Errors
    /// None of the load was accepted.
    pub async fn measure(
        &self,
        run: &Run,
        healthy_rate: f64,
        length: Duration,
        troubled: &[Event],
        with: bool,
    ) -> anyhow::Result<Fared> {
        let log_from = run.receiver.log().len();
        let neighbours = self.clone();
        let rate = if troubled.is_empty() { healthy_rate } else { 2.0 * healthy_rate };
        let count = whole(rate * length.as_secs_f64());
        let load = run.load(if with { "with" } else { "without" }, count, self.workers, Duration::ZERO);
        let troubled = Arc::<[Event]>::from(troubled);
        let make = move |nth: u64| {
            if troubled.is_empty() {
                return neighbours.event(nth);
            }
            // Every other one; each kind takes its turns among itself.
            let turn = nth / 2;
            if nth.is_multiple_of(2) {
                return neighbours.event(turn);
            }
            troubled[usize::try_from(turn).unwrap_or(0) % troubled.len()].clone()
        };
        let range = load.run(count, Pace::PerSecond(rate), make).await;
        load.progress.finish_and_clear();
        let account = run.arrived(range, |group| group == HEALTHY, log_from, PATIENCE).await;
        let log = run.receiver.log().since(log_from);
        let arrivals = ledger::first_arrivals(&log);
        let mut posted = run.ledger.posted(range.first, range.count);
        posted.retain(|(_, posted)| posted.group == HEALTHY);
        anyhow::ensure!(account.accepted > 0, "nothing was accepted");
        let end = range.began + length;
        let latencies = Latencies::of(
            posted.iter().filter_map(|(number, posted)| arrivals.get(number)?.checked_sub(posted.intended)),
        )?;
        let api = Latencies::of(posted.iter().filter_map(|(_, posted)| posted.accepted?.checked_sub(posted.intended)))?;
        let in_time = posted.iter().filter(|(number, _)| arrivals.get(number).is_some_and(|at| *at <= end)).count();
        let healthy: std::collections::HashSet<u32> = self.destinations.iter().map(|healthy| healthy.path).collect();
        Ok(Fared {
            with,
            posted_per_second: count_of(posted.len()) / length.as_secs_f64(),
            arrived_per_second: count_of(in_time) / length.as_secs_f64(),
            p50_ms: latencies.ms(0.5),
            p99_ms: latencies.ms(0.99),
            max_ms: latencies.ms(1.0),
            api_p99_ms: api.ms(0.99),
            latencies,
            account,
            troubled_requests: log.iter().filter(|entry| !healthy.contains(&entry.path)).count(),
        })
    }
}

/// A count from a rate.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are positive and small")]
pub fn whole(count: f64) -> usize {
    count.round().max(1.0) as usize
}
