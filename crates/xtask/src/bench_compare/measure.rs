//! Runs the programs of both sides in turns, and reads what criterion found.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use serde::{Deserialize, de::DeserializeOwned};

use super::{build::Programs, table::Figures};

/// Enough for a median; with more, those that take a millisecond would be measured for longer than they are told.
const SAMPLES: u32 = 30;

/// How it is measured.
pub struct Plan<'a> {
    /// Only benches whose names this finds.
    pub filter: Option<&'a str>,
    /// How often.
    pub rounds: u32,
    /// For how long each bench, each time.
    pub time: Duration,
    /// What criterion writes goes here, and is gone with the next program.
    pub folder: PathBuf,
}

/// Measures base and now. A machine's mood changes in minutes, so one side's program follows the other's at once; who is the
/// first changes with each round.
pub fn both(base: &Programs, now: &Programs, plan: &Plan<'_>) -> anyhow::Result<(Figures, Figures)> {
    let mut sides = [("base", base, Figures::default()), ("now", now, Figures::default())];
    let names: BTreeSet<&String> = base.keys().chain(now.keys()).collect();
    for round in 1..=plan.rounds {
        for name in &names {
            for (side, programs, figures) in &mut sides {
                let Some(program) = programs.get(*name) else { continue };
                eprintln!("round {round} of {}: {name}, {side}", plan.rounds);
                for (bench, median_ns) in measure(program, plan)? {
                    figures.add(bench, median_ns);
                }
            }
        }
        sides.reverse();
    }
    sides.sort_by_key(|(side, ..)| *side);
    let [(.., base), (.., now)] = sides;
    Ok((base, now))
}

/// The median of each bench of a program, in nanoseconds.
fn measure(program: &Path, plan: &Plan<'_>) -> anyhow::Result<BTreeMap<String, f64>> {
    if plan.folder.is_dir() {
        fs::remove_dir_all(&plan.folder)?;
    }
    fs::create_dir_all(&plan.folder)?;
    let output = Command::new(program)
        .args(["--bench", "--noplot"])
        .args(["--sample-size", &SAMPLES.to_string()])
        .args(["--warm-up-time", &(plan.time / 2).as_secs_f64().to_string()])
        .args(["--measurement-time", &plan.time.as_secs_f64().to_string()])
        .args(plan.filter)
        .env("CRITERION_HOME", &plan.folder)
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    anyhow::ensure!(
        output.status.success(),
        "{} ended with {}: {}",
        program.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let mut medians = BTreeMap::new();
    collect(&plan.folder, &mut medians)?;
    Ok(medians)
}

#[derive(Deserialize)]
struct Bench {
    full_id: String,
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    /// In nanoseconds.
    point_estimate: f64,
}

/// What criterion wrote into that folder: of each bench, `new/benchmark.json` and `new/estimates.json`.
fn collect(folder: &Path, medians: &mut BTreeMap<String, f64>) -> anyhow::Result<()> {
    let estimates = folder.join("new/estimates.json");
    if estimates.is_file() {
        let bench: Bench = read(&folder.join("new/benchmark.json"))?;
        let estimates: Estimates = read(&estimates)?;
        medians.insert(bench.full_id, estimates.median.point_estimate);
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, medians)?;
        }
    }
    Ok(())
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    serde_json::from_reader(BufReader::new(file)).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use super::*;

    #[test]
    fn medians_are_found_in_what_criterion_writes() {
        let folder = tempfile::tempdir().unwrap();
        for (path, id, median) in [("group/one", "group/one", "12.5"), ("group/a_b/7", "group/a:b/7", "3")] {
            let new = folder.path().join(path).join("new");
            fs::create_dir_all(&new).unwrap();
            let bench = format!(r#"{{"group_id":"group","full_id":"{id}","throughput":null}}"#);
            fs::write(new.join("benchmark.json"), bench).unwrap();
            let estimates =
                format!(r#"{{"mean":{{"point_estimate":99.0}},"median":{{"point_estimate":{median}}},"slope":null}}"#);
            fs::write(new.join("estimates.json"), estimates).unwrap();
        }
        let mut medians = BTreeMap::new();
        collect(folder.path(), &mut medians).unwrap();
        assert_eq!(medians, BTreeMap::from([("group/one".to_owned(), 12.5), ("group/a:b/7".to_owned(), 3.0)]));
    }
}
