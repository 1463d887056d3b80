//! The life of a tenant.

use serde_json::{Value, json};
use signalpost_store::ScheduleStore as _;

use crate::{
    app::{App, KEY},
    ask, tenant, text,
};

#[tokio::test]
async fn a_tenant_comes_with_a_key_and_a_destination_at_once() {
    let app = App::start();
    let body = json!({
        "name": "Acme", "slug": "acme", "quotas": {"destinations": 5}, "destination_defaults": {"timeout_ms": 2000},
        "destination": {"url": "http://127.0.0.1:9999/", "event_types": ["order.*"]},
    });
    let reply = app.keyed("/v1/tenants", "one", &body).await;
    let location = reply.header("location").to_owned();
    let created = reply.expect(201);
    assert_eq!(location, format!("/v1/tenants/{}", text(&created["tenant"]["id"])));
    assert_eq!(created["tenant"]["quotas"]["destinations"], 5);
    assert_eq!(created["tenant"]["deleting"], Value::Null);
    assert_eq!(created["destination"]["timeout_ms"], 2000, "its tenant's default");
    let (key, secret) = (text(&created["key"]), text(&created["destination"]["secret"]));
    let again = app.keyed("/v1/tenants", "one", &body).await;
    assert_eq!((again.header("location"), again.header("idempotency-replayed")), (location.as_str(), "true"));
    assert_eq!(again.expect(201)["key"], key);
    let database = app.database();
    for secret in [key, secret] {
        assert!(!database.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()), "in the clear");
    }
    // It works at once.
    let event = json!({"type": "order.created", "data": {}});
    let posted = ask(&app.router, key, "POST", "/v1/events", &[], &event).await.expect(202);
    assert_eq!(posted["deliveries"], 1);
    for name in ["acme", text(&created["tenant"]["id"])] {
        assert_eq!(app.get(&format!("/v1/tenants/{name}")).await.expect(200), created["tenant"]);
    }
}

#[tokio::test]
async fn nothing_of_a_tenant_is_there_where_a_part_is_wrong() {
    let app = App::start();
    for (body, pointers) in [
        (
            json!({"name": "A", "slug": "a", "destination": {"url": "http://10.0.0.1/", "more": 1}}),
            vec!["/destination/url", "/destination/more"],
        ),
        (json!({"slug": "a b"}), vec!["/name", "/slug"]),
    ] {
        assert_eq!(app.post("/v1/tenants", body).await.problem(422, "validation_failed"), pointers);
    }
    app.get("/v1/tenants/a").await.problem(404, "not_found");
    tenant(&app, json!({"name": "A", "slug": "a"})).await;
    let taken = json!({"name": "A", "slug": "a", "destination": {"url": "http://127.0.0.1:9999/"}});
    app.post("/v1/tenants", taken).await.problem(409, "slug_taken");
    assert_eq!(app.get("/v1/tenants").await.expect(200)["data"].as_array().unwrap().len(), 2, "with `default`");
}

#[tokio::test]
async fn a_change_holds_for_the_next_request() {
    let app = App::start();
    let key = tenant(&app, json!({"name": "A", "slug": "a"})).await["key"].clone();
    let url = json!({"url": "http://127.0.0.1:9999/"});
    let create = || ask(&app.router, text(&key), "POST", "/v1/destinations", &[], &url);
    assert_eq!(create().await.expect(201)["timeout_ms"], 15_000);
    let changes = json!({"name": "B", "destination_defaults": {"timeout_ms": 3000}, "quotas": {"destinations": 2}});
    let changed = app.patch("/v1/tenants/a", changes).await.expect(200);
    assert_eq!((&changed["name"], &changed["slug"]), (&json!("B"), &json!("a")));
    assert_eq!(create().await.expect(201)["timeout_ms"], 3000);
    create().await.problem(422, "quota_exceeded");
    let changed = app.patch("/v1/tenants/a", json!({"quotas": null})).await.expect(200);
    assert_eq!(
        (&changed["quotas"]["destinations"], &changed["destination_defaults"]["timeout_ms"]),
        (&Value::Null, &json!(3000))
    );
    create().await.expect(201);
    let pointers = app.patch("/v1/tenants/a", json!({"slug": "b"})).await.problem(422, "validation_failed");
    assert_eq!(pointers, ["/slug"]);
    app.patch("/v1/tenants/b", json!({})).await.problem(404, "not_found");
}

#[tokio::test]
async fn the_secret_of_producers_is_written_and_never_read() {
    let app = App::start();
    let signature = |secret: &str| json!({"ingest_signature": {"scheme": "hmac", "header": "X-Sig", "secret": secret}});
    tenant(&app, json!({"name": "A", "slug": "a"})).await;
    let pointers = app.patch("/v1/tenants/a", signature("***")).await.problem(422, "validation_failed");
    assert_eq!(pointers, ["/ingest_signature/secret"], "there is none to keep");
    let changed = app.patch("/v1/tenants/a", signature("pl4nted-s3cret")).await.expect(200);
    assert_eq!(changed["ingest_signature"]["secret"], "***");
    // It stays where it is masked, also for another header; as another scheme it is not good enough.
    app.patch("/v1/tenants/a", json!({"ingest_signature": {"scheme": "hmac", "header": "X-Other", "secret": "***"}}))
        .await
        .expect(200);
    let standard = json!({"ingest_signature": {"scheme": "standard", "secret": "***"}});
    app.patch("/v1/tenants/a", standard).await.problem(422, "validation_failed");
    let database = app.database();
    assert!(!database.windows(14).any(|bytes| bytes == b"pl4nted-s3cret"));
    for uri in ["/v1/tenants", "/v1/tenants/a", "/v1/audit-log"] {
        let reply = ask(&app.router, KEY, "GET", uri, &[("signalpost-tenant", "a")], &Value::Null).await.expect(200);
        assert!(!reply.to_string().contains("pl4nted"), "{uri}: {reply}");
    }
    let changed = app.patch("/v1/tenants/a", json!({"ingest_signature": null})).await.expect(200);
    assert_eq!(changed["ingest_signature"], Value::Null);
}

#[tokio::test]
async fn a_tenant_that_is_being_deleted_takes_nothing_any_more() {
    let app = App::start();
    let created =
        tenant(&app, json!({"name": "A", "slug": "a", "destination": {"url": "http://127.0.0.1:9999/"}})).await;
    let (key, id) = (text(&created["key"]), text(&created["tenant"]["id"]));
    ask(&app.router, key, "GET", "/v1/events", &[], &Value::Null).await.expect(200);
    let deleted = app.delete("/v1/tenants/a").await.expect(202);
    assert!(deleted["deleting"]["since"].is_string(), "{deleted}");
    // At once on this process.
    ask(&app.router, key, "GET", "/v1/events", &[], &Value::Null).await.problem(401, "unauthorized");
    let headers = [("signalpost-tenant", id)];
    ask(&app.router, KEY, "GET", "/v1/events", &headers, &Value::Null).await.problem(404, "not_found");
    let uri = format!("/v1/tenants/{id}");
    app.patch(&uri, json!({"name": "B"})).await.problem(409, "conflict");
    app.post(&format!("{uri}/keys"), json!({"name": "k", "scopes": ["events:read"]})).await.problem(409, "conflict");
    app.delete(&uri).await.expect(202);
    app.get("/v1/tenants/a").await.problem(404, "not_found");
    let mut removed = 0;
    while app.store.sweep_deleted(100).await.unwrap() + app.store.sweep_tenants(100).await.unwrap() > 0 {
        removed += 1;
    }
    assert!(removed > 0);
    let shown = app.get(&uri).await.expect(200);
    assert!(shown["deleting"]["rows"].as_u64().unwrap() > 0, "{shown}");
    app.delete("/v1/tenants/default").await.problem(409, "conflict");
    app.delete("/v1/tenants/nobody").await.problem(404, "not_found");
}
