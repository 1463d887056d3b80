//! `/v1/events`: what was accepted, and what became of it. Accepting is in `crate::events`.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use signalpost_core::{Destination, EventId};
use signalpost_store::read::{AttemptFilter, DeliveryFilter, EventFilter};

use super::{
    attempts, deliveries,
    fields::{Fields, Violations, destination_name},
    filters::Range,
    named::Named as _,
    post,
    views::{
        attempt::AttemptBody,
        delivery::DeliveryBody,
        event::EventBody,
        replay::{EventReplayBody, EventReplayInput},
    },
};
use crate::{
    audit::{self, Change},
    auth::{DeadLettersWrite, EventsRead},
    idempotency::Answer,
    json::Body,
    openapi::params::{AttemptParams, DeliveryParams, EventParams, IncludeParams, PageParams, RangeParams},
    page::{List, ListQuery},
    problem::Problem,
    state::AppState,
};

/// Lists events
#[utoipa::path(
    get, path = "/v1/events", tag = "events", operation_id = "listEvents",
    params(EventParams, RangeParams, IncludeParams, PageParams),
    responses((status = 200, description = "One page.", body = List<EventBody>)),
    security(("bearer" = ["events:read"])),
)]
pub async fn list(State(state): State<AppState>, caller: EventsRead, body: Body) -> Result<Response, Problem> {
    let query = ListQuery::read(&body.parts, &["type", "uid", "source", "label.", "since", "until"], true)?;
    let range = Range::read(&query)?;
    let filter = EventFilter {
        event_type: query.filter("type").map(str::to_owned),
        uid: query.filter("uid").map(str::to_owned),
        source: query.filter("source").map(str::to_owned),
        labels: query.filters_under("label.").map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        since: range.since,
        until: range.until,
    };
    let found = state.ports.store.list_events(caller.tenant.id, &filter, query.page()?, query.with_data()).await?;
    let list = query.list(found, |view| view.event.id, |view| EventBody::new(&view, query.with_data()));
    Ok(Answer::json(StatusCode::OK, &list)?.into_response())
}

/// Reads an event
#[utoipa::path(
    get, path = "/v1/events/{id}", tag = "events", operation_id = "getEvent",
    params(("id" = String, Path, description = "Its id, or its `uid` (the newest with it).")),
    responses((status = 200, description = "The event, with its data.", body = EventBody)),
    security(("bearer" = ["events:read"])),
)]
pub async fn get(
    State(state): State<AppState>,
    caller: EventsRead,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let id = match name.parse() {
        Ok(id) => id,
        Err(_) => EventId::find(&state, caller.tenant.id, &name).await?,
    };
    let view = state.ports.store.event(caller.tenant.id, id).await?.ok_or_else(|| Problem::not_found(EventId::KIND))?;
    Ok(Answer::json(StatusCode::OK, &EventBody::new(&view, true))?.into_response())
}

/// Lists the deliveries of an event
#[utoipa::path(
    get, path = "/v1/events/{id}/deliveries", tag = "events", operation_id = "listEventDeliveries",
    params(
        ("id" = String, Path, description = "Its id, or its `uid` (the newest with it)."),
        DeliveryParams, RangeParams, PageParams,
    ),
    responses((status = 200, description = "One page.", body = List<DeliveryBody>)),
    security(("bearer" = ["events:read"])),
)]
pub async fn deliveries(
    State(state): State<AppState>,
    caller: EventsRead,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let id = EventId::find(&state, caller.tenant.id, &name).await?;
    let query = ListQuery::read(&body.parts, deliveries::FILTERS, false)?;
    let filter = DeliveryFilter { event_id: Some(id), ..deliveries::filter(&state, caller.tenant.id, &query).await? };
    deliveries::page(&state, caller.tenant.id, &query, &filter).await
}

/// Lists the attempts of an event
#[utoipa::path(
    get, path = "/v1/events/{id}/attempts", tag = "events", operation_id = "listEventAttempts",
    params(
        ("id" = String, Path, description = "Its id, or its `uid` (the newest with it)."),
        AttemptParams, RangeParams, PageParams,
    ),
    responses((status = 200, description = "One page.", body = List<AttemptBody>)),
    security(("bearer" = ["events:read"])),
)]
pub async fn attempts(
    State(state): State<AppState>,
    caller: EventsRead,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let id = EventId::find(&state, caller.tenant.id, &name).await?;
    let query = ListQuery::read(&body.parts, attempts::FILTERS, false)?;
    let filter = AttemptFilter { event_id: Some(id), ..attempts::filter(&state, caller.tenant.id, &query).await? };
    attempts::page(&state, caller.tenant.id, &query, &filter).await
}

/// Sends an event again
///
/// To each destination that it went to and that is still there, or to the one named. Every delivery is a new one.
#[utoipa::path(
    post, path = "/v1/events/{id}/replay", tag = "events", operation_id = "replayEvent",
    params(("id" = String, Path, description = "Its id, or its `uid` (the newest with it).")),
    request_body = Option<EventReplayInput>,
    responses((status = 202, description = "The new deliveries.", body = EventReplayBody)),
    security(("bearer" = ["dead_letters:write"])),
)]
pub async fn replay(
    State(state): State<AppState>,
    caller: DeadLettersWrite,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let (at, by) = (state.clone(), caller.0.clone());
    post::once(&state, &caller, body, |input| async move {
        let tenant = by.tenant.id;
        let event_id = EventId::find(&at, tenant, &name).await?;
        let members = input.object_if_any()?;
        let mut violations = Violations::default();
        let mut fields = Fields::new(&members, "", &mut violations);
        let destination = fields.parsed("destination_id", destination_name);
        fields.finish(&[]);
        let destination_id = match violations.or(destination)? {
            Some(name) => Some(Destination::find(&at, tenant, &name).await?.id),
            None => None,
        };
        let store = Arc::clone(&at.ports.store);
        audit::change(&at, &by, Change::new("event.replay", event_id), async move {
            let created = store.replay_event(tenant, event_id, destination_id).await?;
            let delivery_ids = created.ok_or_else(|| Problem::not_found(EventId::KIND))?;
            let body = EventReplayBody { event_id, deliveries: delivery_ids.len(), delivery_ids };
            Answer::json(StatusCode::ACCEPTED, &body)
        })
        .await
    })
    .await
}
