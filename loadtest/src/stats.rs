//! Figures of what was noted: latencies, windows, medians, ratios.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest latency that is told apart: ten minutes, in microseconds.
const LONGEST_US: u64 = 600_000_000;

/// Latencies in microseconds, to three digits.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// Of these durations.
    ///
    /// # Errors
    /// None: the bounds are in order.
    pub fn of(durations: impl IntoIterator<Item = Duration>) -> anyhow::Result<Self> {
        let mut histogram = Histogram::new_with_bounds(1, LONGEST_US, 3)?;
        for duration in durations {
            histogram.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(LONGEST_US));
        }
        Ok(Self(histogram))
    }

    /// All of these together.
    ///
    /// # Errors
    /// None: all have the same bounds.
    pub fn all<'a>(of: impl IntoIterator<Item = &'a Self>) -> anyhow::Result<Self> {
        let mut all = Self::of([])?;
        for one in of {
            all.0.add(&one.0)?;
        }
        Ok(all)
    }

    /// That quantile in milliseconds.
    #[allow(clippy::cast_precision_loss, reason = "microseconds of minutes")]
    pub fn ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// Points of a plot of percentiles: `-log10(1 - quantile)`, and milliseconds.
    pub fn percentiles(&self) -> Vec<[f64; 2]> {
        QUANTILES.map(|quantile| [-(1.0 - quantile).log10(), self.ms(quantile)]).to_vec()
    }
}

/// The quantiles of a plot: ever more nines.
const QUANTILES: [f64; 14] = [0.0, 0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99, 0.995, 0.999, 0.9999];

/// The median; 0 of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

/// The most of these times that fall into any window of that length (it is closed at its start, open at its end). They
/// come sorted.
pub fn most_in(times: &[Duration], window: Duration) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (last, time) in times.iter().enumerate() {
        while *time >= times[first] + window {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}

/// The fewest that fall into any window of that length that lies between `from` and `until`; None where none fits.
pub fn fewest_in(times: &[Duration], window: Duration, from: Duration, until: Duration) -> Option<usize> {
    if from + window > until {
        return None;
    }
    // The emptiest window begins at `from`, or right after a time.
    let starts = std::iter::once(from).chain(times.iter().map(|time| *time + Duration::from_nanos(1)));
    starts
        .filter(|start| *start >= from && *start + window <= until)
        .map(|start| times.partition_point(|time| *time < start + window) - times.partition_point(|time| *time < start))
        .min()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{fewest_in, median, most_in};

    #[test]
    fn windows() {
        let times: Vec<Duration> = [0, 100, 900, 1_000, 1_050, 5_000].map(Duration::from_millis).to_vec();
        let second = Duration::from_secs(1);
        assert_eq!(most_in(&times, second), 4, "100 to 1,050");
        assert_eq!(fewest_in(&times, second, times[0], times[5]), Some(0), "between 1,050 and 5,000");
        assert_eq!(
            fewest_in(&times, second, times[0], times[4]),
            Some(3),
            "all but 0 and 100, or all but the last two"
        );
        assert_eq!(fewest_in(&times, second, times[4], times[4]), None);
        assert_eq!(most_in(&[], second), 0);
    }

    #[test]
    fn medians() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
    }
}
