//! `POST /v1/events/batch`.
//!
//! Without a key each event is a unit of its own: it is committed, refused or routed again without the others. With a
//! key the whole batch is one unit, so that its answer and its events are kept together.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::StatusCode;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use signalpost_core::TenantId;
use signalpost_store::ingest::{EventOutcome, KeyClaim, StoredAnswer};

use super::{
    accept::{self, Committed, Prepared},
    answer::{self, ItemResult},
    cloudevents, count_rejected, native,
    posted::{Keep, Posted},
    schema::{BatchAnswerBody, BatchBody, CloudEventBody},
    signed::{self, Mark, Repeatable},
};
use crate::{
    auth::{Caller, EventsWrite},
    edge,
    idempotency::{self, Answer},
    json::{Body, MAX_DEPTH, Members, check_text, is_json, is_shallow, too_deep, unsupported},
    problem::{Code, FieldError, Problem},
    quota,
    settings::{MAX_BATCH_BYTES, MAX_BATCH_EVENTS},
    state::AppState,
};

/// Accept many events
///
/// At most 1,000 events and 16 MiB: `{"events": […]}`, NDJSON (an event a line), or a CloudEvents batch. Not atomic: each
/// event is accepted or rejected by itself, and the results stand in the order of the events.
#[utoipa::path(
    post,
    path = "/v1/events/batch",
    tag = "events",
    operation_id = "postEvents",
    request_body(content(
        (BatchBody = "application/json"),
        (String = "application/x-ndjson"),
        (Vec<CloudEventBody> = "application/cloudevents-batch+json"),
    )),
    responses(
        (status = 202, description = "All were accepted", body = BatchAnswerBody),
        (status = 207, description = "Some were accepted", body = BatchAnswerBody),
        (status = 422, description = "None was accepted, or the batch breaks a rule (then a problem)", body = BatchAnswerBody),
    ),
    security(("bearer" = ["events:write"])),
)]
pub async fn post_batch(State(state): State<AppState>, caller: EventsWrite, body: Body) -> Result<Response, Problem> {
    accept(&state, &caller, body).await.inspect_err(count_rejected)
}

async fn accept(state: &AppState, caller: &Caller, body: Body) -> Result<Response, Problem> {
    let tenant = caller.tenant.id;
    let form = Form::of(body.media_type().as_deref())?;
    let key = idempotency::key_of(&body.parts.headers)?;
    let (parts, bytes) = body.read(MAX_BATCH_BYTES).await?;
    let body_hash: Option<[u8; 32]> =
        key.is_some().then(|| Sha256::new().chain_update([form as u8]).chain_update(&bytes).finalize().into());
    let signed = signed::check(state, &caller.tenant, &parts.headers, &bytes)?;
    let traceparent = edge::traceparent(&parts.headers);
    let items = form.read(&bytes, state.settings.max_event_bytes)?;
    let rate = state.quotas.take(&caller.tenant, items.len())?;
    let items: Vec<Result<Prepared, Problem>> = items
        .into_iter()
        .map(|posted| {
            let mut posted = posted?;
            quota::check_event(&caller.tenant.spec.quotas, &posted.data)?;
            posted.meta.traceparent.clone_from(&traceparent);
            Ok(Prepared::new(state, tenant, posted))
        })
        .collect();
    drop(bytes);
    let all_have_uids = items.iter().all(|item| item.as_ref().is_ok_and(|prepared| prepared.event.uid.is_some()));
    let repeatable = Repeatable::new(key.as_deref(), all_have_uids);
    let mark = Mark::take(state, tenant, signed, "/v1/events/batch", repeatable).await?;
    let key = key.zip(body_hash);
    let mut response = match mark {
        None => take(state, tenant, items, key).await?,
        Some(mark) => {
            let at = state.clone();
            mark.around(state, async move { take(&at, tenant, items, key).await }).await?
        }
    };
    rate.into_iter().for_each(|rate| rate.write(response.headers_mut()));
    Ok(response)
}

/// Commits the events of a batch: all together where it has a key, else each for itself.
async fn take(
    state: &AppState,
    tenant: TenantId,
    items: Vec<Result<Prepared, Problem>>,
    key: Option<(String, [u8; 32])>,
) -> Result<Response, Problem> {
    match key {
        None => each(state, tenant, items).await,
        Some((key, body_hash)) => whole(state, tenant, items, key, body_hash).await,
    }
}

/// Each event for itself.
async fn each(state: &AppState, tenant: TenantId, items: Vec<Result<Prepared, Problem>>) -> Result<Response, Problem> {
    let good: Vec<Prepared> = items.iter().filter_map(|item| item.as_ref().ok()).cloned().collect();
    let mut committed = accept::commit_each(state, tenant, &good).await.into_iter();
    let missing = || Err(Problem::internal(&"an event without an outcome"));
    let results: Vec<ItemResult> = items
        .into_iter()
        .map(|item| match item {
            Ok(_) => committed.next().unwrap_or_else(missing),
            Err(problem) => Err(problem),
        })
        .collect();
    let unknown = |result: &&ItemResult| result.as_ref().is_err_and(|problem| problem.code == Code::Unavailable);
    if results.iter().all(|result| result.is_err())
        && let Some(Err(problem)) = results.iter().find(unknown)
    {
        return Err(problem.clone());
    }
    for problem in results.iter().filter_map(|result| result.as_ref().err()) {
        count_rejected(problem);
    }
    Ok(respond(answer::batch(&results)))
}

/// All events in one unit, under one key.
async fn whole(
    state: &AppState,
    tenant: TenantId,
    items: Vec<Result<Prepared, Problem>>,
    key: String,
    body_hash: [u8; 32],
) -> Result<Response, Problem> {
    let places = places(&items);
    let good: Vec<Prepared> = items.iter().filter_map(|item| item.as_ref().ok()).cloned().collect();
    let mut shown = None;
    let committed = accept::commit(state, tenant, &good, |routing| {
        let mut routed = Vec::new();
        let mut room = accept::Room::new(state);
        let mut slots = Vec::with_capacity(items.len());
        for (item, place) in items.iter().zip(&places) {
            slots.push(match (item, place) {
                (Err(problem), _) => Slot::Failed(problem.clone()),
                (Ok(_), Some(repeat)) => Slot::Repeat(*repeat),
                (Ok(prepared), None) => match accept::route(state, routing, prepared, &mut room) {
                    Ok(event) => {
                        let answer = event.answer();
                        routed.push(event);
                        Slot::Event { place: routed.len() - 1, answer }
                    }
                    Err(problem) => Slot::Failed(problem),
                },
            });
        }
        let slots = Arc::new(slots);
        shown = Some(Arc::clone(&slots));
        let claim = KeyClaim {
            scope: "POST /v1/events/batch".to_owned(),
            key: key.clone(),
            body_hash,
            ttl: state.settings.idempotency_ttl,
            answer: Arc::new(move |outcomes| answer::batch(&results(&slots, outcomes))),
        };
        Ok(accept::unit(state, tenant, routing, Some(claim), routed))
    })
    .await?;
    match committed {
        Committed::Now(outcomes) => {
            let results = results(&shown.unwrap_or_default(), &outcomes);
            for problem in results.iter().filter_map(|result| result.as_ref().err()) {
                count_rejected(problem);
            }
            Ok(respond(answer::batch(&results)))
        }
        Committed::Before(mut stored) => {
            stored.body = answer::batch_as_duplicate(&stored.body);
            Ok(idempotency::replayed(respond(stored)))
        }
    }
}

/// A batch's answer is no problem, whatever its status.
fn respond(stored: StoredAnswer) -> Response {
    let status = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::ACCEPTED);
    let mut response = Answer { body: stored.body, ..Answer::empty(StatusCode::ACCEPTED) }.into_response();
    *response.status_mut() = status;
    response
}

/// An event that has the uid of an earlier one of its batch: it never reaches the store, where two equal uids in one
/// unit cannot be.
#[derive(Debug, Clone, Copy)]
struct Repeat {
    /// The index of the earlier one in the batch.
    of: usize,
    same_content: bool,
}

/// Which events repeat which.
fn places(items: &[Result<Prepared, Problem>]) -> Vec<Option<Repeat>> {
    let mut first = HashMap::new();
    let mut places = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let uid = item.as_ref().ok().filter(|prepared| prepared.event.uid.is_some());
        places.push(uid.and_then(|prepared| match first.entry((&prepared.event.source, &prepared.event.uid)) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert((index, prepared.content_hash));
                None
            }
            std::collections::hash_map::Entry::Occupied(entry) => {
                let (of, content_hash) = *entry.get();
                Some(Repeat { of, same_content: content_hash == prepared.content_hash })
            }
        }));
    }
    places
}

/// What became of one event of a batch, as far as it is known before the commit.
#[derive(Debug, Clone)]
enum Slot {
    Failed(Problem),
    Repeat(Repeat),
    /// It is the event at that place of the unit.
    Event {
        place: usize,
        answer: Bytes,
    },
}

fn results(slots: &[Slot], outcomes: &[EventOutcome]) -> Vec<ItemResult> {
    let own = |slot: &Slot| match slot {
        Slot::Failed(problem) => Some(Err(problem.clone())),
        Slot::Event { place, answer } => outcomes.get(*place).map(|outcome| answer::result_of(outcome, answer)),
        Slot::Repeat(_) => None,
    };
    slots
        .iter()
        .map(|slot| {
            let result = match slot {
                Slot::Repeat(repeat) => slots.get(repeat.of).and_then(own).map(|first| match first {
                    Ok(answer) if repeat.same_content => Ok(answer::as_duplicate(&answer)),
                    Ok(_) => Err(answer::uid_conflict()),
                    Err(problem) => Err(problem),
                }),
                other => own(other),
            };
            result.unwrap_or_else(|| Err(Problem::internal(&"an event without an outcome")))
        })
        .collect()
}

/// How a batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// `{"events": […]}`.
    Native,
    /// NDJSON: an event a line.
    Lines,
    /// A list of CloudEvents.
    CloudEvents,
}

impl Form {
    fn of(media_type: Option<&str>) -> Result<Self, Problem> {
        match media_type {
            Some("application/x-ndjson" | "application/ndjson") => Ok(Self::Lines),
            Some(cloudevents::BATCH) => Ok(Self::CloudEvents),
            Some(cloudevents::STRUCTURED) => Err(unsupported("that of a batch; one event goes to /v1/events")),
            None => Ok(Self::Native),
            Some(media_type) if is_json(media_type) => Ok(Self::Native),
            Some(_) => Err(unsupported("application/json, application/x-ndjson or application/cloudevents-batch+json")),
        }
    }

    /// Every event, each judged by itself.
    ///
    /// # Errors
    /// 400, 422: the whole is refused only where it is no batch at all.
    pub fn read(self, bytes: &[u8], most_bytes: usize) -> Result<Vec<Result<Posted, Problem>>, Problem> {
        let items = match self {
            Self::Lines => {
                let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
                let lines: Vec<_> = lines.filter(|line| !line.is_empty()).take(MAX_BATCH_EVENTS + 1).collect();
                check_count(lines.len(), "")?;
                lines.into_iter().map(|line| read_item(check_text(line)?, most_bytes, native::read)).collect()
            }
            Self::Native => {
                let raws = read_native(check_text(bytes)?)?;
                check_count(raws.len(), "/events")?;
                raws.into_iter().map(|raw| read_item(raw.get(), most_bytes, native::read)).collect()
            }
            Self::CloudEvents => {
                let raws = cloudevents::read_batch(check_text(bytes)?)?;
                check_count(raws.len(), "")?;
                raws.into_iter().map(|raw| read_item(raw.get(), most_bytes, cloudevents::read_structured)).collect()
            }
        };
        Ok(items)
    }
}

fn read_item(
    text: &str,
    most_bytes: usize,
    read: impl Fn(&str, Keep<'_>) -> Result<Posted, Problem>,
) -> Result<Posted, Problem> {
    if text.len() > most_bytes {
        return Err(Problem::new(Code::PayloadTooLarge, format!("The event is larger than {most_bytes} bytes.")));
    }
    if !is_shallow(text.as_bytes(), MAX_DEPTH) {
        return Err(too_deep());
    }
    read(text, Keep::Copied)
}

fn read_native(text: &str) -> Result<Vec<&RawValue>, Problem> {
    let mut members = Members::read(text)?;
    let events = members.take("events");
    let mut errors: Vec<FieldError> = members
        .rest()
        .map(|(name, _)| FieldError::new(crate::json::child("", &name), "is not a known field"))
        .collect();
    let events = match events.map(|raw| serde_json::from_str(raw.get())) {
        None => {
            errors.push(FieldError::new("/events", "is required"));
            Vec::new()
        }
        Some(Err(_)) => {
            errors.push(FieldError::new("/events", "must be a list of events"));
            Vec::new()
        }
        Some(Ok(events)) => events,
    };
    if errors.is_empty() { Ok(events) } else { Err(Problem::invalid(errors)) }
}

fn check_count(count: usize, pointer: &str) -> Result<(), Problem> {
    if (1..=MAX_BATCH_EVENTS).contains(&count) {
        return Ok(());
    }
    Err(Problem::invalid_at(pointer, format!("must hold 1 to {MAX_BATCH_EVENTS} events")))
}
