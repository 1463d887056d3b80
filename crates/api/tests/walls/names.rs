//! Names of other tenants' things elsewhere than in the path: in bodies, in filters, as uids, as idempotency keys.

use serde_json::{Value, json};

use crate::{
    app::{App, all},
    ask,
    home::Home,
    text,
};

/// A uid names one's own alone.
#[tokio::test]
async fn a_uid_is_ones_own() {
    let app = App::start();
    let (ours, theirs) = (Home::new(&app, "ours").await, Home::new(&app, "theirs").await);
    let put = |name: &str| json!({"url": "http://127.0.0.1:9999/", "name": name});
    ours.ask(&app, "PUT", "/v1/destinations/billing", &put("ours")).await.expect(201);
    for uri in ["/v1/destinations/billing", "/v1/destinations/billing/secret"] {
        theirs.ask(&app, "GET", uri, &Value::Null).await.problem(404, "not_found");
    }
    let event = json!({"type": "a", "data": 1, "uid": "event-1"});
    ours.ask(&app, "POST", "/v1/events", &event).await.expect(202);
    theirs.ask(&app, "GET", "/v1/events/event-1", &Value::Null).await.problem(404, "not_found");
    // The same names are free for the other one, and mean its own.
    theirs.ask(&app, "PUT", "/v1/destinations/billing", &put("theirs")).await.expect(201);
    let posted = theirs.ask(&app, "POST", "/v1/events", &event).await.expect(202);
    assert_eq!(posted["duplicate"], false);
    theirs.ask(&app, "DELETE", "/v1/destinations/billing", &Value::Null).await.expect(204);
    let found = ours.ask(&app, "GET", "/v1/destinations/billing", &Value::Null).await.expect(200);
    assert_eq!(found["name"], "ours");
}

#[tokio::test]
async fn filters_and_bodies_find_nothing_of_others() {
    let app = App::start();
    let (ours, theirs) = (Home::new(&app, "ours").await, Home::new(&app, "theirs").await);
    let destination = ours.destination(&app).await;
    let delivery = ours.dead_letter(&app, &destination).await;
    let (event, _) = ours.event(&app, &destination).await;
    for uri in [
        format!("/v1/deliveries?destination_id={destination}"),
        format!("/v1/deliveries?event_id={event}"),
        format!("/v1/attempts?delivery_id={delivery}"),
        format!("/v1/attempts?event_id={event}"),
        format!("/v1/dead-letters?destination_id={destination}"),
    ] {
        assert!(all(&theirs.ask(&app, "GET", &uri, &Value::Null).await.expect(200)).is_empty(), "{uri}");
    }
    let before = ours.seen(&app).await;
    let (own, _) = theirs.event(&app, &theirs.destination(&app).await).await;
    for (uri, body) in [
        ("/v1/events".to_owned(), json!({"type": "a", "data": 1, "destination_id": destination})),
        ("/v1/replays".to_owned(), json!({"destination_id": destination})),
        (format!("/v1/events/{own}/replay"), json!({"destination_id": destination})),
    ] {
        theirs.ask(&app, "POST", &uri, &body).await.problem(404, "not_found");
    }
    let batch = json!({"events": [{"type": "a", "data": 1, "destination_id": destination}]});
    let answer = theirs.ask(&app, "POST", "/v1/events/batch", &batch).await.expect(422);
    assert_eq!(answer["results"][0]["error"]["code"], "not_found");
    assert_eq!(ours.seen(&app).await, before);
}

/// A cursor gives nobody more than the list would.
#[tokio::test]
async fn a_cursor_of_another_tenant_shows_ones_own() {
    let app = App::start();
    let (ours, theirs) = (Home::new(&app, "ours").await, Home::new(&app, "theirs").await);
    for home in [&ours, &ours, &theirs, &theirs] {
        home.destination(&app).await;
    }
    let page = ours.ask(&app, "GET", "/v1/destinations?limit=1", &Value::Null).await.expect(200);
    let uri = format!("/v1/destinations?limit=1&cursor={}", text(&page["next_cursor"]));
    let next = theirs.ask(&app, "GET", &uri, &Value::Null).await.expect(200);
    let ids = ours.ids(&app).await;
    assert!(ids.iter().all(|id| !next.to_string().contains(id.as_str())), "{next}");
}

#[tokio::test]
async fn idempotency_keys_of_tenants_are_apart() {
    let app = App::start();
    let (ours, theirs) = (Home::new(&app, "ours").await, Home::new(&app, "theirs").await);
    let headers = [("idempotency-key", "the-same-key")];
    let body = json!({"url": "http://127.0.0.1:9999/"});
    let post = |key: String| {
        let (router, body) = (app.router.clone(), body.clone());
        async move { ask(&router, &key, "POST", "/v1/destinations", &headers, &body).await.expect(201) }
    };
    let (first, other) = (post(ours.key.clone()).await, post(theirs.key.clone()).await);
    assert_ne!(first["id"], other["id"]);
    assert_ne!(first["secret"], other["secret"]);
    let again = post(ours.key.clone()).await;
    assert_eq!((&again["id"], &again["secret"], &again["duplicate"]), (&first["id"], &first["secret"], &json!(true)));
    // The answer that was kept is encrypted, as is the row.
    let database = app.database();
    let secret = text(&first["secret"]).as_bytes();
    assert!(!database.windows(secret.len()).any(|bytes| bytes == secret));
}

/// A key of one tenant is looked for among its own.
#[tokio::test]
async fn a_key_is_revoked_in_its_own_tenant_only() {
    let app = App::start();
    let (ours, theirs) = (Home::new(&app, "ours").await, Home::new(&app, "theirs").await);
    let (id, key) = ours.new_key(&app, json!(["events:read"])).await;
    app.delete(&format!("/v1/tenants/{}/keys/{id}", theirs.slug)).await.problem(404, "not_found");
    ask(&app.router, &key, "GET", "/v1/events", &[], &Value::Null).await.expect(200);
}
