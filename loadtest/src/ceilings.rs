//! What the parts can do at most on this machine, as `limits` found and kept it: reports tell their figures as shares of it.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use crate::report::Report;

/// Where it is kept, among the results.
const FILE: &str = "ceilings.json";

/// A request in, answered with 202.
pub const HTTP_IN: &str = "HTTP in";
/// A request out, answered with 200.
pub const HTTP_OUT: &str = "HTTP out";
/// An event with a delivery, durably, in large groups.
pub const SQLITE_INGEST: &str = "SQLite, ingest";
/// Its outcome.
pub const SQLITE_WRITE: &str = "SQLite, outcomes";
/// As for SQLite.
pub const POSTGRES_INGEST: &str = "PostgreSQL, ingest";
/// As for SQLite.
pub const POSTGRES_WRITE: &str = "PostgreSQL, outcomes";
/// A message, acknowledged by all replicas.
pub const KAFKA_PRODUCE: &str = "Kafka, produce";
/// A message read and committed.
pub const KAFKA_CONSUME: &str = "Kafka, consume";

/// Scenarios that go as fast as they can.
const TO_A_LIMIT: [&str; 6] = ["burst", "sustained", "fanout", "ingest", "many-destinations", "idempotent"];

/// All of them, in the order of an event's way.
#[cfg_attr(not(feature = "limits"), allow(dead_code, reason = "for whoever measures them"))]
pub const ALL: [&str; 8] =
    [HTTP_IN, SQLITE_INGEST, POSTGRES_INGEST, KAFKA_PRODUCE, KAFKA_CONSUME, HTTP_OUT, SQLITE_WRITE, POSTGRES_WRITE];

/// Events each second by stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ceilings(BTreeMap<String, f64>);

impl Ceilings {
    /// What was kept in a folder of results; None where nothing was.
    pub fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.join(FILE)).ok()?).ok()
    }

    /// Keeps it.
    ///
    /// # Errors
    /// It cannot be written.
    #[cfg_attr(not(feature = "limits"), allow(dead_code, reason = "for whoever measures them"))]
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        Ok(std::fs::write(folder.join(FILE), serde_json::to_vec_pretty(self)?)?)
    }

    /// Notes one.
    #[cfg_attr(not(feature = "limits"), allow(dead_code, reason = "for whoever measures them"))]
    pub fn set(&mut self, stage: &str, per_second: f64) {
        self.0.insert(stage.to_owned(), per_second);
    }

    /// Adds each stage's share of its ceiling to the report of a scenario that goes to a limit.
    pub fn tell(&self, report: &mut Report) {
        if !TO_A_LIMIT.contains(&report.scenario) {
            return;
        }
        let rate = |name: &str| report.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value);
        let Some(events) = rate("events") else { return };
        let deliveries = rate("deliveries").unwrap_or(0.0);
        let mut batch = &report.settings["flow"]["batch"];
        let one = serde_json::Value::from(1);
        if batch.is_null() {
            batch = &one;
        }
        let requests = events / batch.as_f64().unwrap_or(1.0).max(1.0);
        let stages: &[(&str, f64)] = match report.deployment.as_str() {
            "standalone" => {
                &[(HTTP_IN, requests), (SQLITE_INGEST, events), (HTTP_OUT, deliveries), (SQLITE_WRITE, deliveries)]
            }
            "cluster" => &[
                (HTTP_IN, requests),
                (POSTGRES_INGEST, events),
                (KAFKA_PRODUCE, deliveries),
                (KAFKA_CONSUME, deliveries),
                (HTTP_OUT, deliveries),
                (POSTGRES_WRITE, deliveries),
            ],
            _ => return,
        };
        let shares: Vec<_> = stages
            .iter()
            .filter(|(_, rate)| *rate > 0.0)
            .filter_map(|(stage, rate)| Some((*stage, 100.0 * rate / self.0.get(*stage)?)))
            .collect();
        for (stage, share) in shares {
            report.tell(format!("{stage}: share of its ceiling alone"), share, "%");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Ceilings, HTTP_IN, HTTP_OUT, SQLITE_INGEST};
    use crate::report::Report;

    #[test]
    fn shares_are_told_of_what_is_known() {
        let ceilings = Ceilings(
            [(HTTP_IN, 100_000.0), (HTTP_OUT, 50_000.0), (SQLITE_INGEST, 200_000.0)]
                .map(|(name, rate)| (name.to_owned(), rate))
                .into(),
        );
        let mut report = Report::new("burst", "standalone", json!({"flow": {"batch": 10}}));
        report.tell("events", 10_000.0, "/s");
        report.tell("deliveries", 20_000.0, "/s");
        ceilings.tell(&mut report);
        let told: Vec<_> =
            report.figures.iter().skip(2).map(|figure| (figure.name.split(':').next(), figure.value)).collect();
        assert_eq!(told, [(Some(HTTP_IN), 1.0), (Some(SQLITE_INGEST), 5.0), (Some(HTTP_OUT), 40.0)]);
    }
}
