//! `/v1/deliveries`: list, read, retry, cancel.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use signalpost_core::{DeliveryId, DeliveryState, DestinationId, TenantId};
use signalpost_limits::{Claim, Claimed, Owner};
use signalpost_store::{
    manage::{Cancelled, Retried},
    read::{AttemptFilter, DeliveryFilter, DeliveryView},
};

use super::{
    attempts,
    filters::{self, Range},
    named::Named as _,
    post,
    views::{
        attempt::AttemptBody,
        delivery::{DeliveryBody, Held},
    },
};
use crate::{
    auth::{DeadLettersWrite, EventsRead},
    idempotency::Answer,
    json::Body,
    openapi::params::{AttemptParams, DeliveryParams, OfEventParams, PageParams, RangeParams},
    page::{List, ListQuery},
    problem::{Code, Problem},
    state::AppState,
};

/// The filters of an event's deliveries.
pub const FILTERS: &[&str] = &["destination_id", "status", "event_type", "since", "until"];

/// Those of all deliveries.
const ALL_FILTERS: &[&str] = &["destination_id", "status", "event_type", "since", "until", "event_id"];

/// How often a cancel looks again that met an attempt.
const TRIES: usize = 5;

/// Reads the filters that were given.
///
/// # Errors
/// 400; the store is away.
pub async fn filter(state: &AppState, tenant: TenantId, query: &ListQuery) -> Result<DeliveryFilter, Problem> {
    let range = Range::read(query)?;
    Ok(DeliveryFilter {
        event_id: filters::event_id(query)?,
        destination_id: filters::destination_id(state, tenant, query).await?,
        status: filters::status(query)?,
        event_type: query.filter("event_type").map(str::to_owned),
        since: range.since,
        until: range.until,
    })
}

/// One page of deliveries.
///
/// # Errors
/// 400; the store is away.
pub async fn page(
    state: &AppState,
    tenant: TenantId,
    query: &ListQuery,
    filter: &DeliveryFilter,
) -> Result<Response, Problem> {
    let found = state.ports.store.list_deliveries(tenant, filter, query.page()?).await?;
    let held = held(state, &found).await?;
    let now = state.ports.clock.now();
    let show = |view: DeliveryView| DeliveryBody::new(&view, held.get(&view.destination_id).copied(), now);
    let list = query.list(found, |view| view.id, show);
    Ok(Answer::json(StatusCode::OK, &list)?.into_response())
}

/// Which destinations of waiting deliveries are not sent to now, and why.
async fn held(state: &AppState, views: &[DeliveryView]) -> Result<BTreeMap<DestinationId, Held>, Problem> {
    let waiting: BTreeSet<DestinationId> =
        views.iter().filter(|view| view.state == DeliveryState::Waiting).map(|view| view.destination_id).collect();
    if waiting.is_empty() {
        return Ok(BTreeMap::new());
    }
    let ids: Vec<DestinationId> = waiting.into_iter().collect();
    let destinations = state.ports.store.destinations(&ids).await?;
    Ok(destinations.iter().filter_map(|destination| Some((destination.id, Held::of(destination)?))).collect())
}

async fn show(state: &AppState, view: DeliveryView) -> Result<DeliveryBody, Problem> {
    let held = held(state, std::slice::from_ref(&view)).await?;
    Ok(DeliveryBody::new(&view, held.get(&view.destination_id).copied(), state.ports.clock.now()))
}

/// What a retry or a replay of one delivery answers.
///
/// # Errors
/// 404, 409; the store is away.
pub async fn answer(
    state: &AppState,
    tenant: TenantId,
    id: DeliveryId,
    retried: Retried,
    what: &str,
) -> Result<Answer, Problem> {
    let shown = match retried {
        Retried::DueNow => id,
        Retried::Again(new) => new,
        Retried::InFlight => return Err(in_flight()),
        Retried::AtMostOnce => {
            return Err(Problem::new(
                Code::AtMostOnce,
                "It was to be sent once at most, and has ended. Its event can be sent again by a replay, which is a new delivery.",
            ));
        }
        Retried::Gone => {
            return Err(Problem::new(Code::Gone, "Its destination is deleted, or its event is past its retention."));
        }
        Retried::NotFound => return Err(Problem::not_found(what)),
    };
    let view = state.ports.store.delivery(tenant, shown).await?.ok_or_else(|| Problem::not_found(what))?;
    Answer::json(StatusCode::ACCEPTED, &show(state, view).await?)
}

fn in_flight() -> Problem {
    Problem::new(Code::InFlight, "A request of this delivery is out at this moment.")
}

/// Lists deliveries
///
/// Without `destination_id`, `event_id` and `since`: of the last 24 hours before `until`, or before now.
#[utoipa::path(
    get, path = "/v1/deliveries", tag = "deliveries", operation_id = "listDeliveries",
    params(DeliveryParams, OfEventParams, RangeParams, PageParams),
    responses((status = 200, description = "One page.", body = List<DeliveryBody>)),
    security(("bearer" = ["events:read"])),
)]
pub async fn list(State(state): State<AppState>, caller: EventsRead, body: Body) -> Result<Response, Problem> {
    let query = ListQuery::read(&body.parts, ALL_FILTERS, false)?;
    let mut filter = filter(&state, caller.tenant.id, &query).await?;
    if filter.destination_id.is_none() && filter.event_id.is_none() {
        let range = Range { since: filter.since, until: filter.until }.bounded(&*state.ports.clock);
        (filter.since, filter.until) = (range.since, range.until);
    }
    page(&state, caller.tenant.id, &query, &filter).await
}

/// Reads a delivery
#[utoipa::path(
    get, path = "/v1/deliveries/{id}", tag = "deliveries", operation_id = "getDelivery",
    params(("id" = String, Path, description = "Its id.")),
    responses((status = 200, description = "The delivery.", body = DeliveryBody)),
    security(("bearer" = ["events:read"])),
)]
pub async fn get(
    State(state): State<AppState>,
    caller: EventsRead,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let view = DeliveryView::find(&state, caller.tenant.id, &name).await?;
    Ok(Answer::json(StatusCode::OK, &show(&state, view).await?)?.into_response())
}

/// Lists the attempts of a delivery
#[utoipa::path(
    get, path = "/v1/deliveries/{id}/attempts", tag = "deliveries", operation_id = "listDeliveryAttempts",
    params(("id" = String, Path, description = "Its id."), AttemptParams, RangeParams, PageParams),
    responses((status = 200, description = "One page.", body = List<AttemptBody>)),
    security(("bearer" = ["events:read"])),
)]
pub async fn attempts(
    State(state): State<AppState>,
    caller: EventsRead,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let view = DeliveryView::find(&state, caller.tenant.id, &name).await?;
    let query = ListQuery::read(&body.parts, attempts::FILTERS, false)?;
    let filter =
        AttemptFilter { delivery_id: Some(view.id), ..attempts::filter(&state, caller.tenant.id, &query).await? };
    attempts::page(&state, caller.tenant.id, &query, &filter).await
}

/// Retries a delivery
///
/// One that waits is due now (limits, pause and order still hold it); one that has ended is sent again by a new delivery.
#[utoipa::path(
    post, path = "/v1/deliveries/{id}/retry", tag = "deliveries", operation_id = "retryDelivery",
    params(("id" = String, Path, description = "Its id.")),
    responses((status = 202, description = "The delivery, or the new one that sends it again.", body = DeliveryBody)),
    security(("bearer" = ["dead_letters:write"])),
)]
pub async fn retry(
    State(state): State<AppState>,
    caller: DeadLettersWrite,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    post::act(state, caller.0, "delivery.retry", name, body, |state, tenant, view: DeliveryView| async move {
        if !view.state.is_final() {
            let held = claim(&state, &view).await?;
            release(&state, held).await;
        }
        let retried = state.ports.store.retry_delivery(tenant, view.id).await?;
        answer(&state, tenant, view.id, retried, DeliveryView::KIND).await
    })
    .await
}

/// Cancels a delivery
///
/// One that is cancelled already is answered as it is.
#[utoipa::path(
    post, path = "/v1/deliveries/{id}/cancel", tag = "deliveries", operation_id = "cancelDelivery",
    params(("id" = String, Path, description = "Its id.")),
    responses((status = 200, description = "The delivery, cancelled.", body = DeliveryBody)),
    security(("bearer" = ["dead_letters:write"])),
)]
pub async fn cancel(
    State(state): State<AppState>,
    caller: DeadLettersWrite,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    post::act(state, caller.0, "delivery.cancel", name, body, |state, tenant, view: DeliveryView| async move {
        let cancelled = cancel_claimed(&state, tenant, view).await?;
        Answer::json(StatusCode::OK, &show(&state, cancelled).await?)
    })
    .await
}

/// Takes the claim on the next attempt of a delivery, so that no dispatcher begins it; the owner to release it with. None
/// where the limits are away and the delivery waits in the store, which a dispatcher asks before it sends it.
///
/// # Errors
/// 409: a dispatcher has it, so a request is out; or it is on its way and the limits are away, so that one may be.
async fn claim(state: &AppState, view: &DeliveryView) -> Result<Option<(Owner, Claim)>, Problem> {
    let ports = &state.ports;
    let mut random = [0; 8];
    ports.entropy.fill(&mut random);
    let owner = Owner::from_le_bytes(random);
    let claim = Claim { delivery_id: view.id, attempt: view.attempts.saturating_add(1) };
    match ports.limits.claim(owner, &[claim]).await {
        Ok(answers) if answers.contains(&Claimed::Others) => Err(in_flight()),
        Ok(_) => Ok(Some((owner, claim))),
        Err(error) => {
            tracing::warn!(%error, delivery.id = %view.id, "the limits are away: there is no claim");
            if view.state == DeliveryState::Queued { Err(in_flight()) } else { Ok(None) }
        }
    }
}

async fn release(state: &AppState, held: Option<(Owner, Claim)>) {
    let Some((owner, claim)) = held else { return };
    if let Err(error) = state.ports.limits.release(owner, &[claim]).await {
        tracing::warn!(%error, delivery.id = %claim.delivery_id, "the claim was not released and runs out by itself");
    }
}

/// Cancels while holding the claim on the next attempt.
async fn cancel_claimed(state: &AppState, tenant: TenantId, mut view: DeliveryView) -> Result<DeliveryView, Problem> {
    for _ in 0..TRIES {
        if view.state.is_final() {
            return cancel_held(state, tenant, &view).await?.ok_or_else(in_flight);
        }
        let held = claim(state, &view).await?;
        match cancel_held(state, tenant, &view).await {
            // The claim stays until it runs out: by then a message that is still on the bus is so old that its dispatcher
            // asks the store first.
            Ok(Some(view)) => return Ok(view),
            Ok(None) => {
                release(state, held).await;
                view = reread(state, tenant, &view).await?;
            }
            Err(problem) => {
                release(state, held).await;
                return Err(problem);
            }
        }
    }
    Err(in_flight())
}

/// None: an attempt ended between the look and the claim, so the claim is on the wrong one.
async fn cancel_held(state: &AppState, tenant: TenantId, seen: &DeliveryView) -> Result<Option<DeliveryView>, Problem> {
    let now = reread(state, tenant, seen).await?;
    if now.attempts != seen.attempts && !now.state.is_final() {
        return Ok(None);
    }
    match state.ports.store.cancel_delivery(tenant, seen.id).await? {
        Cancelled::Yes => reread(state, tenant, seen).await.map(Some),
        Cancelled::InFlight => Err(in_flight()),
        Cancelled::Ended(status) => {
            Err(Problem::new(Code::AlreadyEnded, format!("The delivery has ended: it is {status}.")))
        }
        Cancelled::NotFound => Err(Problem::not_found(DeliveryView::KIND)),
    }
}

async fn reread(state: &AppState, tenant: TenantId, view: &DeliveryView) -> Result<DeliveryView, Problem> {
    state.ports.store.delivery(tenant, view.id).await?.ok_or_else(|| Problem::not_found(DeliveryView::KIND))
}
