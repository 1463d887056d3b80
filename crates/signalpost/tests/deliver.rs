//! The main job, in one process on SQLite, from `signalpost send` to a receiver.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod support;

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use signalpost_testkit::{
    eventually,
    receiver::{Arrival, Failure, Faults, Receiver, ReceiverSettings},
};
use support::{Dev, send, stderr, stdout};
use tokio::task::JoinSet;

const EVENTS: u64 = 20_000;

/// Far longer than a busy machine needs for that many.
const PATIENCE: Duration = Duration::from_secs(300);

fn events() -> Vec<u8> {
    (0..EVENTS).map(|n| format!("{{\"type\":\"load.test\",\"data\":{{\"n\":{n}}}}}\n")).collect::<String>().into_bytes()
}

async fn receiver(dev: &Dev, faults: Faults, further: serde_json::Value) -> Receiver {
    let settings = ReceiverSettings { faults, keep: 100, reject_invalid: true, ..ReceiverSettings::default() };
    let receiver = Receiver::start(settings).await.unwrap();
    let destination = dev.client().create_destination(&receiver.url("/"), further).await.unwrap();
    receiver.set_secret(destination["secret"].as_str()).unwrap();
    receiver
}

/// Nothing is left to send.
async fn quiet(dev: &Dev) {
    let client = dev.client();
    eventually("all outcomes are written", PATIENCE, || async {
        for status in ["pending", "retrying"] {
            let left =
                client.get(&format!("/v1/deliveries?status={status}&limit=1")).await.map_err(|e| e.to_string())?;
            if !left["data"].as_array().is_some_and(Vec::is_empty) {
                return Err(left.to_string());
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_events_arrive_exactly_once_at_a_healthy_receiver() {
    let dev = Dev::standalone();
    let receiver = receiver(&dev, Faults::none(), json!({})).await;
    let output = tokio::task::block_in_place(|| send(&dev, &["--concurrency", "16"], &events()));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("sent 20000, accepted 20000, duplicates 0, failed 0, "), "{}", stdout(&output));
    receiver.wait_for_events(EVENTS, PATIENCE).await.unwrap();
    quiet(&dev).await;
    let stats = receiver.stats();
    assert_eq!((stats.requests, stats.accepted, stats.valid), (EVENTS, EVENTS, EVENTS), "{stats:?}");
    assert_eq!((stats.duplicates, stats.overlaps, stats.invalid), (0, 0, 0), "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_events_arrive_at_a_receiver_that_fails_most_of_the_time() {
    let dev = Dev::standalone();
    let retry = json!({"strategy": "exponential", "initial_ms": 50, "factor": 1.5, "max_ms": 2000, "max_attempts": 100, "jitter": 0.2});
    let faults = Faults::some(0.7, Failure::status(500));
    let receiver = receiver(&dev, faults, json!({"retry": retry, "circuit": {"enabled": false}})).await;
    let output = tokio::task::block_in_place(|| send(&dev, &[], &events()));
    assert!(output.status.success(), "{}", stderr(&output));
    receiver.wait_for_events(EVENTS, PATIENCE).await.unwrap();
    quiet(&dev).await;
    let stats = receiver.stats();
    assert_eq!((stats.events, stats.duplicates, stats.overlaps, stats.invalid), (EVENTS, 0, 0, 0), "{stats:?}");
    let dead = dev.client().get("/v1/dead-letters?limit=1").await.unwrap();
    assert_eq!(dead["data"], json!([]), "none is dead");

    let mut numbers_dense = true;
    let mut first_pauses = BTreeSet::new();
    for arrivals in receiver.by_delivery().values() {
        numbers_dense &= arrivals.iter().map(|arrival| arrival.attempt).eq(1..=arrivals.len() as u32);
        for (retry, pair) in (0..).zip(arrivals.windows(2)) {
            // A pause is never shorter than the policy and its jitter say; how much longer it is depends on the machine.
            let least = 0.8 * (50.0 * 1.5_f64.powi(retry)).min(2000.0) - 1.0;
            let pause = pause(pair);
            assert!(pause.as_secs_f64() * 1000.0 >= least, "pause {retry} of {pause:?} is shorter than {least} ms");
        }
        first_pauses.extend(arrivals.windows(2).next().map(|pair| pause(pair).as_millis()));
    }
    assert!(numbers_dense);
    assert!(first_pauses.len() > 10, "pauses are spread: {first_pauses:?}");
}

fn pause(pair: &[Arrival]) -> Duration {
    pair[1].since_start - pair[0].since_start
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_from_fifty_requests_makes_one_event() {
    let dev = Dev::standalone();
    let event = json!({"type": "order.created", "data": {"order": 42}});
    let mut requests = JoinSet::new();
    for _ in 0..50 {
        let (client, event) = (dev.client(), event.clone());
        requests.spawn(async move {
            let key = [("idempotency-key", "one-key-for-all")];
            client.request(reqwest::Method::POST, "/v1/events", Some(&event), &key).await.unwrap()
        });
    }
    let answers = requests.join_all().await;
    let ids: BTreeSet<_> = answers.iter().map(|(_, answer)| answer["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert!(answers.iter().all(|(status, _)| *status == 202));
    assert_eq!(answers.iter().filter(|(_, answer)| answer["duplicate"] == false).count(), 1);
    let key = [("idempotency-key", "one-key-for-all")];
    let other = json!({"type": "order.created", "data": {"order": 43}});
    let (status, problem) =
        dev.client().request(reqwest::Method::POST, "/v1/events", Some(&other), &key).await.unwrap();
    assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("idempotency_mismatch")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_listed_replayed_and_delivered() {
    let dev = Dev::standalone();
    let receiver = receiver(&dev, Faults::always(Failure::status(400)), json!({})).await;
    let event = dev.client().post("/v1/events", &json!({"type": "order.created", "data": 1})).await.unwrap();
    let client = dev.client();
    let letter = eventually("the dead letter is listed", PATIENCE, || async {
        let listed = client.get("/v1/dead-letters?include=data").await.map_err(|error| error.to_string())?;
        listed["data"].as_array().and_then(|letters| letters.first()).cloned().ok_or(listed.to_string())
    })
    .await;
    assert_eq!(letter["reason"], "rejected", "{letter}");
    receiver.set_faults(Faults::none());
    let path = format!("/v1/dead-letters/{}/replay", letter["id"].as_str().unwrap());
    dev.client().post(&path, &json!({})).await.unwrap();
    receiver.wait_for_events(1, PATIENCE).await.unwrap();
    assert_eq!(receiver.accepted_by_event()[event["id"].as_str().unwrap()], 1);
    quiet(&dev).await;
    assert_eq!(dev.client().get("/v1/dead-letters").await.unwrap()["data"], json!([]));
}
