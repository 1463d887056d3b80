//! What a tenant may use up.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use signalpost_api::Settings;
use signalpost_core::Clock;

use crate::{Held, app::App, ask, tenant, text};

#[tokio::test]
async fn events_per_second_with_a_burst() {
    let app = App::start();
    let clock = Held::new(&app);
    let router = app.beside(Settings::default(), Arc::clone(&clock) as Arc<dyn Clock>).router();
    let limited =
        tenant(&app, json!({"name": "A", "slug": "a", "quotas": {"events_per_second": 2, "events_burst": 4}})).await;
    let free = tenant(&app, json!({"name": "B"})).await;
    let (limited, free) = (text(&limited["key"]), text(&free["key"]));
    let event = json!({"type": "a", "data": 1});
    let post = |key| ask(&router, key, "POST", "/v1/events", &[], &event);
    let batch = |count: usize| {
        let body = json!({"events": vec![event.clone(); count]});
        let router = router.clone();
        async move { ask(&router, limited, "POST", "/v1/events/batch", &[], &body).await }
    };
    let first = post(limited).await;
    assert_eq!(first.header("ratelimit-policy"), r#""events";q=4;w=2"#);
    assert_eq!(first.header("ratelimit"), r#""events";r=3;t=1"#);
    first.expect(202);
    batch(3).await.expect(202);
    let refused = post(limited).await;
    assert_eq!(refused.header("ratelimit-policy"), r#""events";q=4;w=2"#);
    assert_eq!((refused.header("ratelimit"), refused.header("retry-after")), (r#""events";r=0;t=1"#, "1"));
    refused.problem(429, "too_many_requests");
    let refused = batch(4).await;
    assert_eq!(refused.header("retry-after"), "2");
    refused.problem(429, "too_many_requests");
    // Nothing of it was taken, and nobody else has less for it.
    let seen = ask(&router, limited, "GET", "/v1/events", &[], &Value::Null).await.expect(200);
    assert_eq!(seen["data"].as_array().unwrap().len(), 4);
    for _ in 0..10 {
        let reply = post(free).await;
        assert_eq!(reply.header("ratelimit"), "");
        reply.expect(202);
    }
    clock.advance(Duration::from_millis(500));
    post(limited).await.expect(202);
    post(limited).await.problem(429, "too_many_requests");
    // However long one waits.
    clock.advance(Duration::from_secs(60));
    batch(5).await.problem(422, "quota_exceeded");
    batch(4).await.expect(202);
    app.patch("/v1/tenants/a", json!({"quotas": null})).await.expect(200);
    clock.advance(Duration::from_secs(1));
    batch(5).await.expect(202);
}

#[tokio::test]
async fn destinations_at_a_time() {
    let app = App::start();
    let created = tenant(&app, json!({"name": "A", "quotas": {"destinations": 1}})).await;
    let key = text(&created["key"]);
    let url = json!({"url": "http://127.0.0.1:9999/"});
    let ask = |method, uri: String, body: Value| {
        let router = app.router.clone();
        async move { ask(&router, key, method, &uri, &[], &body).await }
    };
    let first = ask("PUT", "/v1/destinations/one".into(), url.clone()).await.expect(201);
    ask("POST", "/v1/destinations".into(), url.clone()).await.problem(422, "quota_exceeded");
    ask("PUT", "/v1/destinations/two".into(), url.clone()).await.problem(422, "quota_exceeded");
    // What is there may be replaced, and may make room.
    ask("PUT", "/v1/destinations/one".into(), url.clone()).await.expect(200);
    ask("DELETE", format!("/v1/destinations/{}", text(&first["id"])), Value::Null).await.expect(204);
    ask("POST", "/v1/destinations".into(), url).await.expect(201);
    let none = json!({"name": "B", "quotas": {"destinations": 0}, "destination": {"url": "http://127.0.0.1:9999/"}});
    app.post("/v1/tenants", none).await.problem(422, "quota_exceeded");
}

#[tokio::test]
async fn bytes_of_an_event() {
    let app = App::start();
    let created = tenant(&app, json!({"name": "A", "quotas": {"event_bytes": 10}})).await;
    let key = text(&created["key"]);
    let event = |data: &str| json!({"type": "a", "data": data});
    let (fits, large) = (event("12345678"), event("123456789"));
    ask(&app.router, key, "POST", "/v1/events", &[], &fits).await.expect(202);
    ask(&app.router, key, "POST", "/v1/events", &[], &large).await.problem(413, "payload_too_large");
    let batch = json!({"events": [fits, large]});
    let answer = ask(&app.router, key, "POST", "/v1/events/batch", &[], &batch).await.expect(207);
    assert_eq!(answer["results"][1]["error"]["code"], "payload_too_large");
}
