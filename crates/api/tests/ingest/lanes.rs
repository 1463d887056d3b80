//! Which lane a delivery is in, how it starts there, and that a batch keeps its order.

use std::sync::{Arc, atomic::Ordering};

use serde_json::{Value, json};
use signalpost_api::{IngestSettings, Settings};
use signalpost_bus::Bus as _;
use signalpost_core::{EventId, Guarantee, LaneId, TenantId, WaitReason};
use signalpost_store::{
    DispatchStore as _, NEVER, ReadStore as _,
    dispatch::Standing,
    read::{DeliveryFilter, DeliveryView, Page},
};

use super::{App, app, faulty, messages, post};

const ORDERED: &str = r#"{"type":"a","data":{"customer":7},"ordering_key":"k"}"#;

/// All deliveries to a destination, in the order of their ids.
async fn to(app: &App, destination: &str) -> Vec<DeliveryView> {
    let filter = DeliveryFilter { destination_id: Some(app::destination_id(destination)), ..DeliveryFilter::default() };
    let page = Page { limit: 5000, after: None, descending: false };
    app.store.list_deliveries(TenantId::DEFAULT, &filter, page).await.unwrap()
}

async fn standing(app: &App, view: &DeliveryView) -> Standing {
    app.store.examine(&[view.id]).await.unwrap()[0].unwrap()
}

#[tokio::test]
async fn a_lane_starts_in_the_store_and_shows_what_it_waits_for() {
    let app = App::start();
    let id = app.destination(json!({"ordering": "key"})).await;
    for _ in 0..3 {
        post(&app, ORDERED).await.expect(202);
    }
    // Without a key, and with one in the wrong place, there is no order.
    post(&app, r#"{"type":"a","data":1}"#).await.expect(202);
    let published = messages(&app, 1).await;
    assert_eq!((published.len(), published[0].lane), (1, None));

    let listed = app.get(&format!("/v1/deliveries?destination_id={id}&order=asc")).await.expect(200);
    let mut waiting = Vec::new();
    for item in app::all(&listed) {
        assert_eq!((&item["status"], &item["next_attempt_at"]), (&json!("pending"), &Value::Null));
        waiting.push(item["waiting_for"].as_str().unwrap_or("-").to_owned());
    }
    waiting.sort();
    assert_eq!(waiting, ["-", "-", "lane", "lane"], "the first of the lane and the one without a key are due");
    let views = to(&app, &id).await;
    let followers = views.iter().filter(|view| view.waiting == Some((NEVER, WaitReason::Lane))).count();
    assert_eq!(followers, 2);
    assert_eq!(app.bus.lag().await, Some(1), "nothing of a lane was published");
}

#[tokio::test]
async fn keys_stand_where_the_destination_says() {
    let app = App::start();
    let by_customer = app.destination(json!({"ordering": "key", "ordering_key_from": "/data/customer"})).await;
    let by_label = app.destination(json!({"ordering": "key", "ordering_key_from": "/labels/region"})).await;
    let none = app.destination(json!({"ordering_key_from": "/data/customer"})).await;
    for body in [
        r#"{"type":"a","data":{"customer":7},"labels":{"region":"eu"}}"#,
        r#"{"type":"a","data":{"customer":"7"},"labels":{"region":"us"}}"#,
        r#"{"type":"a","data":{"customer":8}}"#,
        r#"{"type":"a","data":{"customer":{"id":7}}}"#,
    ] {
        post(&app, body).await.expect(202);
    }
    let mut lanes = Vec::new();
    for destination in [&by_customer, &by_label, &none] {
        let mut of = Vec::new();
        for view in to(&app, destination).await {
            of.push(standing(&app, &view).await.lane);
        }
        lanes.push(of);
    }
    // Ids made in one millisecond have no order, so the lanes are counted.
    let count = |of: &[Option<LaneId>], key: &str| of.iter().filter(|lane| **lane == Some(LaneId::of(key))).count();
    assert_eq!((count(&lanes[0], "7"), count(&lanes[0], "8")), (2, 1), "a number and its text are one key");
    assert_eq!(lanes[0].iter().filter(|lane| lane.is_none()).count(), 1, "an object is no key");
    assert_eq!((count(&lanes[1], "eu"), count(&lanes[1], "us")), (1, 1));
    assert_eq!(lanes[2], [None; 4]);
}

#[tokio::test]
async fn the_key_of_a_cloud_event_is_its_partition_key() {
    let app = App::start();
    let id = app.destination(json!({"ordering": "key"})).await;
    let event = json!({
        "specversion": "1.0", "id": "1", "source": "s", "type": "a", "partitionkey": "k", "data": {"n": 1},
    });
    let headers = [("content-type", "application/cloudevents+json")];
    let answer = app.with(http::Method::POST, "/v1/events", &headers, event.to_string()).await.expect(202);
    assert_eq!(standing(&app, &to(&app, &id).await[0]).await.lane, Some(LaneId::of("k")));
    let shown = app.get(&format!("/v1/events/{}", answer["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(shown["ordering_key"], "k");
}

#[tokio::test]
async fn the_guarantee_is_fixed_at_acceptance() {
    let app = App::start();
    let id = app.destination(json!({"guarantee": "at_most_once"})).await;
    post(&app, r#"{"type":"a","data":1}"#).await.expect(202);
    assert_eq!(messages(&app, 1).await[0].guarantee, Guarantee::AtMostOnce);
    app.patch(&format!("/v1/destinations/{id}"), json!({"guarantee": null})).await.expect(200);
    post(&app, r#"{"type":"a","data":1}"#).await.expect(202);
    let mut guarantees = Vec::new();
    for view in to(&app, &id).await {
        guarantees.push(standing(&app, &view).await.guarantee);
    }
    guarantees.sort_by_key(|guarantee| *guarantee as u8);
    assert_eq!(guarantees, [Guarantee::AtLeastOnce, Guarantee::AtMostOnce]);
}

#[tokio::test]
async fn a_large_fan_out_never_defers_what_has_a_place_in_a_lane() {
    let app = App::start_with(Settings { fan_out_above: 2, ..Settings::default() }, |store| Arc::new(store));
    let ordered = app.destination(json!({"ordering": "key"})).await;
    for _ in 0..3 {
        app.destination(json!({})).await;
    }
    let answer = post(&app, ORDERED).await.expect(202);
    assert_eq!(answer["deliveries"], 4);
    assert_eq!(to(&app, &ordered).await.len(), 1, "it has its place already");
    use signalpost_store::ScheduleStore as _;
    assert_eq!(app.store.expand_fan_outs(100).await.unwrap(), 3);
    assert_eq!(to(&app, &ordered).await.len(), 1);
    assert_eq!(app.bus.lag().await, Some(0));
}

#[tokio::test]
async fn a_large_batch_defers_the_rest_of_an_event_and_keeps_its_lanes() {
    let ingest = IngestSettings { group_deliveries: 4, ..IngestSettings::default() };
    let app = App::start_with(Settings { ingest, ..Settings::default() }, |store| Arc::new(store));
    let ordered = app.destination(json!({"ordering": "key"})).await;
    let plain = app.destination(json!({})).await;
    let event = json!({"type": "a", "data": 1, "ordering_key": "k"});
    let body = json!({"events": vec![event; 5]});
    app.keyed("/v1/events/batch", "k", &body).await.expect(202);
    assert_eq!(to(&app, &ordered).await.len(), 5);
    use signalpost_store::ScheduleStore as _;
    while app.store.expand_fan_outs(100).await.unwrap() > 0 {}
    assert_eq!(to(&app, &plain).await.len(), 5);
}

/// The events of a destination in the order in which its lane lets them go, by ending each.
async fn drain(app: &App, destination: &str) -> Vec<EventId> {
    let mut order = Vec::new();
    loop {
        let views = to(app, destination).await;
        let heads: Vec<_> = views.iter().filter(|view| view.waiting.is_some_and(|(due, _)| due != NEVER)).collect();
        let [head] = heads[..] else {
            assert!(heads.is_empty() && views.iter().all(|view| view.state.is_final()), "{heads:?}");
            return order;
        };
        order.push(head.event_id);
        app.attempted(&head.id.to_string(), signalpost_store::dispatch::Next::Delivered).await;
    }
}

fn ids(answer: &Value) -> Vec<EventId> {
    let results = answer["results"].as_array().unwrap().iter();
    results.map(|result| result["id"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn a_batch_keeps_its_order_over_many_groups() {
    let ingest = IngestSettings { group_deliveries: 7, ..IngestSettings::default() };
    let app = App::start_with(Settings { ingest, ..Settings::default() }, |store| Arc::new(store));
    let id = app.destination(json!({"ordering": "key"})).await;
    let events: Vec<Value> =
        (0..60).map(|n| json!({"type": "a", "data": n, "ordering_key": "k", "uid": format!("u{n}")})).collect();
    let answer = app.post("/v1/events/batch", json!({"events": events})).await.expect(202);
    assert_eq!(drain(&app, &id).await, ids(&answer));
}

#[tokio::test]
async fn a_batch_keeps_its_order_where_routes_change_in_its_midst() {
    let ingest = IngestSettings { group_deliveries: 5, ..IngestSettings::default() };
    let (app, faults) = faulty::start(Settings { ingest, ..Settings::default() });
    let id = app.destination(json!({"ordering": "key"})).await;
    let other = app.destination(json!({"event_types": ["nothing"]})).await;
    faults.restless.lock().unwrap().replace(app::destination_id(&other));
    let events: Vec<Value> = (0..60).map(|n| json!({"type": "a", "data": n, "ordering_key": "k"})).collect();
    let answer = app.post("/v1/events/batch", json!({"events": events})).await.expect(202);
    let groups = faults.groups.load(Ordering::SeqCst);
    assert!(groups > 12, "some of it was routed again: {groups} groups");
    assert_eq!(drain(&app, &id).await, ids(&answer));
}

#[tokio::test]
async fn behind_what_the_store_did_not_take_nothing_of_the_lane_is_accepted() {
    let ingest = IngestSettings { group_deliveries: 2, ..IngestSettings::default() };
    let (app, faults) = faulty::start(Settings { ingest, ..Settings::default() });
    let id = app.destination(json!({"ordering": "key"})).await;
    let event = |n| json!({"type": "a", "data": n, "ordering_key": "k", "uid": format!("u{n}")});
    let body = json!({"events": (0..6).map(event).collect::<Vec<_>>()});
    faults.fails_at.store(faults.groups.load(Ordering::SeqCst) + 2, Ordering::SeqCst);
    let answer = app.post("/v1/events/batch", body.clone()).await.expect(207);
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(4)));
    assert_eq!(answer["results"][5]["error"]["code"], "unavailable");
    // Sent again, as a 503 asks for, all are there, in order.
    let answer = app.post("/v1/events/batch", body).await.expect(202);
    assert_eq!(answer["results"][1]["duplicate"], true);
    assert_eq!(drain(&app, &id).await, ids(&answer));
}
