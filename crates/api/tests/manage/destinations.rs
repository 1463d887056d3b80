//! `/v1/destinations`: create, read, replace, change, delete.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use signalpost_api::{DestinationDefaults, ManageSettings, Settings};
use signalpost_core::{CircuitRecord, CircuitState, Clock as _, TenantId};
use signalpost_store::{DispatchStore as _, ManageStore as _, ReadStore as _};

use crate::app::{App, NO_DESTINATION, at, destination_id};

const URL: &str = "http://127.0.0.1:9999/hook";

#[tokio::test]
async fn create_answers_with_everything_and_its_secret() {
    let app = App::start();
    let reply = app.post("/v1/destinations", at("HTTP://127.0.0.1:9999/a/../hook")).await;
    let place = reply.header("location").to_owned();
    let created = reply.expect(201);
    let id = created["id"].as_str().unwrap();
    assert_eq!(place, format!("/v1/destinations/{id}"));
    assert!(created["secret"].as_str().unwrap().starts_with("whsec_"));
    for (field, expected) in [
        ("uid", Value::Null),
        ("name", json!("")),
        ("description", Value::Null),
        ("url", json!(URL)),
        ("event_types", json!(["*"])),
        ("method", json!("POST")),
        ("headers", json!({})),
        ("body_format", json!("standard")),
        ("timeout_ms", json!(15000)),
        ("rate_limit", Value::Null),
        ("max_in_flight", json!(100)),
        ("metadata", json!({})),
        ("state", json!("active")),
        ("disabled_reason", Value::Null),
    ] {
        assert_eq!(created[field], expected, "{field}");
    }
    assert_eq!(created["retry"]["strategy"], "schedule");
    assert_eq!(created["retry"]["delays_ms"].as_array().unwrap().len(), 9);

    let mut shown = app.get(&place).await.expect(200);
    assert_eq!(shown["secret"], Value::Null);
    shown["secret"] = created["secret"].clone();
    assert_eq!(shown, created);
    let secret = app.get(&format!("{place}/secret")).await.expect(200);
    assert_eq!(secret, json!({"secret": created["secret"], "previous": []}));
    let listed = app.get("/v1/destinations").await.expect(200);
    assert_eq!(listed["data"][0]["id"], id);
    assert_eq!(listed["data"][0]["secret"], Value::Null);
}

/// An operator's defaults stand where the owner says nothing; what an owner took away does not come back.
#[tokio::test]
async fn the_operators_defaults_stand_where_the_owner_says_nothing() {
    let members = json!({
        "timeout_ms": 2000, "rate_limit": {"per_second": 5, "burst": 7}, "headers": {"X-Operator": "1"},
        "retry": {"strategy": "exponential", "initial_ms": 50, "factor": 1.5, "max_ms": 2000, "max_attempts": 9},
    });
    let destination_defaults = DestinationDefaults::new(members.as_object().unwrap().clone()).unwrap();
    let manage = ManageSettings { destination_defaults, ..ManageSettings::default() };
    let app = App::start_with(Settings { manage, ..Settings::default() }, |store| Arc::new(store));
    let as_defaulted = |shown: &Value| {
        assert_eq!(shown["headers"], json!({"X-Operator": "***"}));
        for (name, value) in members.as_object().unwrap().iter().filter(|(name, _)| *name != "headers") {
            match value.as_object() {
                None => assert_eq!(shown[name], *value, "{name}"),
                Some(inner) => inner.iter().for_each(|(of, value)| {
                    assert_eq!(shown[name][of].as_f64().ok_or(&shown[name][of]), value.as_f64().ok_or(value), "{name}");
                }),
            }
        }
    };
    let created = app.post("/v1/destinations", at(URL)).await.expect(201);
    as_defaulted(&created);
    as_defaulted(&app.put("/v1/destinations/crm", json!({"url": URL, "timeout_ms": null})).await.expect(201));

    let own = json!({"url": URL, "timeout_ms": 3000, "rate_limit": null, "headers": {}, "retry": {"max_attempts": 2}});
    let replaced = app.put("/v1/destinations/crm", own).await.expect(200);
    assert_eq!((&replaced["timeout_ms"], &replaced["rate_limit"]), (&json!(3000), &Value::Null));
    assert_eq!((&replaced["headers"], &replaced["retry"]["initial_ms"]), (&json!({}), &json!(50)));
    assert_eq!(replaced["retry"]["max_attempts"], 2);
    let renamed = app.patch("/v1/destinations/crm", json!({"name": "CRM"})).await.expect(200);
    for name in ["timeout_ms", "rate_limit", "headers", "retry"] {
        assert_eq!(renamed[name], replaced[name], "{name}");
    }
    let reset = json!({"timeout_ms": null, "headers": null, "retry": null, "rate_limit": {"burst": 7}});
    as_defaulted(&app.patch("/v1/destinations/crm", reset).await.expect(200));
}

#[tokio::test]
async fn a_given_secret_and_uid_are_kept() {
    let app = App::start();
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let created = app.post("/v1/destinations", json!({"url": URL, "uid": "crm", "secret": secret})).await.expect(201);
    assert_eq!(created["secret"], secret);
    for name in ["crm", created["id"].as_str().unwrap()] {
        let shown = app.get(&format!("/v1/destinations/{name}")).await.expect(200);
        assert_eq!(shown["uid"], "crm");
    }
    app.post("/v1/destinations", json!({"url": URL, "uid": "crm"})).await.problem(409, "uid_taken");
    app.get("/v1/destinations/cr%00m").await.problem(404, "not_found");
}

#[tokio::test]
async fn all_breaches_are_told_at_once() {
    let app = App::start();
    let body = json!({
        "url": "http://10.0.0.1/", "timeout_ms": 1, "headers": {"Host": "x", "X-A": "{nope}"}, "signatures": [], "uid": NO_DESTINATION,
    });
    let pointers = app.post("/v1/destinations", body).await.problem(422, "validation_failed");
    assert_eq!(pointers, ["/uid", "/headers/Host", "/headers/X-A", "/signatures", "/url", "/timeout_ms"]);
    assert_eq!(app.get("/v1/destinations").await.expect(200)["data"], json!([]));
}

#[tokio::test]
async fn urls_that_may_not_be_reached_are_refused_everywhere() {
    let app = App::start();
    let id = app.destination(json!({})).await;
    for url in [
        "http://1.1.1.1/",
        "https://10.0.0.1/",
        "https://0x0a000001/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/",
        "https://metadata.google.internal/",
        "https://u:p@example.com/",
        "ftp://example.com/",
        "/hook",
        "https://example.com:22/",
        "",
    ] {
        let refused = [
            app.post("/v1/destinations", at(url)).await,
            app.put("/v1/destinations/x", at(url)).await,
            app.patch(&format!("/v1/destinations/{id}"), at(url)).await,
        ];
        for reply in refused {
            assert_eq!(reply.problem(422, "validation_failed"), ["/url"], "{url}");
        }
    }
    // One that does not resolve is accepted, and fails at send.
    app.post("/v1/destinations", at("https://nowhere.invalid/")).await.expect(201);
}

#[tokio::test]
async fn put_creates_then_replaces() {
    let app = App::start();
    let body = json!({"url": URL, "name": "one", "headers": {"X-A": "1"}, "timeout_ms": 5000});
    let reply = app.put("/v1/destinations/crm", body).await;
    let place = reply.header("location").to_owned();
    let created = reply.expect(201);
    assert_eq!(place, format!("/v1/destinations/{}", created["id"].as_str().unwrap()));
    assert_eq!(created["uid"], "crm");
    let secret = created["secret"].clone();
    assert!(secret.is_string());
    app.act(&format!("{place}/pause")).await.expect(200);

    let replaced = app.put("/v1/destinations/crm", json!({"uid": "crm", "url": URL, "name": "two"})).await.expect(200);
    assert_eq!(replaced["id"], created["id"]);
    assert_eq!(replaced["name"], "two");
    assert_eq!(replaced["headers"], json!({}));
    assert_eq!(replaced["timeout_ms"], 15000);
    assert_eq!(replaced["state"], "paused");
    assert_eq!(replaced["secret"], Value::Null);
    assert_eq!(app.get(&format!("{place}/secret")).await.expect(200)["secret"], secret);

    let given = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    app.put("/v1/destinations/crm", json!({"url": URL, "secret": given})).await.expect(200);
    assert_eq!(app.get(&format!("{place}/secret")).await.expect(200)["secret"], given);
}

#[tokio::test]
async fn put_takes_a_uid_only() {
    let app = App::start();
    for path in [NO_DESTINATION, "a%20b", "%C3%A4%00"] {
        let pointers = app.put(&format!("/v1/destinations/{path}"), at(URL)).await.problem(422, "validation_failed");
        assert_eq!(pointers, ["/uid"], "{path}");
    }
    let pointers =
        app.put("/v1/destinations/a", json!({"url": URL, "uid": "b"})).await.problem(422, "validation_failed");
    assert_eq!(pointers, ["/uid"]);
}

#[tokio::test]
async fn concurrent_puts_make_one_destination() {
    let app = App::start();
    let put = || app.put("/v1/destinations/crm", at(URL));
    let replies = tokio::join!(put(), put(), put(), put(), put());
    let replies = [replies.0, replies.1, replies.2, replies.3, replies.4];
    let mut statuses: Vec<u16> = replies.iter().map(|reply| reply.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 201]);
    assert_eq!(app.get("/v1/destinations").await.expect(200)["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn patch_changes_what_is_given() {
    let app = App::start();
    let id = app
        .destination(json!({
            "name": "a", "description": "d", "timeout_ms": 5000, "headers": {"X-A": "1", "X-B": "2"}, "metadata": {"k": "v", "l": "w"},
            "event_types": ["a.*"], "rate_limit": {"per_second": 10, "burst": 3}, "retry": {"delays_ms": [10], "jitter": 0.5},
        }))
        .await;
    let path = format!("/v1/destinations/{id}");
    let before = app.get(&path).await.expect(200);
    let changed = app
        .patch(
            &path,
            json!({
                "timeout_ms": null, "headers": {"x-a": "3", "X-B": null}, "metadata": {"k": null, "m": "x"}, "event_types": ["b"],
                "rate_limit": {"per_second": 20}, "retry": {"strategy": "exponential", "max_attempts": null},
            }),
        )
        .await
        .expect(200);
    for (field, expected) in [
        ("name", json!("a")),
        ("description", json!("d")),
        ("timeout_ms", json!(15000)),
        ("headers", json!({"x-a": "***"})),
        ("metadata", json!({"l": "w", "m": "x"})),
        ("event_types", json!(["b"])),
        ("rate_limit", json!({"per_second": 20.0})),
        ("created_at", before["created_at"].clone()),
    ] {
        assert_eq!(changed[field], expected, "{field}");
    }
    assert_eq!(
        changed["retry"],
        json!({"strategy": "exponential", "initial_ms": 5000, "factor": 2.0, "max_ms": 86_400_000, "max_attempts": null,
               "jitter": 0.2, "on_4xx": "auto"})
    );
    let cleared = app.patch(&path, json!({"rate_limit": null, "retry": null, "headers": null})).await.expect(200);
    assert_eq!(cleared["rate_limit"], Value::Null);
    assert_eq!(cleared["retry"], app.get(&path).await.expect(200)["retry"]);
    assert_eq!(cleared["retry"]["strategy"], "schedule");
    assert_eq!(cleared["headers"], json!({}));
    assert_eq!(app.get(&path).await.expect(200), cleared);
}

#[tokio::test]
async fn a_patch_of_nothing_changes_nothing() {
    let app = App::start();
    let id = app.destination(json!({"name": "a"})).await;
    let path = format!("/v1/destinations/{id}");
    let before = app.store.destination(TenantId::DEFAULT, destination_id(&id)).await.unwrap().unwrap();
    app.patch(&path, json!({})).await.expect(200);
    app.patch(&path, json!({"name": "a", "uid": null})).await.expect(200);
    assert_eq!(app.store.destination(TenantId::DEFAULT, before.id).await.unwrap().unwrap(), before);
    app.patch(&path, json!({"name": "b"})).await.expect(200);
    let after = app.store.destination(TenantId::DEFAULT, before.id).await.unwrap().unwrap();
    assert_eq!(after.version, before.version + 1);
}

#[tokio::test]
async fn patch_refuses_what_create_refuses() {
    let app = App::start();
    let id = app.destination(json!({"uid": "u"})).await;
    let path = format!("/v1/destinations/{id}");
    for (body, pointer) in [
        (json!({"nonsense": null}), "/nonsense"),
        (json!({"circuit": {"probes": 0}}), "/circuit/probes"),
        (json!({"circuit_state": {"state": "closed"}}), "/circuit_state"),
        (json!({"ordering_key_from": "x"}), "/ordering_key_from"),
        (json!({"state": "paused"}), "/state"),
        (json!({"url": null}), "/url"),
        (json!({"headers": {"Host": "x"}}), "/headers/Host"),
        (json!({"headers": 5}), "/headers"),
        (json!({"uid": "v"}), "/uid"),
        (json!({"uid": null}), "/uid"),
        (json!({"retry": {"max_attempts": 0}}), "/retry/max_attempts"),
    ] {
        assert_eq!(app.patch(&path, body.clone()).await.problem(422, "validation_failed"), [pointer], "{body}");
    }
    app.patch(&path, json!({"uid": "u"})).await.expect(200);
    app.patch(&path, json!([])).await.problem(422, "validation_failed");
    let merge = [("content-type", "application/merge-patch+json")];
    app.with(Method::PATCH, &path, &merge, r#"{"name":"m"}"#).await.expect(200);
}

#[tokio::test]
async fn order_guarantee_and_circuit_through_create_put_and_patch() {
    let app = App::start();
    let defaults = app.post("/v1/destinations", at(URL)).await.expect(201);
    for (field, expected) in [
        ("guarantee", json!("at_least_once")),
        ("ordering", json!("none")),
        ("ordering_key_from", json!("/ordering_key")),
        ("ordering_on_dead", json!("continue")),
        ("disable_after", json!({"days": 5, "attempts": 100})),
        (
            "circuit",
            json!({
                "enabled": true, "failures": 5, "failure_ratio": 0.5, "open_ms": 30000, "max_open_ms": 300_000, "probes": 3,
            }),
        ),
        ("circuit_state", json!({"state": "closed", "since": defaults["created_at"], "trips": 0, "reason": null})),
    ] {
        assert_eq!(defaults[field], expected, "{field}");
    }
    let own = json!({
        "url": URL, "guarantee": "at_most_once", "ordering": "key", "ordering_key_from": "/data/customer/id",
        "ordering_on_dead": "block", "circuit": {"open_ms": 500_000}, "disable_after": {"days": 9},
    });
    let put = app.put("/v1/destinations/crm", own.clone()).await.expect(201);
    for field in ["guarantee", "ordering", "ordering_key_from", "ordering_on_dead"] {
        assert_eq!(put[field], own[field], "{field}");
    }
    assert_eq!((&put["circuit"]["open_ms"], &put["circuit"]["max_open_ms"]), (&json!(500_000), &json!(500_000)));
    assert_eq!(put["disable_after"], json!({"days": 9, "attempts": 100}));

    let path = "/v1/destinations/crm";
    let renamed = app.patch(path, json!({"name": "CRM"})).await.expect(200);
    for field in ["guarantee", "ordering", "ordering_key_from", "ordering_on_dead", "circuit", "disable_after"] {
        assert_eq!(renamed[field], put[field], "{field}");
    }
    // An object is replaced whole: what it leaves out takes its default.
    let changed = json!({"circuit": {"probes": 1}, "ordering_on_dead": null, "guarantee": null});
    let changed = app.patch(path, changed).await.expect(200);
    assert_eq!((&changed["circuit"]["probes"], &changed["circuit"]["open_ms"]), (&json!(1), &json!(30000)));
    assert_eq!((&changed["ordering_on_dead"], &changed["guarantee"]), (&json!("continue"), &json!("at_least_once")));
    assert_eq!((&changed["ordering"], &changed["disable_after"]["days"]), (&json!("key"), &json!(9)));
    let replaced = app.put(path, at(URL)).await.expect(200);
    for field in ["guarantee", "ordering", "ordering_key_from", "ordering_on_dead", "circuit", "disable_after"] {
        assert_eq!(replaced[field], defaults[field], "{field}");
    }
}

#[tokio::test]
async fn what_a_circuit_did_is_shown_and_is_no_change() {
    let app = App::start();
    let id = app.destination(json!({})).await;
    let path = format!("/v1/destinations/{id}");
    let before = app.get(&path).await.expect(200);
    let since = app.clock.now();
    let reason = "5 failures in a row; the last: answered 500".to_owned();
    let record =
        CircuitRecord { state: CircuitState::Open, since: Some(since), trips: 2, reason: Some(reason.clone()) };
    app.store.record_circuits(&[(destination_id(&id), record)]).await.unwrap();
    let after = app.get(&path).await.expect(200);
    assert_eq!(
        after["circuit_state"],
        json!({"state": "open", "since": since.to_string(), "trips": 2, "reason": reason})
    );
    assert_eq!(after["updated_at"], before["updated_at"]);
    assert_eq!(app.get("/v1/destinations").await.expect(200)["data"][0]["circuit_state"], after["circuit_state"]);
}

#[tokio::test]
async fn a_secret_is_set_or_made_anew_by_patch() {
    let app = App::start();
    let id = app.destination(json!({})).await;
    let path = format!("/v1/destinations/{id}");
    let secret = async || app.get(&format!("{path}/secret")).await.expect(200)["secret"].clone();
    let first = secret().await;
    app.patch(&path, json!({"name": "x"})).await.expect(200);
    assert_eq!(secret().await, first);
    let given = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let changed = app.patch(&path, json!({"secret": given})).await.expect(200);
    assert_eq!(changed["secret"], Value::Null);
    assert_eq!(secret().await, given);
    app.patch(&path, json!({"secret": null})).await.expect(200);
    let made = secret().await;
    assert!(made != given && made != first && made.as_str().unwrap().starts_with("whsec_"));
}

#[tokio::test]
async fn concurrent_patches_of_different_fields_all_hold() {
    let app = App::start();
    let id = app.destination(json!({})).await;
    let path = format!("/v1/destinations/{id}");
    let patch = |n: usize| app.patch(&path, json!({"metadata": {format!("k{n}"): "v"}}));
    let replies = tokio::join!(patch(0), patch(1), patch(2), patch(3));
    for reply in [replies.0, replies.1, replies.2, replies.3] {
        reply.expect(200);
    }
    let metadata = app.get(&path).await.expect(200)["metadata"].clone();
    assert_eq!(metadata, json!({"k0": "v", "k1": "v", "k2": "v", "k3": "v"}));
}

#[tokio::test]
async fn a_deleted_destination_is_gone() {
    let app = App::start();
    let id = app.destination(json!({"uid": "u"})).await;
    let path = format!("/v1/destinations/{id}");
    let reply = app.delete(&path).await;
    assert_eq!(reply.status, 204);
    assert!(reply.bytes.is_empty());
    app.delete(&path).await.problem(404, "not_found");
    app.get(&path).await.problem(404, "not_found");
    app.get("/v1/destinations/u").await.problem(404, "not_found");
    app.patch(&path, json!({})).await.problem(404, "not_found");
    assert_eq!(app.get("/v1/destinations").await.expect(200)["data"], json!([]));
    // Its uid is free again.
    let again = app.put("/v1/destinations/u", at(URL)).await.expect(201);
    assert_ne!(again["id"], id);
}

#[tokio::test]
async fn another_tenants_destination_is_not_there() {
    let app = App::start();
    let id = app.destination(json!({})).await;
    let mut foreign = app.store.destination(TenantId::DEFAULT, destination_id(&id)).await.unwrap().unwrap();
    foreign.tenant_id = app.other_tenant();
    foreign.id = destination_id(NO_DESTINATION);
    foreign.uid = Some("theirs".to_owned());
    app.store.create_destination(&foreign).await.unwrap();
    let nobody = "dst_01h2e8kqvbfwea724h75qc6550";
    for (method, end, body) in [
        (Method::GET, "", ""),
        (Method::PATCH, "", "{}"),
        (Method::DELETE, "", ""),
        (Method::GET, "/secret", ""),
        (Method::POST, "/pause", ""),
        (Method::POST, "/resume", ""),
        (Method::POST, "/test", ""),
    ] {
        let mut answers = Vec::new();
        for name in [NO_DESTINATION, "theirs", nobody, "no-such", "evt_01h2e8kqvbfwea724h75qc655w"] {
            let reply = app.with(method.clone(), &format!("/v1/destinations/{name}{end}"), &[], body).await;
            answers.push((reply.status, reply.body["detail"].clone()));
            reply.problem(404, "not_found");
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{method} {end}: {answers:?}");
    }
    assert_eq!(app.get("/v1/destinations").await.expect(200)["data"].as_array().unwrap().len(), 1);
    // Its own tenant sees it.
    let headers = [("signalpost-tenant", "other")];
    let path = format!("/v1/destinations/{NO_DESTINATION}");
    assert_eq!(app.with(Method::GET, &path, &headers, "").await.expect(200)["uid"], "theirs");
    // The same uid is free here.
    app.put("/v1/destinations/theirs", at(URL)).await.expect(201);
}
