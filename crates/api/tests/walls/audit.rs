//! The audit log.

use serde_json::{Value, json};
use signalpost_api::Settings;
use signalpost_core::key::HINT_CHARS;

use crate::{
    app::{App, KEY, all},
    ask, faulty,
    home::Home,
    text,
};

async fn log(app: &App, slug: &str, query: &str) -> Vec<Value> {
    let headers = [("signalpost-tenant", slug)];
    let uri = format!("/v1/audit-log?order=asc&limit=250{query}");
    all(&ask(&app.router, KEY, "GET", &uri, &headers, &Value::Null).await.expect(200)).clone()
}

#[tokio::test]
async fn every_change_by_a_key_is_told_with_before_and_after() {
    let app = App::start();
    let home = Home::new(&app, "a").await;
    let since = log(&app, "a", "").await.len();
    let (key_id, key) = home.new_key(&app, json!(["destinations:write"])).await;
    let headers = [("x-request-id", "req-1")];
    let body = json!({"url": "http://127.0.0.1:9999/", "headers": {"X-Secret": "pl4nted"}});
    let created = ask(&app.router, &key, "POST", "/v1/destinations", &headers, &body).await.expect(201);
    let uri = format!("/v1/destinations/{}", text(&created["id"]));
    let body = json!({"name": "new name"});
    ask(&app.router, &key, "PATCH", &uri, &headers, &body).await.expect(200);
    ask(&app.router, &key, "POST", &format!("{uri}/pause"), &headers, &Value::Null).await.expect(200);
    ask(&app.router, &key, "POST", &format!("{uri}/secret/rotate"), &headers, &Value::Null).await.expect(200);
    ask(&app.router, &key, "DELETE", &uri, &headers, &Value::Null).await.expect(204);
    // What changes nothing, or never came to a change, is not in it.
    ask(&app.router, &key, "GET", &format!("{uri}/secret"), &headers, &Value::Null).await.expect(404);
    ask(&app.router, &key, "POST", "/v1/destinations", &headers, &json!({})).await.expect(422);

    let entries = log(&app, "a", "").await.split_off(since);
    let actions: Vec<&str> = entries.iter().map(|entry| text(&entry["action"])).collect();
    assert_eq!(
        actions,
        [
            "key.create",
            "destination.create",
            "destination.update",
            "destination.pause",
            "destination.rotate_secret",
            "destination.delete",
        ]
    );
    assert!(text(&entries[0]["actor"]).starts_with("operator:"));
    assert_eq!((&entries[0]["target"], &entries[0]["after"]["key"]), (&json!(key_id), &json!("***")));
    for entry in &entries[1..] {
        assert_eq!(entry["actor"], *key_id);
        assert_eq!(entry["target"], created["id"], "{entry}");
        assert_eq!(entry["request_id"], "req-1");
    }
    assert_eq!(entries[1]["after"]["secret"], "***");
    assert_eq!((&entries[2]["before"]["name"], &entries[2]["after"]["name"]), (&json!(""), &json!("new name")));
    assert_eq!((&entries[3]["before"]["state"], &entries[3]["after"]["state"]), (&json!("active"), &json!("paused")));
    assert_eq!((&entries[5]["status"], &entries[5]["before"]["name"]), (&json!(204), &json!("new name")));
    let all = format!("{entries:?}");
    // Of the key itself only the beginning that lists show as its hint, which may be any text.
    assert!(!all.contains("pl4nted") && !all.contains("whsec_") && !all.contains(&key[HINT_CHARS..]), "{all}");
}

#[tokio::test]
async fn it_is_filtered_and_paged_like_every_list() {
    let app = App::start();
    let home = Home::new(&app, "a").await;
    let (key_id, key) = home.new_key(&app, json!(["destinations:write", "audit:read"])).await;
    for _ in 0..3 {
        let body = json!({"url": "http://127.0.0.1:9999/"});
        ask(&app.router, &key, "POST", "/v1/destinations", &[], &body).await.expect(201);
    }
    assert_eq!(log(&app, "a", &format!("&actor={key_id}")).await.len(), 3);
    assert_eq!(log(&app, "a", &format!("&actor={key_id}&action=destination.delete")).await.len(), 0);
    let created = log(&app, "a", "&action=destination.create").await;
    let last = text(&created[created.len() - 1]["created_at"]).to_owned();
    assert!(log(&app, "a", &format!("&since={last}&actor={key_id}")).await.len() < 4);
    assert_eq!(log(&app, "a", "&until=2020-01-01T00:00:00Z").await.len(), 0);
    let uri = format!("/v1/audit-log?limit=2&actor={key_id}");
    let page = ask(&app.router, &key, "GET", &uri, &[], &Value::Null).await.expect(200);
    let next = format!("{uri}&cursor={}", text(&page["next_cursor"]));
    let next = ask(&app.router, &key, "GET", &next, &[], &Value::Null).await.expect(200);
    assert_eq!((page["data"].as_array().unwrap().len(), next["data"].as_array().unwrap().len()), (2, 1));
    ask(&app.router, &key, "GET", "/v1/audit-log?what=1", &[], &Value::Null).await.problem(400, "invalid_query");
}

#[tokio::test]
async fn nothing_is_changed_that_is_not_told() {
    let (app, faults) = faulty::start(Settings::default());
    let destination = app.destination(json!({})).await;
    let uri = format!("/v1/destinations/{destination}");
    *faults.fails.lock().unwrap() = Some("begin_audit");
    app.patch(&uri, json!({"name": "changed"})).await.problem(503, "unavailable");
    app.delete(&uri).await.problem(503, "unavailable");
    assert_eq!(app.get(&uri).await.expect(200)["name"], "");
    // What came of it is not known to the log, but that it was begun.
    *faults.fails.lock().unwrap() = Some("end_audit");
    app.patch(&uri, json!({"name": "changed"})).await.expect(200);
    *faults.fails.lock().unwrap() = None;
    let entries = log(&app, "default", "&action=destination.update").await;
    assert_eq!((entries.len(), &entries[0]["status"], &entries[0]["before"]["name"]), (1, &Value::Null, &json!("")));
    // One that was tried and failed says so.
    *faults.fails.lock().unwrap() = Some("delete_destination");
    app.delete(&uri).await.problem(503, "unavailable");
    *faults.fails.lock().unwrap() = None;
    assert_eq!(log(&app, "default", "&action=destination.delete").await[0]["status"], 503);
}

#[tokio::test]
async fn tenants_that_come_and_go_are_told_of_in_the_operators_log() {
    let app = App::start();
    Home::new(&app, "a").await;
    app.delete("/v1/tenants/a").await.expect(202);
    let entries = log(&app, "default", "").await;
    let actions: Vec<&str> = entries.iter().map(|entry| text(&entry["action"])).collect();
    assert_eq!(actions, ["tenant.create", "tenant.delete"]);
    assert_eq!(entries[1]["before"]["slug"], "a");
    assert!(entries[1]["after"]["deleting"].is_object());
}
