//! What holds for every route: keys, tenants, problems, idempotency, the document and its page.

use std::collections::BTreeSet;

use axum::body::Body;
use http::{Method, Request};
use serde_json::json;
use signalpost_core::{DeadReason, TenantId};

use crate::app::{App, KEY, NO_DESTINATION, at};

/// Every route of the management half, with an id that nobody has.
pub fn routes() -> Vec<(Method, String)> {
    let document = serde_json::to_value(signalpost_api::openapi_document()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            routes.push((method.to_uppercase().parse().unwrap(), path.replace("{id}", "nobody")));
        }
    }
    routes.retain(|(_, path)| path.starts_with("/v1/"));
    routes
}

#[tokio::test]
async fn every_route_wants_a_key() {
    let app = App::start();
    assert!(routes().len() > 25);
    for (method, path) in routes() {
        for header in [None, Some(("authorization", "Bearer wrong-key-of-tests")), Some(("x-api-key", "wrong"))] {
            let mut request = Request::builder().method(method.clone()).uri(&path);
            if let Some((name, value)) = header {
                request = request.header(name, value);
            }
            let reply = app.raw(request.body(Body::from("{")).unwrap()).await;
            assert!(reply.headers.contains_key("www-authenticate"), "{method} {path}");
            reply.problem(401, "unauthorized");
        }
    }
    let request = Request::get("/v1/destinations").header("x-api-key", KEY).body(Body::empty()).unwrap();
    app.raw(request).await.expect(200);
}

#[tokio::test]
async fn an_unknown_tenant_is_not_found() {
    let app = App::start();
    // Tenants themselves are in none.
    for (method, path) in routes().into_iter().filter(|(_, path)| !path.starts_with("/v1/tenants")) {
        let reply = app.with(method, &path, &[("signalpost-tenant", "nobody")], Body::empty()).await;
        reply.problem(404, "not_found");
    }
    let default = TenantId::DEFAULT.to_string();
    for name in ["default", default.as_str()] {
        app.with(Method::GET, "/v1/events", &[("signalpost-tenant", name)], Body::empty()).await.expect(200);
    }
}

#[tokio::test]
async fn what_has_an_id_in_its_path_is_looked_up_first() {
    let app = App::start();
    let big = "x".repeat(300 * 1024);
    for (method, path) in routes() {
        let with_id = path.contains("nobody") && method != Method::PUT;
        for (content_type, body) in [
            ("application/json", "{"),
            ("text/plain", "hello"),
            ("application/json", r#"{"x":1}"#),
            ("application/json", &big),
        ] {
            if !with_id {
                continue;
            }
            let reply = app.with(method.clone(), &path, &[("content-type", content_type)], body.to_owned()).await;
            reply.problem(404, "not_found");
        }
    }
}

#[tokio::test]
async fn bodies_are_judged_everywhere() {
    let app = App::start();
    let destination = app.destination(json!({})).await;
    let (event, deliveries) = app.event(&[&destination]).await;
    let dead = app.dead_letter(&destination, DeadReason::Gone).await;
    let replay = app.post("/v1/replays", json!({"destination_id": destination})).await.expect(202);
    let optional = [
        format!("/v1/destinations/{destination}/pause"),
        format!("/v1/destinations/{destination}/resume"),
        format!("/v1/destinations/{destination}/test"),
        format!("/v1/events/{event}/replay"),
        format!("/v1/deliveries/{}/retry", deliveries[0]),
        format!("/v1/deliveries/{}/cancel", deliveries[0]),
        format!("/v1/dead-letters/{dead}/replay"),
        format!("/v1/replays/{}/cancel", replay["id"].as_str().unwrap()),
    ];
    let required = [
        (Method::POST, "/v1/destinations".to_owned()),
        (Method::PUT, "/v1/destinations/u".to_owned()),
        (Method::PATCH, format!("/v1/destinations/{destination}")),
        (Method::POST, "/v1/replays".to_owned()),
    ];
    let everywhere: Vec<(Method, String)> =
        optional.iter().map(|path| (Method::POST, path.clone())).chain(required.clone()).collect();
    for (method, path) in everywhere {
        for (content_type, body, status, code) in [
            ("application/json", "{".to_owned(), 400, "invalid_json"),
            ("application/json", "{} {}".to_owned(), 400, "invalid_json"),
            ("application/json", "[".repeat(200) + &"]".repeat(200), 400, "invalid_json"),
            ("text/plain", "{}".to_owned(), 415, "unsupported_media_type"),
            ("application/json", " ".repeat(300 * 1024), 413, "payload_too_large"),
            ("application/json", "[]".to_owned(), 422, "validation_failed"),
            ("application/json", r#"{"a":1,"a":2}"#.to_owned(), 422, "validation_failed"),
            ("application/json", r#"{"nonsense":1}"#.to_owned(), 422, "validation_failed"),
        ] {
            let reply = app.with(method.clone(), &path, &[("content-type", content_type)], body).await;
            reply.problem(status, code);
        }
        let reply = app.with(method, &path, &[("content-type", "application/json")], vec![b'{', 0xff]).await;
        reply.problem(400, "invalid_json");
    }
    for (method, path) in required {
        app.with(method, &path, &[], Body::empty()).await.problem(400, "invalid_json");
    }
    // Nothing of it did anything, and an empty body of any type is none.
    assert_eq!(app.get(&format!("/v1/destinations/{destination}")).await.expect(200)["state"], "active");
    for path in optional.iter().filter(|path| !path.ends_with("/test")) {
        let reply = app.with(Method::POST, path, &[("content-type", "text/csv")], Body::empty()).await;
        assert!(reply.status.is_success(), "{path}: {}", reply.body);
    }
}

#[tokio::test]
async fn what_axum_answers_is_a_problem_too() {
    let app = App::start();
    app.get("/v1/nothing").await.problem(404, "not_found");
    app.get("/").await.expect(200);
    let reply = app.with(Method::DELETE, "/v1/destinations", &[], Body::empty()).await;
    let allow = reply.header("allow").to_owned();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    reply.problem(405, "method_not_allowed");
    app.get("/v1/destinations/%ff").await.problem(400, "bad_request");
    let page = app.get("/problems/validation_failed").await;
    assert_eq!(page.status, 200);
    app.get("/problems/nonsense").await.problem(404, "not_found");
}

#[tokio::test]
async fn the_same_key_gives_the_first_answer() {
    let app = App::start();
    let body = at("http://127.0.0.1:9999/");
    let first = app.keyed("/v1/destinations", "key-1", &body).await;
    assert_eq!(first.header("idempotency-replayed"), "");
    let place = first.header("location").to_owned();
    let first = first.expect(201);
    let again = app.keyed("/v1/destinations", "\"key-1\"", &body).await;
    assert_eq!((again.header("idempotency-replayed"), again.header("location")), ("true", place.as_str()));
    let mut again = again.expect(201);
    assert_eq!(again.as_object_mut().unwrap().remove("duplicate"), Some(json!(true)));
    assert_eq!(again, first);
    app.keyed("/v1/destinations", "key-1", &at("http://127.0.0.1:9998/")).await.problem(422, "idempotency_mismatch");
    app.keyed("/v1/destinations", "", &body).await.problem(400, "bad_request");
    assert_eq!(app.get("/v1/destinations").await.expect(200)["data"].as_array().unwrap().len(), 1);
    // Another route is another scope.
    let pause = format!("{place}/pause");
    assert_eq!(app.keyed(&pause, "key-1", &json!({})).await.expect(200)["state"], "paused");
    app.act(&format!("{place}/resume")).await.expect(200);
    let repeated = app.keyed(&pause, "key-1", &json!({})).await;
    assert_eq!(repeated.header("idempotency-replayed"), "true");
    assert_eq!(app.get(&place).await.expect(200)["state"], "active");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_no_repetition() {
    let app = App::start();
    let id = app.destination(json!({})).await;
    let pause = format!("/v1/destinations/{id}/pause");
    let headers = [("idempotency-key", "k")];
    app.with(Method::POST, &pause, &headers, "").await.expect(200);
    let large = "x".repeat(signalpost_api::MAX_MANAGE_BYTES + 1);
    app.with(Method::POST, &pause, &headers, large.clone()).await.problem(413, "payload_too_large");
    let nowhere = format!("/v1/destinations/{NO_DESTINATION}/pause");
    app.with(Method::POST, &nowhere, &headers, large).await.problem(404, "not_found");
}

#[tokio::test]
async fn another_destination_is_another_scope_of_a_key() {
    let app = App::start();
    let (one, two) = (app.destination(json!({})).await, app.destination(json!({})).await);
    let (event, _) = app.event(&[&one, &two]).await;
    let replay = format!("/v1/events/{event}/replay");
    let to = |destination: &str| json!({"destination_id": destination});
    let first = app.keyed(&replay, "k", &to(&one)).await.expect(202);
    let other = app.keyed(&replay, "k", &to(&two)).await.expect(202);
    assert_ne!(first["delivery_ids"], other["delivery_ids"]);
    let again = app.keyed(&replay, "k", &to(&one)).await.expect(202);
    assert_eq!((&again["delivery_ids"], &again["duplicate"]), (&first["delivery_ids"], &json!(true)));
}

#[tokio::test]
async fn a_refused_request_does_not_use_up_its_key() {
    let app = App::start();
    app.keyed("/v1/destinations", "k", &at("nonsense")).await.problem(422, "validation_failed");
    app.keyed("/v1/destinations", "k", &at("http://127.0.0.1:9999/")).await.expect(201);
}

#[tokio::test]
async fn concurrent_requests_with_one_key_do_it_once() {
    let app = App::start();
    let body = at("http://127.0.0.1:9999/");
    let replies = futures::future::join_all((0..20).map(|_| app.keyed("/v1/destinations", "k", &body))).await;
    let ids: BTreeSet<String> = replies.iter().map(|reply| reply.body["id"].to_string()).collect();
    assert_eq!(ids.len(), 1);
    let firsts = replies.into_iter().map(|reply| reply.expect(201)).filter(|body| body["duplicate"].is_null());
    assert_eq!(firsts.count(), 1);
    assert_eq!(app.get("/v1/destinations").await.expect(200)["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_document_and_its_page_are_served() {
    let app = App::start();
    let request = Request::get("/openapi.json").body(Body::empty()).unwrap();
    let reply = app.raw(request).await;
    assert_eq!(reply.header("content-type"), "application/json");
    let document = reply.expect(200);
    assert_eq!(document, serde_json::to_value(signalpost_api::openapi_document()).unwrap());
    let page = app.raw(Request::get("/docs").body(Body::empty()).unwrap()).await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.header("content-security-policy").contains("connect-src 'self'"));
    let text = std::str::from_utf8(&page.bytes).unwrap();
    assert!(text.contains("/openapi.json"));
    assert!(!text.contains("http://") && !text.contains("https://"), "it loads from nowhere else");
    let browser = Request::get("/").header("accept", "text/html,*/*;q=0.8").body(Body::empty()).unwrap();
    for page in [app.raw(browser).await, app.get("/problems/unauthorized").await] {
        assert!(page.header("content-type").starts_with("text/html"));
        assert!(page.header("content-security-policy").contains("style-src 'unsafe-inline'"));
        assert!(std::str::from_utf8(&page.bytes).unwrap().contains("href=\"/docs\""));
    }
    let home = app.raw(Request::get("/").body(Body::empty()).unwrap()).await.expect(200);
    assert_eq!((&home["docs"], &home["openapi"]), (&json!("/docs"), &json!("/openapi.json")));
}
