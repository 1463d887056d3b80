//! `docs/openapi.json` is what the code generates, and it describes every route with every status.
//!
//! `SIGNALPOST_REGENERATE=1 cargo test -p signalpost-api --test openapi` writes it anew.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;
use signalpost_api::{openapi, openapi_document};

fn document() -> Value {
    serde_json::to_value(openapi_document()).unwrap()
}

/// Method, path and operation of each route.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let each = paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, operation)| (method.clone(), path.clone(), operation))
    });
    each.collect()
}

#[test]
fn the_generated_document_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let generated = openapi::to_text(&openapi_document()).unwrap();
    if std::env::var_os("SIGNALPOST_REGENERATE").is_some_and(|value| value == "1") {
        fs::write(&path, &generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "docs/openapi.json is stale: run `cargo xtask generate`");
}

#[test]
fn every_route_is_described() {
    let document = document();
    let found: BTreeSet<String> =
        operations(&document).iter().map(|(method, path, _)| format!("{} {path}", method.to_uppercase())).collect();
    for route in [
        "POST /v1/events",
        "POST /v1/events/batch",
        "GET /v1/events",
        "GET /v1/events/{id}",
        "GET /v1/events/{id}/deliveries",
        "GET /v1/events/{id}/attempts",
        "POST /v1/events/{id}/replay",
        "GET /v1/deliveries",
        "GET /v1/deliveries/{id}",
        "GET /v1/deliveries/{id}/attempts",
        "POST /v1/deliveries/{id}/retry",
        "POST /v1/deliveries/{id}/cancel",
        "GET /v1/attempts",
        "POST /v1/destinations",
        "GET /v1/destinations",
        "GET /v1/destinations/{id}",
        "PUT /v1/destinations/{id}",
        "PATCH /v1/destinations/{id}",
        "DELETE /v1/destinations/{id}",
        "POST /v1/destinations/{id}/pause",
        "POST /v1/destinations/{id}/resume",
        "POST /v1/destinations/{id}/test",
        "GET /v1/destinations/{id}/secret",
        "GET /v1/dead-letters",
        "GET /v1/dead-letters/{id}",
        "DELETE /v1/dead-letters/{id}",
        "POST /v1/dead-letters/{id}/replay",
        "POST /v1/replays",
        "GET /v1/replays",
        "GET /v1/replays/{id}",
        "POST /v1/replays/{id}/cancel",
        "POST /v1/tenants",
        "GET /v1/tenants",
        "GET /v1/tenants/{id}",
        "PATCH /v1/tenants/{id}",
        "DELETE /v1/tenants/{id}",
        "POST /v1/tenants/{id}/keys",
        "GET /v1/tenants/{id}/keys",
        "DELETE /v1/tenants/{id}/keys/{key_id}",
        "GET /v1/audit-log",
        "GET /health/live",
        "GET /health/ready",
        "GET /metrics",
    ] {
        assert!(found.contains(route), "{route} is not described; there are {found:#?}");
    }
}

#[test]
fn every_operation_tells_its_problems() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document).into_iter().filter(|(_, path, _)| path.starts_with("/v1/")) {
        let responses = operation["responses"].as_object().unwrap();
        let is_post = method == "post";
        for (needed, status) in [
            (true, "401"),
            (true, "403"),
            (path == "/v1/events" && is_post, "429"),
            (true, "503"),
            (is_post, "422"),
            (is_post, "413"),
            (is_post, "415"),
            (is_post, "400"),
            (true, "404"),
            (path.ends_with("/cancel") && path.contains("deliveries"), "409"),
        ] {
            assert!(!needed || responses.contains_key(status), "{method} {path} does not tell {status}");
        }
        for (status, response) in responses.iter().filter(|(status, _)| status.as_str() >= "400") {
            let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
            assert!(schema == "#/components/schemas/Problem", "{method} {path} {status}: {response}");
        }
        assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path}");
        assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{method} {path}");
        assert!(
            ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
            "{method} {path}: its id stands twice"
        );
        let key = serde_json::json!({"$ref": "#/components/parameters/IdempotencyKey"});
        let keyed = operation["parameters"].as_array().is_some_and(|all| all.contains(&key));
        assert_eq!(keyed, is_post, "{method} {path}: Idempotency-Key");
    }
}

/// Types with one name would overwrite each other.
#[test]
fn what_is_posted_and_what_is_read_have_different_names() {
    let document = document();
    let paths = &document["paths"];
    let posted = &paths["/v1/events"]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"];
    let read = &paths["/v1/events/{id}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
    assert_ne!(posted, read);
    let read = document.pointer(read.as_str().unwrap().trim_start_matches('#')).unwrap();
    assert!(read.to_string().contains("delivery_counts"), "{read}");
}

#[test]
fn every_reference_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    found.push(reference);
                }
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 100);
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference} leads nowhere");
    }
}
