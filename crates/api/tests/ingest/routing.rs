//! Where events go.

use serde_json::json;
use signalpost_api::{IngestSettings, Settings};
use signalpost_bus::Bus as _;
use signalpost_core::{TenantId, WaitReason};
use signalpost_store::{
    ReadStore as _,
    layers::LayeredStore,
    read::{DeliveryFilter, Page},
};

use super::{
    App, Arc, app,
    faulty::{Faults, FaultyStore},
    messages, post,
};

/// The destinations of an event's deliveries and what each waits for.
async fn deliveries(app: &App, answer: &serde_json::Value) -> Vec<(String, Option<WaitReason>)> {
    let event_id = Some(answer["id"].as_str().unwrap().parse().unwrap());
    let filter = DeliveryFilter { event_id, ..DeliveryFilter::default() };
    let page = Page { limit: 5000, after: None, descending: false };
    let views = app.store.list_deliveries(TenantId::DEFAULT, &filter, page).await.unwrap();
    views.into_iter().map(|view| (view.destination_id.to_string(), view.waiting.map(|(_, reason)| reason))).collect()
}

#[tokio::test]
async fn a_destination_is_considered_from_its_creation_on() {
    let app = App::start();
    // Each time the API's picture is older than the destination that was just made.
    for number in 1..=20 {
        let before = post(&app, r#"{"type":"order.created","data":1}"#).await.expect(202);
        assert_eq!(before["deliveries"], number - 1);
        app.destination(json!({"event_types": ["order.created"]})).await;
        let after = post(&app, r#"{"type":"order.created","data":1}"#).await.expect(202);
        assert_eq!(after["deliveries"], number);
        assert_eq!(deliveries(&app, &after).await.len(), usize::try_from(number).unwrap());
    }
}

#[tokio::test]
async fn a_change_made_behind_the_back_of_the_process_is_seen_by_the_commit() {
    let app = App::start();
    let id = app.destination(json!({})).await;
    post(&app, r#"{"type":"a","data":1}"#).await.expect(202);
    // As another process would: the store knows, this one was not told by its own handler.
    use signalpost_store::ManageStore as _;
    app.store.delete_destination(TenantId::DEFAULT, app::destination_id(&id)).await.unwrap();
    assert_eq!(post(&app, r#"{"type":"a","data":1}"#).await.expect(202)["deliveries"], 0);
}

/// A table that is older than a destination knows no such id; the commit would tell, but nothing came so far.
#[tokio::test]
async fn a_destination_that_was_just_made_can_be_named() {
    let faults = Arc::new(Faults::default());
    faults.tells_nothing.store(true, std::sync::atomic::Ordering::SeqCst);
    let app = App::start_with(Settings::default(), |store| Arc::new(LayeredStore(FaultyStore::new(store, faults))));
    for way in ["single", "batch", "keyed"] {
        post(&app, r#"{"type":"a","data":1}"#).await.expect(202);
        let id = app.destination(json!({})).await;
        let event = json!({"data": 1, "destination_id": id});
        let batch = json!({"events": [event.clone()]});
        let answer = match way {
            "single" => app.post("/v1/events", event).await.expect(202),
            "batch" => app.post("/v1/events/batch", batch).await.expect(202)["results"][0].clone(),
            _ => app.keyed("/v1/events/batch", "k", &batch).await.expect(202)["results"][0].clone(),
        };
        assert_eq!(answer["deliveries"], 1, "{way}");
    }
}

#[tokio::test]
async fn only_those_that_want_the_type_get_it() {
    let app = App::start();
    let every = app.destination(json!({})).await;
    let orders = app.destination(json!({"event_types": ["order.*", "order.created"]})).await;
    app.destination(json!({"event_types": ["user.**"]})).await;
    let answer = post(&app, r#"{"type":"order.created","data":1}"#).await.expect(202);
    assert_eq!(answer["deliveries"], 2);
    let mut found: Vec<String> = deliveries(&app, &answer).await.into_iter().map(|(id, _)| id).collect();
    found.sort();
    let mut expected = vec![every, orders];
    expected.sort();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_named_destination_is_the_only_one() {
    let app = App::start();
    app.destination(json!({})).await;
    let named = app.destination(json!({"event_types": ["other"]})).await;
    let answer = post(&app, &json!({"data": 1, "destination_id": named}).to_string()).await.expect(202);
    assert_eq!((&answer["type"], &answer["deliveries"]), (&json!("message"), &json!(1)));
    assert_eq!(deliveries(&app, &answer).await, [(named.clone(), None)]);
    let typed = json!({"data": 1, "type": "x", "destination_id": named}).to_string();
    assert_eq!(post(&app, &typed).await.expect(202)["type"], "x");

    for unknown in [app::NO_DESTINATION, "nonsense", "evt_01h2e8kqvbfwea724h75qc655w"] {
        let body = json!({"data": 1, "destination_id": unknown}).to_string();
        post(&app, &body).await.problem(404, "not_found");
    }
    app.delete(&format!("/v1/destinations/{named}")).await.expect(204);
    post(&app, &json!({"data": 1, "destination_id": named}).to_string()).await.problem(404, "not_found");
}

#[tokio::test]
async fn a_paused_destination_waits_and_a_disabled_one_gets_nothing() {
    let app = App::start();
    let paused = app.destination(json!({})).await;
    let disabled = app.destination(json!({})).await;
    app.act(&format!("/v1/destinations/{paused}/pause")).await.expect(200);
    use signalpost_store::DispatchStore as _;
    app.store.disable_destination(TenantId::DEFAULT, app::destination_id(&disabled), "gone").await.unwrap();

    let answer = post(&app, r#"{"type":"a","data":1}"#).await.expect(202);
    assert_eq!(answer["deliveries"], 1);
    assert_eq!(deliveries(&app, &answer).await, [(paused, Some(WaitReason::Paused))]);
    let named = json!({"data": 1, "destination_id": disabled}).to_string();
    assert_eq!(post(&app, &named).await.expect(202)["deliveries"], 0);
    app.api.drained().await;
    assert_eq!(app.bus.lag().await, Some(0), "nothing was published");
}

#[tokio::test]
async fn a_large_fan_out_is_a_cursor() {
    let app = App::start_with(Settings { fan_out_above: 3, ..Settings::default() }, |store| Arc::new(store));
    for _ in 0..3 {
        app.destination(json!({})).await;
    }
    let answer = post(&app, r#"{"type":"a","data":1}"#).await.expect(202);
    assert_eq!(deliveries(&app, &answer).await.len(), 3);
    assert_eq!(messages(&app, 3).await.len(), 3);
    app.destination(json!({})).await;
    let answer = post(&app, r#"{"type":"a","data":1}"#).await.expect(202);
    assert_eq!(answer["deliveries"], 4);
    assert_eq!(deliveries(&app, &answer).await, []);
    use signalpost_store::ScheduleStore as _;
    assert_eq!(app.store.expand_fan_outs(100).await.unwrap(), 4);
    assert_eq!(deliveries(&app, &answer).await.len(), 4);
}

#[tokio::test]
async fn a_batch_under_a_key_stays_within_one_transaction() {
    let ingest = IngestSettings { group_deliveries: 5, ..IngestSettings::default() };
    let app = App::start_with(Settings { ingest, ..Settings::default() }, |store| Arc::new(store));
    for _ in 0..2 {
        app.destination(json!({})).await;
    }
    let body = json!({"events": [{"type": "a", "data": 1}, {"type": "a", "data": 2}, {"type": "a", "data": 3}]});
    let answer = app.keyed("/v1/events/batch", "k", &body).await.expect(202);
    let mut created = 0;
    for result in answer["results"].as_array().unwrap() {
        assert_eq!(result["deliveries"], 2);
        created += deliveries(&app, result).await.len();
    }
    assert_eq!(created, 4, "one event is expanded later");
    use signalpost_store::ScheduleStore as _;
    assert_eq!(app.store.expand_fan_outs(100).await.unwrap(), 2);
}

#[tokio::test]
async fn a_batch_fills_ten_groups_and_the_rest_of_it_is_expanded_later() {
    let ingest = IngestSettings { group_deliveries: 2, ..IngestSettings::default() };
    let app = App::start_with(Settings { ingest, ..Settings::default() }, |store| Arc::new(store));
    for _ in 0..2 {
        app.destination(json!({})).await;
    }
    let events: Vec<_> = (0..12).map(|number| json!({"type": "a", "data": number})).collect();
    let answer = app.post("/v1/events/batch", json!({"events": events})).await.expect(202);
    let mut created = 0;
    for result in answer["results"].as_array().unwrap() {
        assert_eq!(result["deliveries"], 2);
        created += deliveries(&app, result).await.len();
    }
    assert_eq!(created, 20, "two events are expanded later");
    use signalpost_store::ScheduleStore as _;
    assert_eq!(app.store.expand_fan_outs(100).await.unwrap(), 4);
}

#[tokio::test]
async fn a_spilled_destination_gets_its_deliveries_from_the_store() {
    use signalpost_store::{DispatchStore as _, dispatch::DeliveryWrite};
    let app = App::start();
    let id = app.destination(json!({})).await;
    let (_, first) = app.event(&[&id]).await;
    let target = app.target(&first[0]).await;
    let park = DeliveryWrite::Park {
        target,
        reason: WaitReason::RateLimit,
        after: std::time::Duration::from_secs(600),
        hold_queue: true,
        claim: None,
    };
    app.store.write(&[park], false).await.unwrap();
    // Asked for every second: until then a delivery makes a detour over the bus.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let answer = post(&app, r#"{"type":"a","data":1}"#).await.expect(202);
        if deliveries(&app, &answer).await[0].1.is_some() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "new deliveries are still queued");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
