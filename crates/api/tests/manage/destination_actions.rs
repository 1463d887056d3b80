//! Pause, resume, test.

use std::time::Duration;

use serde_json::{Value, json};
use signalpost_core::TenantId;
use signalpost_receiver::{Failure, Faults, Receiver, ReceiverSettings, Verdict};
use signalpost_store::DispatchStore as _;

use crate::app::{App, destination_id};

#[tokio::test]
async fn pause_and_resume() {
    let app = App::start();
    let id = app.destination(json!({})).await;
    let path = format!("/v1/destinations/{id}");
    for _ in 0..2 {
        assert_eq!(app.act(&format!("{path}/pause")).await.expect(200)["state"], "paused");
        assert_eq!(app.get(&path).await.expect(200)["state"], "paused");
    }
    for _ in 0..2 {
        assert_eq!(app.act(&format!("{path}/resume")).await.expect(200)["state"], "active");
    }
    app.post(&format!("{path}/pause"), json!({})).await.expect(200);
}

#[tokio::test]
async fn resume_enables_a_disabled_one_and_pause_does_not() {
    let app = App::start();
    let id = app.destination(json!({})).await;
    let path = format!("/v1/destinations/{id}");
    app.store.disable_destination(TenantId::DEFAULT, destination_id(&id), "answered 410").await.unwrap();
    let shown = app.act(&format!("{path}/pause")).await.expect(200);
    assert_eq!((&shown["state"], &shown["disabled_reason"]), (&json!("disabled"), &json!("answered 410")));
    let shown = app.act(&format!("{path}/resume")).await.expect(200);
    assert_eq!((&shown["state"], &shown["disabled_reason"]), (&json!("active"), &Value::Null));
}

#[tokio::test]
async fn a_test_sends_a_signed_ping() {
    let app = App::start();
    let receiver = Receiver::start(ReceiverSettings::default()).await.unwrap();
    let id = app.destination(json!({"url": receiver.url("/hook"), "headers": {"X-A": "{event.type}"}})).await;
    let path = format!("/v1/destinations/{id}");
    let secret = app.get(&format!("{path}/secret")).await.expect(200)["secret"].as_str().unwrap().to_owned();
    receiver.set_secret(Some(&secret)).unwrap();

    let attempt = app.act(&format!("{path}/test")).await.expect(200);
    for (field, expected) in [
        ("outcome", json!("delivered")),
        ("status_code", json!(200)),
        ("number", json!(1)),
        ("error", Value::Null),
        ("destination_id", json!(id)),
    ] {
        assert_eq!(attempt[field], expected, "{field}");
    }
    receiver.wait_for(1, Duration::from_secs(5)).await.unwrap();
    let request = receiver.received()[0].clone();
    assert_eq!(request.verdict, Verdict::Valid);
    assert_eq!(request.webhook_id(), attempt["event_id"]);
    assert_eq!(request.header("signalpost-delivery-id"), attempt["delivery_id"]);
    assert_eq!(request.header("signalpost-event-type"), "signalpost.ping");
    assert_eq!(request.header("x-a"), "signalpost.ping");
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["type"], "signalpost.ping");
    assert_eq!(body["data"]["destination_id"], id);
    // It leaves no trace in lists.
    assert_eq!(app.get("/v1/attempts").await.expect(200)["data"], json!([]));
    assert_eq!(app.get("/v1/events").await.expect(200)["data"], json!([]));
}

#[tokio::test]
async fn a_test_answers_whatever_comes_of_it() {
    let app = App::start();
    let receiver = Receiver::start(ReceiverSettings::default()).await.unwrap();
    receiver.set_faults(Faults::always(Failure::status(503)));
    let id = app.destination(json!({"url": receiver.url("/hook")})).await;
    let attempt = app.act(&format!("/v1/destinations/{id}/test")).await.expect(200);
    assert_eq!((&attempt["outcome"], &attempt["status_code"]), (&json!("dead"), &json!(503)));
    assert!(attempt["response_excerpt"].is_string());
    app.act(&format!("/v1/destinations/{id}/pause")).await.expect(200);
    receiver.set_faults(Faults::always(Failure::Reset));
    let attempt = app.act(&format!("/v1/destinations/{id}/test")).await.expect(200);
    assert_eq!((&attempt["outcome"], &attempt["status_code"]), (&json!("dead"), &Value::Null));
    assert!(attempt["error"].is_string());
    assert_eq!(attempt["response_excerpt"], Value::Null);
    assert_eq!(receiver.stats().requests, 2);
}
