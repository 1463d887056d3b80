//! Events that their producer must sign.

use std::sync::atomic::Ordering;

use http::Method;
use serde_json::{Value, json};
use signalpost_api::Settings;
use signalpost_core::Clock as _;
use signalpost_signing::{Canonical, Encoding, HmacHeader, Secret};

use crate::{
    app::{App, Reply},
    faulty::{self, REFUSED},
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const EVENT: &str = r#"{"type":"order.created","data":{"n":1}}"#;

/// Makes the producers of `default` sign.
async fn must_sign(app: &App, signature: Value) {
    let body = json!({"ingest_signature": signature});
    app.patch("/v1/tenants/default", body).await.expect(200);
}

async fn standard(app: &App) {
    must_sign(app, json!({"scheme": "standard", "secret": SECRET})).await;
}

async fn hmac(app: &App) {
    let scheme =
        json!({"scheme": "hmac", "header": "X-HMAC-Signature", "canonical": "sorted_keys", "secret": "producers"});
    must_sign(app, scheme).await;
}

async fn post(app: &App, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let media_type = if body.contains('\n') { "application/x-ndjson" } else { "application/json" };
    let mut all = vec![("content-type", media_type)];
    all.extend(headers);
    app.with(Method::POST, path, &all, body.to_owned()).await
}

async fn send(app: &App, id: &str, body: &str) -> Reply {
    send_at(app, "/v1/events", id, 0, body).await
}

/// Signs as Standard Webhooks, so many seconds ahead.
async fn send_at(app: &App, path: &str, id: &str, ahead: i64, body: &str) -> Reply {
    let at = app.clock.now().as_secs() + ahead;
    let signature = Secret::parse(SECRET).unwrap().sign(id, at, body.as_bytes());
    let at = at.to_string();
    let headers = [("webhook-id", id), ("webhook-timestamp", at.as_str()), ("webhook-signature", signature.as_str())];
    post(app, path, &headers, body).await
}

/// Signs as Bruce's producers do.
async fn send_hmac(app: &App, path: &str, more: &[(&str, &str)], body: &str) -> Reply {
    let signature = HmacHeader::new(b"producers", "", Encoding::Hex, Canonical::SortedKeys).sign(body.as_bytes());
    let mut headers = vec![("x-hmac-signature", signature.as_str())];
    headers.extend(more);
    post(app, path, &headers, body).await
}

async fn stored(app: &App) -> usize {
    app.get("/v1/events?limit=250").await.expect(200)["data"].as_array().unwrap().len()
}

#[tokio::test]
async fn what_is_not_signed_right_is_refused_and_not_stored() {
    let app = App::start();
    standard(&app).await;
    for (id, signature) in [("m1", None), ("m1", Some("v1,AAAA")), ("m1", Some("nonsense"))] {
        let at = app.clock.now().as_secs().to_string();
        let mut headers = vec![("webhook-id", id), ("webhook-timestamp", at.as_str())];
        headers.extend(signature.map(|signature| ("webhook-signature", signature)));
        post(&app, "/v1/events", &headers, EVENT).await.problem(403, "signature_invalid");
        post(&app, "/v1/events/batch", &headers, &format!("{EVENT}\n{EVENT}")).await.problem(403, "signature_invalid");
    }
    for ahead in [-330, 330] {
        send_at(&app, "/v1/events", "m1", ahead, EVENT).await.problem(403, "signature_invalid");
    }
    // What is no event at all is not looked at before the signature.
    post(&app, "/v1/events", &[], "{").await.problem(403, "signature_invalid");
    assert_eq!(stored(&app).await, 0);
    send(&app, "m1", EVENT).await.expect(202);
    assert_eq!(stored(&app).await, 1);
}

#[tokio::test]
async fn a_signature_is_taken_once() {
    let app = App::start();
    standard(&app).await;
    let at = app.clock.now().as_secs().to_string();
    let signature = Secret::parse(SECRET).unwrap().sign("m1", at.parse().unwrap(), EVENT.as_bytes());
    let with = |signature: &str, at: &str| {
        [
            ("webhook-id", "m1".to_owned()),
            ("webhook-timestamp", at.to_owned()),
            ("webhook-signature", signature.to_owned()),
        ]
    };
    let post_with = async |headers: [(&str, String); 3], more: &[(&str, &str)]| {
        let mut all: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        all.extend(more);
        post(&app, "/v1/events", &all, EVENT).await
    };
    post_with(with(&signature, &at), &[("idempotency-key", "k")]).await.expect(202);
    // However it is written, and whatever else it says.
    post_with(with(&signature, &at), &[]).await.problem(403, "signature_replayed");
    post_with(with(&signature, &at), &[("idempotency-key", "k")]).await.problem(403, "signature_replayed");
    post_with(with(&format!("v1,AAAA {signature}"), &at), &[]).await.problem(403, "signature_replayed");
    post_with(with(&signature, &format!("+{at}")), &[]).await.problem(403, "signature_replayed");
    // Signed anew it is another request: here the same one, by its key.
    let again = send_keyed(&app, "m2", "k").await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(stored(&app).await, 1);
}

async fn send_keyed(app: &App, id: &str, key: &str) -> Reply {
    let at = app.clock.now().as_secs();
    let signature = Secret::parse(SECRET).unwrap().sign(id, at, EVENT.as_bytes());
    let at = at.to_string();
    let headers = [
        ("webhook-id", id),
        ("webhook-timestamp", at.as_str()),
        ("webhook-signature", signature.as_str()),
        ("idempotency-key", key),
    ];
    post(app, "/v1/events", &headers, EVENT).await
}

#[tokio::test]
async fn a_signature_without_a_time_is_taken_again_where_it_is_a_duplicate_only() {
    let app = App::start();
    hmac(&app).await;
    send_hmac(&app, "/v1/events", &[], EVENT).await.expect(202);
    send_hmac(&app, "/v1/events", &[], EVENT).await.problem(403, "signature_replayed");
    // The same document in another form has the same signature.
    let other = r#"{ "data": {"n":1}, "type": "order.created" }"#;
    send_hmac(&app, "/v1/events", &[], other).await.problem(403, "signature_replayed");
    send_hmac(&app, "/v1/events", &[("idempotency-key", "late")], EVENT).await.problem(403, "signature_replayed");

    let keyed = r#"{"type":"order.created","data":{"n":2}}"#;
    let first = send_hmac(&app, "/v1/events", &[("idempotency-key", "k1")], keyed).await.expect(202);
    let again = send_hmac(&app, "/v1/events", &[("idempotency-key", "k1")], keyed).await;
    assert_eq!((again.header("idempotency-replayed"), &again.body["id"]), ("true", &first["id"]));
    send_hmac(&app, "/v1/events", &[("idempotency-key", "k2")], keyed).await.problem(403, "signature_replayed");
    // Another route knows nothing of the key, so it is no duplicate there.
    let line = [("idempotency-key", "k1"), ("content-type", "application/x-ndjson")];
    let mut headers = line.to_vec();
    let signature = HmacHeader::new(b"producers", "", Encoding::Hex, Canonical::SortedKeys).sign(keyed.as_bytes());
    headers.push(("x-hmac-signature", signature.as_str()));
    let reply = app.with(Method::POST, "/v1/events/batch", &headers, keyed.to_owned()).await;
    reply.problem(403, "signature_replayed");

    let with_uid = r#"{"type":"order.created","uid":"o-3","data":{"n":3}}"#;
    let first = send_hmac(&app, "/v1/events", &[], with_uid).await.expect(202);
    let again = send_hmac(&app, "/v1/events", &[], with_uid).await.expect(202);
    assert_eq!((&again["id"], &again["duplicate"]), (&first["id"], &json!(true)));
    let lines = "{\"type\":\"a\",\"uid\":\"1\",\"data\":1}\n{\"type\":\"a\",\"uid\":\"2\",\"data\":2}";
    send_hmac(&app, "/v1/events/batch", &[], lines).await.expect(202);
    let again = send_hmac(&app, "/v1/events/batch", &[], lines).await.expect(202);
    assert_eq!(again["results"][1]["duplicate"], true);
    assert_eq!(stored(&app).await, 5);
}

#[tokio::test]
async fn an_id_in_a_header_is_not_signed() {
    let app = App::start();
    hmac(&app).await;
    let send = async |id: &str| {
        let headers = [("ce-specversion", "1.0"), ("ce-type", "a"), ("ce-source", "/s"), ("ce-id", id)];
        send_hmac(&app, "/v1/events", &headers, "{\"n\":1}").await
    };
    send("1").await.expect(202);
    send("2").await.problem(403, "signature_replayed");
    send("1").await.problem(403, "signature_replayed");
}

#[tokio::test]
async fn what_failed_may_be_sent_again_as_it_is() {
    let (app, faults) = faulty::start(Settings::default());
    hmac(&app).await;
    let refused = format!(r#"{{"type":"{REFUSED}","data":1}}"#);
    for _ in 0..2 {
        send_hmac(&app, "/v1/events", &[], &refused).await.problem(422, "validation_failed");
    }
    let number = faults.groups.load(Ordering::SeqCst) + 1;
    faults.fails_at.store(number, Ordering::SeqCst);
    send_hmac(&app, "/v1/events", &[], EVENT).await.problem(503, "unavailable");
    send_hmac(&app, "/v1/events", &[], EVENT).await.expect(202);
    send_hmac(&app, "/v1/events", &[], EVENT).await.problem(403, "signature_replayed");
}

#[tokio::test]
async fn what_nobody_knows_whether_it_was_taken_is_not_refused_for_good() {
    let (app, faults) = faulty::start(Settings::default());
    hmac(&app).await;
    let number = faults.groups.load(Ordering::SeqCst) + 1;
    faults.fails_at.store(number, Ordering::SeqCst);
    *faults.fails.lock().unwrap() = Some("finish_idempotent");
    send_hmac(&app, "/v1/events", &[], EVENT).await.problem(503, "unavailable");
    *faults.fails.lock().unwrap() = None;
    // Its mark could not be given back: whoever tries again is told to do so later.
    send_hmac(&app, "/v1/events", &[], EVENT).await.problem(503, "unavailable");
    assert_eq!(stored(&app).await, 0);
}

#[tokio::test]
async fn who_need_not_sign_is_not_asked() {
    let app = App::start();
    standard(&app).await;
    post(&app, "/v1/events", &[], EVENT).await.problem(403, "signature_invalid");
    must_sign(&app, Value::Null).await;
    // What is known of a tenant is used for less than a second.
    let deadline = app.clock.elapsed() + std::time::Duration::from_secs(5);
    while post(&app, "/v1/events", &[], EVENT).await.status != 202 {
        assert!(app.clock.elapsed() < deadline, "it still has to sign");
    }
}
