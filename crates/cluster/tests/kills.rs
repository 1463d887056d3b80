//! `kill -9` of each of our services under load. Twice each; ten times in the long suite.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod trial;

use std::{collections::BTreeSet, time::Duration};

use signalpost_testkit::env;
use trial::{Load, Target, Trial};

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
    let target = Target::new(trial, "load").await;
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
        let key = format!("{victim:?}-probe-{round}");
        let (mut ids, moving_after) = target.moving(trial.client(), &key).await;
        println!("{victim:?} restarted: moving again after {moving_after:?}");
        probes.append(&mut ids);
    }
    load.more(100).await;
    let mut accepted = load.finish().await;
    accepted.append(&mut probes);
    let duplicates = target.over(trial.client(), &format!("{victim:?} killed {rounds} times"), &accepted).await;
    if victim == Victim::Dispatcher {
        // Only requests that were out, or whose outcomes were not yet written, may be repeated: at each kill at most the slots
        // of a destination, and what they took in while one batch of outcomes was being written.
        assert!(duplicates <= 300 * rounds as u64, "{duplicates} duplicates");
    } else {
        assert_eq!(duplicates, 0, "a kill of {victim:?} made duplicates");
    }
}
