//! `/v1/dead-letters`: list, read, replay, discard.

use axum::{
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use signalpost_core::{DeliveryId, DeliveryState, TenantId};
use signalpost_store::{
    manage::Retried,
    read::{DeadLetter, DeadLetterFilter, DeliveryView},
};

use super::{
    deliveries,
    filters::{self, Range},
    named::Named,
    post,
    views::{dead_letter::DeadLetterBody, delivery::DeliveryBody},
};
use crate::{
    audit::{self, Change},
    auth::{DeadLettersWrite, EventsRead},
    idempotency::Answer,
    json::Body,
    openapi::params::{DeadLetterParams, IncludeParams, PageParams, RangeParams},
    page::{List, ListQuery},
    problem::{Code, Problem},
    state::AppState,
};

/// A dead letter that is about to be replayed.
struct Replayable(DeliveryId);

impl Named for Replayable {
    const KIND: &'static str = DeadLetter::KIND;

    fn id(&self) -> String {
        self.0.to_string()
    }

    async fn look(state: &AppState, tenant: TenantId, name: &str) -> Result<Option<Self>, Problem> {
        if let Some(letter) = DeadLetter::look(state, tenant, name).await? {
            return Ok(Some(Self(letter.delivery_id)));
        }
        check_not_replayed(state, tenant, name).await.map(|()| None)
    }
}

/// Tells of the new delivery, where a dead letter is off the list because it was replayed.
async fn check_not_replayed(state: &AppState, tenant: TenantId, name: &str) -> Result<(), Problem> {
    let view = DeliveryView::look(state, tenant, name).await?;
    match view.filter(|view| view.state == DeliveryState::Dead).and_then(|view| view.replayed_by) {
        Some(new) => {
            Err(Problem::new(Code::AlreadyReplayed, format!("It was replayed before: the new delivery is {new}.")))
        }
        None => Ok(()),
    }
}

/// Lists dead letters
///
/// `since` and `until` go by the time of death.
#[utoipa::path(
    get, path = "/v1/dead-letters", tag = "dead letters", operation_id = "listDeadLetters",
    params(DeadLetterParams, RangeParams, IncludeParams, PageParams),
    responses((status = 200, description = "One page.", body = List<DeadLetterBody>)),
    security(("bearer" = ["events:read"])),
)]
pub async fn list(State(state): State<AppState>, caller: EventsRead, body: Body) -> Result<Response, Problem> {
    let query = ListQuery::read(&body.parts, &["destination_id", "event_type", "reason", "since", "until"], true)?;
    let range = Range::read(&query)?;
    let filter = DeadLetterFilter {
        destination_id: filters::destination_id(&state, caller.tenant.id, &query).await?,
        event_type: query.filter("event_type").map(str::to_owned),
        reason: filters::reason(&query)?,
        since: range.since,
        until: range.until,
    };
    let found =
        state.ports.store.list_dead_letters(caller.tenant.id, &filter, query.page()?, query.with_data()).await?;
    let list = query.list(found, |letter| letter.delivery_id, |letter| DeadLetterBody::new(&letter, query.with_data()));
    Ok(Answer::json(StatusCode::OK, &list)?.into_response())
}

/// Reads a dead letter
#[utoipa::path(
    get, path = "/v1/dead-letters/{id}", tag = "dead letters", operation_id = "getDeadLetter",
    params(("id" = String, Path, description = "The id of its delivery.")),
    responses((status = 200, description = "The dead letter, with its event's data.", body = DeadLetterBody)),
    security(("bearer" = ["events:read"])),
)]
pub async fn get(
    State(state): State<AppState>,
    caller: EventsRead,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let letter = DeadLetter::find(&state, caller.tenant.id, &name).await?;
    Ok(Answer::json(StatusCode::OK, &DeadLetterBody::new(&letter, true))?.into_response())
}

/// Sends a dead letter again
///
/// It leaves the list.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/replay", tag = "dead letters", operation_id = "replayDeadLetter",
    params(("id" = String, Path, description = "The id of its delivery.")),
    responses((status = 202, description = "The new delivery.", body = DeliveryBody)),
    security(("bearer" = ["dead_letters:write"])),
)]
pub async fn replay(
    State(state): State<AppState>,
    caller: DeadLettersWrite,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    post::act(
        state,
        caller.0,
        "dead_letter.replay",
        name,
        body,
        |state, tenant, Replayable(id): Replayable| async move {
            let retried = state.ports.store.replay_dead_letter(tenant, id).await?;
            if retried == Retried::NotFound {
                // Another request was faster.
                check_not_replayed(&state, tenant, &id.to_string()).await?;
            }
            deliveries::answer(&state, tenant, id, retried, Replayable::KIND).await
        },
    )
    .await
}

/// Discards a dead letter
///
/// It leaves the list; its delivery stays dead, with the reason `discarded`.
#[utoipa::path(
    delete, path = "/v1/dead-letters/{id}", tag = "dead letters", operation_id = "discardDeadLetter",
    params(("id" = String, Path, description = "The id of its delivery.")),
    responses((status = 204, description = "It is off the list.")),
    security(("bearer" = ["dead_letters:write"])),
)]
pub async fn discard(
    State(state): State<AppState>,
    caller: DeadLettersWrite,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let id = DeadLetter::find(&state, caller.tenant.id, &name).await?.delivery_id;
    let (at, tenant) = (state.clone(), caller.tenant.id);
    let discard = async move {
        let discarded = at.ports.store.discard_dead_letter(tenant, id).await?;
        if discarded { Ok(Answer::empty(StatusCode::NO_CONTENT)) } else { Err(Problem::not_found(DeadLetter::KIND)) }
    };
    Ok(audit::change(&state, &caller, Change::new("dead_letter.discard", id), discard).await?.into_response())
}
