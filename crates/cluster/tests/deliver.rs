//! The main job on a whole cluster: two API services, two dispatchers, one retry, real PostgreSQL, Kafka and Redis.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod trial;

use std::{collections::BTreeSet, process::Stdio, slice, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use signalpost_testkit::{
    env, eventually,
    receiver::{Arrival, Failure, Faults},
    services::cluster::ADMIN_KEY,
};
use tokio::{io::AsyncWriteExt as _, task::JoinSet};
use trial::{LONG, Trial, patient_retry, receiver, settled};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_main_job() {
    let trial = Trial::start(2, 2, 1).await;
    one_key_from_fifty_requests_to_two_services_makes_one_event(&trial).await;
    a_destination_is_routed_to_at_once_on_every_service(&trial).await;
    twenty_thousand_arrive_once_at_a_healthy_receiver(&trial).await;
    twenty_thousand_arrive_at_a_receiver_that_fails_most_of_the_time(&trial).await;
    a_dead_letter_is_listed_replayed_and_delivered(&trial).await;
    ten_thousand_are_replayed_in_bulk(&trial).await;
    a_large_fan_out_is_expanded(&trial).await;
}

/// Posts events with `signalpost send`, as a user would.
async fn send(trial: &Trial, event_type: &str, count: usize) {
    let mut lines = String::new();
    for number in 0..count {
        lines.push_str(
            &json!({"type": event_type, "uid": format!("{event_type}-{number}"), "data": {"number": number}})
                .to_string(),
        );
        lines.push('\n');
    }
    let mut sender = tokio::process::Command::new(env::binaries().join("signalpost"))
        .args([
            "send",
            "--url",
            &trial.cluster.apis[0].url(),
            "--key",
            ADMIN_KEY,
            "--concurrency",
            "16",
            "--format",
            "ndjson",
            "-",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`signalpost send` starts");
    let mut input = sender.stdin.take().expect("its standard input");
    input.write_all(lines.as_bytes()).await.expect("it reads");
    drop(input);
    let output = sender.wait_with_output().await.expect("it ends");
    assert!(
        output.status.success(),
        "send: {}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

async fn one_key_from_fifty_requests_to_two_services_makes_one_event(trial: &Trial) {
    let event = json!({"type": "order.created", "data": {"order": 1}});
    let mut requests = JoinSet::new();
    for index in 0..50 {
        let (client, event) = (trial.clients[index % 2].clone(), event.clone());
        requests.spawn(async move {
            client.request(Method::POST, "/v1/events", Some(&event), &[("idempotency-key", "one")]).await
        });
    }
    let mut ids = BTreeSet::new();
    let mut first_answers = 0;
    while let Some(answer) = requests.join_next().await {
        let (status, answer) = answer.expect("no panic").expect("an answer");
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        ids.insert(answer["id"].to_string());
        first_answers += usize::from(answer["duplicate"] == json!(false));
    }
    assert_eq!(ids.len(), 1, "one event");
    assert_eq!(first_answers, 1, "one request made it, the others were told that they are duplicates");
    let other = json!({"type": "order.created", "data": {"order": 2}});
    let (status, problem) = trial
        .client()
        .request(Method::POST, "/v1/events", Some(&other), &[("idempotency-key", "one")])
        .await
        .expect("an answer");
    assert_eq!((status, problem["code"].as_str()), (StatusCode::UNPROCESSABLE_ENTITY, Some("idempotency_mismatch")));
}

async fn a_destination_is_routed_to_at_once_on_every_service(trial: &Trial) {
    let receiver = receiver().await;
    for round in 0..20 {
        let event_type = format!("routed.{round}");
        // The other service has an older picture of this tenant's routes.
        let created = trial.clients[round % 2]
            .create_destination(&receiver.url(&format!("/{round}")), json!({"event_types": [event_type]}))
            .await
            .expect("created");
        receiver
            .set_secret_at(&format!("/{round}"), created["secret"].as_str().expect("a secret"))
            .expect("well-formed");
        let answer = trial.clients[(round + 1) % 2]
            .post("/v1/events", &json!({"type": event_type, "data": {}}))
            .await
            .expect("accepted");
        assert_eq!(answer["deliveries"], json!(1), "round {round}");
    }
    receiver.wait_for_events(20, LONG).await.expect("all arrive");
}

async fn twenty_thousand_arrive_once_at_a_healthy_receiver(trial: &Trial) {
    let receiver = receiver().await;
    let destination = trial.destination(&receiver, "/healthy", json!({"event_types": ["healthy"]})).await;
    send(trial, "healthy", 20_000).await;
    receiver.wait_for_events(20_000, LONG).await.expect("all arrive");
    settled(trial.client(), slice::from_ref(&destination), 20_000).await;
    let stats = receiver.stats();
    assert_eq!(
        (stats.accepted, stats.events_accepted, stats.duplicates, stats.invalid),
        (20_000, 20_000, 0, 0),
        "{stats:?}"
    );
}

async fn twenty_thousand_arrive_at_a_receiver_that_fails_most_of_the_time(trial: &Trial) {
    let receiver = receiver().await;
    receiver.set_faults(Faults::some(0.7, Failure::status(500)));
    let mut further = patient_retry();
    further["event_types"] = json!(["chaotic"]);
    let destination = trial.destination(&receiver, "/chaotic", further).await;
    send(trial, "chaotic", 20_000).await;
    eventually("all arrive", 2 * LONG, || async {
        let stats = receiver.stats();
        if stats.events_accepted == 20_000 { Ok(()) } else { Err(stats) }
    })
    .await;
    settled(trial.client(), slice::from_ref(&destination), 20_000).await;
    let stats = receiver.stats();
    assert_eq!((stats.duplicates, stats.invalid), (0, 0), "{stats:?}");
    let dead = trial.client().get(&format!("/v1/dead-letters?destination_id={destination}")).await.expect("a list");
    assert_eq!(dead["data"], json!([]), "none is dead");
    // Pauses grow and are jittered: no attempt comes sooner than 50 ms × 1.5^n less 20 % after the one before (later it may,
    // as the system has 20,000 of them to make), and deliveries do not share their pauses.
    let histories = receiver.by_delivery();
    let pauses = |attempt: usize| -> Vec<Duration> {
        let pause = |history: &Vec<Arrival>| {
            Some(history.get(attempt)?.since_start.saturating_sub(history[attempt - 1].since_start))
        };
        histories.values().filter_map(pause).collect()
    };
    for attempt in 1..=12 {
        let all = pauses(attempt);
        assert!(all.len() > 100, "{} deliveries with {} attempts", all.len(), attempt + 1);
        let least = Duration::from_millis(50)
            .mul_f64(1.5_f64.powi(i32::try_from(attempt).unwrap_or(0) - 1) * 0.8)
            .min(Duration::from_millis(1_600));
        let shortest = all.iter().min().copied().unwrap_or_default();
        assert!(shortest >= least, "pause {attempt} was {shortest:?}, less than {least:?}");
    }
    let distinct: BTreeSet<u128> = pauses(8).iter().map(Duration::as_millis).collect();
    assert!(distinct.len() > 20, "the pauses are not jittered: {distinct:?}");
}

async fn a_dead_letter_is_listed_replayed_and_delivered(trial: &Trial) {
    let receiver = receiver().await;
    receiver.set_faults(Faults::always(Failure::status(400)));
    let destination = trial.destination(&receiver, "/dead", json!({"event_types": ["dead"]})).await;
    let event = trial.client().post("/v1/events", &json!({"type": "dead", "data": {"a": 1}})).await.expect("accepted");
    let letter = eventually("it dies", LONG, || async {
        let list = trial
            .client()
            .get(&format!("/v1/dead-letters?destination_id={destination}"))
            .await
            .map_err(|e| e.to_string())?;
        list["data"].get(0).cloned().ok_or_else(|| list.to_string())
    })
    .await;
    assert_eq!(letter["reason"], json!("rejected"), "{letter}");
    let id = letter["id"].as_str().expect("an id");
    let whole = trial.client().get(&format!("/v1/dead-letters/{id}")).await.expect("one dead letter");
    assert_eq!(whole["last_attempt"]["status_code"], json!(400), "{whole}");
    receiver.set_faults(Faults::none());
    let again = trial.client().post(&format!("/v1/dead-letters/{id}/replay"), &json!({})).await.expect("replayed");
    eventually("it arrives", LONG, || async {
        let arrived = receiver.accepted_by_event();
        if arrived.get(event["id"].as_str().unwrap_or_default()) == Some(&1) { Ok(()) } else { Err(arrived) }
    })
    .await;
    assert_eq!(again["replay_of"], json!(id), "{again}");
    let (status, _) =
        trial.client().request(Method::GET, &format!("/v1/dead-letters/{id}"), None, &[]).await.expect("an answer");
    assert_eq!(status, StatusCode::NOT_FOUND, "a replayed dead letter is off the list");
}

async fn ten_thousand_are_replayed_in_bulk(trial: &Trial) {
    let receiver = receiver().await;
    receiver.set_faults(Faults::always(Failure::status(400)));
    let destination = trial.destination(&receiver, "/bulk", json!({"event_types": ["bulk"]})).await;
    send(trial, "bulk", 10_000).await;
    let selection = json!({"destination_id": destination, "dry_run": true});
    eventually("all die", LONG, || async {
        let dry = trial.client().post("/v1/replays", &selection).await.map_err(|error| error.to_string())?;
        if dry["matched"] == json!(10_000) { Ok(()) } else { Err(dry.to_string()) }
    })
    .await;
    receiver.set_faults(Faults::none());
    let job = trial.client().post("/v1/replays", &json!({"destination_id": destination})).await.expect("a job");
    let path = format!("/v1/replays/{}", job["id"].as_str().expect("an id"));
    let done = eventually("the job ends", LONG, || async {
        let job = trial.client().get(&path).await.map_err(|error| error.to_string())?;
        if job["state"] == json!("completed") { Ok(job) } else { Err(job.to_string()) }
    })
    .await;
    assert_eq!((&done["matched"], &done["replayed"]), (&json!(10_000), &json!(10_000)), "{done}");
    eventually("all arrive", LONG, || async {
        let stats = receiver.stats();
        if stats.events_accepted == 10_000 { Ok(()) } else { Err(stats) }
    })
    .await;
    assert_eq!(receiver.stats().duplicates, 0);
}

async fn a_large_fan_out_is_expanded(trial: &Trial) {
    let receiver = receiver().await;
    let mut created = JoinSet::new();
    for index in 0..1_050 {
        let (client, url) = (trial.clients[index % 2].clone(), receiver.url(&format!("/fan/{index}")));
        created.spawn(async move { client.create_destination(&url, json!({"event_types": ["fan.out"]})).await });
        if created.len() >= 32 {
            created.join_next().await.expect("one").expect("no panic").expect("created");
        }
    }
    while let Some(destination) = created.join_next().await {
        destination.expect("no panic").expect("created");
    }
    let event = trial.client().post("/v1/events", &json!({"type": "fan.out", "data": {}})).await.expect("accepted");
    assert_eq!(event["deliveries"], json!(1_050));
    eventually("it arrives everywhere", LONG, || async {
        let stats = receiver.stats();
        if stats.deliveries == 1_050 { Ok(()) } else { Err(stats) }
    })
    .await;
    let path = format!("/v1/events/{}", event["id"].as_str().expect("an id"));
    eventually("it counts as delivered", LONG, || async {
        let event: Value = trial.client().get(&path).await.map_err(|error| error.to_string())?;
        if event["status"] == json!("delivered") { Ok(()) } else { Err(event.to_string()) }
    })
    .await;
    assert_eq!(receiver.stats().duplicate_deliveries, 0);
}
