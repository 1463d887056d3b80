//! Each dependency stopped in the middle of the load. None of our services is restarted.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod trial;

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;
use signalpost_testkit::eventually;
use trial::{LONG, Load, Target, Trial, all_run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outages_heal_by_themselves() {
    let mut trial = Trial::start(1, 2, 1).await;
    kafka_stopped_for_twenty_seconds(&mut trial).await;
    kafka_loses_its_data(&mut trial).await;
    kafka_loses_its_data_unseen(&mut trial).await;
    redis_frozen_then_stopped(&mut trial).await;
    postgres_stopped(&mut trial).await;
    kafka_restarted(&mut trial).await;
    postgres_restarted(&mut trial).await;
    all_run(&mut trial);
}

async fn loaded(trial: &Trial, name: &str) -> (Target, Load) {
    let target = Target::new(trial, name).await;
    let load = Load::start(&trial.clients, name, 8, Duration::from_millis(10));
    load.more(100).await;
    (target, load)
}

async fn deliveries_go_on(target: &Target, what: &str) {
    let before = target.receiver.stats().events_accepted;
    eventually(what, LONG, || async {
        let now = target.receiver.stats().events_accepted;
        if now > before + 200 { Ok(()) } else { Err(now - before) }
    })
    .await;
}

/// Ends the load when it moves again, waits until everything has arrived, says how it went.
async fn over(trial: &Trial, what: &str, target: &Target, load: Load) {
    let (mut probes, after) = target.moving(trial.client(), &format!("{what}: it moves")).await;
    println!("{what}: moving {:.1} s after it was over", after.as_secs_f64());
    load.more(100).await;
    let mut accepted = load.finish().await;
    accepted.append(&mut probes);
    target.over(trial.client(), what, &accepted).await;
}

async fn kafka_stopped_for_twenty_seconds(trial: &mut Trial) {
    let (target, load) = loaded(trial, "kafka-stopped").await;
    trial.cluster.kafka.halt().expect("stopped");
    let before = load.count();
    // So long that the relay takes up what the API could not publish.
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(
        load.count() > before + 100,
        "events were not accepted while Kafka was away: {} then {}",
        before,
        load.count()
    );
    trial.cluster.kafka.resume().expect("started");
    over(trial, "Kafka stopped for 20 s", &target, load).await;
}

async fn kafka_loses_its_data(trial: &mut Trial) {
    let (target, load) = loaded(trial, "kafka-lost").await;
    trial.cluster.kafka.halt().expect("stopped");
    trial.cluster.kafka.lose_data().expect("removed");
    load.more(100).await;
    trial.cluster.kafka.resume().expect("started");
    over(trial, "Kafka's data deleted", &target, load).await;
}

/// Its topics are made anew before dispatchers and retry look again: to them they seem to be the old ones, of an outdated leader.
async fn kafka_loses_its_data_unseen(trial: &mut Trial) {
    let (target, load) = loaded(trial, "kafka-lost-unseen").await;
    // Each start elects leaders anew: those of new topics are older than these.
    tokio::task::block_in_place(|| trial.cluster.kafka.stop().and_then(|()| trial.cluster.kafka.resume()))
        .expect("restarted");
    deliveries_go_on(&target, "deliveries go on after the restart").await;
    let created = |trial: &Trial| trial.cluster.apis[0].process.as_ref().expect("it runs").log_count("topic created");
    let before = created(trial);
    for service in trial.cluster.dispatchers.iter().chain(&trial.cluster.retries) {
        service.process.as_ref().expect("it runs").freeze().expect("frozen");
    }
    trial.cluster.kafka.halt().expect("stopped");
    trial.cluster.kafka.lose_data().expect("removed");
    trial.cluster.kafka.resume().expect("started");
    eventually("the topics are made anew", LONG, || async {
        let now = created(trial);
        if now >= before + 2 { Ok(()) } else { Err(now) }
    })
    .await;
    for service in trial.cluster.dispatchers.iter().chain(&trial.cluster.retries) {
        service.process.as_ref().expect("it runs").thaw().expect("thawed");
    }
    over(trial, "Kafka's data deleted unseen", &target, load).await;
}

async fn redis_frozen_then_stopped(trial: &mut Trial) {
    let (target, load) = loaded(trial, "redis").await;
    for frozen in [true, false] {
        if frozen {
            trial.cluster.redis.process.freeze().expect("frozen");
        } else {
            trial.cluster.redis.halt().expect("stopped");
        }
        deliveries_go_on(&target, "deliveries go on without Redis").await;
        if frozen {
            trial.cluster.redis.process.thaw().expect("thawed");
        } else {
            trial.cluster.redis.resume().expect("started");
        }
    }
    over(trial, "Redis frozen, then stopped", &target, load).await;
}

async fn postgres_stopped(trial: &mut Trial) {
    let (target, load) = loaded(trial, "postgres").await;
    trial.cluster.postgres.halt().expect("stopped");
    let event = json!({"type": "nobody.wants", "data": {}});
    let client = trial.client().clone();
    eventually("the api says 503, and when to come again", LONG, || async {
        match client.header_of("/v1/events", &event, "retry-after").await {
            Ok((StatusCode::SERVICE_UNAVAILABLE, Some(_))) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let (ready, _) = client.request(Method::GET, "/health/ready", None, &[]).await.expect("an answer");
    assert_eq!(ready, StatusCode::SERVICE_UNAVAILABLE);
    trial.cluster.postgres.resume().expect("started");
    over(trial, "PostgreSQL stopped", &target, load).await;
}

/// The broker stops in order and starts again: what it had, it keeps.
async fn kafka_restarted(trial: &mut Trial) {
    let (target, load) = loaded(trial, "kafka-restarted").await;
    tokio::task::block_in_place(|| trial.cluster.kafka.stop().and_then(|()| trial.cluster.kafka.resume()))
        .expect("restarted");
    over(trial, "Kafka restarted", &target, load).await;
}

/// In order first, then as by a crash: sessions are cut in the middle of their transactions.
async fn postgres_restarted(trial: &mut Trial) {
    let (target, load) = loaded(trial, "postgres-restarted").await;
    let postgres = &mut trial.cluster.postgres;
    tokio::task::block_in_place(|| postgres.halt().and_then(|()| postgres.resume())).expect("restarted");
    load.more(200).await;
    tokio::task::block_in_place(|| postgres.crash().and_then(|()| postgres.resume())).expect("recovered");
    over(trial, "PostgreSQL restarted, then crashed", &target, load).await;
}
