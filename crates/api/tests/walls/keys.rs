//! The life of a key.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use signalpost_api::{Settings, auth::fresh};
use signalpost_core::Clock;

use crate::{Held, app::App, ask, home::Home, tenant, text};

#[tokio::test]
async fn a_key_is_shown_once_and_kept_as_a_hash() {
    let app = App::start();
    tenant(&app, json!({"name": "A", "slug": "a"})).await;
    let body =
        json!({"name": "of the shop", "scopes": ["events:write", "events:read"], "expires_at": "2099-01-01T00:00:00Z"});
    let reply = app.keyed("/v1/tenants/a/keys", "one", &body).await;
    let location = reply.header("location").to_owned();
    let created = reply.expect(201);
    let key = text(&created["key"]).to_owned();
    assert_eq!(location, format!("/v1/tenants/a/keys/{}", text(&created["id"])));
    assert!(key.starts_with("sp_") && key.len() == 55, "{key}");
    assert_eq!(created["hint"], key[..11]);
    assert_eq!(created["scopes"], json!(["events:write", "events:read"]));
    assert_eq!(created["last_used_at"], Value::Null);
    let listed = app.get("/v1/tenants/a/keys").await.expect(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), 2, "with the first: {listed}");
    assert!(!listed.to_string().contains(&key));
    // The answer is kept, encrypted.
    let again = app.keyed("/v1/tenants/a/keys", "one", &body).await;
    assert_eq!(again.header("location"), location);
    assert_eq!(again.expect(201)["key"], *key);
    let database = app.database();
    assert!(!database.windows(key.len()).any(|bytes| bytes == key.as_bytes()));
    // In its scopes, in either header.
    ask(&app.router, &key, "GET", "/v1/events", &[], &Value::Null).await.expect(200);
    ask(&app.router, "", "GET", "/v1/events", &[("x-api-key", &key)], &Value::Null).await.expect(200);
    ask(&app.router, &key, "GET", "/v1/destinations", &[], &Value::Null).await.problem(403, "forbidden");
}

#[tokio::test]
async fn a_key_that_is_revoked_elsewhere_works_no_longer_than_a_moment() {
    let app = App::start();
    let clock = Held::new(&app);
    let other = app.beside(Settings::default(), Arc::clone(&clock) as Arc<dyn Clock>).router();
    let home = Home::new(&app, "a").await;
    let read = || ask(&other, &home.key, "GET", "/v1/events", &[], &Value::Null);
    read().await.expect(200);
    app.delete("/v1/tenants/a").await.expect(202);
    home.ask(&app, "GET", "/v1/events", &Value::Null).await.problem(401, "unauthorized");
    // The other process read it a moment ago.
    clock.advance(fresh::LIFE - Duration::from_millis(1));
    read().await.expect(200);
    clock.advance(Duration::from_millis(1));
    read().await.problem(401, "unauthorized");
}

#[tokio::test]
async fn what_is_no_key_is_not_known() {
    let app = App::start();
    let home = Home::new(&app, "a").await;
    for key in ["sp_", "x", &home.key[..54], &home.key.to_uppercase(), &format!("{}0", home.key)] {
        ask(&app.router, key, "GET", "/v1/events", &[], &Value::Null).await.problem(401, "unauthorized");
    }
    // One that comes to be: that it was not there before is not remembered.
    let headers = [("signalpost-tenant", "b")];
    ask(&app.router, crate::app::KEY, "GET", "/v1/events", &headers, &Value::Null).await.problem(404, "not_found");
    tenant(&app, json!({"name": "B", "slug": "b"})).await;
    ask(&app.router, crate::app::KEY, "GET", "/v1/events", &headers, &Value::Null).await.expect(200);
}

#[tokio::test]
async fn the_last_use_is_noted_at_the_end() {
    let app = App::start();
    let home = Home::new(&app, "a").await;
    let last_uses = || async {
        let keys = app.get("/v1/tenants/a/keys").await.expect(200);
        keys["data"].as_array().unwrap().iter().filter(|key| key["last_used_at"].is_string()).count()
    };
    home.ask(&app, "GET", "/v1/events", &Value::Null).await.expect(200);
    assert_eq!(last_uses().await, 0, "not a write per request");
    app.api.drained().await;
    assert_eq!(last_uses().await, 1);
}

#[tokio::test]
async fn a_key_is_refused_that_could_do_nothing() {
    let app = App::start();
    tenant(&app, json!({"name": "A", "slug": "a"})).await;
    let body = json!({"name": "", "scopes": ["all"], "expires_at": "2020-01-01T00:00:00Z", "hint": "x"});
    let pointers = app.post("/v1/tenants/a/keys", body).await.problem(422, "validation_failed");
    assert_eq!(pointers, ["/name", "/scopes/0", "/expires_at", "/hint"]);
    app.post("/v1/tenants/nobody/keys", json!({})).await.problem(404, "not_found");
}
