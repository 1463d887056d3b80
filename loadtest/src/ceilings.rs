//! What the parts can do at most on this machine, as `limits` found and kept it: reports tell their figures as shares of it.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{flow::figure, report::Report};

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

/// What a stage can do at most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Events each second.
    pub per_second: f64,
    /// Bytes of the data of each.
    pub bytes: u64,
    /// Events in a group of the store or of the bus.
    pub group: u64,
}

/// By stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ceilings(BTreeMap<String, Ceiling>);

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
    pub fn set(&mut self, stage: &str, ceiling: Ceiling) {
        self.0.insert(stage.to_owned(), ceiling);
    }

    /// Adds each stage's share of its ceiling to the report of a scenario that goes to a limit: of ceilings that were measured
    /// with events of the same size, in groups of no fewer than the scenario's requests have.
    pub fn tell(&self, report: &mut Report) {
        if !TO_A_LIMIT.contains(&report.scenario) {
            return;
        }
        let rate = |name: &str| report.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value);
        let Some(events) = rate("events") else { return };
        let deliveries = rate("deliveries").unwrap_or(0.0);
        let flow = &report.settings["flow"];
        let batch = flow["batch"].as_u64().unwrap_or(1).max(1);
        let fits = |ceiling: &&Ceiling| flow["sizes"] == json!([ceiling.bytes]) && ceiling.group >= batch;
        let requests = events / figure(batch);
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
            .filter_map(|(stage, rate)| Some((*stage, 100.0 * rate / self.0.get(*stage).filter(fits)?.per_second)))
            .collect();
        for (stage, share) in shares {
            report.tell(format!("{stage}: share of its ceiling alone"), share, "%");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Ceiling, Ceilings, HTTP_IN, HTTP_OUT, SQLITE_INGEST};
    use crate::report::Report;

    fn told(flow: serde_json::Value) -> Vec<(Option<String>, f64)> {
        let of = |name: &str, per_second, bytes| (name.to_owned(), Ceiling { per_second, bytes, group: 500 });
        let known = [of(HTTP_IN, 100_000.0, 500), of(HTTP_OUT, 50_000.0, 500), of(SQLITE_INGEST, 200_000.0, 2_000)];
        let mut report = Report::new("burst", "standalone", json!({"flow": flow}));
        report.tell("events", 10_000.0, "/s");
        report.tell("deliveries", 20_000.0, "/s");
        Ceilings(known.into()).tell(&mut report);
        let shares = report.figures.iter().skip(2);
        shares.map(|figure| (figure.name.split(':').next().map(str::to_owned), figure.value)).collect()
    }

    #[test]
    fn shares_are_told_of_what_is_known_and_fits() {
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(told(json!({"batch": 10, "sizes": [500]})), [(named(HTTP_IN), 1.0), (named(HTTP_OUT), 40.0)]);
        assert_eq!(told(json!({"batch": 1, "sizes": [2_000]})), [(named(SQLITE_INGEST), 5.0)]);
        assert_eq!(told(json!({"batch": 10, "sizes": [500, 2_000]})), []);
        assert_eq!(told(json!({"batch": 1_000, "sizes": [500]})), []);
    }
}
