//! When the store refuses or is away, and when clocks disagree.

use std::sync::atomic::Ordering;

use futures::future::join_all;
use serde_json::json;
use signalpost_api::{OperationsSettings, Settings};
use signalpost_telemetry::{Access, Metrics};

use super::{
    Method,
    faulty::{REFUSED, start},
    messages, post, post_with,
};

#[tokio::test]
async fn a_refused_event_falls_alone() {
    let (app, faults) = start(Settings::default());
    app.destination(json!({})).await;
    let replies = join_all((0..60).map(|number| {
        let event_type = if number % 20 == 7 { REFUSED } else { "a" };
        let body = json!({"type": event_type, "data": number}).to_string();
        let app = &app;
        async move { post(app, &body).await }
    }))
    .await;
    for (number, reply) in replies.into_iter().enumerate() {
        if number % 20 == 7 {
            reply.problem(422, "validation_failed");
        } else {
            reply.expect(202);
        }
    }
    assert_eq!(messages(&app, 57).await.len(), 57);
    assert!(faults.groups.load(Ordering::SeqCst) < 60, "the others went together");

    let batch = json!({"events": [{"type": "a", "data": 1}, {"type": REFUSED, "data": 1}, {"type": "a", "data": 1}]});
    let answer = app.post("/v1/events/batch", batch).await.expect(207);
    assert_eq!((&answer["accepted"], &answer["results"][1]["error"]["status"]), (&json!(2), &json!(422)));
}

#[tokio::test]
async fn a_store_that_is_away_is_503_and_heals_by_itself() {
    let (app, faults) = start(Settings::default());
    app.destination(json!({})).await;
    let body = r#"{"type":"a","data":1}"#;
    post(&app, body).await.expect(202);
    faults.away.store(true, Ordering::SeqCst);
    let reply = post_with(&app, &[("idempotency-key", "k")], body).await;
    assert_eq!(reply.header("retry-after"), "1");
    reply.problem(503, "unavailable");
    let batch = app.post("/v1/events/batch", json!({"events": [{"type": "a", "data": 1}]})).await;
    assert_eq!(batch.header("retry-after"), "1");
    batch.problem(503, "unavailable");
    faults.away.store(false, Ordering::SeqCst);
    let answer = post_with(&app, &[("idempotency-key", "k")], body).await.expect(202);
    assert_eq!((&answer["duplicate"], &answer["deliveries"]), (&json!(false), &json!(1)));
    assert_eq!(messages(&app, 2).await.len(), 2);
}

#[tokio::test]
async fn readiness_needs_the_store_and_a_clock_that_agrees() {
    let operations = OperationsSettings { metrics: Metrics::install().unwrap(), access: Access::Open };
    let (app, faults) = start(Settings { operations: Some(operations.clone()), ..Settings::default() });
    let ready = app.get("/health/ready").await.expect(200);
    assert_eq!(ready["status"], "ok");
    app.get("/health/live").await.expect(200);
    post(&app, r#"{"type":"a","data":1}"#).await.expect(202);
    let metrics = app.get("/metrics").await;
    let text = String::from_utf8(metrics.bytes.to_vec()).unwrap();
    assert!(text.contains("signalpost_events_received_total"), "{text}");
    assert!(text.contains(r#"signalpost_http_requests_total{route="/v1/events",status="202"}"#), "{text}");

    // Answers hold for half a second, so each state has an API of its own.
    let (app, faults_of_clock) = start(Settings { operations: Some(operations.clone()), ..Settings::default() });
    faults_of_clock.seconds_ahead.store(5, Ordering::SeqCst);
    let skewed = app.get("/health/ready").await.expect(503);
    assert!(skewed["dependencies"]["store"]["error"].as_str().unwrap().contains("clock"), "{skewed}");
    let locked = OperationsSettings {
        access: Access::for_listener("0.0.0.0:1".parse().unwrap(), &["another-operators-key".to_owned()]),
        ..operations.clone()
    };
    let (app, _) = start(Settings { operations: Some(locked), ..Settings::default() });
    app.get("/metrics").await.problem(401, "unauthorized");
    assert_eq!(app.get("/health/ready").await.expect(200), serde_json::json!({"status": "ok"}));
    let (app, away) = start(Settings { operations: Some(operations), ..Settings::default() });
    away.away.store(true, Ordering::SeqCst);
    assert_eq!(app.get("/health/ready").await.expect(503)["status"], "unavailable");
    app.with(Method::GET, "/health/live", &[], "").await.expect(200);
    drop(faults);
}
