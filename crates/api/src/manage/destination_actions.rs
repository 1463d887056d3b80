//! `/v1/destinations/{id}/…`: pause, resume, secret, test.

use axum::{
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use signalpost_core::{
    AttemptOutcome, DeliveryId, Destination, Event, EventId, EventMeta, TenantId, classify::Answer as DestinationAnswer,
};
use signalpost_sender::Outgoing;
use signalpost_store::dispatch::Attempt;

use super::{
    destinations::open,
    named::Named as _,
    post,
    views::{
        attempt::AttemptBody,
        destination::{DestinationBody, SecretBody},
    },
};
use crate::{
    auth::{Caller, DestinationsWrite},
    idempotency::Answer,
    json::Body,
    problem::Problem,
    state::AppState,
};

/// The type of the event that a test sends. Producers cannot post it.
const PING: &str = "signalpost.ping";

/// Pauses a destination
///
/// Its deliveries wait until it is resumed; new ones wait, too. A disabled one stays disabled.
#[utoipa::path(
    post, path = "/v1/destinations/{id}/pause", tag = "destinations", operation_id = "pauseDestination",
    params(("id" = String, Path, description = "Its id, or its `uid`.")),
    responses((status = 200, description = "The destination as it is now.", body = DestinationBody)),
    security(("bearer" = ["destinations:write"])),
)]
pub async fn pause(
    State(state): State<AppState>,
    caller: DestinationsWrite,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    set_paused(state, caller.0, name, body, true).await
}

/// Resumes a destination
///
/// Makes a paused or disabled one active; what waits is due now. A circuit that is open tries it at once, also where it is active.
#[utoipa::path(
    post, path = "/v1/destinations/{id}/resume", tag = "destinations", operation_id = "resumeDestination",
    params(("id" = String, Path, description = "Its id, or its `uid`.")),
    responses((status = 200, description = "The destination as it is now.", body = DestinationBody)),
    security(("bearer" = ["destinations:write"])),
)]
pub async fn resume(
    State(state): State<AppState>,
    caller: DestinationsWrite,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    set_paused(state, caller.0, name, body, false).await
}

async fn set_paused(
    state: AppState,
    caller: Caller,
    name: String,
    body: Body,
    paused: bool,
) -> Result<Response, Problem> {
    let action = if paused { "destination.pause" } else { "destination.resume" };
    post::act(state, caller, action, name, body, move |state, tenant, destination: Destination| async move {
        let changed = state.ports.store.set_paused(tenant, destination.id, paused).await?;
        let changed = changed.ok_or_else(|| Problem::not_found(Destination::KIND))?;
        Answer::json(StatusCode::OK, &DestinationBody::new(&changed))
    })
    .await
}

/// Shows the signing secret of a destination
#[utoipa::path(
    get, path = "/v1/destinations/{id}/secret", tag = "destinations", operation_id = "getDestinationSecret",
    params(("id" = String, Path, description = "Its id, or its `uid`.")),
    responses((status = 200, description = "The secret.", body = SecretBody)),
    security(("bearer" = ["destinations:write"])),
)]
pub async fn secret(
    State(state): State<AppState>,
    caller: DestinationsWrite,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let destination = Destination::find(&state, caller.tenant.id, &name).await?;
    let body = SecretBody::new(&open(&state, &destination)?, state.ports.clock.now());
    Ok(Answer::json(StatusCode::OK, &body)?.into_response())
}

/// Sends a ping to a destination
///
/// One signed request of type `signalpost.ping`, at once: limits and pause do not hold it, it is not tried again and not
/// recorded. The answer is the attempt, whatever came of it.
#[utoipa::path(
    post, path = "/v1/destinations/{id}/test", tag = "destinations", operation_id = "testDestination",
    params(("id" = String, Path, description = "Its id, or its `uid`.")),
    responses((status = 200, description = "The attempt.", body = AttemptBody)),
    security(("bearer" = ["destinations:write"])),
)]
pub async fn test(
    State(state): State<AppState>,
    caller: DestinationsWrite,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    post::act(state, caller.0, "destination.test", name, body, |state, tenant, destination: Destination| async move {
        Answer::json(StatusCode::OK, &ping(&state, tenant, &destination).await)
    })
    .await
}

async fn ping(state: &AppState, tenant: TenantId, destination: &Destination) -> AttemptBody {
    let ports = &state.ports;
    let now = ports.clock.now();
    let data = serde_json::json!({"destination_id": destination.id, "message": "A test from Signalpost."});
    let event = Event {
        id: EventId::new(now, &*ports.entropy),
        tenant_id: tenant,
        event_type: PING.to_owned(),
        uid: None,
        source: None,
        meta: EventMeta { destination_id: Some(destination.id), ..EventMeta::default() },
        data: data.to_string().into(),
    };
    let delivery_id = DeliveryId::new(now, &*ports.entropy);
    let outgoing = Outgoing { destination, event: &event, delivery_id, attempt: 1, at: now, traceparent: None };
    let exchange = ports.sender.send(&outgoing).await;
    let arrived = matches!(exchange.answer, DestinationAnswer::Status { code: 200..=299, .. });
    let attempt = Attempt {
        number: 1,
        started_at: now,
        duration: exchange.duration,
        // It is not tried again: whatever is not delivered is dead.
        outcome: if arrived { AttemptOutcome::Delivered } else { AttemptOutcome::Dead },
        status_code: exchange.status_code,
        response_excerpt: exchange.response_excerpt,
        error: exchange.error,
    };
    AttemptBody::new(delivery_id, event.id, destination.id, &attempt)
}
