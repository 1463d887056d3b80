//! `/v1/replays`. A retry process would do the work; here the test does its steps.

use serde_json::{Value, json};
use signalpost_core::{DeadReason, ReplayId};
use signalpost_store::{ScheduleStore as _, dispatch::Next};

use crate::app::{App, NO_DESTINATION, ids};

const SINCE: &str = "2026-01-01T00:00:00Z";

#[tokio::test]
async fn a_job_from_start_to_end() {
    let app = App::start();
    let destination = app.destination(json!({})).await;
    for _ in 0..3 {
        app.dead_letter(&destination, DeadReason::Exhausted).await;
    }
    let (_, delivered) = app.event(&[&destination]).await;
    app.attempted(&delivered[0], Next::Delivered).await;
    let body = json!({"destination_id": destination, "rate_per_second": 50, "event_types": ["order.*"]});
    let dry = app.post("/v1/replays", json!({"destination_id": destination, "dry_run": true})).await.expect(202);
    assert_eq!(dry, json!({"dry_run": true, "state": "completed", "matched": 3, "replayed": 0}));
    assert_eq!(app.get("/v1/replays").await.expect(200)["data"], json!([]));

    let job = app.post("/v1/replays", body).await.expect(202);
    for (field, expected) in [
        ("state", json!("running")),
        ("matched", Value::Null),
        ("replayed", json!(0)),
        ("destination_id", json!(destination)),
        ("statuses", json!(["dead"])),
        ("event_types", json!(["order.*"])),
        ("since", Value::Null),
        ("until", Value::Null),
        ("missing", json!(false)),
        ("rate_per_second", json!(50.0)),
        ("finished_at", Value::Null),
    ] {
        assert_eq!(job[field], expected, "{field}");
    }
    let id: ReplayId = job["id"].as_str().unwrap().parse().unwrap();
    while app.store.step_replay(id, 2).await.unwrap().1 {}
    let done = app.get(&format!("/v1/replays/{id}")).await.expect(200);
    assert_eq!((&done["state"], &done["matched"], &done["replayed"]), (&json!("completed"), &json!(3), &json!(3)));
    assert!(done["finished_at"].is_string());
    assert_eq!(app.get("/v1/dead-letters").await.expect(200)["data"], json!([]));
    assert_eq!(app.get("/v1/replays").await.expect(200)["data"], json!([done]));
    // What is finished is not cancelled.
    assert_eq!(app.act(&format!("/v1/replays/{id}/cancel")).await.expect(200), done);
}

#[tokio::test]
async fn a_cancelled_job_creates_nothing_more() {
    let app = App::start();
    let destination = app.destination(json!({})).await;
    app.dead_letter(&destination, DeadReason::Exhausted).await;
    let job = app.post("/v1/replays", json!({"since": SINCE})).await.expect(202);
    let id: ReplayId = job["id"].as_str().unwrap().parse().unwrap();
    let cancelled = app.act(&format!("/v1/replays/{id}/cancel")).await.expect(200);
    assert_eq!(cancelled["state"], "cancelled");
    assert!(cancelled["finished_at"].is_string());
    assert_eq!(app.store.step_replay(id, 10).await.unwrap(), (0, false));
    assert_eq!(app.get("/v1/dead-letters").await.expect(200)["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn missing_ones_are_matched() {
    let app = App::start();
    app.event(&[]).await;
    app.event(&[]).await;
    let late = app.destination(json!({"event_types": ["order.*"]})).await;
    let body = json!({"destination_id": late, "missing": true, "dry_run": true});
    assert_eq!(app.post("/v1/replays", body).await.expect(202)["matched"], 2);
}

#[tokio::test]
async fn a_destination_is_named_by_its_uid_too() {
    let app = App::start();
    let billing = app.destination(json!({"uid": "billing"})).await;
    let other = app.destination(json!({"uid": "other"})).await;
    app.dead_letter(&billing, DeadReason::Exhausted).await;
    app.dead_letter(&other, DeadReason::Exhausted).await;
    for list in ["dead-letters", "deliveries", "attempts"] {
        let by_uid = app.get(&format!("/v1/{list}?destination_id=billing")).await.expect(200);
        assert_eq!(by_uid["data"].as_array().unwrap().len(), 1, "{list}");
        assert_eq!(by_uid["data"][0]["destination_id"], billing, "{list}");
        app.get(&format!("/v1/{list}?destination_id=nobody")).await.problem(400, "invalid_query");
        let by_id = app.get(&format!("/v1/{list}?destination_id={NO_DESTINATION}")).await.expect(200);
        assert_eq!(by_id["data"], json!([]), "{list}: one that is gone may have left something");
    }
    let job = app.post("/v1/replays", json!({"destination_id": "billing"})).await.expect(202);
    assert_eq!(job["destination_id"], billing);
    app.post("/v1/replays", json!({"destination_id": "nobody"})).await.problem(404, "not_found");
    let (event, _) = app.event(&[&billing, &other]).await;
    let path = format!("/v1/events/{event}/replay");
    assert_eq!(app.post(&path, json!({"destination_id": "other"})).await.expect(202)["deliveries"], 1);
    app.post(&path, json!({"destination_id": "nobody"})).await.problem(404, "not_found");
    app.post(&path, json!({"destination_id": "no body"})).await.problem(422, "validation_failed");
}

#[tokio::test]
async fn what_a_job_refuses() {
    let app = App::start();
    for (body, pointers) in [
        (json!({}), vec![""]),
        (json!({"statuses": ["dead"]}), vec![""]),
        (json!({"since": "x", "until": 5}), vec!["/since", "/until"]),
        (json!({"since": SINCE, "missing": true}), vec!["/missing"]),
        (json!({"since": SINCE, "statuses": ["pending"]}), vec!["/statuses/0"]),
        (json!({"since": SINCE, "rate_per_second": 0}), vec!["/rate_per_second"]),
        (json!({"since": SINCE, "nonsense": 1, "state": "running"}), vec!["/nonsense", "/state"]),
    ] {
        assert_eq!(app.post("/v1/replays", body.clone()).await.problem(422, "validation_failed"), pointers, "{body}");
    }
    app.act("/v1/replays").await.problem(400, "invalid_json");
    app.post("/v1/replays", json!({"destination_id": NO_DESTINATION})).await.problem(404, "not_found");
    for name in ["rpl_01h2e8kqvbfwea724h75qc655w", "x"] {
        app.get(&format!("/v1/replays/{name}")).await.problem(404, "not_found");
        app.post(&format!("/v1/replays/{name}/cancel"), json!({"x": 1})).await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn jobs_are_listed_in_pages() {
    let app = App::start();
    for _ in 0..3 {
        app.post("/v1/replays", json!({"since": SINCE})).await.expect(202);
    }
    let first = app.get("/v1/replays?limit=2&order=asc").await.expect(200);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = app.get(&format!("/v1/replays?limit=2&order=asc&cursor={cursor}")).await.expect(200);
    let mut all = ids(&first);
    all.extend(ids(&second));
    assert_eq!(all.len(), 3);
    assert!(all.is_sorted());
    assert_eq!(second["next_cursor"], Value::Null);
}
