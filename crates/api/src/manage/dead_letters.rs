//! `/v1/dead-letters`: list, read, replay, discard.

use axum::{
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use signalpost_core::{DeliveryId, TenantId};
use signalpost_store::read::{DeadLetter, DeadLetterFilter};

use super::{
    deliveries,
    filters::{self, Range},
    post,
    views::{dead_letter::DeadLetterBody, delivery::DeliveryBody},
};
use crate::{
    auth::Tenant,
    idempotency::Answer,
    json::Body,
    openapi::params::{DeadLetterParams, IncludeParams, PageParams, RangeParams},
    page::{List, ListQuery},
    problem::Problem,
    state::AppState,
};

const NAME: &str = "dead letter";

/// The dead letter that a path names.
///
/// # Errors
/// 404; the store is away.
async fn find(state: &AppState, tenant: TenantId, name: &str) -> Result<DeadLetter, Problem> {
    let found = match name.parse::<DeliveryId>() {
        Ok(id) => state.ports.store.dead_letter(tenant, id).await?,
        Err(_) => None,
    };
    found.ok_or_else(|| Problem::not_found(NAME))
}

/// Lists dead letters
///
/// `since` and `until` go by the time of death.
#[utoipa::path(
    get, path = "/v1/dead-letters", tag = "dead letters", operation_id = "listDeadLetters",
    params(DeadLetterParams, RangeParams, IncludeParams, PageParams),
    responses((status = 200, description = "One page.", body = List<DeadLetterBody>)),
)]
pub async fn list(State(state): State<AppState>, tenant: Tenant, body: Body) -> Result<Response, Problem> {
    let query = ListQuery::read(&body.parts, &["destination_id", "event_type", "reason", "since", "until"], true)?;
    let range = Range::read(&query)?;
    let filter = DeadLetterFilter {
        destination_id: filters::destination_id(&query)?,
        event_type: query.filter("event_type").map(str::to_owned),
        reason: filters::reason(&query)?,
        since: range.since,
        until: range.until,
    };
    let found = state.ports.store.list_dead_letters(tenant.0, &filter, query.page()?, query.with_data()).await?;
    let list = query.list(found, |letter| letter.delivery_id, |letter| DeadLetterBody::new(&letter, query.with_data()));
    Ok(Answer::json(StatusCode::OK, &list)?.into_response())
}

/// Reads a dead letter
#[utoipa::path(
    get, path = "/v1/dead-letters/{id}", tag = "dead letters", operation_id = "getDeadLetter",
    params(("id" = String, Path, description = "The id of its delivery.")),
    responses((status = 200, description = "The dead letter, with its event's data.", body = DeadLetterBody)),
)]
pub async fn get(State(state): State<AppState>, tenant: Tenant, Path(name): Path<String>) -> Result<Response, Problem> {
    let letter = find(&state, tenant.0, &name).await?;
    Ok(Answer::json(StatusCode::OK, &DeadLetterBody::new(&letter, true))?.into_response())
}

/// Sends a dead letter again
///
/// It leaves the list.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/replay", tag = "dead letters", operation_id = "replayDeadLetter",
    params(("id" = String, Path, description = "The id of its delivery.")),
    responses((status = 202, description = "The new delivery.", body = DeliveryBody)),
)]
pub async fn replay(
    State(state): State<AppState>,
    tenant: Tenant,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let at = state.clone();
    post::once(&state, tenant, body, |input| async move {
        let letter = find(&at, tenant.0, &name).await?;
        input.nothing()?;
        let retried = at.ports.store.replay_dead_letter(tenant.0, letter.delivery_id).await?;
        deliveries::answer(&at, tenant.0, letter.delivery_id, retried, NAME).await
    })
    .await
}

/// Discards a dead letter
///
/// It leaves the list; its delivery stays dead, with the reason `discarded`.
#[utoipa::path(
    delete, path = "/v1/dead-letters/{id}", tag = "dead letters", operation_id = "discardDeadLetter",
    params(("id" = String, Path, description = "The id of its delivery.")),
    responses((status = 204, description = "It is off the list.")),
)]
pub async fn discard(
    State(state): State<AppState>,
    tenant: Tenant,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let id: DeliveryId = name.parse().map_err(|_| Problem::not_found(NAME))?;
    if state.ports.store.discard_dead_letter(tenant.0, id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found(NAME))
    }
}
