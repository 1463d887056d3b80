//! `/v1/dead-letters`.

use std::time::Duration;

use serde_json::{Value, json};
use signalpost_core::{Clock as _, DeadReason};

use crate::app::{App, ids};

#[tokio::test]
async fn a_dead_letter_tells_everything() {
    let app = App::start();
    let destination = app.destination(json!({})).await;
    let id = app.dead_letter(&destination, DeadReason::Rejected).await;
    let shown = app.get(&format!("/v1/dead-letters/{id}")).await.expect(200);
    for (field, expected) in [
        ("id", json!(id)),
        ("destination_id", json!(destination)),
        ("event_type", json!("order.created")),
        ("reason", json!("rejected")),
        ("attempts", json!(1)),
        ("blocks_lane", json!(false)),
        ("data", json!({"n": 1.0})),
    ] {
        assert_eq!(shown[field], expected, "{field}");
    }
    assert_eq!(shown["last_attempt"]["status_code"], 400);
    assert_eq!(shown["event"]["id"], shown["event_id"]);
    assert_eq!(shown["event"]["type"], "order.created");
    assert!(shown["dead_at"].is_string());
    let listed = app.get("/v1/dead-letters").await.expect(200);
    assert!(!listed["data"][0].as_object().unwrap().contains_key("data"));
    let listed = app.get("/v1/dead-letters?include=data").await.expect(200);
    assert_eq!(listed["data"][0], shown);
}

#[tokio::test]
async fn dead_letters_are_filtered() {
    let app = App::start();
    let (a, b) = (app.destination(json!({})).await, app.destination(json!({})).await);
    let before = app.clock.now();
    let one = app.dead_letter(&a, DeadReason::Rejected).await;
    let two = app.dead_letter(&b, DeadReason::Exhausted).await;
    let later = app.clock.now() + Duration::from_secs(60);
    for (query, mut expected) in [
        (String::new(), vec![&one, &two]),
        (format!("destination_id={a}"), vec![&one]),
        ("reason=exhausted".to_owned(), vec![&two]),
        ("reason=gone".to_owned(), vec![]),
        ("event_type=order.created".to_owned(), vec![&one, &two]),
        ("event_type=other".to_owned(), vec![]),
        (format!("since={before}"), vec![&one, &two]),
        (format!("until={before}"), vec![]),
        (format!("since={later}"), vec![]),
    ] {
        let mut found = ids(&app.get(&format!("/v1/dead-letters?{query}")).await.expect(200));
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected.into_iter().cloned().collect::<Vec<_>>(), "{query}");
    }
}

#[tokio::test]
async fn a_replayed_dead_letter_leaves_the_list() {
    let app = App::start();
    let destination = app.destination(json!({})).await;
    let id = app.dead_letter(&destination, DeadReason::Exhausted).await;
    let path = format!("/v1/dead-letters/{id}");
    let again = app.keyed(&format!("{path}/replay"), "k", &json!({})).await.expect(202);
    assert_eq!((&again["replay_of"], &again["status"]), (&json!(id), &json!("pending")));
    app.get(&path).await.problem(404, "not_found");
    let twice = app.act(&format!("{path}/replay")).await;
    let new = again["id"].as_str().unwrap();
    assert_eq!(twice.body["detail"], format!("It was replayed before: the new delivery is {new}."));
    twice.problem(409, "already_replayed");
    assert_eq!(app.get("/v1/dead-letters").await.expect(200)["data"], json!([]));
    // The repetition gets the first answer, although the letter has gone.
    let repeated = app.keyed(&format!("{path}/replay"), "k", &json!({})).await;
    assert_eq!(repeated.header("idempotency-replayed"), "true");
    assert_eq!(repeated.expect(202)["id"], again["id"]);
    assert_eq!(app.get(&format!("/v1/deliveries/{id}")).await.expect(200)["status"], "dead");
}

#[tokio::test]
async fn a_discarded_dead_letter_stays_dead() {
    let app = App::start();
    let destination = app.destination(json!({})).await;
    let id = app.dead_letter(&destination, DeadReason::Exhausted).await;
    let path = format!("/v1/dead-letters/{id}");
    assert_eq!(app.delete(&path).await.status, 204);
    app.delete(&path).await.problem(404, "not_found");
    app.act(&format!("{path}/replay")).await.problem(404, "not_found");
    app.get(&path).await.problem(404, "not_found");
    let delivery = app.get(&format!("/v1/deliveries/{id}")).await.expect(200);
    assert_eq!((&delivery["status"], &delivery["reason"]), (&json!("dead"), &json!("discarded")));
}

#[tokio::test]
async fn what_is_no_dead_letter_is_not_found() {
    let app = App::start();
    let destination = app.destination(json!({})).await;
    let (_, open) = app.event(&[&destination]).await;
    for name in [open[0].as_str(), "dlv_01h2e8kqvbfwea724h75qc655w", "x"] {
        let path = format!("/v1/dead-letters/{name}");
        app.get(&path).await.problem(404, "not_found");
        app.delete(&path).await.problem(404, "not_found");
        app.post(&format!("{path}/replay"), json!({"x": 1})).await.problem(404, "not_found");
    }
    let id = app.dead_letter(&destination, DeadReason::Exhausted).await;
    app.delete(&format!("/v1/destinations/{destination}")).await;
    app.act(&format!("/v1/dead-letters/{id}/replay")).await.problem(409, "gone");
    assert_eq!(app.get(&format!("/v1/dead-letters/{id}")).await.expect(200)["reason"], Value::from("exhausted"));
}
