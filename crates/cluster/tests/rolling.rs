//! Restarts in order (SIGTERM, drained, started again) under load lose nothing and repeat nothing. Two rounds of the whole
//! cluster; ten in the long suite. And a dispatcher that joins and leaves while slow requests are out.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod trial;

use std::time::Duration;

use signalpost_testkit::{
    Client, env, eventually,
    receiver::Faults,
    services::{Kind, Own, Service, cluster::ADMIN_KEY},
};
use tokio::time::Instant;
use trial::{LONG, Load, Target, Trial, ready, repeated, roll};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restarts_lose_and_repeat_nothing() {
    let mut trial = Trial::start(2, 2, 1).await;
    the_whole_cluster_in_turn(&mut trial).await;
    a_dispatcher_joins_and_leaves_while_slow_requests_are_out(&mut trial).await;
}

async fn the_whole_cluster_in_turn(trial: &mut Trial) {
    let target = Target::new(trial, "rolling").await;
    // Not so quick that nothing is ever out at the moment of a restart.
    target.receiver.set_faults(Faults::none().with_latency(Duration::from_millis(30)));
    let load = Load::start(&trial.clients, "rolling", 16, Duration::from_millis(2));
    load.more(200).await;
    let rounds = if env::long() { 10 } else { 2 };
    for round in 0..rounds {
        let began = Instant::now();
        for kind in [Kind::Api, Kind::Dispatcher, Kind::Retry] {
            for index in 0..trial.cluster.of(kind).len() {
                roll(trial, kind, index).await;
                load.more(50).await;
            }
        }
        println!("round {round}: {:?} for 5 restarts, {} events so far", began.elapsed(), load.count());
    }
    load.more(100).await;
    once_each(trial, &target, load, &format!("{rounds} rolling restarts")).await;
}

async fn a_dispatcher_joins_and_leaves_while_slow_requests_are_out(trial: &mut Trial) {
    let target = Target::new(trial, "slow").await;
    // Longer than a second, so requests are detached, and those that a revocation meets are detached by it.
    target.receiver.set_faults(Faults::none().with_latency(Duration::from_secs(2)));
    let load = Load::start(&trial.clients, "slow", 8, Duration::from_millis(20));
    for round in 0..2 {
        load.more(150).await;
        let added = tokio::task::block_in_place(|| trial.cluster.add(Kind::Dispatcher, &Own::default()).map(drop));
        added.expect("one more dispatcher");
        owns_partitions(trial.cluster.dispatchers.last().expect("one")).await;
        load.more(200).await;
        let mut leaving = trial.cluster.dispatchers.pop().expect("the added one");
        let began = Instant::now();
        tokio::task::block_in_place(|| leaving.stop()).expect("drained");
        println!("round {round}: a dispatcher joined and left, drained in {:?}", began.elapsed());
    }
    load.more(100).await;
    once_each(trial, &target, load, "a dispatcher joined and left twice").await;
}

/// Waits until a dispatcher has requests out: so partitions have come to it.
async fn owns_partitions(dispatcher: &Service) {
    ready(dispatcher).await;
    let client = Client::new(&dispatcher.url(), ADMIN_KEY);
    eventually("it has requests out", LONG, || async {
        let out = client.metric("signalpost_requests_in_flight").await.map_err(|error| error.to_string())?;
        if out > 0.0 { Ok(()) } else { Err(out.to_string()) }
    })
    .await;
}

/// Everything that was accepted arrived once, and nothing is left that could still come.
async fn once_each(trial: &Trial, target: &Target, load: Load, what: &str) {
    let accepted = load.finish().await;
    let duplicates = target.over(trial.client(), what, &accepted).await;
    let repeated = repeated(&target.receiver);
    assert!(
        repeated.is_empty(),
        "{what}: {} were sent again: {:?}",
        repeated.len(),
        &repeated[..repeated.len().min(5)]
    );
    assert_eq!(duplicates, 0, "{what}");
}
