//! Every route of the document, with every kind of key.

use std::collections::BTreeSet;

use serde_json::Value;
use signalpost_api::openapi_document;
use signalpost_core::{DeliveryId, DestinationId, EventId, KeyId, ReplayId, Scope, TenantId, Timestamp};
use signalpost_runtime::SystemEntropy;

use crate::{
    app::{App, KEY, Reply},
    ask,
    home::Home,
    recipes::{Call, OPERATIONS, make},
};

/// One operation of the document.
struct Operation {
    /// `GET /v1/events`.
    name: String,
    /// None: it is the operator's.
    scope: Option<Scope>,
    statuses: BTreeSet<u16>,
}

fn operations() -> Vec<Operation> {
    let document = serde_json::to_value(openapi_document()).unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let scope = operation["security"][0]["bearer"][0].as_str();
            let statuses = operation["responses"].as_object().unwrap().keys();
            all.push(Operation {
                name: format!("{} {path}", method.to_uppercase()),
                scope: scope.map(|name| Scope::ALL.into_iter().find(|scope| scope.as_str() == name).unwrap()),
                statuses: statuses.map(|status| status.parse().unwrap()).collect(),
            });
        }
    }
    all
}

/// Asks, and holds the status to what is expected and to what is documented.
async fn expect(
    app: &App,
    of: &Operation,
    call: &Call,
    key: &str,
    headers: &[(&str, &str)],
    status: u16,
    who: &str,
) -> Reply {
    let mut all = vec![("x-request-id", "the-same")];
    all.extend(headers);
    let reply = ask(&app.router, key, &call.method, &call.uri, &all, &call.body).await;
    assert_eq!(reply.status.as_u16(), status, "{} as {who}: {}", of.name, reply.body);
    assert!(of.statuses.contains(&status), "{}: {status} is not documented", of.name);
    reply
}

/// An id of the same kind that nobody has.
fn unknown(id: &str) -> String {
    let at = Timestamp::from_micros(1_700_000_000_000_000);
    match id.split('_').next().unwrap() {
        "evt" => EventId::new(at, &SystemEntropy).to_string(),
        "dst" => DestinationId::new(at, &SystemEntropy).to_string(),
        "dlv" => DeliveryId::new(at, &SystemEntropy).to_string(),
        "rpl" => ReplayId::new(at, &SystemEntropy).to_string(),
        "tnt" => TenantId::new(at, &SystemEntropy).to_string(),
        "key" => KeyId::new(at, &SystemEntropy).to_string(),
        other => panic!("{other}: ids of that kind are not known here"),
    }
}

#[tokio::test]
async fn nothing_crosses() {
    let app = App::start();
    let (ours, theirs) = (Home::new(&app, "ours").await, Home::new(&app, "theirs").await);
    let (mut walked, mut left_out) = (0, Vec::new());
    for operation in operations() {
        match make(&app, &ours, &operation.name).await {
            Some(call) => {
                walk(&app, &ours, &theirs, &operation, call).await;
                walked += 1;
            }
            None => left_out.push(operation.name),
        }
    }
    assert_eq!(left_out, OPERATIONS, "operations without a recipe");
    assert!(walked >= 40, "{walked} operations");
}

async fn walk(app: &App, ours: &Home, theirs: &Home, of: &Operation, call: Call) {
    let before = ours.seen(app).await;
    // Nobody.
    for (key, who) in [
        ("", "nobody"),
        ("sp_0000000000000000000000000000000000000000000000000000", "a key that was never made"),
        (ours.expired.as_str(), "an expired key"),
        (ours.revoked.as_str(), "a revoked key"),
    ] {
        expect(app, of, &call, key, &[], 401, who).await;
    }
    // Our own keys, but out of scope.
    for (scope, key) in ours.narrow.iter().filter(|(scope, _)| Some(*scope) != of.scope) {
        let reply = expect(app, of, &call, key, &[], 403, scope.as_str()).await;
        assert_eq!(reply.body["code"], "forbidden");
    }
    match of.scope {
        None => {
            expect(app, of, &call, &ours.key, &[], 403, "our key with all scopes").await;
            expect(app, of, &call, &theirs.key, &[], 403, "their key with all scopes").await;
        }
        Some(scope) => strangers(app, ours, theirs, of, &call, scope).await,
    }
    assert_eq!(ours.seen(app).await, before, "{}: others changed something", of.name);
    // Those who may. The first finds all as it was made.
    match of.scope {
        None => {
            expect(app, of, &call, KEY, &[], call.status, "the operator").await;
        }
        Some(scope) => {
            let (_, narrow) = ours.narrow.iter().find(|(one, _)| *one == scope).unwrap();
            expect(app, of, &call, narrow, &[], call.status, "our key with the scope").await;
            let again = make(app, ours, &of.name).await.unwrap();
            let slug = [("signalpost-tenant", ours.slug.as_str())];
            expect(app, of, &again, &ours.key, &slug, again.status, "our key with all scopes").await;
            let again = make(app, ours, &of.name).await.unwrap();
            expect(app, of, &again, KEY, &slug, again.status, "the operator in our tenant").await;
        }
    }
}

/// Keys that may do this, in another tenant.
async fn strangers(app: &App, ours: &Home, theirs: &Home, of: &Operation, call: &Call, scope: Scope) {
    let (_, narrow) = theirs.narrow.iter().find(|(one, _)| *one == scope).unwrap();
    let to_us = [("signalpost-tenant", ours.slug.as_str())];
    let (our_id, nobodys) = (ours.id.to_string(), unknown("tnt_"));
    expect(app, of, call, &theirs.key, &to_us, 404, "their key, sent to our tenant").await;
    let refused = expect(app, of, call, &theirs.key, &[("signalpost-tenant", &our_id)], 404, "the same by id").await;
    let absent = expect(app, of, call, &theirs.key, &[("signalpost-tenant", &nobodys)], 404, "to no tenant").await;
    assert_same(of, &refused, &absent);

    let in_theirs = [("signalpost-tenant", theirs.slug.as_str())];
    let crosses = [
        (theirs.key.as_str(), &[][..], "their key"),
        (narrow, &[], "their narrow key"),
        (KEY, &in_theirs, "the operator in theirs"),
    ];
    let secret = ours.ids(app).await;
    for (key, headers, who) in crosses {
        let names_ours = !call.names.is_empty() && !call.names.starts_with("own-");
        let reply = if names_ours {
            let reply = expect(app, of, call, key, headers, 404, who).await;
            let uri = call.uri.replace(&call.names, &unknown(&call.names));
            let other =
                Call { method: call.method.clone(), uri, names: String::new(), body: call.body.clone(), status: 404 };
            assert_same(of, &reply, &expect(app, of, &other, key, headers, 404, "with an unknown id").await);
            reply
        } else if call.body.get("destination_id").is_some() {
            expect(app, of, call, key, headers, 404, who).await
        } else {
            let reply = ask(&app.router, key, &call.method, &call.uri, headers, &call.body).await;
            // A second PUT of theirs finds their own.
            assert!(reply.status.is_success(), "{} as {who}: {}", of.name, reply.body);
            reply
        };
        let shown = String::from_utf8_lossy(&reply.bytes);
        let leaked: Vec<&String> = secret.iter().filter(|id| shown.contains(id.as_str())).collect();
        assert!(leaked.is_empty(), "{} as {who} shows {leaked:?}: {shown}", of.name);
    }
}

/// Byte for byte; the id of the request was given.
fn assert_same(of: &Operation, one: &Reply, other: &Reply) {
    assert_eq!(one.status, other.status, "{}", of.name);
    assert_eq!(one.headers, other.headers, "{}", of.name);
    assert_eq!(one.bytes, other.bytes, "{}", of.name);
    assert_ne!(one.body, Value::Null, "{}", of.name);
}
