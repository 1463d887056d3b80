//! What is secret of a destination: how it is set, kept, shown, used and replaced.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde_json::{Value, json};
use signalpost_api::Settings;
use signalpost_receiver::{Received, Receiver, ReceiverSettings};
use signalpost_signing::{Canonical, Encoding, HmacHeader, SigningKey, TOLERANCE, VerifyingKey, verify};

use crate::{
    app::{App, NO_DESTINATION},
    faulty,
};

const URL: &str = "http://127.0.0.1:9999/hook";
const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB";

/// Pings the destination, and gives the request as it arrived.
async fn ping(app: &App, receiver: &Receiver, path: &str) -> Arc<Received> {
    receiver.clear();
    app.act(&format!("{path}/test")).await.expect(200);
    receiver.wait_for(1, Duration::from_secs(5)).await.unwrap();
    receiver.received()[0].clone()
}

async fn create(app: &App, mut body: Value) -> (String, Value) {
    if body["url"].is_null() {
        body["url"] = URL.into();
    }
    let created = app.post("/v1/destinations", body).await.expect(201);
    (format!("/v1/destinations/{}", created["id"].as_str().unwrap()), created)
}

fn fits(request: &Received, key: &str) -> bool {
    let [id, at, signatures] =
        ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| request.header(name));
    let key = VerifyingKey::parse(key).unwrap();
    verify(&[key], id, at, signatures, &request.body, request.at.as_secs(), TOLERANCE).is_ok()
}

#[tokio::test]
async fn an_asymmetric_destination_shows_what_receivers_verify_with() {
    let app = App::start();
    let receiver = Receiver::start(ReceiverSettings::default()).await.unwrap();
    let (path, created) =
        create(&app, json!({"url": receiver.url("/"), "signatures": [{"scheme": "standard_ed25519"}]})).await;
    assert_eq!(created["signatures"], json!([{"scheme": "standard_ed25519"}]));
    let secret = app.get(&format!("{path}/secret")).await.expect(200);
    assert_eq!(secret["secret"], created["secret"]);
    let key = SigningKey::parse(secret["secret"].as_str().unwrap()).unwrap();
    assert_eq!(secret["public_key"], key.public().reveal());
    let request = ping(&app, &receiver, &path).await;
    assert!(request.header("webhook-signature").starts_with("v1a,"));
    assert!(fits(&request, secret["public_key"].as_str().unwrap()));
}

#[tokio::test]
async fn headers_of_the_receivers_choice_and_credentials_are_sent() {
    let app = App::start();
    let receiver = Receiver::start(ReceiverSettings::default()).await.unwrap();
    let hmac = |header: &str, canonical: &str| json!({"scheme": "hmac", "header": header, "prefix": "sha256=", "canonical": canonical});
    let body = json!({
        "url": receiver.url("/"), "secret": "an old system's text",
        "signatures": [hmac("X-Raw", "raw"), hmac("X-Sorted", "sorted_keys")],
        "headers": {"X-Trace": "{event.id}"},
        "auth": {"type": "basic", "username": "anna", "password": "pass-word"},
    });
    let (path, created) = create(&app, body).await;
    assert_eq!(created["auth"], Value::Null, "it is written, and never shown");
    let request = ping(&app, &receiver, &path).await;
    assert_eq!(request.header("authorization"), "Basic YW5uYTpwYXNzLXdvcmQ=");
    assert_eq!(request.header("x-trace"), request.webhook_id());
    for (header, canonical) in [("x-raw", Canonical::Raw), ("x-sorted", Canonical::SortedKeys)] {
        let scheme = HmacHeader::new(b"an old system's text", "sha256=", Encoding::Hex, canonical);
        assert!(scheme.verify(&request.body, request.header(header)), "{header}");
    }
    assert_eq!(request.header("webhook-signature"), "");
    // Kept by a PATCH and a PUT that say nothing of them, replaced, taken away.
    app.patch(&path, json!({"name": "x"})).await.expect(200);
    assert_eq!(ping(&app, &receiver, &path).await.header("authorization"), request.header("authorization"));
    app.patch(&path, json!({"auth": {"type": "bearer", "token": "t0ken"}})).await.expect(200);
    assert_eq!(ping(&app, &receiver, &path).await.header("authorization"), "Bearer t0ken");
    app.patch(&path, json!({"auth": {"type": "api_key", "header": "X-Key", "value": "v4lue"}})).await.expect(200);
    let request = ping(&app, &receiver, &path).await;
    assert_eq!((request.header("authorization"), request.header("x-key")), ("", "v4lue"));
    app.patch(&path, json!({"auth": null})).await.expect(200);
    assert_eq!(ping(&app, &receiver, &path).await.header("x-key"), "");
}

#[tokio::test]
async fn no_header_is_written_twice() {
    let app = App::start();
    let hmac = json!([{"scheme": "hmac", "header": "X-Sig"}]);
    let key = |header: &str| json!({"type": "api_key", "header": header, "value": "v"});
    for (body, pointer) in [
        (json!({"headers": {"Authorization": "x"}, "auth": {"type": "bearer", "token": "x"}}), "/auth"),
        (json!({"headers": {"x-key": "x"}, "auth": key("X-Key")}), "/auth"),
        (json!({"signatures": hmac, "auth": key("x-sig")}), "/auth"),
        (json!({"signatures": hmac, "headers": {"x-sig": "x"}}), "/signatures/0/header"),
    ] {
        let mut body = body;
        body["url"] = URL.into();
        assert_eq!(
            app.post("/v1/destinations", body.clone()).await.problem(422, "validation_failed"),
            [pointer],
            "{body}"
        );
    }
    // Also where one half was there before.
    let (path, _) = create(&app, json!({"auth": key("X-Key")})).await;
    let reply = app.patch(&path, json!({"headers": {"X-KEY": "x"}})).await;
    assert_eq!(reply.problem(422, "validation_failed"), ["/auth"]);
}

#[tokio::test]
async fn a_masked_value_stays_what_it_is() {
    let app = App::start();
    let receiver = Receiver::start(ReceiverSettings::default()).await.unwrap();
    let mut body = json!({"url": receiver.url("/"), "headers": {"X-A": "one", "X-B": "two"}});
    let put = async |body: &Value| app.put("/v1/destinations/crm", body.clone()).await;
    assert_eq!(put(&body).await.expect(201)["headers"], json!({"X-A": "***", "X-B": "***"}));
    let path = "/v1/destinations/crm";
    let sent = async || {
        let request = ping(&app, &receiver, path).await;
        ["x-a", "x-b", "x-c"].map(|name| request.header(name).to_owned())
    };
    app.patch(path, json!({"headers": {"x-a": "***", "X-C": "three"}})).await.expect(200);
    assert_eq!(sent().await, ["one", "two", "three"]);
    body["headers"] = json!({"X-A": "***", "X-B": "zwei"});
    assert_eq!(put(&body).await.expect(200)["headers"], json!({"X-A": "***", "X-B": "***"}));
    assert_eq!(sent().await, ["one", "zwei", ""]);
    body["headers"] = json!({"X-New": "***"});
    assert_eq!(put(&body).await.problem(422, "validation_failed"), ["/headers/X-New"]);
    let patched = app.patch(path, json!({"headers": {"X-New": "***"}})).await;
    assert_eq!(patched.problem(422, "validation_failed"), ["/headers/X-New"]);
    let created = app.post("/v1/destinations", body).await;
    assert_eq!(created.problem(422, "validation_failed"), ["/headers/X-New"]);
}

#[tokio::test]
async fn both_secrets_sign_until_the_overlap_ends() {
    let app = App::start();
    let receiver = Receiver::start(ReceiverSettings::default()).await.unwrap();
    let (path, _) = create(&app, json!({"url": receiver.url("/"), "secret": OLD})).await;
    let rotate = async |body: Value| app.post(&format!("{path}/secret/rotate"), body).await;
    let rotated = rotate(json!({"secret": NEW, "overlap_seconds": 60})).await.expect(200);
    assert_eq!((rotated["secret"].as_str(), rotated["previous"].as_array().unwrap().len()), (Some(NEW), 1));
    assert_eq!(app.get(&format!("{path}/secret")).await.expect(200), rotated);
    let request = ping(&app, &receiver, &path).await;
    assert!(fits(&request, NEW) && fits(&request, OLD));
    // At once: what signed until now stops; what still signed beside it goes on until its own end.
    let third = rotate(json!({"overlap_seconds": 0})).await.expect(200);
    assert_eq!(third["previous"], rotated["previous"]);
    let request = ping(&app, &receiver, &path).await;
    assert!(fits(&request, third["secret"].as_str().unwrap()) && fits(&request, OLD) && !fits(&request, NEW));
    // A secret that is set takes the place of all.
    app.patch(&path, json!({"secret": NEW})).await.expect(200);
    assert_eq!(app.get(&format!("{path}/secret")).await.expect(200), json!({"secret": NEW, "previous": []}));
    // The overlap is a day where nothing is said; one answer for one key.
    let first = app.keyed(&format!("{path}/secret/rotate"), "k", &json!({})).await.expect(200);
    let again = app.keyed(&format!("{path}/secret/rotate"), "k", &json!({})).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.expect(200)["secret"], first["secret"]);
    app.act(&format!("{path}/secret/rotate")).await.expect(200);
}

#[tokio::test]
async fn what_cannot_rotate_is_refused() {
    let app = App::start();
    let (path, _) = create(&app, json!({"secret": OLD})).await;
    for (body, pointer) in [
        (json!({"secret": OLD}), "/secret"),
        (json!({"secret": "any text"}), "/secret"),
        (json!({"secret": 5}), "/secret"),
        (json!({"overlap_seconds": -1}), "/overlap_seconds"),
        (json!({"overlap_seconds": 604_801}), "/overlap_seconds"),
        (json!({"overlap": 5}), "/overlap"),
    ] {
        let reply = app.post(&format!("{path}/secret/rotate"), body.clone()).await;
        assert_eq!(reply.problem(422, "validation_failed"), [pointer], "{body}");
    }
    let nobody = format!("/v1/destinations/{NO_DESTINATION}/secret/rotate");
    app.post(&nobody, json!({"nonsense": 1})).await.problem(404, "not_found");
    assert_eq!(app.get(&format!("{path}/secret")).await.expect(200)["secret"], OLD);
}

#[tokio::test]
async fn other_schemes_want_a_secret_that_fits_them() {
    let app = App::start();
    let (path, _) = create(&app, json!({"secret": OLD})).await;
    let ed25519 = json!([{"scheme": "standard_ed25519"}]);
    let reply = app.patch(&path, json!({"signatures": ed25519})).await;
    assert_eq!(reply.problem(422, "validation_failed"), ["/secret"]);
    app.patch(&path, json!({"signatures": ed25519, "secret": null})).await.expect(200);
    let secret = app.get(&format!("{path}/secret")).await.expect(200);
    assert!(secret["secret"].as_str().unwrap().starts_with("whsk_") && secret["public_key"].is_string());
    // Any secret signs with `hmac` alone; back to the default it does not.
    app.patch(&path, json!({"signatures": [{"scheme": "hmac", "header": "X-Sig"}]})).await.expect(200);
    assert_eq!(app.patch(&path, json!({"signatures": null})).await.problem(422, "validation_failed"), ["/secret"]);
}

#[tokio::test]
async fn a_database_of_an_earlier_version_keeps_no_more_than_that_did() {
    let (app, faults) = faulty::start(Settings::default());
    faults.unsealed.store(true, Ordering::SeqCst);
    let receiver = Receiver::start(ReceiverSettings::default()).await.unwrap();
    let auth = json!({"type": "bearer", "token": "x"});
    app.post("/v1/destinations", json!({"url": URL, "auth": auth})).await.problem(409, "conflict");
    let (path, _) = create(&app, json!({"url": receiver.url("/"), "secret": OLD, "headers": {"X-A": "one"}})).await;
    let rotate = async |seconds: u64| {
        app.post(&format!("{path}/secret/rotate"), json!({"secret": NEW, "overlap_seconds": seconds})).await
    };
    rotate(60).await.problem(409, "conflict");
    app.patch(&path, json!({"auth": auth})).await.problem(409, "conflict");
    rotate(0).await.expect(200);
    let request = ping(&app, &receiver, &path).await;
    assert!(fits(&request, NEW) && request.header("x-a") == "one");
    // From `rotate-keys` on.
    faults.unsealed.store(false, Ordering::SeqCst);
    app.patch(&path, json!({"auth": auth})).await.expect(200);
    let rotated = app.post(&format!("{path}/secret/rotate"), json!({"secret": OLD})).await.expect(200);
    assert_eq!(rotated["previous"].as_array().unwrap().len(), 1);
    let request = ping(&app, &receiver, &path).await;
    assert!(fits(&request, NEW) && fits(&request, OLD) && request.header("x-a") == "one");
    assert_eq!(request.header("authorization"), "Bearer x");
}

#[tokio::test]
async fn a_receiver_that_echoes_shows_the_owner_no_secret() {
    let app = App::start();
    let receiver = Receiver::start(ReceiverSettings { echo: true, ..ReceiverSettings::default() }).await.unwrap();
    let (path, _) = create(
        &app,
        json!({"url": receiver.url("/"), "headers": {"X-A": "header-value"}, "auth": {"type": "basic", "username": "u", "password": "pass-word"}}),
    )
    .await;
    let attempt = app.act(&format!("{path}/test")).await.expect(200);
    let excerpt = attempt["response_excerpt"].as_str().unwrap();
    assert!(excerpt.contains("x-a: ***") && excerpt.contains("authorization: ***"), "{excerpt}");
    assert!(!excerpt.contains("header-value") && !excerpt.contains("dTpwYXNzLXdvcmQ="), "{excerpt}");
}
