//! What surrounds every route: keys, tenants, errors, headers.

use axum::body::Body;
use http::{Method, Request};
use serde_json::json;

use super::{App, app};

const EVENT: &str = r#"{"type":"a","data":1}"#;

async fn post_as(app: &App, headers: &[(&str, &str)]) -> app::Reply {
    let mut request = Request::post("/v1/events").header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    app.raw(request.body(Body::from(EVENT)).unwrap()).await
}

#[tokio::test]
async fn a_key_is_needed() {
    let app = App::start();
    let bearer = format!("Bearer {}", app::KEY);
    post_as(&app, &[("authorization", &bearer)]).await.expect(202);
    post_as(&app, &[("x-api-key", app::KEY)]).await.expect(202);
    for headers in
        [vec![], vec![("authorization", "Bearer wrong")], vec![("x-api-key", "")], vec![("authorization", app::KEY)]]
    {
        let reply = post_as(&app, &headers).await;
        assert!(reply.header("www-authenticate").starts_with("Bearer"));
        reply.problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn the_tenant_is_named_by_a_header() {
    let app = App::start();
    let default = signalpost_core::TenantId::DEFAULT.to_string();
    for name in ["default", default.as_str()] {
        post_as(&app, &[("x-api-key", app::KEY), ("signalpost-tenant", name)]).await.expect(202);
    }
    for name in ["nobody", "tnt_01h2e8kqvbfwea724h75qc655w", "evt_01h2e8kqvbfwea724h75qc655w", ""] {
        let reply = post_as(&app, &[("x-api-key", app::KEY), ("signalpost-tenant", name)]).await;
        reply.problem(404, "not_found");
    }
}

#[tokio::test]
async fn errors_of_the_framework_are_problems_too() {
    let app = App::start();
    app.get("/nonsense").await.problem(404, "not_found");
    app.get("/v1/nonsense").await.problem(404, "not_found");
    let reply = app.with(Method::DELETE, "/v1/events", &[], Body::empty()).await;
    let mut allowed: Vec<&str> = reply.header("allow").split(',').map(str::trim).collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    reply.problem(405, "method_not_allowed");
    let reply = app.get("/v1/events/batch").await;
    assert_eq!(reply.header("allow"), "POST");
    reply.problem(405, "method_not_allowed");
}

#[tokio::test]
async fn a_request_has_an_id_and_safe_headers() {
    let app = App::start();
    let reply = app.with(Method::GET, "/nonsense", &[("x-request-id", "mine-1")], Body::empty()).await;
    assert_eq!(reply.header("x-request-id"), "mine-1");
    assert_eq!(reply.body["request_id"], "mine-1");
    let made = app.with(Method::GET, "/", &[("x-request-id", "not harmless")], Body::empty()).await;
    assert!(made.header("x-request-id").starts_with("req_"));
    for reply in [&reply, &made] {
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(reply.header(name), value);
        }
        assert!(reply.header("content-security-policy").contains("frame-ancestors 'none'"));
    }
    let home = made.expect(200);
    assert_eq!((&home["docs"], &home["openapi"]), (&json!("/docs"), &json!("/openapi.json")));
}

#[tokio::test]
async fn an_address_is_bounded() {
    let app = App::start();
    let path = "/v1/events?label.x=";
    let of = |length: usize| format!("{path}{}", "x".repeat(length - path.len()));
    app.get(&of(8192)).await.expect(200);
    app.get(&of(8193)).await.problem(414, "uri_too_long");
    app.get(&format!("/{}", "x".repeat(20_000))).await.problem(414, "uri_too_long");
}

#[tokio::test]
async fn bodies_that_fill_the_memory_are_503() {
    let settings = signalpost_api::Settings { body_bytes: EVENT.len(), ..signalpost_api::Settings::default() };
    let app = App::start_with(settings, |store| std::sync::Arc::new(store));
    let send = |body: String| app.with(Method::POST, "/v1/events", &[("content-type", "application/json")], body);
    for _ in 0..3 {
        send(EVENT.to_owned()).await.expect(202);
    }
    let reply = send(format!("{EVENT} ")).await;
    assert_eq!(reply.header("retry-after"), "1");
    reply.problem(503, "unavailable");
}

#[tokio::test]
async fn every_code_has_its_page() {
    let app = App::start();
    for code in signalpost_api::problem::Code::ALL {
        let page = app.raw(Request::get(format!("/problems/{}", code.as_str())).body(Body::empty()).unwrap()).await;
        assert_eq!(page.status, 200);
        assert!(page.header("content-type").starts_with("text/html"));
        assert!(String::from_utf8_lossy(&page.bytes).contains(code.as_str()));
    }
    app.get("/problems/nonsense").await.problem(404, "not_found");
}

#[tokio::test]
async fn a_panic_is_a_problem_that_tells_nothing() {
    let app = App::start();
    let panics = axum::Router::new().route("/panics", axum::routing::get(|| async { panics() }));
    let request = Request::get("/panics").body(Body::empty()).unwrap();
    let router = app.router.clone().merge(app.api.surround(panics));
    let response = tower::ServiceExt::oneshot(router.clone(), request).await.unwrap();
    assert_eq!(response.status(), 500);
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["code"], "internal");
    assert!(problem["request_id"].as_str().unwrap().starts_with("req_"));
    assert!(!String::from_utf8_lossy(&body).contains("secret"), "{problem}");
    // What nobody serves is still a problem.
    let request = Request::get("/nonsense").body(Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
}

fn panics() {
    panic!("with a secret");
}
