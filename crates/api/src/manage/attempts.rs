//! `/v1/attempts`, and the attempts of an event or a delivery.

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use signalpost_core::TenantId;
use signalpost_store::read::AttemptFilter;

use super::{
    filters::{self, Range},
    views::attempt::AttemptBody,
};
use crate::{
    auth::EventsRead,
    idempotency::Answer,
    json::Body,
    openapi::params::{AttemptParams, OfDeliveryParams, OfEventParams, PageParams, RangeParams},
    page::{List, ListQuery},
    problem::Problem,
    state::AppState,
};

/// The filters of the attempts of one event or delivery.
pub const FILTERS: &[&str] = &["destination_id", "outcome", "since", "until"];

/// Those of all attempts.
const ALL_FILTERS: &[&str] = &["destination_id", "outcome", "since", "until", "event_id", "delivery_id"];

/// Reads the filters that were given.
///
/// # Errors
/// 400; the store is away.
pub async fn filter(state: &AppState, tenant: TenantId, query: &ListQuery) -> Result<AttemptFilter, Problem> {
    let range = Range::read(query)?;
    Ok(AttemptFilter {
        event_id: filters::event_id(query)?,
        delivery_id: filters::delivery_id(query)?,
        destination_id: filters::destination_id(state, tenant, query).await?,
        outcome: filters::outcome(query)?,
        since: range.since,
        until: range.until,
    })
}

/// One page of attempts.
///
/// # Errors
/// 400; the store is away.
pub async fn page(
    state: &AppState,
    tenant: TenantId,
    query: &ListQuery,
    filter: &AttemptFilter,
) -> Result<Response, Problem> {
    let found = state.ports.store.list_attempts(tenant, filter, query.page()?).await?;
    let list = query.list(found, |view| (view.delivery_id, view.attempt.number), |view| AttemptBody::from(&view));
    Ok(Answer::json(StatusCode::OK, &list)?.into_response())
}

/// Lists attempts
///
/// Without `destination_id`, `event_id`, `delivery_id` and `since`: of the last 24 hours before `until`, or before now.
#[utoipa::path(
    get, path = "/v1/attempts", tag = "attempts", operation_id = "listAttempts",
    params(AttemptParams, OfEventParams, OfDeliveryParams, RangeParams, PageParams),
    responses((status = 200, description = "One page.", body = List<AttemptBody>)),
    security(("bearer" = ["events:read"])),
)]
pub async fn list(State(state): State<AppState>, caller: EventsRead, body: Body) -> Result<Response, Problem> {
    let query = ListQuery::read(&body.parts, ALL_FILTERS, false)?;
    let mut filter = filter(&state, caller.tenant.id, &query).await?;
    if filter.destination_id.is_none() && filter.event_id.is_none() && filter.delivery_id.is_none() {
        let range = Range { since: filter.since, until: filter.until }.bounded(&*state.ports.clock);
        (filter.since, filter.until) = (range.since, range.until);
    }
    page(&state, caller.tenant.id, &query, &filter).await
}
