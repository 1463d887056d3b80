//! `kill -9` under load: what got a 202 is delivered, and producers that repeat with their key create nothing twice.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod support;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use signalpost_core::Entropy as _;
use signalpost_runtime::SystemEntropy;
use signalpost_testkit::{
    env,
    receiver::{Failure, Faults, Receiver, ReceiverSettings},
};
use support::{Dev, LONG};
use tokio::task::JoinSet;

const PRODUCERS: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_accepted_is_delivered_whenever_it_is_killed() {
    let kills = if env::long() { 10 } else { 2 };
    let receiver = Receiver::start(ReceiverSettings { keep: 10, ..ReceiverSettings::default() }).await.unwrap();
    // Some requests fail, so that the kills also meet deliveries that wait for their retry.
    receiver.set_faults(Faults::some(0.1, Failure::status(503)).with_latency(Duration::from_millis(5)));
    let mut dev = Dev::standalone();
    let retry =
        json!({"strategy": "exponential", "initial_ms": 50, "factor": 1.5, "max_ms": 2000, "max_attempts": 100});
    let destination = dev.client().create_destination(&receiver.url("/"), json!({"retry": retry})).await.unwrap();
    receiver.set_secret(destination["secret"].as_str()).unwrap();

    let accepted = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicUsize::new(0));
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        let (client, accepted, stop) = (dev.client(), Arc::clone(&accepted), Arc::clone(&stop));
        producers.spawn(async move {
            let mut ids = Vec::new();
            while stop.load(Ordering::Relaxed) == 0 {
                let key = format!("{producer}-{}", ids.len());
                let event = json!({"type": "load.test", "data": {"key": key}});
                let answer = client.post_event_surely(&event, &key, LONG).await.unwrap();
                ids.push(answer["id"].as_str().unwrap().to_owned());
                accepted.fetch_add(1, Ordering::Relaxed);
            }
            ids
        });
    }
    for _ in 0..kills {
        let before = accepted.load(Ordering::Relaxed);
        let more = 100 + (SystemEntropy.unit() * 400.0) as usize;
        receiver.wait_until(LONG, |_| accepted.load(Ordering::Relaxed) >= before + more).await.unwrap();
        dev.process.kill().unwrap();
        dev.restart();
        // All is moving again: producers and deliveries.
        let (posted, arrived) = (accepted.load(Ordering::Relaxed), receiver.stats().events_accepted);
        let moving = |events: u64| accepted.load(Ordering::Relaxed) > posted + 100 && events > arrived + 100;
        receiver.wait_until(LONG, |stats| moving(stats.events_accepted)).await.unwrap();
    }
    stop.store(1, Ordering::Relaxed);
    let ids: Vec<String> = producers.join_all().await.into_iter().flatten().collect();
    let accepted: BTreeSet<_> = ids.iter().cloned().collect();
    assert_eq!(accepted.len(), ids.len(), "each key made an event of its own");

    receiver.set_faults(Faults::none());
    let stats = receiver.wait_for_events(ids.len() as u64, LONG).await.unwrap();
    let arrived: BTreeSet<_> = receiver.accepted_by_event().into_keys().collect();
    assert_eq!(arrived.difference(&accepted).count(), 0, "repeated with their key, events were created twice");
    assert_eq!(accepted.difference(&arrived).count(), 0, "accepted and not delivered");
    assert_eq!(stats.invalid, 0);
    // Requests that were out, or whose outcome was not yet written, when it was killed.
    let most = 200 * kills;
    assert!(stats.duplicates <= most, "{} duplicates", stats.duplicates);
    assert!(dev.process.stop(LONG).unwrap().success());
}
