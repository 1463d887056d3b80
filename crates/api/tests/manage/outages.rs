//! When the store or the limits are away.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use axum::body::Body;
use serde_json::json;
use signalpost_api::Settings;
use signalpost_limits::{
    CircuitReport, CircuitView, Claim, Claimed, Limits, LimitsUnavailable, Owner, SlotUse, TokenGrant, TokenRequest,
};
use signalpost_store::dispatch::Next;

use crate::{app::App, edges::routes, faulty};

#[tokio::test]
async fn without_its_store_every_route_is_503_and_heals() {
    let (app, faults) = faulty::start(Settings::default());
    let destination = app.destination(json!({})).await;
    let replay = json!({"destination_id": destination}).to_string();
    let change = json!({"url": "http://127.0.0.1:9999/"}).to_string();
    faults.away.store(true, Ordering::SeqCst);
    for (method, path) in routes().into_iter().filter(|(_, path)| !path.starts_with("/v1/events/batch")) {
        let path = path.replace("nobody", "dst_01h2e8kqvbfwea724h75qc655w");
        let path = match path.split('/').nth(2) {
            Some("events") => path.replace("dst_", "evt_"),
            Some("deliveries" | "dead-letters") => path.replace("dst_", "dlv_"),
            Some("replays") => path.replace("dst_", "rpl_"),
            Some("tenants") => path.replace("dst_", "tnt_"),
            _ if method == http::Method::PUT => path.replace("dst_", "uid-"),
            _ => path,
        };
        let body = match path.as_str() {
            "/v1/replays" => replay.clone(),
            "/v1/tenants" => r#"{"name":"a"}"#.to_owned(),
            "/v1/events" => r#"{"type":"a","data":1}"#.to_owned(),
            _ => change.clone(),
        };
        let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
        let reply = app.with(method.clone(), &path, &headers, body).await;
        assert_eq!(reply.header("retry-after"), "1", "{method} {path}: {}", reply.body);
        reply.problem(503, "unavailable");
    }
    faults.away.store(false, Ordering::SeqCst);
    app.get(&format!("/v1/destinations/{destination}")).await.expect(200);
    app.with(http::Method::POST, "/v1/replays", &[("idempotency-key", "k")], Body::from(replay)).await.expect(202);
}

/// Limits that cannot be reached.
#[derive(Debug)]
struct Away;

#[async_trait]
impl Limits for Away {
    async fn take_tokens(&self, _: &[TokenRequest]) -> Result<Vec<TokenGrant>, LimitsUnavailable> {
        Err(LimitsUnavailable("away".to_owned()))
    }

    async fn claim(&self, _: Owner, _: &[Claim]) -> Result<Vec<Claimed>, LimitsUnavailable> {
        Err(LimitsUnavailable("away".to_owned()))
    }

    async fn renew(&self, _: Owner, _: &[Claim]) -> Result<(), LimitsUnavailable> {
        Err(LimitsUnavailable("away".to_owned()))
    }

    async fn release(&self, _: Owner, _: &[Claim]) -> Result<(), LimitsUnavailable> {
        Err(LimitsUnavailable("away".to_owned()))
    }

    async fn slots(&self, _: Owner, _: &[SlotUse]) -> Result<Vec<u32>, LimitsUnavailable> {
        Err(LimitsUnavailable("away".to_owned()))
    }

    async fn circuits(&self, _: Owner, _: &[CircuitReport]) -> Result<Vec<CircuitView>, LimitsUnavailable> {
        Err(LimitsUnavailable("away".to_owned()))
    }

    fn set_share(&self, _: u32) {}

    async fn check(&self) -> Result<(), LimitsUnavailable> {
        Err(LimitsUnavailable("away".to_owned()))
    }
}

#[tokio::test]
async fn without_the_limits_only_what_waits_in_the_store_can_be_cancelled() {
    let app = App::start_on(Settings::default(), |store| Arc::new(store), Some(Arc::new(Away)));
    let destination = app.destination(json!({})).await;
    let (_, deliveries) = app.event(&[&destination]).await;
    let path = format!("/v1/deliveries/{}", deliveries[0]);
    // It is on the bus, and a dispatcher may be sending it.
    app.act(&format!("{path}/cancel")).await.problem(409, "in_flight");
    app.attempted(&deliveries[0], Next::Retry { after: Duration::from_secs(60) }).await;
    app.act(&format!("{path}/retry")).await.expect(202);
    assert_eq!(app.act(&format!("{path}/cancel")).await.expect(200)["status"], "cancelled");
}
