//! What one load came to.

use std::time::Duration;

use serde::Serialize;

use crate::{
    stats::Latencies,
    wire::{Arrival, Ran, Tally},
};

/// The width of the bars of throughput over time.
const BAR: Duration = Duration::from_millis(50);

/// All that is known of one load.
#[derive(Debug)]
pub struct Measured {
    /// What the producers saw.
    pub ran: Ran,
    /// What came, in no order.
    pub arrivals: Vec<Arrival>,
    /// By id.
    pub tally: Tally,
    /// From the intended start of a request to its answer.
    pub api: Latencies,
    /// From the intended start of a request to the arrival of its events.
    pub end_to_end: Latencies,
    /// CPU seconds by service.
    pub cpu: Vec<(String, f64)>,
    /// CPU seconds of the sink.
    pub sink_cpu: f64,
    /// From the first request to the last answer.
    pub posting: Duration,
    /// From the first request to the last arrival.
    pub took: Duration,
}

/// One bar of throughput over time.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Bar {
    /// Seconds since the first request.
    pub at: f64,
    /// Events accepted each second.
    pub accepted: f64,
    /// Deliveries each second.
    pub delivered: f64,
    /// Accepted and not yet delivered, times the fan-out, at its end.
    pub waiting: f64,
}

impl Measured {
    pub(super) fn of(
        ran: Ran,
        batch: u64,
        arrivals: Vec<Arrival>,
        tally: Tally,
        latencies: Vec<Duration>,
        cpu: Vec<(String, f64)>,
        sink_cpu: f64,
    ) -> anyhow::Result<Self> {
        let accepted = ran.answers.iter().filter(|answer| answer.accepted());
        let api = Latencies::of(accepted.map(|answer| answer.answered.saturating_sub(answer.intended)))?;
        let last = arrivals.iter().map(|arrival| arrival.at).max().unwrap_or(ran.ended);
        debug_assert!(batch > 0);
        Ok(Self {
            posting: ran.ended.saturating_sub(ran.began),
            took: last.saturating_sub(ran.began),
            api,
            end_to_end: Latencies::of(latencies)?,
            ran,
            arrivals,
            tally,
            cpu,
            sink_cpu,
        })
    }

    /// Events each second, from the first request to the last arrival.
    pub fn events_per_second(&self) -> f64 {
        used(self.tally.accepted) / self.took.as_secs_f64().max(1e-6)
    }

    /// Deliveries each second, likewise.
    pub fn deliveries_per_second(&self) -> f64 {
        let delivered = self.arrivals.iter().filter(|arrival| arrival.accepted).count();
        crate::report::count_of(delivered) / self.took.as_secs_f64().max(1e-6)
    }

    /// CPU microseconds of all services for each accepted event.
    pub fn cpu_us(&self) -> f64 {
        self.cpu.iter().map(|(_, seconds)| seconds).sum::<f64>() * 1e6 / used(self.tally.accepted.max(1))
    }

    /// Throughput and backlog over time.
    pub fn curve(&self, events: u64, fan: u64) -> Vec<Bar> {
        let width = BAR.max(self.took / 400);
        let place = |at: Duration| {
            usize::try_from(at.saturating_sub(self.ran.began).as_nanos() / width.as_nanos()).unwrap_or(0)
        };
        let mut counts: Vec<[u64; 2]> = Vec::new();
        let mut add = |at: Duration, which: usize, more: u64| {
            let place = place(at);
            if counts.len() <= place {
                counts.resize(place + 1, [0; 2]);
            }
            counts[place][which] += more;
        };
        for answer in self.ran.answers.iter().filter(|answer| answer.accepted()) {
            add(answer.answered, 0, events);
        }
        for arrival in self.arrivals.iter().filter(|arrival| arrival.accepted) {
            add(arrival.at, 1, 1);
        }
        let seconds = width.as_secs_f64();
        let mut waiting = 0.0;
        let mut at = 0.0;
        counts
            .into_iter()
            .map(|[accepted, delivered]| {
                waiting += used(accepted * fan) - used(delivered);
                let bar = Bar { at, accepted: used(accepted) / seconds, delivered: used(delivered) / seconds, waiting };
                at += seconds;
                bar
            })
            .collect()
    }
}

/// CPU seconds by service since then.
pub(super) fn since(before: &[(String, f64)], now: Vec<(String, f64)>) -> Vec<(String, f64)> {
    let of = |name: &str| before.iter().find(|(before, _)| before == name).map_or(0.0, |(_, cpu)| *cpu);
    now.into_iter().map(|(name, cpu)| (name.clone(), cpu - of(&name))).collect()
}

/// A count as a figure.
#[allow(clippy::cast_precision_loss, reason = "a count of events")]
pub fn used(count: u64) -> f64 {
    count as f64
}
