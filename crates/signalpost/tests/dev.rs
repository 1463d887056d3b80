//! `signalpost dev` as its first user meets it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod support;

use http::HeaderMap;
use serde_json::{Value, json};
use signalpost_testkit::{
    eventually,
    receiver::{Failure, Faults, Receiver, ReceiverSettings},
};
use support::{Curl, Dev, LONG};

/// What the inbox has, newest first.
async fn inbox(dev: &Dev) -> Vec<Value> {
    let answer = reqwest::get(format!("{}/dev/inbox", dev.url())).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    answer["data"].as_array().unwrap().clone()
}

async fn inbox_has(dev: &Dev, count: usize) -> Vec<Value> {
    eventually("the inbox gets its requests", LONG, || async {
        let requests = inbox(dev).await;
        if requests.len() == count { Ok(requests) } else { Err(requests.len()) }
    })
    .await
}

/// As a receiver does it that uses the official library.
fn verify(secret: &str, request: &Value) {
    let headers: HeaderMap = request["headers"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), value.as_str().unwrap().parse().unwrap()))
        .collect::<Vec<(http::HeaderName, http::HeaderValue)>>()
        .into_iter()
        .collect();
    let body = request["body"].as_str().unwrap().as_bytes();
    standardwebhooks::Webhook::new(secret).unwrap().verify(body, &headers).expect("the signature is right");
    let changed = request["body"].as_str().unwrap().replace("42", "43");
    assert!(standardwebhooks::Webhook::new(secret).unwrap().verify(changed.as_bytes(), &headers).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_three_lines_work_when_pasted_and_a_restart_finds_everything() {
    let mut dev = Dev::start();
    assert!(dev.client().get("/v1/destinations").await.unwrap()["data"].as_array().unwrap().is_empty());
    let lines = Curl::lines(&dev.said());
    assert_eq!(lines.len(), 3);
    assert!(dev.said().contains(&format!("key      {}", dev.key())), "the key is shown");

    let (status, destination) = lines[0].send().await;
    assert_eq!(status, 201, "{destination}");
    let secret = destination["secret"].as_str().unwrap();
    let (status, event) = lines[1].send().await;
    assert_eq!((status, &event["deliveries"]), (202, &json!(1)), "{event}");

    let requests = inbox_has(&dev, 1).await;
    assert_eq!(requests[0]["signature"], "ok");
    assert_eq!(requests[0]["headers"]["webhook-id"], event["id"]);
    verify(secret, &requests[0]);

    let attempts = eventually("the attempt is listed", LONG, || async {
        let (status, attempts) = lines[2].send().await;
        assert_eq!(status, 200, "{attempts}");
        attempts["data"].as_array().unwrap().first().cloned().ok_or(attempts)
    })
    .await;
    assert_eq!((&attempts["event_id"], &attempts["outcome"]), (&event["id"], &json!("delivered")));
    dev.process.wait_for_log("order.created → inbox 200 in ", 1, LONG).unwrap();
    assert!(dev.said().contains(", signature ok\n"), "{}", dev.said());

    let key = dev.key();
    assert!(dev.process.stop(LONG).unwrap().success(), "SIGTERM drains");
    dev.restart();
    assert_eq!(dev.key(), key);
    let found = dev.client().get("/v1/destinations").await.unwrap();
    assert_eq!(found["data"][0]["id"], destination["id"]);
    let event_found = dev.client().get(&format!("/v1/events/{}", event["id"].as_str().unwrap())).await.unwrap();
    assert_eq!((&event_found["status"], &event_found["data"]), (&json!("delivered"), &json!({"order": 42})));

    // All three again: the destination is the same one, the event another.
    let (status, again) = lines[0].send().await;
    assert_eq!((status, &again["id"]), (200, &destination["id"]), "{again}");
    let (status, second) = lines[1].send().await;
    assert_eq!(status, 202);
    let requests = inbox_has(&dev, 1).await;
    assert_eq!((&requests[0]["headers"]["webhook-id"], &requests[0]["signature"]), (&second["id"], &json!("ok")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inbox_judges_signatures_and_is_a_page_for_browsers() {
    let dev = Dev::start();
    let path = format!("{}/dev/inbox/shop", dev.url());
    // It also sets up TLS, which a client of reqwest's asks for.
    let client = dev.client();
    let http = reqwest::Client::new();
    http.post(&path).body("<b>nobody points here</b>").send().await.unwrap();
    assert_eq!(inbox_has(&dev, 1).await[0]["signature"], "unchecked");

    client.create_destination(&path, json!({})).await.unwrap();
    http.post(&path).header("webhook-id", "x").body("{}").send().await.unwrap();
    let requests = inbox_has(&dev, 2).await;
    assert_eq!((&requests[0]["signature"], &requests[1]["number"]), (&json!("wrong"), &json!(1)));

    for number in 0..120 {
        http.post(&path).body(number.to_string()).send().await.unwrap();
    }
    let requests = inbox(&dev).await;
    assert_eq!((requests.len(), &requests[0]["body"]), (100, &json!("119")));
    let page = http.get(format!("{}/dev/inbox", dev.url())).header("accept", "text/html,*/*").send().await.unwrap();
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("script-src 'unsafe-inline'"), "its script may run: {policy}");
    assert!(page.text().await.unwrap().contains("<details id=\"r122\">"));
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_attempts_are_told_with_what_comes_next() {
    let faults = Faults::always(Failure::status(503));
    let receiver = Receiver::start(ReceiverSettings { faults, ..ReceiverSettings::default() }).await.unwrap();
    let mut dev = Dev::start();
    let client = dev.client();
    let retry = json!({"retry": {"strategy": "schedule", "delays_ms": [20], "jitter": 0}});
    client.create_destination(&receiver.url("/hook"), retry).await.unwrap();
    client.post("/v1/events", &json!({"type": "order.paid", "data": {}})).await.unwrap();
    dev.process.wait_for_log(": attempt 1 of 2, next in 20 ms\n", 1, LONG).unwrap();
    dev.process.wait_for_log(": attempt 2 of 2, dead; see /v1/dead-letters\n", 1, LONG).unwrap();
    assert!(dev.said().contains("order.paid → test 503 in "), "{}", dev.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_of_the_private_network_is_refused() {
    let dev = Dev::start();
    let refused = dev.client().create_destination("http://10.0.0.1/hook", json!({})).await.unwrap_err();
    assert!(refused.to_string().contains("422"), "{refused}");
}
