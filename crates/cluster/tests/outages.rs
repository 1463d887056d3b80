//! Each dependency stopped in the middle of the load. None of our services is restarted.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod trial;

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;
use signalpost_testkit::{Client, eventually};
use trial::{LONG, Load, Trial, all_arrive, patient_retry, receiver};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outages_heal_by_themselves() {
    let mut trial = Trial::start(1, 2, 1).await;
    kafka_stopped_for_twenty_seconds(&mut trial).await;
    kafka_loses_its_data(&mut trial).await;
    redis_frozen_then_stopped(&mut trial).await;
    postgres_stopped(&mut trial).await;
    for service in trial.cluster.services() {
        let process = service.process.as_mut().expect("never stopped by us");
        assert!(process.is_running(), "a service ended during an outage");
    }
}

async fn loaded(trial: &Trial, name: &str) -> (signalpost_testkit::receiver::Receiver, String, Load) {
    let receiver = receiver().await;
    let mut further = patient_retry();
    further["event_types"] = json!(["load.posted"]);
    let destination = trial.destination(&receiver, "/load", further).await;
    let load = Load::start(&trial.clients, name, 8, Duration::from_millis(10));
    load.more(100).await;
    (receiver, destination, load)
}

async fn forget(client: &Client, destination: &str) {
    let path = format!("/v1/destinations/{destination}");
    let (status, _) = client.request(Method::DELETE, &path, None, &[]).await.expect("an answer");
    assert_eq!(status, StatusCode::NO_CONTENT);
}

async fn kafka_stopped_for_twenty_seconds(trial: &mut Trial) {
    let (receiver, destination, load) = loaded(trial, "kafka-stopped").await;
    trial.cluster.kafka.halt().expect("stopped");
    let before = load.count();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(
        load.count() > before + 100,
        "events were not accepted while Kafka was away: {} then {}",
        before,
        load.count()
    );
    trial.cluster.kafka.resume().expect("started");
    load.more(100).await;
    let accepted = load.finish().await;
    all_arrive(&receiver, &accepted).await;
    println!("Kafka stopped for 20 s: {} events, {} duplicates", accepted.len(), receiver.stats().duplicates);
    forget(trial.client(), &destination).await;
}

async fn kafka_loses_its_data(trial: &mut Trial) {
    let (receiver, destination, load) = loaded(trial, "kafka-lost").await;
    trial.cluster.kafka.halt().expect("stopped");
    trial.cluster.kafka.lose_data().expect("removed");
    load.more(100).await;
    trial.cluster.kafka.resume().expect("started");
    load.more(100).await;
    let accepted = load.finish().await;
    all_arrive(&receiver, &accepted).await;
    println!("Kafka's data deleted: {} events, {} duplicates", accepted.len(), receiver.stats().duplicates);
    forget(trial.client(), &destination).await;
}

async fn redis_frozen_then_stopped(trial: &mut Trial) {
    let (receiver, destination, load) = loaded(trial, "redis").await;
    for frozen in [true, false] {
        if frozen {
            trial.cluster.redis.process.freeze().expect("frozen");
        } else {
            trial.cluster.redis.halt().expect("stopped");
        }
        let before = receiver.stats().events_accepted;
        eventually("deliveries go on without Redis", LONG, || async {
            let now = receiver.stats().events_accepted;
            if now > before + 200 { Ok(()) } else { Err(now - before) }
        })
        .await;
        if frozen {
            trial.cluster.redis.process.thaw().expect("thawed");
        } else {
            trial.cluster.redis.resume().expect("started");
        }
    }
    let accepted = load.finish().await;
    all_arrive(&receiver, &accepted).await;
    println!("Redis frozen, then stopped: {} events, {} duplicates", accepted.len(), receiver.stats().duplicates);
    forget(trial.client(), &destination).await;
}

async fn postgres_stopped(trial: &mut Trial) {
    let (receiver, destination, load) = loaded(trial, "postgres").await;
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
    load.more(200).await;
    let accepted = load.finish().await;
    all_arrive(&receiver, &accepted).await;
    println!("PostgreSQL stopped: {} events, {} duplicates", accepted.len(), receiver.stats().duplicates);
    forget(trial.client(), &destination).await;
}
