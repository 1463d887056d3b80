//! `cargo xtask test`: makes sure of what the tests need, runs them all, sums up.

use std::{
    io::{BufRead as _, BufReader},
    process::{ExitCode, Stdio},
};

use clap::Args;
use signalpost_services::{
    Kafka, Postgres, Redis, kafka,
    requirements::{self, Requirement},
};

/// The variables that say where services are. Read by the tests.
const DATABASE_URL: &str = "SIGNALPOST_TEST_DATABASE_URL";
const REDIS_URL: &str = "SIGNALPOST_TEST_REDIS_URL";
const KAFKA_BROKERS: &str = "SIGNALPOST_TEST_KAFKA_BROKERS";
/// Where the tests that start a Kafka of their own find its jars.
const SERVICES_CACHE: &str = "SIGNALPOST_TEST_SERVICES_CACHE";
/// Set for the long suites.
const LONG: &str = "SIGNALPOST_TEST_LONG";

/// Tests that need a broker which can be stopped, or which several processes share, carry this in their names and are not run on
/// the mock cluster.
const NEEDS_REAL_KAFKA: &str = "on_a_real_kafka";

/// They are named where they could not run; those of `signalpost-cluster` all need one.
const COULD_NOT_RUN: [&str; 11] = [
    "signalpost-cluster: the_main_job",
    "signalpost-cluster: killed_services_lose_nothing",
    "signalpost-cluster: outages_heal_by_themselves",
    "signalpost-cluster: broken_links_heal_by_themselves",
    "signalpost-cluster: rolling_restarts_lose_and_repeat_nothing",
    "signalpost-cluster: clocks_that_differ_change_nothing",
    "signalpost-cluster: what_an_earlier_version_left_is_taken_up",
    "signalpost-bus-kafka: on_a_real_kafka_an_outage_heals_without_a_restart",
    "signalpost-bus-kafka: on_a_real_kafka_a_topic_that_is_missing_or_lost_is_created_again",
    "signalpost-bus-kafka: on_a_real_kafka_a_dispatcher_that_takes_nothing_reads_no_more_when_it_inherits_partitions",
    "signalpost-services: on_a_real_kafka_it_comes_back_with_and_without_its_data",
];

#[derive(Debug, Args)]
pub struct Options {
    /// Also the long suites.
    #[arg(long)]
    long: bool,
    /// Only this package (may be given several times).
    #[arg(long, short)]
    package: Vec<String>,
    /// Handed to `cargo test`: a filter, `--no-fail-fast`, or `-- --nocapture`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let given = |name: &str| std::env::var_os(name).is_some();
    let mut wanted = vec![Requirement::Make, Requirement::Postgres, Requirement::Redis, Requirement::Java];
    let jars_there = target_services().join("kafka-3.9.1/.complete").is_file();
    if !jars_there {
        wanted.push(Requirement::Maven);
    }
    if let Err(line) = requirements::ensure(&wanted) {
        eprintln!("{line}");
        return Ok(ExitCode::from(crate::MISSING));
    }
    let mut env: Vec<(&str, String)> = vec![(SERVICES_CACHE, target_services().display().to_string())];
    let mut mocked = false;
    let postgres = if given(DATABASE_URL) { None } else { Some(Postgres::start(false)?) };
    env.extend(postgres.as_ref().map(|postgres| (DATABASE_URL, postgres.url())));
    let redis = if given(REDIS_URL) { None } else { Some(Redis::start()?) };
    env.extend(redis.as_ref().map(|redis| (REDIS_URL, redis.url())));
    let kafka = if given(KAFKA_BROKERS) {
        None
    } else {
        match kafka::jars(&target_services()) {
            Ok(jars) => Some(Kafka::start(&jars)?),
            Err(error) => {
                eprintln!("{error:#}\nfalling back on the mock cluster of librdkafka");
                mocked = true;
                None
            }
        }
    };
    env.extend(kafka.as_ref().map(|kafka| (KAFKA_BROKERS, kafka.brokers())));
    let mock = if mocked { Some(MockKafka::start()?) } else { None };
    env.extend(mock.as_ref().map(|mock| (KAFKA_BROKERS, mock.brokers.clone())));
    if options.long {
        env.push((LONG, "1".to_owned()));
    }

    let mut cargo = crate::cargo();
    cargo.arg("test");
    if options.package.is_empty() {
        cargo.arg("--workspace").args(crate::CLUSTER);
        if mocked {
            cargo.args(["--exclude", "signalpost-cluster"]);
        }
    } else {
        cargo.args(options.package.iter().flat_map(|package| ["--package", package]));
        if options.package.iter().any(|package| package == "signalpost-cluster") {
            // Its tests start all of our programs; a run of the whole workspace builds them anyway.
            let status = crate::cargo().arg("build").args(crate::PROGRAMS).args(crate::CLUSTER).status()?;
            anyhow::ensure!(status.success(), "our programs could not be built");
        }
    }
    if !options.rest.iter().any(|arg| arg == "--no-fail-fast") {
        cargo.arg("--no-fail-fast");
    }
    cargo.args(&options.rest);
    if mocked {
        cargo.args(["--", "--skip", NEEDS_REAL_KAFKA]);
    }
    let mut child = cargo.envs(env).stdout(Stdio::piped()).spawn()?;
    let mut summary = Summary::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line?;
            println!("{line}");
            summary.read(&line);
        }
    }
    let status = child.wait()?;
    for name in &summary.failures {
        println!("failed: {name}");
    }
    println!("{} passed, {} failed", summary.passed, summary.failed);
    if mocked {
        println!("could not run without a real Apache Kafka:\n  {}", COULD_NOT_RUN.join("\n  "));
    }
    Ok(if status.success() && summary.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn target_services() -> std::path::PathBuf {
    crate::target().join("services")
}

/// What all test programs together said.
#[derive(Debug, Default)]
struct Summary {
    passed: u64,
    failed: u64,
    failures: Vec<String>,
}

impl Summary {
    /// Reads lines such as `test result: ok. 5 passed; 0 failed; …` and `test a::b ... FAILED`.
    fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result:") {
            let number = |word: &str| {
                let before = result.split(word).next()?;
                before.split_whitespace().last()?.parse::<u64>().ok()
            };
            self.passed += number(" passed").unwrap_or(0);
            self.failed += number(" failed").unwrap_or(0);
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(name.to_owned());
        }
    }
}

/// librdkafka's mock cluster, in a process of its own.
struct MockKafka {
    child: std::process::Child,
    brokers: String,
}

impl MockKafka {
    fn start() -> anyhow::Result<Self> {
        let mut child = crate::cargo()
            .args(["run", "--quiet", "--package", "signalpost-bus-kafka", "--example", "mock_kafka"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut brokers = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut brokers)?;
        }
        anyhow::ensure!(!brokers.trim().is_empty(), "the mock cluster did not start");
        Ok(Self { child, brokers: brokers.trim().to_owned() })
    }
}

impl Drop for MockKafka {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_up_what_test_programs_say() {
        let mut summary = Summary::default();
        for line in [
            "test a::works ... ok",
            "test a::breaks ... FAILED",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: ok. 41 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            summary.read(line);
        }
        assert_eq!((summary.passed, summary.failed), (42, 1));
        assert_eq!(summary.failures, ["a::breaks"]);
    }
}
