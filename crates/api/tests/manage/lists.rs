//! Rules that all lists share.

use serde_json::{Value, json};
use signalpost_core::DeadReason;
use signalpost_store::dispatch::Next;

use crate::app::{App, ids};

const LISTS: [&str; 6] = ["events", "deliveries", "attempts", "destinations", "dead-letters", "replays"];

#[tokio::test]
async fn bounds_and_unknown_parameters() {
    let app = App::start();
    for list in LISTS {
        let path = format!("/v1/{list}");
        app.get(&path).await.expect(200);
        app.get(&format!("{path}?limit=1&order=asc")).await.expect(200);
        app.get(&format!("{path}?limit=250")).await.expect(200);
        for bad in [
            "limit=0",
            "limit=251",
            "limit=-1",
            "limit=x",
            "limit=",
            "order=up",
            "cursor=x",
            "nonsense=1",
            "limit=1&limit=2",
        ] {
            app.get(&format!("{path}?{bad}")).await.problem(400, "invalid_query");
        }
    }
}

#[tokio::test]
async fn filters_that_are_no_values() {
    let app = App::start();
    for bad in [
        "events?since=yesterday",
        "events?include=all",
        "events?limit=21&include=data",
        "deliveries?include=data",
        "deliveries?destination_id=x",
        "deliveries?destination_id=evt_01h2e8kqvbfwea724h75qc655w",
        "deliveries?status=done",
        "deliveries?event_id=x",
        "deliveries?until=5",
        "attempts?outcome=ok",
        "attempts?delivery_id=x",
        "attempts?status=dead",
        "dead-letters?reason=none",
        "dead-letters?status=dead",
        "destinations?state=deleted",
        "destinations?state=open",
        "destinations?status=active",
        "events?label.=x",
        "events?type=a&type=b",
    ] {
        app.get(&format!("/v1/{bad}")).await.problem(400, "invalid_query");
    }
}

#[tokio::test]
async fn a_filter_that_knows_few_values_names_them() {
    let app = App::start();
    for (list, values) in [
        ("destinations?state=x", "`active`, `paused`, `disabled`"),
        ("deliveries?status=x", "`delivered`"),
        ("attempts?outcome=x", "`retry`"),
        ("dead-letters?reason=x", "`exhausted`"),
    ] {
        let reply = app.get(&format!("/v1/{list}")).await;
        assert!(reply.body["detail"].as_str().unwrap().contains(values), "{list}: {}", reply.body);
        reply.problem(400, "invalid_query");
    }
}

#[tokio::test]
async fn pages_cover_everything_once_in_both_directions() {
    let app = App::start();
    let destination = app.destination(json!({})).await;
    for _ in 0..4 {
        app.destination(json!({})).await;
        app.dead_letter(&destination, DeadReason::Gone).await;
        let (_, deliveries) = app.event(&[&destination]).await;
        app.attempted(&deliveries[0], Next::Delivered).await;
    }
    for (list, filter) in [
        ("events", ""),
        ("deliveries", "&status=delivered"),
        ("attempts", "&outcome=dead"),
        ("destinations", ""),
        ("destinations", "&state=active"),
        ("dead-letters", "&reason=gone"),
    ] {
        let key = |item: &Value| match list {
            "attempts" => format!("{}/{}", item["delivery_id"], item["number"]),
            _ => item["id"].to_string(),
        };
        let whole = app.get(&format!("/v1/{list}?order=asc{filter}")).await.expect(200);
        let expected: Vec<String> = whole["data"].as_array().unwrap().iter().map(key).collect();
        assert!(expected.len() >= 4, "{list}");
        assert!(expected.is_sorted(), "{list}");
        for order in ["asc", "desc"] {
            let mut found = Vec::new();
            let mut next = format!("/v1/{list}?limit=3&order={order}{filter}");
            loop {
                let page = app.get(&next).await.expect(200);
                let items = page["data"].as_array().unwrap();
                assert!(items.len() <= 3);
                found.extend(items.iter().map(key));
                match page["next_cursor"].as_str() {
                    Some(cursor) => next = format!("/v1/{list}?limit=3&order={order}{filter}&cursor={cursor}"),
                    None => break,
                }
            }
            if order == "desc" {
                found.reverse();
            }
            assert_eq!(found, expected, "{list} {order}");
        }
    }
}

#[tokio::test]
async fn a_cursor_is_of_one_list_with_its_filters() {
    let app = App::start();
    for _ in 0..3 {
        app.event(&[]).await;
    }
    let page = app.get("/v1/events?limit=1&type=order.created").await.expect(200);
    let cursor = page["next_cursor"].as_str().unwrap();
    let next = app.get(&format!("/v1/events?limit=2&type=order.created&cursor={cursor}")).await.expect(200);
    assert_eq!(ids(&next).len(), 2);
    for other in ["events?type=x", "events?", "events?type=order.created&order=asc", "replays?"] {
        app.get(&format!("/v1/{other}&cursor={cursor}")).await.problem(400, "invalid_query");
    }
}

#[tokio::test]
async fn lists_with_data_are_short() {
    let app = App::start();
    for _ in 0..22 {
        app.event(&[]).await;
    }
    let page = app.get("/v1/events?include=data").await.expect(200);
    assert_eq!(page["data"].as_array().unwrap().len(), 20);
    assert!(page["next_cursor"].is_string());
    assert_eq!(page["data"][0]["data"], json!({"n": 1.0}));
}
