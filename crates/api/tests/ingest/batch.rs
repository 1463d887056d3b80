//! Many events at once.

use serde_json::{Value, json};
use signalpost_core::TenantId;
use signalpost_store::{
    ReadStore as _,
    read::{EventFilter, Page},
};

use super::{App, Method, Reply, messages, stored};

async fn post(app: &App, media_type: &str, body: impl Into<Vec<u8>>) -> Reply {
    app.with(Method::POST, "/v1/events/batch", &[("content-type", media_type)], body.into()).await
}

async fn post_json(app: &App, events: Vec<Value>) -> Reply {
    post(app, "application/json", json!({"events": events}).to_string()).await
}

fn codes(answer: &Value) -> Vec<&str> {
    let results = answer["results"].as_array().unwrap().iter();
    results.map(|result| result["error"]["code"].as_str().unwrap_or("accepted")).collect()
}

#[tokio::test]
async fn every_event_is_judged_by_itself() {
    let app = App::start();
    app.destination(json!({})).await;
    let answer = post_json(
        &app,
        vec![
            json!({"type": "a", "data": {"n": 1}, "uid": "u"}),
            json!({"type": "signalpost.x", "data": 1, "extra": 1}),
            json!([]),
            json!({"type": "a", "data": {"n": 1}, "uid": "u"}),
            json!({"type": "a", "data": {"n": 2}, "uid": "u"}),
            json!({"data": 1, "destination_id": "dst_01h2e8kqvbfwea724h75qc655w"}),
        ],
    )
    .await
    .expect(207);
    assert_eq!(
        codes(&answer),
        ["accepted", "validation_failed", "validation_failed", "accepted", "uid_conflict", "not_found"]
    );
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(4)));
    let error = &answer["results"][1]["error"];
    assert_eq!((&error["status"], &error["type"]), (&json!(422), &json!("/problems/validation_failed")));
    assert_eq!(error["errors"][0]["pointer"], "/type");
    assert_eq!(error["errors"][1]["pointer"], "/extra");
    assert_eq!(answer["results"][3]["duplicate"], true);
    assert_eq!(stored(&app, &answer["results"][0]).await.data, r#"{"n":1}"#);
    assert_eq!(messages(&app, 1).await.len(), 1);
}

#[tokio::test]
async fn the_status_tells_of_all_some_or_none() {
    let app = App::start();
    let good = json!({"type": "a", "data": 1});
    let answer = post_json(&app, vec![good.clone(), good.clone()]).await.expect(202);
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(0)));
    post_json(&app, vec![good, json!({})]).await.expect(207);
    let reply = post_json(&app, vec![json!({}), json!(1)]).await;
    assert_eq!(reply.header("content-type"), "application/json");
    let answer = reply.expect(422);
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(0), &json!(2)));
}

#[tokio::test]
async fn a_batch_has_its_bounds() {
    let app = App::start();
    let events = |count: usize| (0..count).map(|n| json!({"type": "a", "data": n})).collect::<Vec<_>>();
    assert_eq!(post_json(&app, events(1001)).await.problem(422, "validation_failed"), ["/events"]);
    assert_eq!(post_json(&app, vec![]).await.problem(422, "validation_failed"), ["/events"]);
    let answer = post_json(&app, events(1000)).await.expect(202);
    assert_eq!(answer["accepted"], 1000);
    // In the order of the request.
    for place in [0, 500, 999] {
        assert_eq!(stored(&app, &answer["results"][place]).await.data, place.to_string());
    }
    let page = Page { limit: 5000, after: None, descending: false };
    let stored = app.store.list_events(TenantId::DEFAULT, &EventFilter::default(), page, false).await.unwrap();
    assert_eq!(stored.len(), 1000);

    let large =
        format!(r#"{{"events":[{{"type":"a","data":"{}"}},{{"type":"a","data":1}}]}}"#, "x".repeat(1024 * 1024));
    let answer = post(&app, "application/json", large).await.expect(207);
    assert_eq!(codes(&answer), ["payload_too_large", "accepted"]);
    let too_large = vec![b' '; 16 * 1024 * 1024 + 1];
    post(&app, "application/json", too_large).await.problem(413, "payload_too_large");
}

#[tokio::test]
async fn what_is_no_batch_is_refused_as_a_whole() {
    let app = App::start();
    for body in ["", "{", r#"{"events":[{"type":"a","data":1}"#, r#"{"events":[1,]}"#] {
        post(&app, "application/json", body).await.problem(400, "invalid_json");
    }
    for (body, pointers) in [
        ("[]", vec![""]),
        ("{}", vec!["/events"]),
        (r#"{"events":{}}"#, vec!["/events"]),
        (r#"{"events":[{"type":"a","data":1}],"more":1}"#, vec!["/more"]),
        (r#"{"events":[],"events":[]}"#, vec!["/events"]),
    ] {
        assert_eq!(post(&app, "application/json", body).await.problem(422, "validation_failed"), pointers, "{body}");
    }
    post(&app, "text/csv", "a,b").await.problem(415, "unsupported_media_type");
    post(&app, "application/cloudevents+json", "{}").await.problem(415, "unsupported_media_type");
}

#[tokio::test]
async fn lines_are_events_and_a_broken_one_breaks_alone() {
    let app = App::start();
    let mut body = b"{\"type\":\"a\",\"data\": [1, 2] }\r\n\n  \n{\"type\":\"a\"\n".to_vec();
    body.extend(b"{\"type\":\"a\",\"data\":\"\xff\"}\nnonsense\n{\"type\":\"b\",\"data\":2}");
    let answer = post(&app, "application/x-ndjson", body).await.expect(207);
    assert_eq!(codes(&answer), ["accepted", "invalid_json", "invalid_json", "invalid_json", "accepted"]);
    assert_eq!(stored(&app, &answer["results"][0]).await.data, "[1, 2]");
    assert_eq!(answer["results"][4]["type"], "b");
    assert_eq!(post(&app, "application/x-ndjson", "\n\n").await.problem(422, "validation_failed"), [""]);
    let many = "{\"type\":\"a\",\"data\":1}\n".repeat(1001);
    post(&app, "application/x-ndjson", many).await.problem(422, "validation_failed");
}

#[tokio::test]
async fn depth_is_counted_from_each_event() {
    let app = App::start();
    let event = |levels: usize| format!(r#"{{"type":"a","data":{}1{}}}"#, "[".repeat(levels), "]".repeat(levels));
    let body = format!(r#"{{"events":[{},{}]}}"#, event(127), event(128));
    assert_eq!(codes(&post(&app, "application/json", body).await.expect(207)), ["accepted", "invalid_json"]);
}

#[tokio::test]
async fn a_cloudevents_batch_is_a_list() {
    let app = App::start();
    let event = |id: &str| json!({"specversion": "1.0", "id": id, "source": "/shop", "type": "a", "data": 1});
    let body = json!([event("1"), event("2"), event(""), event("1")]).to_string();
    let answer = post(&app, "application/cloudevents-batch+json", body).await.expect(207);
    assert_eq!(codes(&answer), ["accepted", "accepted", "validation_failed", "accepted"]);
    assert_eq!(answer["results"][3]["duplicate"], true);
    post(&app, "application/cloudevents-batch+json", "{}").await.problem(422, "validation_failed");
}
