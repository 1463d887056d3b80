//! Both sides' figures, beside each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// The figure of each bench: the lowest of its medians, in nanoseconds. What else the machine did makes a bench slower,
/// never faster.
#[derive(Debug, Default, PartialEq)]
pub struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// One more median of a bench.
    pub fn add(&mut self, bench: String, median_ns: f64) {
        let lowest = self.0.entry(bench).or_insert(median_ns);
        *lowest = lowest.min(median_ns);
    }
}

/// A bench on both sides, in nanoseconds; on one of them it may not be.
#[derive(Debug, PartialEq)]
pub struct Row {
    bench: String,
    base: Option<f64>,
    now: Option<f64>,
}

impl Row {
    /// Now by base, where both are known.
    fn ratio(&self) -> Option<f64> {
        Some(self.now? / self.base?)
    }

    /// Whether it has become so many times slower.
    pub fn is_above(&self, bound: f64) -> bool {
        self.ratio().is_some_and(|ratio| ratio > bound)
    }
}

/// Every bench of either side, by name.
pub fn rows(base: &Figures, now: &Figures) -> Vec<Row> {
    let benches: BTreeSet<&String> = base.0.keys().chain(now.0.keys()).collect();
    let row =
        |bench: &String| Row { bench: bench.clone(), base: base.0.get(bench).copied(), now: now.0.get(bench).copied() };
    benches.into_iter().map(row).collect()
}

/// For people. What is above the bound is marked.
pub fn text(rows: &[Row], commit: &str, bound: f64) -> String {
    let width = rows.iter().map(|row| row.bench.len()).max().unwrap_or_default();
    let mut text = format!("{:width$}  {commit:>12} ns  {:>12} ns   ratio\n", "bench", "now");
    for row in rows {
        let ratio = row.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let mark = if row.is_above(bound) { "  slower" } else { "" };
        let (base, now) = (nanoseconds(row.base, "not in base"), nanoseconds(row.now, "gone"));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:width$}  {base:>15}  {now:>15}  {ratio:>6}{mark}", row.bench);
    }
    text
}

fn nanoseconds(figure: Option<f64>, none: &str) -> String {
    match figure {
        None => none.to_owned(),
        Some(figure) if figure < 1_000.0 => format!("{figure:.1}"),
        Some(figure) => format!("{figure:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(medians: &[(&str, f64)]) -> Figures {
        let mut figures = Figures::default();
        medians.iter().for_each(|(bench, median)| figures.add((*bench).to_owned(), *median));
        figures
    }

    #[test]
    fn the_lowest_median_counts() {
        assert_eq!(figures(&[("a", 12.0), ("a", 9.0), ("b", 1.0), ("a", 30.0)]), figures(&[("b", 1.0), ("a", 9.0)]));
    }

    #[test]
    fn only_what_is_above_the_bound_is_slower() {
        let row = |base, now| Row { bench: "a".to_owned(), base, now };
        assert!(row(Some(100.0), Some(126.0)).is_above(1.25));
        assert!(!row(Some(100.0), Some(125.0)).is_above(1.25));
        assert!(!row(Some(100.0), Some(50.0)).is_above(1.25));
        assert!(row(Some(100.0), Some(100.0)).is_above(0.9));
        assert!(!row(None, Some(100.0)).is_above(0.1));
        assert!(!row(Some(100.0), None).is_above(0.1));
    }

    #[test]
    fn a_row_tells_what_only_one_side_has() {
        let base = figures(&[("a", 100.0), ("only/base", 7.25), ("slow", 10.0)]);
        let now = figures(&[("a", 110.0), ("only/now", 12_345.6), ("slow", 20.0)]);
        assert_eq!(
            text(&rows(&base, &now), "0123456789ab", 1.25).lines().collect::<Vec<_>>(),
            [
                "bench      0123456789ab ns           now ns   ratio",
                "a                    100.0            110.0    1.10",
                "only/base              7.2             gone       -",
                "only/now       not in base            12346       -",
                "slow                  10.0             20.0    2.00  slower",
            ]
        );
    }
}
