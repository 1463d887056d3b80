//! What a scenario found: a table and a page for people, JSON for machines.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::{conditions::Conditions, page::page, plot::Plot};

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// How much.
    pub value: f64,
    /// In what; empty for ratios and counts.
    pub unit: &'static str,
    /// What it should be, in words.
    pub bound: Option<String>,
    /// Whether it is.
    pub holds: Option<bool>,
}

/// All that a run found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Which scenario.
    pub scenario: &'static str,
    /// `standalone`, `cluster`, or `running`.
    pub deployment: String,
    /// How it was run.
    pub settings: Value,
    /// Under what conditions; None before it has ended.
    pub conditions: Option<Conditions>,
    /// What it found, in order.
    pub figures: Vec<Figure>,
    /// What is to be known besides: what could not be judged, above all.
    pub remarks: Vec<String>,
    /// Curves and single runs, for a closer look.
    pub series: serde_json::Map<String, Value>,
    /// What its page shows.
    pub plots: Vec<Plot>,
}

impl Report {
    /// An empty one.
    pub fn new(scenario: &'static str, deployment: &str, settings: Value) -> Self {
        Self {
            scenario,
            deployment: deployment.to_owned(),
            settings,
            conditions: None,
            figures: Vec::new(),
            remarks: Vec::new(),
            series: serde_json::Map::new(),
            plots: Vec::new(),
        }
    }

    /// A figure without a bound.
    pub fn tell(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { name: name.into(), value, unit, bound: None, holds: None });
    }

    /// A figure with one.
    pub fn judge(&mut self, name: impl Into<String>, value: f64, unit: &'static str, bound: String, holds: bool) {
        self.figures.push(Figure { name: name.into(), value, unit, bound: Some(bound), holds: Some(holds) });
    }

    /// A figure that must be at most that.
    pub fn at_most(&mut self, name: impl Into<String>, value: f64, unit: &'static str, most: f64) {
        self.judge(name, value, unit, format!("<= {}", number(most)), value <= most);
    }

    /// A figure that must be at least that.
    pub fn at_least(&mut self, name: impl Into<String>, value: f64, unit: &'static str, least: f64) {
        self.judge(name, value, unit, format!(">= {}", number(least)), value >= least);
    }

    /// Something that may not occur.
    pub fn none(&mut self, name: impl Into<String>, count: usize) {
        self.judge(name, count_of(count), "", "0".to_owned(), count == 0);
    }

    /// A curve, or whatever else belongs to the JSON only.
    pub fn keep(&mut self, name: &str, value: impl Serialize) {
        self.series.insert(name.to_owned(), serde_json::to_value(value).unwrap_or_default());
    }

    /// Something that is to be known besides.
    pub fn remark(&mut self, remark: impl Into<String>) {
        self.remarks.push(remark.into());
    }

    /// A plot.
    pub fn plot(&mut self, plot: Plot) {
        self.plots.push(plot);
    }

    /// Whether every bound holds.
    pub fn holds(&self) -> bool {
        self.figures.iter().all(|figure| figure.holds != Some(false))
    }

    /// The table.
    pub fn table(&self) -> String {
        let rows: Vec<[String; 4]> = self
            .figures
            .iter()
            .map(|figure| {
                let verdict = match figure.holds {
                    None => "",
                    Some(true) => "holds",
                    Some(false) => "BROKEN",
                };
                let value = format!("{} {}", number(figure.value), figure.unit).trim_end().to_owned();
                [figure.name.clone(), value, figure.bound.clone().unwrap_or_default(), verdict.to_owned()]
            })
            .collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let (names, values, bounds) = (width(0), width(1), width(2));
        let mut table = format!("{} ({}) {}\n", self.scenario, self.deployment, self.settings);
        if let Some(conditions) = &self.conditions {
            table.push_str(&format!("{conditions}\n"));
        }
        for [name, value, bound, verdict] in rows {
            let line = format!("  {name:<names$}  {value:>values$}  {bound:<bounds$}  {verdict}");
            table.push_str(line.trim_end());
            table.push('\n');
        }
        for remark in &self.remarks {
            table.push_str(&format!("  {remark}\n"));
        }
        table
    }

    /// Writes table, JSON and page into a folder; the name of the JSON file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        // The next free number: results are kept, and no clock is needed to name them.
        let name = |nth: usize| folder.join(format!("{}-{}-{nth:03}.json", self.scenario, self.deployment));
        let file = (1..).map(name).find(|file| !file.exists()).unwrap_or_else(|| name(0));
        std::fs::write(&file, serde_json::to_vec_pretty(self)?)?;
        std::fs::write(file.with_extension("txt"), self.table())?;
        std::fs::write(file.with_extension("html"), page(self)?)?;
        Ok(file)
    }
}

/// A count as a figure.
#[allow(clippy::cast_precision_loss, reason = "a count of events")]
pub fn count_of(count: usize) -> f64 {
    count as f64
}

/// Whole numbers whole and with commas, others to three digits.
pub fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        let digits = format!("{:.0}", value.abs());
        let mut text = String::new();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place) % 3 == 0 {
                text.push(',');
            }
            text.push(digit);
        }
        return if value < 0.0 { format!("-{text}") } else { text };
    }
    if value.abs() < 100.0 { format!("{value:.3}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{Report, number};

    #[test]
    fn a_broken_bound_is_said() {
        let mut report = Report::new("test", "standalone", Value::Null);
        report.at_least("throughput ratio", 0.95, "", 0.9);
        assert!(report.holds());
        report.none("lost", 1_234);
        assert!(!report.holds());
        report.remark("what is stored is not judged");
        assert!(report.table().contains("lost              1,234  0         BROKEN"), "{}", report.table());
        assert!(report.table().ends_with("\n  what is stored is not judged\n"), "{}", report.table());
    }

    #[test]
    fn numbers() {
        assert_eq!(["1,000,000", "-12", "0.950", "123.5"], [1e6, -12.0, 0.95, 123.456].map(number));
    }
}
