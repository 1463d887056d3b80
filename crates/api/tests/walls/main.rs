//! The walls between tenants: who may do what, through the real router, on SQLite.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails in a helper fails the test")]

#[allow(dead_code, reason = "it serves the tests of all halves")]
#[path = "../manage/app.rs"]
mod app;
mod audit;
#[path = "../ingest/faulty.rs"]
#[allow(dead_code, reason = "it serves the tests of all halves")]
mod faulty;
mod home;
mod keys;
mod names;
mod quotas;
mod recipes;
mod registration;
mod tenants;
mod walk;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use app::{App, Reply, answer};
use axum::{Router, body::Body};
use http::{Method, Request};
use serde_json::Value;
use signalpost_core::{Clock, Timestamp};

/// A request with this key, these headers and this body.
async fn ask(router: &Router, key: &str, method: &str, uri: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
    let mut request = Request::builder().method(method.parse::<Method>().unwrap()).uri(uri);
    if !key.is_empty() {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() {
        Body::empty()
    } else {
        request = request.header("content-type", "application/json");
        Body::from(body.to_string())
    };
    answer(router.clone(), request.body(body).unwrap()).await
}

/// A new tenant of the operator's; what was answered.
async fn tenant(app: &App, body: Value) -> Value {
    app.post("/v1/tenants", body).await.expect(201)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// The time of day goes on, all else waits for the test.
#[derive(Debug)]
struct Held {
    app: Arc<dyn Clock>,
    elapsed: Mutex<Duration>,
}

impl Held {
    fn new(app: &App) -> Arc<Self> {
        Arc::new(Self { app: app.clock.clone(), elapsed: Mutex::new(Duration::from_secs(1000)) })
    }

    fn advance(&self, by: Duration) {
        *self.elapsed.lock().unwrap() += by;
    }
}

impl Clock for Held {
    fn now(&self) -> Timestamp {
        self.app.now()
    }

    fn elapsed(&self) -> Duration {
        *self.elapsed.lock().unwrap()
    }
}
