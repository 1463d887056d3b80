//! The ingest half of the API, rule by rule, through the real router, on SQLite and the in-process bus.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails in a helper fails the test")]

#[allow(dead_code, reason = "it serves the management half's tests, too")]
#[path = "../manage/app.rs"]
mod app;
mod batch;
mod cloudevents;
mod edge;
mod events;
mod faults;
mod faulty;
mod idempotency;
mod lanes;
mod routing;
mod signed;

use std::{sync::Arc, time::Duration};

use app::{App, Reply};
use http::Method;
use serde_json::Value;
use signalpost_bus::{Bus as _, Delivered, Message};
use signalpost_core::{Event, TenantId};
use signalpost_store::ReadStore as _;

/// Posts an event as it is written.
async fn post(app: &App, body: &str) -> Reply {
    post_with(app, &[], body).await
}

/// Posts an event with further headers.
async fn post_with(app: &App, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut all = vec![("content-type", "application/json")];
    all.extend(headers);
    app.with(Method::POST, "/v1/events", &all, body.to_owned()).await
}

/// The event that an answer tells of, as the store has it.
async fn stored(app: &App, answer: &Value) -> Arc<Event> {
    let id = answer["id"].as_str().unwrap().parse().unwrap();
    app.store.event(TenantId::DEFAULT, id).await.unwrap().unwrap().event
}

/// So many messages off the bus.
async fn messages(app: &App, count: usize) -> Vec<Arc<Message>> {
    let mut consumer = app.bus.consume().await.unwrap();
    let mut messages = Vec::new();
    while messages.len() < count {
        let received = tokio::time::timeout(Duration::from_secs(10), consumer.receive(1000)).await;
        for delivered in received.expect("the bus has fewer messages").unwrap() {
            match delivered {
                Delivered::Message { message, .. } => messages.push(message),
                other => panic!("{other:?}"),
            }
        }
    }
    messages
}
