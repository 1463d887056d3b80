//! Where destinations may point to: judged whenever a URL is written.

use std::sync::Arc;

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};
use signalpost_api::Settings;
use signalpost_sender::EgressPolicy;

use crate::app::{App, at};

const FORBIDDEN: &str = include_str!("../../../sender/tests/forbidden_urls.txt");
const ALLOWED: &str = include_str!("../../../sender/tests/allowed_urls.txt");

/// The URLs of one of the two lists; the sender's tests read them likewise.
fn urls(list: &str) -> Vec<String> {
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with("# ") && *line != "#");
    lines
        .map(|line| if line.starts_with('"') { serde_json::from_str(line).unwrap() } else { line.to_owned() })
        .collect()
}

/// An API whose deliveries reach the public internet alone, over `http` too: what is refused is refused for its address.
fn guarded() -> App {
    let egress = EgressPolicy { require_https: false, ..EgressPolicy::public_only() };
    App::start_behind(egress, Settings::default(), |store| Arc::new(store), None)
}

#[tokio::test]
async fn every_forbidden_spelling_is_refused_when_it_is_written() {
    let app = guarded();
    let id = app.destination(at("https://1.1.1.1/")).await;
    let before = app.get(&format!("/v1/destinations/{id}")).await.expect(200);
    let forbidden = urls(FORBIDDEN);
    assert!(forbidden.len() >= 150, "{} spellings", forbidden.len());
    let mut passed = Vec::new();
    for url in &forbidden {
        for (method, path) in [
            (Method::POST, "/v1/destinations".to_owned()),
            (Method::PUT, "/v1/destinations/mine".to_owned()),
            (Method::PATCH, format!("/v1/destinations/{id}")),
        ] {
            let reply = app.json(method.clone(), &path, &at(url)).await;
            let pointers: Vec<_> =
                reply.body["errors"].as_array().into_iter().flatten().map(|e| &e["pointer"]).collect();
            if reply.status != 422 || reply.body["code"] != "validation_failed" || pointers != ["/url"] {
                passed.push(format!("{method} {url:?}: {} {}", reply.status, reply.body));
            }
        }
    }
    assert!(passed.is_empty(), "{passed:#?}");
    assert_eq!(app.get(&format!("/v1/destinations/{id}")).await.expect(200), before);
    assert_eq!(app.get("/v1/destinations").await.expect(200)["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn every_allowed_spelling_is_taken() {
    let app = guarded();
    let bodies: Vec<Value> = urls(ALLOWED).iter().map(|url| at(url)).collect();
    let replies = join_all(bodies.iter().map(|body| app.json(Method::POST, "/v1/destinations", body))).await;
    for (body, reply) in bodies.iter().zip(replies) {
        assert_eq!(reply.status, 201, "{body}: {}", reply.body);
    }
}

#[tokio::test]
async fn a_url_that_is_written_again_is_judged_again() {
    let lax = EgressPolicy { allow: vec!["10.0.0.0/8".parse().unwrap()], ..EgressPolicy::public_only() };
    let before = App::start_behind(lax, Settings::default(), |store| Arc::new(store), None);
    let inner = "http://10.1.2.3/";
    let id = before.destination(json!({"url": inner, "uid": "mine"})).await;

    // The operator takes back what he allowed.
    let store = before.store.clone();
    let strict = App::start_behind(EgressPolicy::public_only(), Settings::default(), |_| Arc::new(store), None);
    let path = format!("/v1/destinations/{id}");
    let named = strict.patch(&path, json!({"name": "named"})).await.expect(200);
    assert_eq!((&named["name"], &named["url"]), (&json!("named"), &json!(inner)));
    let written = json!({"name": "again", "url": inner});
    assert_eq!(strict.patch(&path, written.clone()).await.problem(422, "validation_failed"), ["/url"]);
    assert_eq!(strict.put("/v1/destinations/mine", written).await.problem(422, "validation_failed"), ["/url"]);
    assert_eq!(strict.get(&path).await.expect(200)["name"], "named");
}

#[tokio::test]
async fn headers_are_bounded_altogether() {
    let app = guarded();
    let headers = |count: usize| {
        let headers = (0..count).map(|n| (format!("x-{n:03}"), Value::from("v".repeat(1019))));
        json!({"url": "https://1.1.1.1/", "headers": headers.collect::<serde_json::Map<_, _>>()})
    };
    // 1,024 bytes each with its name.
    app.post("/v1/destinations", headers(16)).await.expect(201);
    let pointers = app.post("/v1/destinations", headers(17)).await.problem(422, "validation_failed");
    assert_eq!(pointers, ["/headers"]);
}
