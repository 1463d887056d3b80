//! `/v1/events`: read, list, what became of them, replay.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use signalpost_core::{Clock as _, DeadReason, EventMeta, TenantId};
use signalpost_store::dispatch::Next;

use crate::app::{App, NO_DESTINATION, all, ids};

#[tokio::test]
async fn an_event_is_shown_with_its_data_as_posted() {
    let app = App::start();
    let data = r#"{"amount": 1.10, "amount": 123456789012345678901234567890, "s": "\ud800\u0000"}"#;
    let body = format!(r#"{{"type":"order.created","uid":"o-1","source":"shop","labels":{{"a":"b"}},"data":{data}}}"#);
    let json_type = [("content-type", "application/json")];
    let posted = app.with(http::Method::POST, "/v1/events", &json_type, body).await.expect(202);
    let id = posted["id"].as_str().unwrap();
    for name in [id, "o-1"] {
        let reply = app.get(&format!("/v1/events/{name}")).await;
        assert_eq!(reply.status, 200);
        let text = std::str::from_utf8(&reply.bytes).unwrap();
        assert!(text.contains(&format!("\"data\":{data}")), "{text}");
        assert!(text.contains(&format!("\"id\":\"{id}\"")), "{text}");
        assert!(text.contains("\"status\":\"unrouted\""), "{text}");
    }
    let listed = app.get("/v1/events").await.expect(200);
    let event = &listed["data"][0];
    for (field, expected) in [
        ("id", posted["id"].clone()),
        ("type", json!("order.created")),
        ("uid", json!("o-1")),
        ("source", json!("shop")),
        ("labels", json!({"a": "b"})),
        ("occurred_at", Value::Null),
        ("destination_id", Value::Null),
        ("schema_version", Value::Null),
        ("content_type", Value::Null),
        ("created_at", posted["created_at"].clone()),
        ("data", Value::Null),
        ("delivery_counts", json!({"pending": 0, "retrying": 0, "delivered": 0, "dead": 0, "cancelled": 0})),
    ] {
        assert_eq!(event[field], expected, "{field}");
    }
    assert!(!event.as_object().unwrap().contains_key("data"));
}

#[tokio::test]
async fn what_is_not_json_is_shown_in_base64() {
    let app = App::start();
    let body = json!({"type": "a.b", "data_base64": "/wAB", "content_type": "image/png"});
    let id = app.post("/v1/events", body).await.expect(202)["id"].as_str().unwrap().to_owned();
    let shown = app.get(&format!("/v1/events/{id}")).await.expect(200);
    assert_eq!((&shown["data_base64"], &shown["content_type"]), (&json!("/wAB"), &json!("image/png")));
    assert!(!shown.as_object().unwrap().contains_key("data"));
    let listed = app.get("/v1/events?include=data").await.expect(200);
    assert_eq!(listed["data"][0]["data_base64"], "/wAB");
}

#[tokio::test]
async fn status_and_counts_follow_the_deliveries() {
    let app = App::start();
    let (a, b) = (app.destination(json!({})).await, app.destination(json!({})).await);
    let (id, deliveries) = app.event(&[&a, &b]).await;
    let shown = async || {
        let event = app.get(&format!("/v1/events/{id}")).await.expect(200);
        (event["status"].as_str().unwrap().to_owned(), event["delivery_counts"].clone())
    };
    let counts = |pending, retrying, delivered, dead, cancelled| json!({"pending": pending, "retrying": retrying, "delivered": delivered, "dead": dead, "cancelled": cancelled});
    assert_eq!(shown().await, ("pending".to_owned(), counts(2, 0, 0, 0, 0)));
    app.attempted(&deliveries[0], Next::Delivered).await;
    app.attempted(&deliveries[1], Next::Retry { after: Duration::from_secs(60) }).await;
    assert_eq!(shown().await, ("pending".to_owned(), counts(0, 1, 1, 0, 0)));
    app.attempted(&deliveries[1], Next::Dead { reason: DeadReason::Exhausted }).await;
    assert_eq!(shown().await, ("failed".to_owned(), counts(0, 0, 1, 1, 0)));
    // A replayed delivery counts by its replay.
    let again = app.act(&format!("/v1/deliveries/{}/retry", deliveries[1])).await.expect(202);
    assert_eq!(shown().await, ("pending".to_owned(), counts(1, 0, 1, 0, 0)));
    app.attempted(again["id"].as_str().unwrap(), Next::Delivered).await;
    assert_eq!(shown().await, ("delivered".to_owned(), counts(0, 0, 2, 0, 0)));
}

#[tokio::test]
async fn deliveries_and_attempts_of_an_event() {
    let app = App::start();
    let (a, b) = (app.destination(json!({})).await, app.destination(json!({})).await);
    let long_ago = app.clock.now() - Duration::from_secs(3 * 24 * 60 * 60);
    let (id, deliveries) =
        app.event_at(long_ago, TenantId::DEFAULT, EventMeta::default(), Some("mine"), &[&a, &b]).await;
    let (_, _) = app.event(&[&a]).await;
    app.attempted(&deliveries[0], Next::Retry { after: Duration::ZERO }).await;
    app.attempted(&deliveries[0], Next::Delivered).await;
    for name in [id.as_str(), "mine"] {
        let listed = app.get(&format!("/v1/events/{name}/deliveries")).await.expect(200);
        let mut found = ids(&listed);
        found.sort_unstable();
        let mut expected = deliveries.clone();
        expected.sort_unstable();
        assert_eq!(found, expected);
        let filtered =
            app.get(&format!("/v1/events/{name}/deliveries?status=delivered&destination_id={a}")).await.expect(200);
        assert_eq!(ids(&filtered), [deliveries[0].clone()]);
        let attempts = app.get(&format!("/v1/events/{name}/attempts?order=asc")).await.expect(200);
        let outcomes: Vec<&Value> = all(&attempts).iter().map(|attempt| &attempt["outcome"]).collect();
        assert_eq!(outcomes, ["retry", "delivered"]);
        assert_eq!(attempts["data"][0]["event_id"], id);
        let retried = app.get(&format!("/v1/events/{name}/attempts?outcome=retry")).await.expect(200);
        assert_eq!(all(&retried).len(), 1);
    }
    app.get(&format!("/v1/events/{id}/deliveries?event_id={id}")).await.problem(400, "invalid_query");
}

#[tokio::test]
async fn a_uid_in_a_path_is_the_newest_event_with_it() {
    let app = App::start();
    let now = app.clock.now();
    for ago in [60, 0, 30] {
        let at = now - Duration::from_secs(ago);
        app.event_at(at, TenantId::DEFAULT, EventMeta::default(), Some("twice"), &[]).await;
    }
    let newest = app.get("/v1/events?limit=1").await.expect(200)["data"][0]["id"].clone();
    assert_eq!(app.get("/v1/events/twice").await.expect(200)["id"], newest);
    app.event_at(now, app.other_tenant(), EventMeta::default(), Some("theirs"), &[]).await;
    app.get("/v1/events/theirs").await.problem(404, "not_found");
    app.get("/v1/events/th%00eirs").await.problem(404, "not_found");
}

#[tokio::test]
async fn events_are_filtered() {
    let app = App::start();
    let now = app.clock.now();
    let day = Duration::from_secs(24 * 60 * 60);
    let labels = |pairs: &[(&str, &str)]| {
        let labels: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        EventMeta { labels, ..EventMeta::default() }
    };
    let tenant = TenantId::DEFAULT;
    let (old, _) = app.event_at(now - 2 * day, tenant, labels(&[("env", "test")]), None, &[]).await;
    let (mid, _) = app.event_at(now - day, tenant, labels(&[("env", "live"), ("a.b", "c")]), Some("u"), &[]).await;
    let body = json!({"type": "user.deleted", "source": "crm", "labels": {"env": "live"}, "data": 1});
    let new = app.post("/v1/events", body).await.expect(202)["id"].as_str().unwrap().to_owned();
    let between = now - day - Duration::from_secs(5);
    for (query, expected) in [
        (String::new(), vec![&new, &mid, &old]),
        ("order=asc".to_owned(), vec![&old, &mid, &new]),
        ("type=user.deleted".to_owned(), vec![&new]),
        ("type=user".to_owned(), vec![]),
        ("uid=u".to_owned(), vec![&mid]),
        ("source=crm".to_owned(), vec![&new]),
        ("label.env=live".to_owned(), vec![&new, &mid]),
        ("label.env=live&label.a.b=c".to_owned(), vec![&mid]),
        (format!("since={between}"), vec![&new, &mid]),
        (format!("until={between}"), vec![&old]),
        (format!("since={between}&label.env=live&type=order.created"), vec![&mid]),
    ] {
        let listed = app.get(&format!("/v1/events?{query}")).await.expect(200);
        assert_eq!(ids(&listed), expected.into_iter().cloned().collect::<Vec<_>>(), "{query}");
    }
}

#[tokio::test]
async fn an_event_is_replayed_where_it_went() {
    let app = App::start();
    let (a, b) = (app.destination(json!({})).await, app.destination(json!({})).await);
    let other = app.destination(json!({})).await;
    let (id, deliveries) = app.event(&[&a, &b]).await;
    app.attempted(&deliveries[0], Next::Delivered).await;
    let replayed = app.act(&format!("/v1/events/{id}/replay")).await.expect(202);
    assert_eq!((&replayed["event_id"], &replayed["deliveries"]), (&json!(id), &json!(2)));
    let new = replayed["delivery_ids"].as_array().unwrap();
    for delivery in new {
        let shown = app.get(&format!("/v1/deliveries/{}", delivery.as_str().unwrap())).await.expect(200);
        let of = shown["replay_of"].as_str().unwrap().to_owned();
        assert!(deliveries.contains(&of));
        assert_eq!(app.get(&format!("/v1/deliveries/{of}")).await.expect(200)["replayed_by"], *delivery);
        assert_eq!(shown["status"], "pending");
    }
    // To one that it had not gone to.
    let replayed = app.post(&format!("/v1/events/{id}/replay"), json!({"destination_id": other})).await.expect(202);
    let shown = app.get(&format!("/v1/deliveries/{}", replayed["delivery_ids"][0].as_str().unwrap())).await.expect(200);
    assert_eq!((&shown["destination_id"], &shown["replay_of"]), (&json!(other), &Value::Null));
}

#[tokio::test]
async fn what_a_replay_of_an_event_refuses() {
    let app = App::start();
    let (id, _) = app.event(&[]).await;
    let path = format!("/v1/events/{id}/replay");
    app.post(&path, json!({"destination_id": NO_DESTINATION})).await.problem(404, "not_found");
    let bad = app.post(&path, json!({"destination_id": "x y", "y": 1})).await.problem(422, "validation_failed");
    assert_eq!(bad, ["/destination_id", "/y"]);
    // The path is looked up before the body is judged.
    app.post("/v1/events/nobody/replay", json!({"y": 1})).await.problem(404, "not_found");
    assert_eq!(app.act(&path).await.expect(202)["deliveries"], 0);
}
