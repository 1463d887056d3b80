//! `POST /v1/events`.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, request::Parts};
use sha2::{Digest as _, Sha256};
use signalpost_core::{DestinationId, TenantId};
use signalpost_store::{
    ingest::{AnswerOf, EventOutcome, KeyClaim, StoredAnswer},
    manage::{Begun, IdempotencyKey},
};

use super::{
    accept::{self, Committed, Prepared},
    answer::{self, EventAnswer},
    cloudevents, count_rejected, native,
    posted::{Keep, Posted},
    schema::{CloudEventBody, EventBody},
    signed::{self, Mark, Repeatable},
};
use crate::{
    auth::{Caller, EventsWrite},
    edge,
    idempotency::{self, Answer},
    json::{Body, Document, is_json, media_type, unsupported},
    problem::{Code, Problem},
    quota,
    state::AppState,
};

/// Accept an event
///
/// Routes the event to every destination that wants its type, and answers when it is durable. Also takes a
/// CloudEvents 1.0 event, structured (`application/cloudevents+json`) or binary (headers `ce-…`). With an
/// `Idempotency-Key` or a `uid` it may be sent again safely.
#[utoipa::path(
    post,
    path = "/v1/events",
    tag = "events",
    operation_id = "postEvent",
    request_body(content(
        (EventBody = "application/json"),
        (CloudEventBody = "application/cloudevents+json"),
    )),
    responses(
        (status = 202, description = "Accepted, or accepted before (`duplicate`)", body = EventAnswer),
    ),
    security(("bearer" = ["events:write"])),
)]
pub async fn post_event(State(state): State<AppState>, caller: EventsWrite, body: Body) -> Result<Response, Problem> {
    accept(&state, &caller, body).await.inspect_err(count_rejected)
}

async fn accept(state: &AppState, caller: &Caller, body: Body) -> Result<Response, Problem> {
    let tenant = caller.tenant.id;
    let form = Form::of(&body.parts.headers)?;
    let key = idempotency::key_of(&body.parts.headers)?;
    // Before the body: what is too much is not even read.
    let rate = state.quotas.take(&caller.tenant, 1)?;
    let (parts, bytes) = body.read(state.settings.max_event_bytes).await?;
    let signed = signed::check(state, &caller.tenant, &parts.headers, &bytes)?;
    let body_hash = key.is_some().then(|| hash(&parts, &bytes));
    let mut posted = form.read(&parts.headers, bytes)?;
    quota::check_event(&caller.tenant.spec.quotas, &posted.data)?;
    posted.meta.traceparent = edge::traceparent(&parts.headers);

    // The attributes of the binary form are headers, which nobody signs.
    let repeatable = Repeatable::new(key.as_deref(), posted.uid.is_some() && form != Form::Binary);
    let mark = Mark::take(state, tenant, signed, "/v1/events", repeatable).await?;
    let key = key.zip(body_hash);
    let mut response = match mark {
        None => take(state, tenant, posted, key).await?,
        Some(mark) => {
            let at = state.clone();
            mark.around(state, async move { take(&at, tenant, posted, key).await }).await?
        }
    };
    rate.into_iter().for_each(|rate| rate.write(response.headers_mut()));
    Ok(response)
}

/// Commits an event and answers, once per key.
async fn take(
    state: &AppState,
    tenant: TenantId,
    posted: Posted,
    key: Option<(String, [u8; 32])>,
) -> Result<Response, Problem> {
    let destination = posted.meta.destination_id;
    let prepared = Prepared::new(state, tenant, posted);
    let mut first = Bytes::new();
    let committed = accept::commit(state, tenant, std::slice::from_ref(&prepared), |routing| {
        let routed = accept::route(state, routing, &prepared, &mut accept::Room::new(state))?;
        first = routed.answer();
        let claim = key.as_ref().map(|(key, body_hash)| KeyClaim {
            scope: idempotency::scope("/v1/events", destination),
            key: key.clone(),
            body_hash: *body_hash,
            ttl: state.settings.idempotency_ttl,
            answer: stored_answer(first.clone()),
        });
        Ok(accept::unit(state, tenant, routing, claim, vec![routed]))
    })
    .await;
    let committed =
        match (committed, key) {
            (Err(problem), Some(key)) if problem.code == Code::NotFound => before(state, tenant, destination, key)
                .await?
                .map_or(Err(problem), |answer| Ok(Committed::Before(answer)))?,
            (committed, _) => committed?,
        };
    Ok(match committed {
        Committed::Now(outcomes) => {
            let outcome = outcomes.first().ok_or_else(|| Problem::internal(&"an event without an outcome"))?;
            let body = answer::result_of(outcome, &first)?;
            let response = Answer { body, ..Answer::empty(StatusCode::ACCEPTED) }.into_response();
            if matches!(outcome, EventOutcome::Duplicate(_)) { idempotency::replayed(response) } else { response }
        }
        Committed::Before(StoredAnswer { status, body }) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::ACCEPTED);
            let body = answer::as_duplicate(&body);
            idempotency::replayed(Answer { body, ..Answer::empty(status) }.into_response())
        }
    })
}

/// The first answer to a key whose event cannot be routed any more, as its destination has gone since.
async fn before(
    state: &AppState,
    tenant: TenantId,
    destination: Option<DestinationId>,
    (key, body_hash): (String, [u8; 32]),
) -> Result<Option<StoredAnswer>, Problem> {
    let key = IdempotencyKey {
        scope: idempotency::scope("/v1/events", destination),
        key,
        body_hash,
        ttl: state.settings.idempotency_ttl,
    };
    let store = &state.ports.store;
    match store.begin_idempotent(tenant, &key, Duration::from_secs(5)).await? {
        Begun::Answered(answer) => Ok(Some(answer)),
        Begun::Mismatch => Err(idempotency::mismatch()),
        Begun::InFlight => Ok(None),
        Begun::First => {
            store.finish_idempotent(tenant, &key, None).await?;
            Ok(None)
        }
    }
}

fn stored_answer(first: Bytes) -> AnswerOf {
    Arc::new(move |outcomes| match outcomes.first() {
        Some(outcome) => answer::single(&answer::result_of(outcome, &first)),
        None => StoredAnswer { status: StatusCode::ACCEPTED.as_u16(), body: first.clone() },
    })
}

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Native,
    Structured,
    Binary,
}

impl Form {
    /// By the headers of its request.
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let media_type = media_type(headers);
        match media_type.as_deref() {
            Some(cloudevents::STRUCTURED) => Ok(Self::Structured),
            Some(cloudevents::BATCH) => Err(unsupported("that of one event; batches go to /v1/events/batch")),
            _ if cloudevents::is_binary(headers) => Ok(Self::Binary),
            None => Ok(Self::Native),
            Some(media_type) if is_json(media_type) => Ok(Self::Native),
            Some(_) => Err(unsupported("application/json or application/cloudevents+json")),
        }
    }

    fn read(self, headers: &HeaderMap, bytes: Bytes) -> Result<Posted, Problem> {
        if self == Self::Binary {
            return cloudevents::read_binary(headers, bytes);
        }
        let document = Document::new(bytes)?;
        let keep = Keep::PartOf(document.bytes());
        if self == Self::Structured {
            cloudevents::read_structured(document.text(), keep)
        } else {
            native::read(document.text(), keep)
        }
    }
}

/// What makes two requests the same: content type, CloudEvents headers, body.
fn hash(parts: &Parts, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(media_type(&parts.headers).unwrap_or_default());
    hash.update([0]);
    let mut attributes: Vec<_> = parts.headers.iter().filter(|(name, _)| name.as_str().starts_with("ce-")).collect();
    attributes.sort_by_key(|(name, value)| (name.as_str(), value.as_bytes()));
    for (name, value) in attributes {
        hash.update(name.as_str());
        hash.update([0]);
        hash.update(value.as_bytes());
        hash.update([0]);
    }
    hash.update([0]);
    hash.update(body);
    hash.finalize().into()
}
