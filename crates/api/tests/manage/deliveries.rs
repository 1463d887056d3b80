//! `/v1/deliveries` and `/v1/attempts`.

use std::time::Duration;

use serde_json::{Value, json};
use signalpost_core::{
    CircuitRecord, CircuitState, Clock as _, DeadReason, EventMeta, TenantId, Timestamp, WaitReason,
};
use signalpost_limits::{Claim, Claimed, Limits as _};
use signalpost_store::{
    DispatchStore as _,
    dispatch::{DeliveryWrite, Next},
};

use crate::app::{App, all, ids};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test]
async fn a_delivery_through_its_life() {
    let app = App::start();
    let destination = app.destination(json!({})).await;
    let (event, deliveries) = app.event(&[&destination]).await;
    let path = format!("/v1/deliveries/{}", deliveries[0]);
    let fresh = app.get(&path).await.expect(200);
    let accepted_at = fresh["accepted_at"].clone();
    assert_eq!(accepted_at, app.get(&format!("/v1/events/{event}")).await.expect(200)["created_at"]);
    assert_eq!(
        fresh,
        json!({
            "id": deliveries[0], "event_id": event, "event_type": "order.created", "destination_id": destination,
            "status": "pending", "attempts": 0, "next_attempt_at": null, "waiting_for": null, "reason": null,
            "last_attempt": null, "replay_of": null, "replayed_by": null, "accepted_at": accepted_at, "ended_at": null,
        })
    );

    let before = app.clock.now();
    app.attempted(&deliveries[0], Next::Retry { after: Duration::from_secs(60) }).await;
    let waiting = app.get(&path).await.expect(200);
    assert_eq!((&waiting["status"], &waiting["attempts"]), (&json!("retrying"), &json!(1)));
    assert_eq!(waiting["waiting_for"], "retry");
    let due = Timestamp::parse(waiting["next_attempt_at"].as_str().unwrap()).unwrap();
    assert!(due >= before + Duration::from_secs(60) && due <= app.clock.now() + Duration::from_secs(60));
    let attempt = &waiting["last_attempt"];
    for (field, expected) in [
        ("delivery_id", json!(deliveries[0])),
        ("event_id", json!(event)),
        ("destination_id", json!(destination)),
        ("number", json!(1)),
        ("outcome", json!("retry")),
        ("status_code", Value::Null),
        ("duration_ms", json!(13)),
        ("response_excerpt", Value::Null),
        ("error", json!("connection refused")),
    ] {
        assert_eq!(attempt[field], expected, "{field}");
    }
    assert!(Timestamp::parse(attempt["started_at"].as_str().unwrap()).unwrap() >= before);

    app.attempted(&deliveries[0], Next::Dead { reason: DeadReason::Rejected }).await;
    let dead = app.get(&path).await.expect(200);
    assert_eq!((&dead["status"], &dead["reason"]), (&json!("dead"), &json!("rejected")));
    assert_eq!((&dead["waiting_for"], &dead["next_attempt_at"]), (&Value::Null, &Value::Null));
    assert_eq!(dead["last_attempt"]["response_excerpt"], "r\u{fffd}sult");
    assert!(dead["ended_at"].is_string());
    let attempts = app.get(&format!("{path}/attempts?order=asc")).await.expect(200);
    let numbers: Vec<&Value> = all(&attempts).iter().map(|attempt| &attempt["number"]).collect();
    assert_eq!(numbers, [1, 2]);
}

#[tokio::test]
async fn what_a_delivery_waits_for() {
    let app = App::start();
    let destination = app.destination(json!({})).await;
    let (_, deliveries) = app.event(&[&destination]).await;
    let path = format!("/v1/deliveries/{}", deliveries[0]);
    let target = app.target(&deliveries[0]).await;
    let after = Duration::from_secs(30);
    app.write(DeliveryWrite::Park { target, reason: WaitReason::RateLimit, after, hold_queue: false, claim: None })
        .await;
    let shown = app.get(&path).await.expect(200);
    assert_eq!((&shown["waiting_for"], &shown["status"]), (&json!("rate_limit"), &json!("pending")));
    assert!(shown["next_attempt_at"].is_string());
    app.act(&format!("/v1/destinations/{destination}/pause")).await.expect(200);
    let shown = app.get(&path).await.expect(200);
    assert_eq!((&shown["waiting_for"], &shown["next_attempt_at"]), (&json!("paused"), &Value::Null));
    let listed = app.get("/v1/deliveries").await.expect(200);
    assert_eq!(listed["data"][0], shown);
}

#[tokio::test]
async fn lists_without_a_subject_cover_a_day() {
    let app = App::start();
    let (a, b) = (app.destination(json!({})).await, app.destination(json!({})).await);
    let tenant = TenantId::DEFAULT;
    let now = app.clock.now();
    let (old_event, old) = app.event_at(now - 2 * DAY, tenant, EventMeta::default(), None, &[&a]).await;
    let (_, new) = app.event(&[&a, &b]).await;
    let (new_a, new_b) = (&new[0], &new[1]);
    app.attempted(new_b, Next::Delivered).await;
    let between = now - DAY - Duration::from_secs(3600);
    let found = async |query: &str| {
        let mut found = ids(&app.get(&format!("/v1/deliveries?{query}")).await.expect(200));
        found.sort_unstable();
        found
    };
    for (query, mut expected) in [
        (String::new(), vec![new_a, new_b]),
        (format!("destination_id={a}"), vec![&old[0], new_a]),
        (format!("event_id={old_event}"), vec![&old[0]]),
        (format!("since={}", now - 3 * DAY), vec![&old[0], new_a, new_b]),
        (format!("until={between}"), vec![&old[0]]),
        (format!("until={}", now - 4 * DAY), vec![]),
        ("status=delivered".to_owned(), vec![new_b]),
        ("status=pending".to_owned(), vec![new_a]),
        (format!("status=pending&destination_id={b}"), vec![]),
        ("event_type=order.created".to_owned(), vec![new_a, new_b]),
        ("event_type=order".to_owned(), vec![]),
    ] {
        expected.sort_unstable();
        assert_eq!(found(&query).await, expected.into_iter().cloned().collect::<Vec<_>>(), "{query}");
    }
}

#[tokio::test]
async fn attempts_are_filtered() {
    let app = App::start();
    let (a, b) = (app.destination(json!({})).await, app.destination(json!({})).await);
    let (event, deliveries) = app.event(&[&a, &b]).await;
    app.attempted(&deliveries[0], Next::Retry { after: Duration::ZERO }).await;
    app.attempted(&deliveries[0], Next::Delivered).await;
    app.attempted(&deliveries[1], Next::Delivered).await;
    let soon = app.clock.now() + Duration::from_secs(60);
    for (query, expected) in [
        (String::new(), 3),
        (format!("destination_id={a}"), 2),
        ("outcome=delivered".to_owned(), 2),
        ("outcome=interrupted".to_owned(), 0),
        (format!("event_id={event}"), 3),
        (format!("delivery_id={}", deliveries[1]), 1),
        (format!("since={soon}"), 0),
        (format!("until={soon}&outcome=retry"), 1),
        (format!("until={}", soon - 2 * DAY), 0),
    ] {
        let listed = app.get(&format!("/v1/attempts?{query}")).await.expect(200);
        assert_eq!(all(&listed).len(), expected, "{query}");
    }
}

#[tokio::test]
async fn retry_of_what_waits_makes_it_due() {
    let app = App::start();
    let destination = app.destination(json!({})).await;
    let (_, deliveries) = app.event(&[&destination]).await;
    let path = format!("/v1/deliveries/{}", deliveries[0]);
    app.attempted(&deliveries[0], Next::Retry { after: Duration::from_secs(3600) }).await;
    let retried = app.act(&format!("{path}/retry")).await.expect(202);
    assert_eq!((&retried["id"], &retried["status"]), (&json!(deliveries[0]), &json!("retrying")));
    let due = retried["next_attempt_at"].as_str().map(|due| Timestamp::parse(due).unwrap());
    assert!(due.is_none_or(|due| due <= app.clock.now()), "{retried}");
}

#[tokio::test]
async fn retry_of_what_ended_is_a_new_delivery() {
    let app = App::start();
    let destination = app.destination(json!({})).await;
    let (event, deliveries) = app.event(&[&destination]).await;
    app.attempted(&deliveries[0], Next::Delivered).await;
    let again = app.post(&format!("/v1/deliveries/{}/retry", deliveries[0]), json!({})).await.expect(202);
    assert_ne!(again["id"], deliveries[0]);
    for (field, expected) in
        [("replay_of", json!(deliveries[0])), ("event_id", json!(event)), ("status", json!("pending"))]
    {
        assert_eq!(again[field], expected, "{field}");
    }
    let first = app.get(&format!("/v1/deliveries/{}", deliveries[0])).await.expect(200);
    assert_eq!((&first["status"], &first["replayed_by"]), (&json!("delivered"), &again["id"]));
    app.delete(&format!("/v1/destinations/{destination}")).await;
    app.act(&format!("/v1/deliveries/{}/retry", deliveries[0])).await.problem(409, "gone");
}

#[tokio::test]
async fn what_is_sent_once_at_most_is_not_retried_but_replayed() {
    let app = App::start();
    let destination = app.destination(json!({"guarantee": "at_most_once"})).await;
    let answer = app.post("/v1/events", json!({"type": "a", "data": 1})).await.expect(202);
    let event = answer["id"].as_str().unwrap();
    let listed = app.get(&format!("/v1/deliveries?event_id={event}")).await.expect(200);
    let id = listed["data"][0]["id"].as_str().unwrap().to_owned();
    app.attempted(&id, Next::Dead { reason: DeadReason::FailedOnce }).await;
    assert_eq!(app.get(&format!("/v1/deliveries/{id}")).await.expect(200)["reason"], "failed_once");
    app.act(&format!("/v1/deliveries/{id}/retry")).await.problem(409, "at_most_once");
    let page = app.get("/problems/at_most_once").await;
    assert_eq!(page.status, 200);
    let again = app.act(&format!("/v1/dead-letters/{id}/replay")).await.expect(202);
    assert_eq!((&again["replay_of"], &again["status"]), (&json!(id), &json!("pending")));
    assert_eq!(app.get("/v1/destinations").await.expect(200)["data"][0]["id"], destination);
}

#[tokio::test]
async fn what_waits_in_a_lane_is_retried_and_cancelled() {
    let app = App::start();
    let destination = app.destination(json!({"ordering": "key"})).await;
    for n in 0..3 {
        app.post("/v1/events", json!({"type": "a", "data": n, "ordering_key": "k"})).await.expect(202);
    }
    let list = format!("/v1/deliveries?destination_id={destination}");
    let listed = app.get(&list).await.expect(200);
    let behind: Vec<&Value> = all(&listed).iter().filter(|item| item["waiting_for"] == "lane").collect();
    assert_eq!(behind.len(), 2);
    let path = format!("/v1/deliveries/{}", behind[0]["id"].as_str().unwrap());
    let retried = app.act(&format!("{path}/retry")).await.expect(202);
    assert_eq!(
        (&retried["waiting_for"], &retried["next_attempt_at"]),
        (&json!("lane"), &Value::Null),
        "the lane still holds it"
    );
    assert_eq!(app.act(&format!("{path}/cancel")).await.expect(200)["status"], "cancelled");
    // The first one ends: the one that is left has its turn.
    let head = all(&listed).iter().find(|item| item["waiting_for"].is_null()).unwrap();
    app.attempted(head["id"].as_str().unwrap(), Next::Delivered).await;
    let listed = app.get(&format!("{list}&status=pending")).await.expect(200);
    assert_eq!(all(&listed).len(), 1);
    assert_eq!(all(&listed)[0]["waiting_for"], Value::Null);
}

#[tokio::test]
async fn what_an_open_circuit_holds_says_so() {
    let app = App::start();
    let destination = app.destination(json!({})).await;
    let (_, deliveries) = app.event(&[&destination, &destination]).await;
    let after = [Duration::ZERO, Duration::from_secs(3600)];
    for (delivery, after) in deliveries.iter().zip(after) {
        app.attempted(delivery, Next::Retry { after }).await;
    }
    let record = CircuitRecord {
        state: CircuitState::Open,
        since: Some(app.clock.now()),
        trips: 1,
        reason: Some("5 failures in a row".to_owned()),
    };
    app.store.record_circuits(&[(destination.parse().unwrap(), record)]).await.unwrap();
    let shown = async |delivery: &str| app.get(&format!("/v1/deliveries/{delivery}")).await.expect(200);
    let (due, later) = (shown(&deliveries[0]).await, shown(&deliveries[1]).await);
    assert_eq!((&due["waiting_for"], &due["next_attempt_at"]), (&json!("circuit"), &Value::Null));
    assert_eq!(later["waiting_for"], "retry");
    assert!(later["next_attempt_at"].is_string());
}

#[tokio::test]
async fn a_dead_letter_that_blocks_its_lane_lets_it_go() {
    let app = App::start();
    for way in ["replay", "discard"] {
        let blocking = json!({"ordering": "key", "ordering_on_dead": "block"});
        let destination = app.destination(blocking).await;
        let named = |n: i32| json!({"destination_id": destination, "data": n, "ordering_key": "k"});
        for n in 0..2 {
            app.post("/v1/events", named(n)).await.expect(202);
        }
        let list = format!("/v1/deliveries?destination_id={destination}");
        let listed = app.get(&list).await.expect(200);
        let head = all(&listed).iter().find(|item| item["waiting_for"].is_null()).unwrap();
        let (head, event) = (head["id"].as_str().unwrap(), &head["event_id"]);
        app.attempted(head, Next::Dead { reason: DeadReason::Rejected }).await;
        let held = app.get(&format!("{list}&status=pending")).await.expect(200);
        assert_eq!(all(&held)[0]["waiting_for"], "lane", "it is blocked");
        let letters = app.get(&format!("/v1/dead-letters?destination_id={destination}")).await.expect(200);
        assert_eq!((&letters["data"][0]["id"], &letters["data"][0]["blocks_lane"]), (&json!(head), &json!(true)));
        if way == "replay" {
            // The replay takes its place: before the one that waits.
            let again = app.act(&format!("/v1/dead-letters/{head}/replay")).await.expect(202);
            assert_eq!((&again["event_id"], &again["waiting_for"]), (event, &Value::Null));
            let held = app.get(&format!("{list}&status=pending")).await.expect(200);
            assert_eq!(all(&held).iter().filter(|item| item["waiting_for"] == "lane").count(), 1);
            app.attempted(again["id"].as_str().unwrap(), Next::Delivered).await;
        } else {
            app.delete(&format!("/v1/dead-letters/{head}")).await.expect(204);
        }
        let freed = app.get(&format!("{list}&status=pending")).await.expect(200);
        assert_eq!(all(&freed)[0]["waiting_for"], Value::Null, "{way}");
    }
}

#[tokio::test]
async fn cancel() {
    let app = App::start();
    let destination = app.destination(json!({})).await;
    let (event, deliveries) = app.event(&[&destination, &app.destination(json!({})).await]).await;
    app.attempted(&deliveries[1], Next::Retry { after: Duration::from_secs(3600) }).await;
    for delivery in &deliveries {
        for _ in 0..2 {
            let cancelled = app.act(&format!("/v1/deliveries/{delivery}/cancel")).await.expect(200);
            assert_eq!((&cancelled["id"], &cancelled["status"]), (&json!(delivery), &json!("cancelled")));
            assert!(cancelled["ended_at"].is_string());
        }
    }
    assert_eq!(app.get(&format!("/v1/events/{event}")).await.expect(200)["status"], "cancelled");
    // Its claim stands, so that no dispatcher sends what is still on the bus.
    let claim = Claim { delivery_id: deliveries[0].parse().unwrap(), attempt: 1 };
    assert_eq!(app.limits.claim(7, &[claim]).await.unwrap(), [Claimed::Others]);

    let (_, ended) = app.event(&[&destination]).await;
    app.attempted(&ended[0], Next::Delivered).await;
    app.act(&format!("/v1/deliveries/{}/cancel", ended[0])).await.problem(409, "already_ended");
}

#[tokio::test]
async fn what_is_out_is_neither_cancelled_nor_retried() {
    let app = App::start();
    let destination = app.destination(json!({})).await;
    let (_, deliveries) = app.event(&[&destination]).await;
    let path = format!("/v1/deliveries/{}", deliveries[0]);
    // A dispatcher has begun the next attempt.
    let claim = Claim { delivery_id: deliveries[0].parse().unwrap(), attempt: 1 };
    app.limits.claim(7, &[claim]).await.unwrap();
    app.act(&format!("{path}/cancel")).await.problem(409, "in_flight");
    app.act(&format!("{path}/retry")).await.problem(409, "in_flight");
    assert_eq!(app.limits.claim(7, &[claim]).await.unwrap(), [Claimed::Ours]);
    app.limits.release(7, &[claim]).await.unwrap();
    // The store knows of a detached request.
    let target = app.target(&deliveries[0]).await;
    app.write(DeliveryWrite::Detach { target, attempt: 1, deadline: Duration::from_secs(60) }).await;
    app.act(&format!("{path}/cancel")).await.problem(409, "in_flight");
    app.act(&format!("{path}/retry")).await.problem(409, "in_flight");
    assert_eq!(app.get(&path).await.expect(200)["status"], "pending");
    app.attempted(&deliveries[0], Next::Retry { after: Duration::from_secs(60) }).await;
    app.act(&format!("{path}/cancel")).await.expect(200);
}

#[tokio::test]
async fn others_deliveries_are_not_there() {
    let app = App::start();
    let destination = app.destination(json!({})).await;
    let (event, theirs) =
        app.event_at(app.clock.now(), app.other_tenant(), EventMeta::default(), None, &[&destination]).await;
    for name in [theirs[0].as_str(), "dlv_01h2e8kqvbfwea724h75qc655w", "x"] {
        let path = format!("/v1/deliveries/{name}");
        app.get(&path).await.problem(404, "not_found");
        app.get(&format!("{path}/attempts")).await.problem(404, "not_found");
        app.post(&format!("{path}/retry"), json!({"x": 1})).await.problem(404, "not_found");
        app.post(&format!("{path}/cancel"), json!({"x": 1})).await.problem(404, "not_found");
    }
    for path in [format!("/v1/events/{event}"), format!("/v1/events/{event}/deliveries")] {
        app.get(&path).await.problem(404, "not_found");
    }
    for list in ["deliveries", "events", "attempts"] {
        assert_eq!(app.get(&format!("/v1/{list}")).await.expect(200)["data"], json!([]));
    }
    let of_event = app.get(&format!("/v1/deliveries?event_id={event}")).await.expect(200);
    assert_eq!(of_event["data"], json!([]));
}
