//! Today's services take up what an earlier version left behind: its database, migrated, and its messages on the bus.
//! Real programs of an earlier version beside today's: `cargo xtask compat --base <rev>`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod earlier;
mod trial;

use std::collections::{BTreeMap, BTreeSet};

use earlier::Earlier;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use signalpost_testkit::{
    Client, env, eventually,
    receiver::Receiver,
    services::{Cluster, Ground, Kind, Own},
};
use tokio::time::Instant;
use trial::{LONG, Trial, all_run, ready, receiver, spec};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_version_left_is_taken_up() {
    let earlier = Earlier::open("schema-0001");
    let receiver = receiver().await;
    let (cluster, messages) = tokio::task::block_in_place(|| {
        let ground = Ground::start(&env::services_cache(), false, &[]).expect("PostgreSQL, Redis and Kafka start");
        ground.postgres.run_sql("postgres", &earlier.sql(&receiver.addr().to_string())).expect("the earlier database");
        // Migrates, makes the topics.
        let mut cluster = Cluster::start_on(ground, &spec()).expect("migrated");
        let messages = earlier.publish(&cluster.kafka.brokers());
        cluster.add(Kind::Api, &Own::default()).expect("it starts");
        (cluster, messages)
    });
    let mut trial = Trial::on(cluster).await;
    let expected = earlier.expected();
    secrets_are_known(&trial, &receiver, &expected).await;
    let began = Instant::now();
    // The messages first: a delivery that is fed again while its old message is looked at may rest for a whole lease.
    start(&mut trial, Kind::Dispatcher).await;
    eventually("the old messages are consumed", LONG, || {
        let brokers = trial.cluster.kafka.brokers();
        async move { tokio::task::block_in_place(|| earlier::all_consumed(&brokers)) }
    })
    .await;
    println!("{messages} old messages consumed after {:?}: {:?}", began.elapsed(), receiver.stats());
    start(&mut trial, Kind::Retry).await;

    let open = list(&expected["open"]);
    let fan_out = text(&expected["fan_out"]["event"]);
    let mut wanted: BTreeMap<String, u64> = open.iter().map(|id| (id.clone(), 1)).collect();
    wanted.insert(fan_out, expected["fan_out"]["deliveries"].as_u64().expect("a number"));
    arrive(&receiver, &wanted).await;
    println!("{} open events: all there after {:?}", open.len(), began.elapsed());
    what_ended_is_as_it_was(&trial, &expected).await;
    what_was_said_is_said_again(&trial, &earlier.said()["idempotent"]).await;
    what_waits_for_a_person_goes_on(&trial, &expected, &receiver, &mut wanted).await;
    new_events_are_delivered(&trial, &receiver, &mut wanted).await;
    secrets_are_sealed(&trial);
    new_events_are_delivered(&trial, &receiver, &mut wanted).await;
    all_run(&mut trial);
}

/// Nothing is encrypted while services of the version before may run; `rotate-keys` begins it, beside the services. What was
/// plain is not there any more, and deliveries are signed as before.
fn secrets_are_sealed(trial: &Trial) {
    let holds = |what: &str, condition: &str| {
        let sql = format!(
            "DO $$ BEGIN ASSERT (SELECT count(*) > 0 AND bool_and({condition}) FROM destinations), '{what}'; END $$;"
        );
        trial.cluster.postgres.run_sql("postgres", &sql).expect("it holds");
    };
    tokio::task::block_in_place(|| {
        holds("all are plain", "sealed IS NULL AND secret <> '' AND spec ? 'headers'");
        for _ in 0..2 {
            trial.cluster.command(&env::binaries(), "rotate-keys").expect("all are encrypted");
            holds("all are encrypted", "sealed_by = 'trial' AND secret = '' AND NOT spec ? 'headers'");
        }
    });
}

async fn start(trial: &mut Trial, kind: Kind) {
    tokio::task::block_in_place(|| trial.cluster.add(kind, &Own::default()).map(drop)).expect("it starts");
    ready(trial.cluster.of(kind).last().expect("one")).await;
}

/// The receiver refuses what is not signed with the secrets that the earlier version made.
async fn secrets_are_known(trial: &Trial, receiver: &Receiver, expected: &Value) {
    for (name, id) in expected["destinations"].as_object().expect("destinations") {
        let path = format!("/v1/destinations/{}", text(id));
        let destination = trial.client().request(Method::GET, &path, None, &[]).await.expect("an answer");
        if name == "deleted" {
            assert_eq!(destination.0, StatusCode::NOT_FOUND);
            continue;
        }
        assert_eq!((destination.0, &destination.1["name"]), (StatusCode::OK, &json!(name)), "{}", destination.1);
        let state = match name.as_str() {
            "gone" => "disabled",
            "paused" => "paused",
            _ => "active",
        };
        assert_eq!(destination.1["state"], json!(state), "{}", destination.1);
        let secret = trial.client().get(&format!("{path}/secret")).await.expect("its secret");
        receiver.set_secret_at(&format!("/{name}"), &text(&secret["secret"])).expect("a secret");
    }
}

/// Waits until exactly these events have come, each so often, and nothing else.
async fn arrive(receiver: &Receiver, wanted: &BTreeMap<String, u64>) {
    eventually("what was open arrives", LONG, || async {
        let arrived: BTreeMap<String, u64> = receiver.accepted_by_event().into_iter().collect();
        let missing: Vec<_> = wanted.iter().filter(|(id, times)| arrived.get(*id) < Some(*times)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("missing: {missing:?}; {:?}", receiver.stats())) }
    })
    .await;
    let arrived: BTreeMap<String, u64> = receiver.accepted_by_event().into_iter().collect();
    assert_eq!(&arrived, wanted, "something arrived that had arrived before, or twice");
    assert_eq!(receiver.stats().invalid, 0, "a signature was wrong");
}

async fn what_ended_is_as_it_was(trial: &Trial, expected: &Value) {
    let client = trial.client();
    for (kind, status) in
        [("delivered", "delivered"), ("cancelled", "cancelled"), ("dead", "dead"), ("open", "delivered")]
    {
        for event in list(&expected[kind]) {
            // What arrived just now may not be written yet.
            eventually("it stands so", LONG, || async {
                let deliveries =
                    client.get(&format!("/v1/events/{event}/deliveries")).await.map_err(|e| e.to_string())?;
                let all = deliveries["data"].as_array().ok_or("no list")?;
                // A replayed one stays dead, and its replay is delivered.
                let stands = all.iter().any(|delivery| delivery["status"] == json!(status));
                if stands { Ok(()) } else { Err(deliveries.to_string()) }
            })
            .await;
            if kind != "cancelled" {
                let attempts = client.get(&format!("/v1/events/{event}/attempts")).await.expect("attempts");
                assert_ne!(attempts["data"], json!([]), "{event} has no attempts");
            }
        }
    }
    let path = format!("/v1/dead-letters?destination_id={}", text(&expected["destinations"]["dead"]));
    let dead = client.get(&path).await.expect("dead letters");
    let events: BTreeSet<String> =
        dead["data"].as_array().expect("a list").iter().map(|letter| text(&letter["event_id"])).collect();
    assert_eq!(events, list(&expected["dead"]), "{dead}");
    for replay in ["completed_replay", "running_replay"] {
        let path = format!("/v1/replays/{}", text(&expected[replay]));
        eventually("the replay ends", LONG, || async {
            let replay = client.get(&path).await.map_err(|error| error.to_string())?;
            if replay["state"] == json!("completed") { Ok(()) } else { Err(replay.to_string()) }
        })
        .await;
    }
}

/// A key of then is answered as then.
async fn what_was_said_is_said_again(trial: &Trial, said: &Value) {
    let key = text(&said["key"]);
    let headers = [("idempotency-key", key.as_str())];
    let again = trial.client().request(Method::POST, "/v1/events", Some(&said["event"]), &headers).await;
    let (status, answer) = again.expect("an answer");
    assert_eq!((status, &answer["duplicate"]), (StatusCode::ACCEPTED, &json!(true)), "{answer}");
    assert_eq!(answer["id"], said["answer"]["id"], "{answer}");
}

async fn what_waits_for_a_person_goes_on(
    trial: &Trial,
    expected: &Value,
    receiver: &Receiver,
    wanted: &mut BTreeMap<String, u64>,
) {
    let client = trial.client();
    let destination = |name: &str| text(&expected["destinations"][name]);
    client.post(&format!("/v1/destinations/{}/resume", destination("paused")), &json!({})).await.expect("resumed");
    wanted.extend(list(&expected["paused"]).into_iter().map(|id| (id, 1)));
    let replay = json!({"destination_id": destination("dead")});
    client.post("/v1/replays", &replay).await.expect("replayed");
    wanted.extend(list(&expected["dead"]).into_iter().map(|id| (id, 1)));
    arrive(receiver, wanted).await;
}

async fn new_events_are_delivered(trial: &Trial, receiver: &Receiver, wanted: &mut BTreeMap<String, u64>) {
    let client: &Client = trial.client();
    let event = client.post("/v1/events", &json!({"type": "ok", "data": {"new": true}})).await.expect("accepted");
    wanted.insert(text(&event["id"]), 1);
    arrive(receiver, wanted).await;
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn list(value: &Value) -> BTreeSet<String> {
    value.as_array().expect("a list").iter().map(text).collect()
}
