//! What one load came to.

use std::time::Duration;

use serde::Serialize;

use super::posting::{Mark, Used};
use crate::{
    stats::Latencies,
    wire::{Arrival, Ran, Tally},
};

/// The narrowest bar of throughput over time, and how many there are at most.
const BAR: Duration = Duration::from_millis(50);
const BARS: u32 = 240;

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
    /// The same by thread of our own services.
    pub threads: Vec<(String, f64)>,
    /// CPU seconds of the sink.
    pub sink_cpu: f64,
    /// When counting began.
    pub from: Duration,
    /// From the first request to the last answer.
    pub posting: Duration,
    /// From when counting began to the last arrival.
    pub took: Duration,
}

/// One bar of throughput over time.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Bar {
    /// Seconds since counting began.
    pub at: f64,
    /// Events accepted each second.
    pub accepted: f64,
    /// Deliveries each second.
    pub delivered: f64,
    /// Deliveries of accepted events that have not arrived at its end.
    pub waiting: f64,
}

impl Measured {
    pub(super) fn of(
        ran: Ran,
        arrivals: Vec<Arrival>,
        tally: Tally,
        latencies: Vec<Duration>,
        mark: &Mark,
        used: Used,
    ) -> anyhow::Result<Self> {
        let accepted = ran.answers.iter().filter(|answer| answer.accepted());
        let api = Latencies::of(accepted.map(|answer| answer.answered.saturating_sub(answer.intended)))?;
        let arrived = arrivals.iter().filter(|arrival| arrival.accepted);
        let last = arrived.map(|arrival| arrival.at).max().unwrap_or(ran.ended);
        Ok(Self {
            from: mark.at,
            posting: ran.ended.saturating_sub(ran.began),
            took: last.saturating_sub(mark.at).max(Duration::from_micros(1)),
            api,
            end_to_end: Latencies::of(latencies)?,
            ran,
            arrivals,
            tally,
            cpu: used.services,
            threads: used.threads,
            sink_cpu: used.sink,
        })
    }

    /// Accepted events each second, from when counting began to the last arrival.
    pub fn events_per_second(&self) -> f64 {
        figure(self.tally.accepted) / self.took.as_secs_f64()
    }

    /// How many requests were answered with 2xx by the receiver.
    pub fn deliveries(&self) -> f64 {
        crate::report::count_of(self.arrivals.iter().filter(|arrival| arrival.accepted).count())
    }

    /// CPU seconds of all services.
    pub fn cpu_seconds(&self) -> f64 {
        self.cpu.iter().map(|(_, seconds)| seconds).sum()
    }

    /// Throughput and backlog over time, for a load with so many events in a request that go to so many destinations.
    pub fn curve(&self, batch: u64, fan: u64) -> Vec<Bar> {
        let width = BAR.max(self.took / BARS);
        let place =
            |at: Duration| usize::try_from(at.saturating_sub(self.from).as_nanos() / width.as_nanos()).unwrap_or(0);
        let mut counts: Vec<[u64; 2]> = Vec::new();
        let mut add = |at: Duration, which: usize, more: u64| {
            let place = place(at);
            if counts.len() <= place {
                counts.resize(place + 1, [0; 2]);
            }
            counts[place][which] += more;
        };
        let mut waiting = 0.0;
        for answer in self.ran.answers.iter().filter(|answer| answer.accepted()) {
            // What was posted before counting began was waiting then.
            if answer.answered < self.from {
                waiting += figure(batch * fan);
            } else {
                add(answer.answered, 0, batch);
            }
        }
        for arrival in self.arrivals.iter().filter(|arrival| arrival.accepted) {
            add(arrival.at, 1, 1);
        }
        let seconds = width.as_secs_f64();
        let mut at = 0.0;
        let bars = counts.into_iter().map(|[accepted, delivered]| {
            waiting += figure(accepted * fan) - figure(delivered);
            let bar = Bar { at, accepted: figure(accepted) / seconds, delivered: figure(delivered) / seconds, waiting };
            at += seconds;
            bar
        });
        bars.collect()
    }
}

/// A count as a figure.
#[allow(clippy::cast_precision_loss, reason = "a count of events")]
pub fn figure(count: u64) -> f64 {
    count as f64
}
