//! `/v1/replays`: jobs that send past deliveries again.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use serde_json::{Map, Value};
use signalpost_core::{DeliveryStatus, Destination, ReplayId, Timestamp, pattern::EventPattern};
use signalpost_store::manage::{ReplayJob, ReplaySelection, ReplayState};

use super::{
    destination::MAX_PATTERNS,
    fields::{Fields, Violations, destination_name},
    named::Named as _,
    post,
    views::replay::{DryRun, ReplayAnswer, ReplayBody, ReplayInput},
};
use crate::{
    audit::{self, Change},
    auth::{DeadLettersWrite, EventsRead},
    idempotency::Answer,
    json::Body,
    openapi::params::PageParams,
    page::{List, ListQuery},
    problem::Problem,
    state::AppState,
};

/// What a client asks for.
#[derive(Debug, PartialEq)]
struct Wanted {
    /// An id or a `uid`; its id comes into the selection when it is found.
    destination: Option<String>,
    selection: ReplaySelection,
    rate_per_second: Option<f64>,
    dry_run: bool,
}

fn read(members: &Map<String, Value>) -> Result<Wanted, Problem> {
    let mut violations = Violations::default();
    let mut fields = Fields::new(members, "", &mut violations);
    let destination = fields.parsed("destination_id", destination_name);
    let statuses = fields.items("statuses", DeliveryStatus::ALL.len(), |item| {
        match item.as_str().and_then(DeliveryStatus::from_name) {
            Some(status @ (DeliveryStatus::Dead | DeliveryStatus::Delivered | DeliveryStatus::Cancelled)) => Ok(status),
            Some(DeliveryStatus::Pending | DeliveryStatus::Retrying) => {
                Err("must be a status of deliveries that ended")
            }
            None => Err("must be one of `dead`, `delivered`, `cancelled`"),
        }
    });
    let event_types = fields.items("event_types", MAX_PATTERNS, |item| {
        let text = item.as_str().ok_or_else(|| "must be a string".to_owned())?;
        EventPattern::new(text).map_err(|error| error.to_string())
    });
    let time = |text: &str| Timestamp::parse(text).map_err(|_| "must be an RFC 3339 time");
    let since = fields.parsed("since", time);
    let until = fields.parsed("until", time);
    let missing = fields.boolean("missing").unwrap_or(false);
    let rate_per_second = fields.number("rate_per_second", 0.001..=100_000.0);
    let dry_run = fields.boolean("dry_run").unwrap_or(false);
    let names = |name: &str| members.get(name).is_some_and(|value| !value.is_null());
    if !names("destination_id") && !names("since") {
        fields.wrong_at(String::new(), "needs `destination_id` or `since`");
    }
    if missing && !names("destination_id") {
        fields.wrong("missing", "needs `destination_id`");
    }
    if members.get("statuses").and_then(Value::as_array).is_some_and(Vec::is_empty) && !missing {
        fields.wrong("statuses", "must name at least one, unless `missing` is true");
    }
    if since.is_some_and(|since| until.is_some_and(|until| until <= since)) {
        fields.wrong("until", "must be later than `since`");
    }
    fields.finish(&["id", "state", "matched", "replayed", "created_at", "finished_at"]);
    let selection = ReplaySelection {
        destination_id: None,
        statuses: statuses.unwrap_or_else(|| vec![DeliveryStatus::Dead]),
        event_types: event_types.unwrap_or_default(),
        since,
        until,
        missing,
    };
    violations.or(Wanted { destination, selection, rate_per_second, dry_run })
}

/// Sends past deliveries again
///
/// A job: it counts what matches, then creates a new delivery for each. What was replayed already is not matched.
#[utoipa::path(
    post, path = "/v1/replays", tag = "replays", operation_id = "createReplay",
    request_body = ReplayInput,
    responses((status = 202, description = "The job; with `dry_run` only what it would match.", body = ReplayAnswer)),
    security(("bearer" = ["dead_letters:write"])),
)]
pub async fn create(State(state): State<AppState>, caller: DeadLettersWrite, body: Body) -> Result<Response, Problem> {
    let (at, by) = (state.clone(), caller.0.clone());
    post::once(&state, &caller, body, |input| async move {
        let tenant = by.tenant.id;
        let Wanted { destination, mut selection, rate_per_second, dry_run } = read(&input.object()?)?;
        if let Some(name) = destination {
            selection.destination_id = Some(Destination::find(&at, tenant, &name).await?.id);
        }
        let ports = &at.ports;
        if dry_run {
            let matched = ports.store.count_replay(tenant, &selection, at.settings.manage.dry_run_most).await?;
            let body = ReplayAnswer::DryRun(DryRun { dry_run, state: ReplayState::Completed, matched, replayed: 0 });
            return Answer::json(StatusCode::ACCEPTED, &body);
        }
        let now = ports.clock.now();
        let job = ReplayJob {
            id: ReplayId::new(now, &*ports.entropy),
            tenant_id: tenant,
            selection,
            rate_per_second,
            state: ReplayState::Running,
            matched: None,
            replayed: 0,
            created_at: now,
            finished_at: None,
        };
        let store = Arc::clone(&ports.store);
        audit::change(&at, &by, Change::new("replay.create", job.id), async move {
            store.create_replay(&job).await?;
            Answer::json(StatusCode::ACCEPTED, &ReplayAnswer::Job(ReplayBody::from(&job)))
        })
        .await
    })
    .await
}

/// Lists replay jobs
#[utoipa::path(
    get, path = "/v1/replays", tag = "replays", operation_id = "listReplays", params(PageParams),
    responses((status = 200, description = "One page.", body = List<ReplayBody>)),
    security(("bearer" = ["events:read"])),
)]
pub async fn list(State(state): State<AppState>, caller: EventsRead, body: Body) -> Result<Response, Problem> {
    let query = ListQuery::read(&body.parts, &[], false)?;
    let found = state.ports.store.list_replays(caller.tenant.id, query.page()?).await?;
    let list = query.list(found, |job| job.id, |job| ReplayBody::from(&job));
    Ok(Answer::json(StatusCode::OK, &list)?.into_response())
}

/// Reads a replay job
#[utoipa::path(
    get, path = "/v1/replays/{id}", tag = "replays", operation_id = "getReplay",
    params(("id" = String, Path, description = "Its id.")),
    responses((status = 200, description = "The job.", body = ReplayBody)),
    security(("bearer" = ["events:read"])),
)]
pub async fn get(
    State(state): State<AppState>,
    caller: EventsRead,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let job = ReplayJob::find(&state, caller.tenant.id, &name).await?;
    Ok(Answer::json(StatusCode::OK, &ReplayBody::from(&job))?.into_response())
}

/// Cancels a replay job
///
/// What it created stays. A job that is finished is answered as it is.
#[utoipa::path(
    post, path = "/v1/replays/{id}/cancel", tag = "replays", operation_id = "cancelReplay",
    params(("id" = String, Path, description = "Its id.")),
    responses((status = 200, description = "The job as it is now.", body = ReplayBody)),
    security(("bearer" = ["dead_letters:write"])),
)]
pub async fn cancel(
    State(state): State<AppState>,
    caller: DeadLettersWrite,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    post::act(state, caller.0, "replay.cancel", name, body, |state, tenant, job: ReplayJob| async move {
        let job = state.ports.store.cancel_replay(tenant, job.id).await?;
        let job = job.ok_or_else(|| Problem::not_found(ReplayJob::KIND))?;
        Answer::json(StatusCode::OK, &ReplayBody::from(&job))
    })
    .await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pointers(body: Value) -> Vec<String> {
        let errors = read(body.as_object().unwrap()).err().map(|problem| problem.errors).unwrap_or_default();
        errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn what_a_job_needs() {
        let since = "2026-01-01T00:00:00Z";
        let dst = "dst_01h2e8kqvbfwea724h75qc655w";
        for (body, expected) in [
            (json!({"since": since}), vec![]),
            (json!({"destination_id": dst, "missing": true, "statuses": []}), vec![]),
            (json!({}), vec![""]),
            (json!({"since": null, "statuses": ["dead"]}), vec![""]),
            (json!({"since": "yesterday"}), vec!["/since"]),
            (json!({"since": since, "until": since}), vec!["/until"]),
            (json!({"since": since, "missing": true}), vec!["/missing"]),
            (json!({"since": since, "statuses": []}), vec!["/statuses"]),
            (json!({"since": since, "statuses": ["dead", "pending", 5]}), vec!["/statuses/1", "/statuses/2"]),
            (json!({"since": since, "event_types": ["a..b"]}), vec!["/event_types/0"]),
            (json!({"since": since, "rate_per_second": 0}), vec!["/rate_per_second"]),
            (json!({"since": since, "dry_run": "yes", "id": "x"}), vec!["/dry_run", "/id"]),
            (json!({"destination_id": "billing"}), vec![]),
            (json!({"destination_id": "evt_01h2e8kqvbfwea724h75qc655w"}), vec!["/destination_id"]),
            (json!({"destination_id": 5}), vec!["/destination_id"]),
        ] {
            assert_eq!(pointers(body.clone()), expected, "{body}");
        }
    }

    #[test]
    fn dead_ones_by_default() {
        let body = json!({"since": "2026-01-01T00:00:00Z"});
        assert_eq!(read(body.as_object().unwrap()).unwrap().selection.statuses, [DeliveryStatus::Dead]);
    }
}
