//! Requests made from the document, good and bad ones: each gets an answer that the document describes, and never a 500.

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};
use signalpost_core::DeadReason;
use signalpost_store::dispatch::Next;

use crate::{
    app::{App, NO_DESTINATION},
    schema::{Dice, breaches, generate, resolve, spoil},
};

/// An id of a key that nobody has.
const NO_KEY: &str = "key_01h2e8kqvbfwea724h75qc655w";

/// Requests to each operation.
const ROUNDS: usize = 100;

/// Ids that lead somewhere, of each kind of path.
async fn ids(app: &App) -> Vec<(&'static str, Vec<String>)> {
    let destinations =
        vec![app.destination(json!({})).await, app.destination(json!({"uid": "u"})).await, "u".to_owned()];
    let (event, deliveries) = app.event(&[&destinations[0], &destinations[1]]).await;
    app.attempted(&deliveries[0], Next::Delivered).await;
    let mut letters = Vec::new();
    for _ in 0..20 {
        letters.push(app.dead_letter(&destinations[0], DeadReason::Rejected).await);
    }
    let replay = app.post("/v1/replays", json!({"destination_id": destinations[0]})).await.expect(202);
    let created = app.post("/v1/tenants", json!({"name": "T", "slug": "t"})).await.expect(201);
    vec![
        ("tenants", vec!["t".to_owned(), created["tenant"]["id"].as_str().unwrap().to_owned()]),
        ("destinations", destinations),
        ("events", vec![event]),
        ("deliveries", deliveries),
        ("dead-letters", letters),
        ("replays", vec![replay["id"].as_str().unwrap().to_owned()]),
    ]
}

fn query(document: &Value, operation: &Value, dice: &mut Dice) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let parameter = resolve(document, parameter);
        if parameter["in"] != "query" || !dice.percent(25) {
            continue;
        }
        let value = match generate(document, &parameter["schema"], dice) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let value = if dice.percent(15) { dice.text() } else { value };
        query.append_pair(&parameter["name"].as_str().unwrap().replace("<name>", "env"), &value);
    }
    query.finish()
}

/// The content type and the body.
fn body(document: &Value, path: &str, operation: &Value, dice: &mut Dice) -> (String, Vec<u8>) {
    let Some(content) = operation["requestBody"]["content"].as_object() else {
        let body = if dice.percent(20) { dice.anything().to_string() } else { String::new() };
        return ("application/json".to_owned(), body.into_bytes());
    };
    let types: Vec<&String> = content.keys().collect();
    let media_type = (*dice.pick(&types)).clone();
    let mut value = generate(document, &content[&media_type]["schema"], dice);
    if value["url"].is_string() {
        // A name would be looked up.
        value["url"] = json!("http://127.0.0.1:9999/");
    }
    if value["destination"]["url"].is_string() {
        value["destination"]["url"] = json!("http://127.0.0.1:9999/");
    }
    // Of an event the document cannot say that it needs a type, and data in one of two forms.
    let events = match path {
        "/v1/events" => std::slice::from_mut(&mut value),
        _ => value.get_mut("events").and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default(),
    };
    for event in events.iter_mut().filter_map(Value::as_object_mut).filter(|_| dice.percent(70)) {
        event.retain(|name, _| ["labels", "source", "schema_version", "occurred_at"].contains(&name.as_str()));
        event.extend([("type".to_owned(), json!("a.b")), ("data".to_owned(), json!([1]))]);
    }
    if dice.percent(30) {
        spoil(&mut value, dice);
    }
    let mut bytes = value.to_string().into_bytes();
    if dice.percent(5) {
        bytes.truncate(dice.below(bytes.len() + 1));
        bytes.push(0xff);
    }
    (media_type, bytes)
}

#[tokio::test]
async fn every_answer_is_one_that_the_document_describes() {
    let app = App::start();
    let document = serde_json::to_value(signalpost_api::openapi_document()).unwrap();
    let known = ids(&app).await;
    let mut dice = Dice(42);
    let mut succeeded = 0;
    let operations: Vec<(&String, &String, &Value)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |(method, op)| (path, method, op)))
        .filter(|(path, ..)| path.starts_with("/v1/"))
        .collect();
    for round in 0..ROUNDS {
        for (path, method, operation) in &operations {
            let of_kind = known.iter().find(|(kind, _)| path.split('/').nth(2) == Some(kind));
            let id = match of_kind {
                Some((_, ids)) if dice.percent(80) => dice.pick(ids).clone(),
                _ => (*dice.pick(&["nobody", NO_DESTINATION, "%00", "%F0%9F%A6%80"])).to_owned(),
            };
            // What is deleted is missed by the rounds to come.
            if *method == "delete" && round + 1 < ROUNDS && dice.percent(95) {
                continue;
            }
            let uri = format!(
                "{}?{}",
                path.replace("{id}", &id).replace("{key_id}", NO_KEY),
                query(&document, operation, &mut dice)
            );
            let (media_type, bytes) = body(&document, path, operation, &mut dice);
            let key = dice.text();
            let mut headers = vec![("content-type", media_type.as_str())];
            if dice.percent(20) && http::HeaderValue::from_str(&key).is_ok() {
                headers.push(("idempotency-key", &key));
            }
            let what = format!("{method} {uri} {headers:?} {}", String::from_utf8_lossy(&bytes));
            let method: Method = method.to_uppercase().parse().unwrap();
            let reply = app.with(method, &uri, &headers, Body::from(bytes)).await;
            assert!(!reply.status.is_server_error(), "{what}: {}", reply.body);
            succeeded += usize::from(reply.status.is_success());

            let response = &operation["responses"][reply.status.as_str()];
            assert!(response.is_object(), "{what}: {} is not described", reply.status);
            if reply.bytes.is_empty() {
                assert!(response["content"].is_null(), "{what}: nothing was answered");
                continue;
            }
            let described = &response["content"][reply.header("content-type")];
            assert!(described.is_object(), "{what}: {} is not described", reply.header("content-type"));
            let mut found = Vec::new();
            breaches(&document, &described["schema"], &reply.body, "", &mut found);
            assert!(found.is_empty(), "{what}: {found:#?}");
        }
    }
    // A good part of them is meant to succeed; else this shows nothing.
    assert!(succeeded > ROUNDS * operations.len() / 4, "only {succeeded} of {}", ROUNDS * operations.len());
}
