//! Whether what an event costs grows no faster than it may.

use super::{Of, Point};
use crate::{
    flow::figure,
    report::{Report, number},
};

/// How much dearer the same work may seem on a noisy machine, medians and all.
const NOISE: f64 = 1.25;
/// What a doubling may add, as a share of what a delivery costs at the first point.
const DOUBLING: f64 = 0.05;

/// Judges the CPU of a delivery at the last point against the first; of bytes it is only told.
///
/// All services together may take n log n for n events among n things, so one delivery may cost as much more as the logarithm
/// of the size grows: a b-tree that is searched and written takes a step more for each doubling. How much a step is must be
/// said, or any curve is below the bound: [`DOUBLING`], a twentieth, which makes a thousandfold size half as dear again. What is
/// proportional to the size doubles with each doubling, and breaks the bound over a thousandfold as soon as it is a thousandth
/// of the cost at first. On top comes [`NOISE`]. A further dispatcher does the same work with others: for it there is nothing
/// but noise. Larger events are more to parse, to sign, to store and to send, and cost more.
pub fn judge(report: &mut Report, of: Of, points: &[Point]) {
    let [first, .., last] = points else { return };
    let (before, after) = (first.cpu_of_delivery(), last.cpu_of_delivery());
    if before <= 0.0 {
        report.remark("the CPU for a delivery is not judged: no process of the services is known (--pid)");
        return;
    }
    let between = format!("{} / {}", of.sized(last.size), number(figure(first.size)));
    let name = format!("CPU for a delivery, {between}");
    match most(of, first.measured_at, last.measured_at) {
        Some(most) => report.at_most(name, after / before, "", most),
        None => report.tell(name, after / before, ""),
    }
    let mood = last.cpu_of_direct() / first.cpu_of_direct().max(1e-3);
    report.tell("CPU for a direct request, likewise", mood, "");
}

/// How many times the cost at the first size that at the last may be.
fn most(of: Of, first: u64, last: u64) -> Option<f64> {
    let doublings = (figure(last.max(1)) / figure(first.max(1))).log2();
    match of {
        Of::Bytes => None,
        Of::Dispatchers => Some(NOISE),
        Of::Destinations | Of::Tenants | Of::Stored | Of::Fan => Some(NOISE * (1.0 + DOUBLING * doublings)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Of, most};

    fn holds(of: Of, first: u64, last: u64, cost: impl Fn(f64) -> f64) -> Option<bool> {
        let of_size = |size: u32| cost(f64::from(size));
        let (first_size, last_size) = (u32::try_from(first).unwrap_or(1), u32::try_from(last).unwrap_or(1));
        most(of, first, last).map(|most| of_size(last_size) / of_size(first_size) <= most)
    }

    #[test]
    fn a_logarithm_holds_and_what_is_proportional_does_not() {
        let cases = [(Of::Destinations, 10, 10_000), (Of::Tenants, 1, 1_000), (Of::Stored, 20_000, 10_000_000)];
        for (of, first, last) in cases {
            assert_eq!(holds(of, first, last, |_| 60.0), Some(true), "{of:?}");
            assert_eq!(holds(of, first, last, |size| 40.0 + 2.0 * size.log2()), Some(true), "{of:?}");
            // A tenth, where the first point has a hundredth of it.
            let each = 0.01 / f64::from(u32::try_from(first).unwrap_or(1));
            assert_eq!(holds(of, first, last, |size| 60.0 * (1.0 + each * size)), Some(false), "{of:?}");
        }
        assert_eq!(holds(Of::Fan, 1, 50, |size| 60.0 + 4.0 * size), Some(false));
    }

    #[test]
    fn a_dispatcher_more_makes_nothing_dearer_and_larger_events_may_be() {
        assert_eq!(holds(Of::Dispatchers, 1, 3, |size| 100.0 + 10.0 * size), Some(true));
        assert_eq!(holds(Of::Dispatchers, 1, 3, |size| 100.0 + 30.0 * size), Some(false));
        assert_eq!(most(Of::Bytes, 512, 51_200), None);
    }
}
