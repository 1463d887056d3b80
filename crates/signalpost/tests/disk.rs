//! A full disk under load: nothing is accepted that could not be kept, what was accepted is delivered, and it goes on by itself when
//! there is room again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod support;

use std::{collections::BTreeSet, path::Path};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use signalpost_testkit::{
    Client, eventually,
    receiver::{Receiver, ReceiverSettings},
};
use support::{Dev, LONG};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_loses_nothing() {
    let receiver = Receiver::start(ReceiverSettings { keep: 10, ..ReceiverSettings::default() }).await.unwrap();
    let mut dev = Dev::standalone_on_a_small_disk();
    let destination = dev.client().create_destination(&receiver.url("/"), json!({})).await.unwrap();
    receiver.set_secret(destination["secret"].as_str()).unwrap();
    let mut accepted = BTreeSet::new();

    let refused = fill(&dev, "first", &mut accepted).await;
    tell(&dev, &refused).await;
    // What was refused is accepted when it comes again, and no sooner than there is room.
    dev.limit_files(None);
    readiness(&dev, StatusCode::OK).await;
    let event = dev.client().post_event_surely(&event("first"), &refused.key, LONG).await.unwrap();
    accepted.insert(event["id"].as_str().unwrap().to_owned());
    all_arrive(&receiver, &accepted).await;
    println!("full, then room: {} events, {} duplicates", accepted.len(), receiver.stats().duplicates);
    assert!(dev.process.is_running());

    // Full again, and killed while it is.
    fill(&dev, "second", &mut accepted).await;
    dev.process.kill().unwrap();
    dev.restart();
    all_arrive(&receiver, &accepted).await;
    let stats = receiver.stats();
    println!("full, killed, started: {} events, {} duplicates", accepted.len(), stats.duplicates);
    // One that was out, or whose outcome could not be written, when it was killed.
    assert!(stats.duplicates <= 20, "{stats:?}");
    assert_eq!(stats.invalid, 0);
    assert!(dev.process.stop(LONG).unwrap().success());
}

fn event(name: &str) -> Value {
    json!({"type": "load.posted", "data": {"filling": name.repeat(400)}})
}

struct Refused {
    key: String,
    problem: Value,
}

/// Leaves two megabytes of room, and posts until nothing more is accepted.
async fn fill(dev: &Dev, name: &str, accepted: &mut BTreeSet<String>) -> Refused {
    let client = dev.client();
    dev.limit_files(Some(largest_file(&dev.data_dir()) + 2 * 1024 * 1024));
    for number in 0.. {
        let key = format!("{name}-{number}");
        let (status, answer) =
            client.request(Method::POST, "/v1/events", Some(&event(name)), &[("idempotency-key", &key)]).await.unwrap();
        if status == StatusCode::ACCEPTED {
            accepted.insert(answer["id"].as_str().unwrap().to_owned());
            continue;
        }
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
        println!("{name}: {} accepted, then {answer}", accepted.len());
        return Refused { key, problem: answer };
    }
    unreachable!()
}

/// The file that meets the limit first.
fn largest_file(folder: &Path) -> u64 {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).max().unwrap()
}

/// Producers are told when to come again; reading goes on.
async fn tell(dev: &Dev, refused: &Refused) {
    assert_eq!(refused.problem["code"], json!("unavailable"), "{}", refused.problem);
    // What was refused may have left room for a smaller one; now there is none at all.
    dev.limit_files(Some(4096));
    let client: Client = dev.client();
    let (status, retry_after) = client.header_of("/v1/events", &event("first"), "retry-after").await.unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(retry_after.is_some(), "no Retry-After");
    let report = readiness(dev, StatusCode::SERVICE_UNAVAILABLE).await;
    let error = report["dependencies"]["store"]["error"].as_str().unwrap_or_default();
    assert!(error.contains("disk"), "{report}");
    let events = client.get("/v1/events?limit=1").await.unwrap();
    assert_eq!(events["data"].as_array().map(Vec::len), Some(1), "{events}");
    assert!(dev.said().contains("disk"), "the log does not say what is wrong: {}", dev.said());
}

/// Waits until the API says so of itself. What it says.
async fn readiness(dev: &Dev, expected: StatusCode) -> Value {
    eventually("the API is as it should be", LONG, || async {
        let answer = reqwest::get(format!("{}/health/ready", dev.url())).await.unwrap();
        let status = answer.status();
        let report: Value = answer.json().await.unwrap();
        if status == expected { Ok(report) } else { Err(format!("{status} {report}")) }
    })
    .await
}

/// All of these arrive, and no other.
async fn all_arrive(receiver: &Receiver, accepted: &BTreeSet<String>) {
    eventually("everything accepted arrives", LONG, || async {
        let arrived: BTreeSet<String> = receiver.accepted_by_event().into_keys().collect();
        if arrived == *accepted {
            Ok(())
        } else {
            let strangers: Vec<_> = arrived.difference(accepted).take(3).collect();
            Err(format!("{} missing; strangers: {strangers:?}", accepted.difference(&arrived).count()))
        }
    })
    .await;
}
