//! `kill -9` of each of our services under load. Twice each; ten times in the long suite.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod trial;

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use signalpost_testkit::{env, eventually};
use tokio::time::Instant;
use trial::{LONG, Load, Trial, all_arrive, patient_retry, receiver};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Api,
    Dispatcher,
    Retry,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_services_lose_nothing() {
    let mut trial = Trial::start(2, 2, 1).await;
    let rounds = if env::long() { 10 } else { 2 };
    for victim in [Victim::Api, Victim::Retry, Victim::Dispatcher] {
        killed(&mut trial, victim, rounds).await;
    }
}

async fn killed(trial: &mut Trial, victim: Victim, rounds: usize) {
    let receiver = receiver().await;
    let mut further = patient_retry();
    further["event_types"] = json!(["load.posted"]);
    let destination = trial.destination(&receiver, "/load", further).await;
    let load = Load::start(&trial.clients, &format!("{victim:?}"), 16, Duration::from_millis(2));
    let mut probes = BTreeSet::new();
    for round in 0..rounds {
        // Not the same moment each time, nor the same service.
        load.more(200 + 37 * round).await;
        let services = match victim {
            Victim::Api => &mut trial.cluster.apis,
            Victim::Dispatcher => &mut trial.cluster.dispatchers,
            Victim::Retry => &mut trial.cluster.retries,
        };
        let index = round % services.len();
        services[index].kill().expect("killed");
        // The others go on meanwhile; with one retry or api down, producers and deliveries still move.
        load.more(100).await;
        let services = match victim {
            Victim::Api => &mut trial.cluster.apis,
            Victim::Dispatcher => &mut trial.cluster.dispatchers,
            Victim::Retry => &mut trial.cluster.retries,
        };
        services[index].restart().expect("started again");
        let restarted = Instant::now();
        let probe = json!({"type": "load.posted", "data": {"probe": round}});
        let key = format!("{victim:?}-probe-{round}");
        let answer = trial.client().post_event_surely(&probe, &key, LONG).await.expect("accepted");
        let id = answer["id"].as_str().expect("an id").to_owned();
        let arrived = || async { receiver.accepted_by_event().contains_key(&id).then_some(()).ok_or(&id) };
        eventually("an event posted after the restart arrives", LONG, arrived).await;
        println!("{victim:?} restarted: moving again after {:?}", restarted.elapsed());
        probes.insert(id);
    }
    load.more(100).await;
    let mut accepted = load.finish().await;
    accepted.append(&mut probes);
    all_arrive(&receiver, &accepted).await;
    let stats = receiver.stats();
    println!("{victim:?} killed {rounds} times: {} events, {} duplicates", accepted.len(), stats.duplicates);
    if victim == Victim::Dispatcher {
        // Only requests that were out, or whose outcomes were not yet written, may be repeated: at each kill at most the slots
        // of the one destination, and what they took in while one batch of outcomes was being written.
        assert!(stats.duplicates <= 300 * rounds as u64, "{stats:?}");
    } else {
        assert_eq!(stats.duplicates, 0, "a kill of {victim:?} made duplicates: {stats:?}");
    }
    trial
        .client()
        .request(reqwest::Method::DELETE, &format!("/v1/destinations/{destination}"), None, &[])
        .await
        .expect("deleted");
}
