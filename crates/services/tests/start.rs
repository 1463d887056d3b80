//! Each service starts, stops, and comes back on the same port.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use std::path::{Path, PathBuf};

use signalpost_services::{Kafka, Postgres, Redis, kafka, process::port_answers};

fn cache() -> PathBuf {
    std::env::var_os("SIGNALPOST_TEST_SERVICES_CACHE").map(PathBuf::from).expect("run `cargo xtask test`")
}

fn port_of(address: &str) -> u16 {
    address.trim_end_matches("/postgres").rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

#[test]
fn postgres_comes_back() {
    let mut postgres = Postgres::start(false).unwrap();
    let port = port_of(&postgres.url());
    assert!(port_answers(port));
    postgres.halt().unwrap();
    assert!(!port_answers(port));
    postgres.resume().unwrap();
    assert!(port_answers(port));
}

#[test]
fn redis_comes_back() {
    let mut redis = Redis::start().unwrap();
    let port = port_of(&redis.url());
    redis.halt().unwrap();
    assert!(!port_answers(port));
    redis.resume().unwrap();
    assert!(port_answers(port));
}

#[test]
fn on_a_real_kafka_it_comes_back_with_and_without_its_data() {
    let jars = kafka::jars(Path::new(&cache())).unwrap();
    let mut kafka = Kafka::start(&jars).unwrap();
    let port = port_of(&kafka.brokers());
    kafka.halt().unwrap();
    assert!(!port_answers(port));
    kafka.resume().unwrap();
    assert!(port_answers(port));
    kafka.halt().unwrap();
    kafka.lose_data().unwrap();
    kafka.resume().unwrap();
    assert!(port_answers(port));
}
