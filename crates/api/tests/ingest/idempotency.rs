//! Sending again: keys and uids.

use futures::future::join_all;
use serde_json::{Value, json};
use signalpost_core::TenantId;
use signalpost_store::{
    ReadStore as _,
    read::{EventFilter, Page},
};

use super::{App, Method, Reply, post, post_with};

async fn events(app: &App) -> usize {
    let page = Page { limit: 5000, after: None, descending: false };
    app.store.list_events(TenantId::DEFAULT, &EventFilter::default(), page, false).await.unwrap().len()
}

fn assert_replayed(first: &Value, again: Reply) {
    assert_eq!(again.header("idempotency-replayed"), "true");
    let mut expected = first.clone();
    expected["duplicate"] = Value::Bool(true);
    assert_eq!(again.expect(202), expected);
}

#[tokio::test]
async fn a_key_gives_the_first_answer_again() {
    let app = App::start();
    app.destination(json!({})).await;
    let body = r#"{"type":"a","data":1}"#;
    let reply = post_with(&app, &[("idempotency-key", "k-1")], body).await;
    assert_eq!(reply.header("idempotency-replayed"), "");
    let first = reply.expect(202);
    // Quotes are optional, and the other header is the same.
    assert_replayed(&first, post_with(&app, &[("idempotency-key", "\"k-1\"")], body).await);
    assert_replayed(&first, post_with(&app, &[("x-idempotency-key", "k-1")], body).await);
    // The answer of then, although an event of now would go to two.
    app.destination(json!({})).await;
    assert_replayed(&first, post_with(&app, &[("idempotency-key", "k-1")], body).await);
    assert_eq!(events(&app).await, 1);

    let other = r#"{"type":"a","data":2}"#;
    post_with(&app, &[("idempotency-key", "k-1")], other).await.problem(422, "idempotency_mismatch");
    post_with(&app, &[("idempotency-key", "k-2")], body).await.expect(202);
    for bad in ["", "a b", &"x".repeat(256)] {
        post_with(&app, &[("idempotency-key", bad)], body).await.problem(400, "bad_request");
    }
}

#[tokio::test]
async fn a_refused_event_uses_no_key() {
    let app = App::start();
    post_with(&app, &[("idempotency-key", "k")], r#"{"type":"a"}"#).await.problem(422, "validation_failed");
    post_with(&app, &[("idempotency-key", "k")], r#"{"type":"a","data":1}"#).await.expect(202);
}

#[tokio::test]
async fn a_key_belongs_to_its_destination_and_tenant() {
    let app = App::start();
    let one = app.destination(json!({})).await;
    let two = app.destination(json!({})).await;
    let body = |id: &str| json!({"data": 1, "destination_id": id}).to_string();
    let first = post_with(&app, &[("idempotency-key", "k")], &body(&one)).await.expect(202);
    let second = post_with(&app, &[("idempotency-key", "k")], &body(&two)).await.expect(202);
    assert_ne!(first["id"], second["id"]);
    // The first answer holds even where the destination has gone since.
    app.delete(&format!("/v1/destinations/{one}")).await.expect(204);
    assert_replayed(&first, post_with(&app, &[("idempotency-key", "k")], &body(&one)).await);
    post_with(&app, &[("idempotency-key", "k-2")], &body(&one)).await.problem(404, "not_found");
    let other = json!({"data": 2, "destination_id": one}).to_string();
    post_with(&app, &[("idempotency-key", "k")], &other).await.problem(422, "idempotency_mismatch");
}

#[tokio::test]
async fn fifty_at_once_make_one_event() {
    let app = App::start();
    app.destination(json!({})).await;
    let replies =
        join_all((0..50).map(|_| post_with(&app, &[("idempotency-key", "k")], r#"{"type":"a","data":1}"#))).await;
    let firsts = replies.iter().filter(|reply| reply.body["duplicate"] == false).count();
    assert_eq!(firsts, 1);
    for reply in &replies {
        assert_eq!(reply.status, 202);
        assert_eq!(reply.body["id"], replies[0].body["id"]);
        assert_eq!(reply.header("idempotency-replayed") == "true", reply.body["duplicate"] == true);
    }
    assert_eq!(events(&app).await, 1);
    app.api.drained().await;
    use signalpost_bus::Bus as _;
    assert_eq!(app.bus.lag().await, Some(1), "published once");
}

#[tokio::test]
async fn a_uid_is_unique_per_source() {
    let app = App::start();
    let body = r#"{"type":"a","data":{"x":1},"uid":"u-1","source":"shop"}"#;
    let first = post(&app, body).await.expect(202);
    assert_replayed(&first, post(&app, body).await);
    // The order of members is not content.
    assert_replayed(&first, post(&app, r#"{"uid":"u-1","source":"shop","data":{"x":1},"type":"a"}"#).await);
    // The trace is the request's.
    let trace = [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")];
    assert_replayed(&first, post_with(&app, &trace, body).await);
    for other in [
        r#"{"type":"b","data":{"x":1},"uid":"u-1","source":"shop"}"#,
        r#"{"type":"a","data":{"x":2},"uid":"u-1","source":"shop"}"#,
        r#"{"type":"a","data":{"x":1},"uid":"u-1","source":"shop","labels":{"a":"b"}}"#,
        r#"{"type":"a","data":{"x":1},"uid":"u-1","source":"shop","occurred_at":"2024-01-01T00:00:00Z"}"#,
    ] {
        post(&app, other).await.problem(422, "uid_conflict");
    }
    assert_ne!(post(&app, r#"{"type":"a","data":{"x":1},"uid":"u-1"}"#).await.expect(202)["id"], first["id"]);
    assert_eq!(events(&app).await, 2);
}

#[tokio::test]
async fn fifty_with_one_uid_make_one_event() {
    let app = App::start();
    let replies = join_all((0..50).map(|number| {
        // Half of them say something else.
        let body = json!({"type": "a", "data": number % 2, "uid": "u"}).to_string();
        let app = &app;
        async move { post(app, &body).await }
    }))
    .await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 202).count(), 25);
    assert_eq!(replies.iter().filter(|reply| reply.body["duplicate"] == false).count(), 1);
    assert_eq!(replies.iter().filter(|reply| reply.body["code"] == "uid_conflict").count(), 25);
    assert_eq!(events(&app).await, 1);
}

#[tokio::test]
async fn a_key_keeps_what_came_of_a_uid() {
    let app = App::start();
    let body = r#"{"type":"a","data":1,"uid":"u"}"#;
    let first = post(&app, body).await.expect(202);
    assert_replayed(&first, post_with(&app, &[("idempotency-key", "k")], body).await);
    assert_replayed(&first, post_with(&app, &[("idempotency-key", "k")], body).await);
    let other = r#"{"type":"a","data":2,"uid":"u"}"#;
    post_with(&app, &[("idempotency-key", "l")], other).await.problem(422, "uid_conflict");
    let again = post_with(&app, &[("idempotency-key", "l")], other).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.header("content-type"), "application/problem+json");
    again.problem(422, "uid_conflict");
}

#[tokio::test]
async fn a_batch_has_one_key() {
    let app = App::start();
    app.destination(json!({})).await;
    let body = json!({"events": [
        {"type": "a", "data": 1},
        {"type": "", "data": 1},
        {"type": "a", "data": 1, "uid": "u"},
        {"type": "a", "data": 1, "uid": "u"},
        {"type": "a", "data": 2, "uid": "u"},
        {"data": 1, "destination_id": "dst_01h2e8kqvbfwea724h75qc655w"},
    ]})
    .to_string();
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    let send = || app.with(Method::POST, "/v1/events/batch", &headers, body.clone());
    let first = send().await.expect(207);
    assert_eq!((&first["accepted"], &first["rejected"]), (&json!(3), &json!(3)));
    let results = first["results"].as_array().unwrap();
    assert_eq!(results[1]["error"]["code"], "validation_failed");
    assert_eq!(results[2]["duplicate"], false);
    assert_eq!((&results[3]["duplicate"], &results[3]["id"]), (&json!(true), &results[2]["id"]));
    assert_eq!(results[4]["error"]["code"], "uid_conflict");
    assert_eq!(results[5]["error"]["code"], "not_found");

    let again = send().await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    let again = again.expect(207);
    assert_eq!((&again["results"][0]["id"], &again["duplicate"]), (&results[0]["id"], &json!(true)));
    assert_eq!(again["results"][0]["duplicate"], true);
    assert_eq!(events(&app).await, 2);
    let other = app.with(Method::POST, "/v1/events/batch", &headers, r#"{"events":[{"type":"a","data":9}]}"#).await;
    other.problem(422, "idempotency_mismatch");
}
