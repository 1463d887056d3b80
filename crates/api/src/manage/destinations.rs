//! `/v1/destinations`: create, read, change, delete.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use serde_json::{Map, Value};
use signalpost_core::{Destination, DestinationId, DestinationSecrets, DestinationSpec, Kept, Tenant, TenantId};
use signalpost_store::manage::{Created, DestinationUpdate};

use super::{
    destination::{self, DestinationDefaults, Draft, patch as merge_patch, secrets::Otherwise},
    filters,
    named::Named as _,
    post,
    views::destination::{DestinationBody, DestinationInput, DestinationPatch},
};
use crate::{
    audit::{self, Change},
    auth::{DestinationsRead, DestinationsWrite},
    events::rules,
    idempotency::Answer,
    json::Body,
    openapi::params::{DestinationParams, PageParams},
    page::{List, ListQuery},
    problem::{Code, Problem},
    quota,
    state::AppState,
};

/// How often a change is tried again that met another one.
pub(super) const TRIES: usize = 10;

/// Why there is no `auth` and no overlap of secrets in a database of an earlier version.
const NOT_SEALED: &str = "`auth` and secrets that overlap are kept encrypted, and this installation does not encrypt yet. Its operator \
    runs `signalpost rotate-keys` once every process is of this version.";

/// Creates a destination
#[utoipa::path(
    post, path = "/v1/destinations", tag = "destinations", operation_id = "createDestination",
    request_body = DestinationInput,
    responses((status = 201, description = "The destination, with its secret.", body = DestinationBody)),
    security(("bearer" = ["destinations:write"])),
)]
pub async fn create(State(state): State<AppState>, caller: DestinationsWrite, body: Body) -> Result<Response, Problem> {
    let (at, by) = (state.clone(), caller.0.clone());
    post::once(&state, &caller, body, |input| async move {
        let draft = read_whole(&at, &by.tenant, input.object()?)?;
        check_resolved(&at, &draft.spec).await?;
        quota::check_destinations(&at, &by.tenant).await?;
        let (within, tenant) = (at.clone(), by.tenant.id);
        audit::change(&at, &by, Change::new("destination.create", ""), async move {
            match insert(&within, tenant, draft).await? {
                (Created::Yes, destination) => created(&within, &destination),
                (Created::UidTaken(by), _) => {
                    Err(Problem::new(Code::UidTaken, format!("The destination {by} has this uid.")))
                }
            }
        })
        .await
    })
    .await
}

/// Lists destinations
#[utoipa::path(
    get, path = "/v1/destinations", tag = "destinations", operation_id = "listDestinations",
    params(DestinationParams, PageParams),
    responses((status = 200, description = "One page.", body = List<DestinationBody>)),
    security(("bearer" = ["destinations:read"])),
)]
pub async fn list(State(state): State<AppState>, caller: DestinationsRead, body: Body) -> Result<Response, Problem> {
    let query = ListQuery::read(&body.parts, &["state"], false)?;
    let standing = filters::state(&query)?;
    let found = state.ports.store.list_destinations(caller.tenant.id, standing, query.page()?).await?;
    let list = query.list(found, |destination| destination.id, |destination| DestinationBody::new(&destination));
    Ok(Answer::json(StatusCode::OK, &list)?.into_response())
}

/// Reads a destination
#[utoipa::path(
    get, path = "/v1/destinations/{id}", tag = "destinations", operation_id = "getDestination",
    params(("id" = String, Path, description = "Its id, or its `uid`.")),
    responses((status = 200, description = "The destination.", body = DestinationBody)),
    security(("bearer" = ["destinations:read"])),
)]
pub async fn get(
    State(state): State<AppState>,
    caller: DestinationsRead,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let destination = Destination::find(&state, caller.tenant.id, &name).await?;
    Ok(show(&destination)?.into_response())
}

/// Creates or replaces a destination by its uid
///
/// What is absent takes its default, but for the secret: where it is absent, a destination keeps the one that it has.
#[utoipa::path(
    put, path = "/v1/destinations/{id}", tag = "destinations", operation_id = "putDestination",
    params(("id" = String, Path, description = "The caller's own `uid`.")),
    request_body = DestinationInput,
    responses(
        (status = 200, description = "It was there and is replaced.", body = DestinationBody),
        (status = 201, description = "It is created: with its secret.", body = DestinationBody),
    ),
    security(("bearer" = ["destinations:write"])),
)]
pub async fn put(
    State(state): State<AppState>,
    caller: DestinationsWrite,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    rules::uid(&name).map_err(|error| Problem::invalid_at("/uid", error))?;
    let document = body.json().await?.object()?;
    let current = state.ports.store.destination_by_uid(caller.tenant.id, &name).await?;
    let before = current.as_ref().map(|current| open(&state, current)).transpose()?;
    let draft = read_as(&state, &caller.tenant, &name, document.clone(), before.as_ref())?;
    check_resolved(&state, &draft.spec).await?;
    let change = match current {
        Some(current) => Change::new("destination.replace", current.id).before(&current.shown()),
        None => {
            quota::check_destinations(&state, &caller.tenant).await?;
            Change::new("destination.create", "")
        }
    };
    let (at, tenant) = (state.clone(), Arc::clone(&caller.tenant));
    let put = async move { create_or_replace(&at, &tenant, &name, document).await };
    Ok(audit::change(&state, &caller, change, put).await?.into_response())
}

/// Reads the document of a PUT to this uid.
fn read_as(
    state: &AppState,
    tenant: &Tenant,
    uid: &str,
    mut document: Map<String, Value>,
    before: Option<&DestinationSecrets>,
) -> Result<Draft, Problem> {
    before.into_iter().for_each(|before| destination::secrets::unmask(&mut document, before));
    let mut draft = read_whole(state, tenant, document)?;
    if draft.uid.replace(uid.to_owned()).is_some_and(|given| given != uid) {
        return Err(Problem::invalid_at("/uid", "must be the uid in the path"));
    }
    Ok(draft)
}

async fn create_or_replace(
    state: &AppState,
    tenant: &Tenant,
    uid: &str,
    document: Map<String, Value>,
) -> Result<Answer, Problem> {
    for _ in 0..TRIES {
        match state.ports.store.destination_by_uid(tenant.id, uid).await? {
            Some(current) => {
                let before = open(state, &current)?;
                let draft = read_as(state, tenant, uid, document.clone(), Some(&before))?;
                let secrets = draft.secrets(Some(&before), Otherwise::Keep, &*state.ports.entropy)?;
                if let Some(destination) = replace(state, &current, &draft.spec, &before, &secrets).await? {
                    return show(&destination);
                }
            }
            None => {
                let draft = read_as(state, tenant, uid, document.clone(), None)?;
                if let (Created::Yes, destination) = insert(state, tenant.id, draft).await? {
                    return created(state, &destination);
                }
            }
        }
    }
    Err(contended())
}

/// Changes a destination
#[utoipa::path(
    patch, path = "/v1/destinations/{id}", tag = "destinations", operation_id = "patchDestination",
    params(("id" = String, Path, description = "Its id, or its `uid`.")),
    request_body(content(
        (DestinationPatch = "application/merge-patch+json"),
        (DestinationPatch = "application/json"),
    )),
    responses((status = 200, description = "The destination as it is now.", body = DestinationBody)),
    security(("bearer" = ["destinations:write"])),
)]
pub async fn patch(
    State(state): State<AppState>,
    caller: DestinationsWrite,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let current = Destination::find(&state, caller.tenant.id, &name).await?;
    let changes = body.json().await?.object()?;
    let change = Change::new("destination.update", current.id).before(&current.shown());
    let (at, tenant) = (state.clone(), Arc::clone(&caller.tenant));
    let update = async move { merge(&at, &tenant, current, &changes).await };
    Ok(audit::change(&state, &caller, change, update).await?.into_response())
}

async fn merge(
    state: &AppState,
    tenant: &Tenant,
    mut current: Destination,
    changes: &Map<String, Value>,
) -> Result<Answer, Problem> {
    for _ in 0..TRIES {
        let before = open(state, &current)?;
        let mut document = merge_patch::document(&current, &before);
        merge_patch::merge(&mut document, changes);
        destination::secrets::unmask(&mut document, &before);
        DestinationDefaults::of(tenant).fill_nulls(&mut document);
        state.settings.manage.destination_defaults.fill_nulls(&mut document);
        let judged = changes.contains_key("url");
        let draft = read(state, &document, (!judged).then_some(&current))?;
        if draft.uid != current.uid {
            return Err(Problem::invalid_at("/uid", "cannot be changed"));
        }
        if judged {
            check_resolved(state, &draft.spec).await?;
        }
        // Null in a PATCH is the default, and that of a secret is one of our making.
        let otherwise = if changes.contains_key("secret") { Otherwise::Make } else { Otherwise::Keep };
        let secrets = draft.secrets(Some(&before), otherwise, &*state.ports.entropy)?;
        if let Some(destination) = replace(state, &current, &draft.spec, &before, &secrets).await? {
            return show(&destination);
        }
        current = Destination::find(state, current.tenant_id, &current.id.to_string()).await?;
    }
    Err(contended())
}

/// Deletes a destination
///
/// What waits for it is cancelled.
#[utoipa::path(
    delete, path = "/v1/destinations/{id}", tag = "destinations", operation_id = "deleteDestination",
    params(("id" = String, Path, description = "Its id, or its `uid`.")),
    responses((status = 204, description = "It takes nothing any more.")),
    security(("bearer" = ["destinations:write"])),
)]
pub async fn delete(
    State(state): State<AppState>,
    caller: DestinationsWrite,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let destination = Destination::find(&state, caller.tenant.id, &name).await?;
    let change = Change::new("destination.delete", destination.id).before(&destination.shown());
    let at = state.clone();
    let delete = async move {
        let deleted = at.ports.store.delete_destination(destination.tenant_id, destination.id).await?;
        if deleted { Ok(Answer::empty(StatusCode::NO_CONTENT)) } else { Err(Problem::not_found(Destination::KIND)) }
    };
    Ok(audit::change(&state, &caller, change, delete).await?.into_response())
}

/// Reads a destination that stands by itself: what is absent takes the tenant's default, then the operator's.
pub(super) fn read_whole(
    state: &AppState,
    tenant: &Tenant,
    mut document: Map<String, Value>,
) -> Result<Draft, Problem> {
    DestinationDefaults::of(tenant).fill(&mut document);
    state.settings.manage.destination_defaults.fill(&mut document);
    read(state, &document, None)
}

/// Reads what the owner wrote. The URL of `unchanged` was judged when it was set and is judged at every send; where it is
/// not written again, it does not stand in the way of another change.
fn read(state: &AppState, document: &Map<String, Value>, unchanged: Option<&Destination>) -> Result<Draft, Problem> {
    let egress = state.ports.sender.egress();
    destination::read(document, &|text| {
        if unchanged.is_some_and(|current| current.spec.url == text) {
            return Ok(text.to_owned());
        }
        destination::normal_url(egress, text)
    })
}

pub(super) async fn check_resolved(state: &AppState, spec: &DestinationSpec) -> Result<(), Problem> {
    let egress = state.ports.sender.egress();
    let denied = |error: signalpost_sender::UrlDenied| Problem::invalid_at("/url", error.to_string());
    let url = egress.check_url(&spec.url).map_err(denied)?;
    egress.check_resolved(&url).await.map_err(denied)
}

async fn insert(state: &AppState, tenant: TenantId, draft: Draft) -> Result<(Created, Destination), Problem> {
    let destination = make(state, tenant, draft).await?;
    let store = &state.ports.store;
    let created = store.create_destination(&destination).await?;
    // Its times are the store's.
    let stored = store.destination(tenant, destination.id).await?;
    Ok((created, stored.unwrap_or(destination)))
}

/// A destination that is to be created.
pub(super) async fn make(state: &AppState, tenant: TenantId, draft: Draft) -> Result<Destination, Problem> {
    let ports = &state.ports;
    let now = ports.clock.now();
    let secrets = draft.secrets(None, Otherwise::Make, &*ports.entropy)?;
    let id = DestinationId::new(now, &*ports.entropy);
    Ok(Destination {
        uid: draft.uid,
        ..Destination::new(id, tenant, draft.spec, keep(state, tenant, id, &secrets).await?, now)
    })
}

/// None: another change came between. A change of nothing is none.
pub(super) async fn replace(
    state: &AppState,
    current: &Destination,
    spec: &DestinationSpec,
    before: &DestinationSecrets,
    secrets: &DestinationSecrets,
) -> Result<Option<Destination>, Problem> {
    if current.spec == *spec && before == secrets {
        return Ok(Some(current.clone()));
    }
    let kept = keep(state, current.tenant_id, current.id, secrets).await?;
    let update = DestinationUpdate { spec, secrets: &kept };
    Ok(state.ports.store.update_destination(current.tenant_id, current.id, current.version, update).await?)
}

/// The secrets of a destination.
///
/// # Errors
/// 500: the key that they are encrypted with is not set, or they were tampered with.
pub(super) fn open(state: &AppState, destination: &Destination) -> Result<DestinationSecrets, Problem> {
    let vault = state.ports.sender.vault();
    vault
        .destination(destination.tenant_id, destination.id, &destination.secrets)
        .map_err(|error| Problem::internal(&error))
}

/// The secrets of a destination as its row keeps them: not encrypted while processes may run that cannot read encrypted ones.
///
/// # Errors
/// 409: there is something among them that only encrypted rows keep.
async fn keep(
    state: &AppState,
    tenant: TenantId,
    id: DestinationId,
    secrets: &DestinationSecrets,
) -> Result<Kept, Problem> {
    let ports = &state.ports;
    if state.is_sealed().await? {
        return Ok(Kept::Sealed(ports.sender.vault().seal_destination(&*ports.entropy, tenant, id, secrets)));
    }
    if secrets.auth.is_some() || !secrets.previous.is_empty() {
        return Err(Problem::new(Code::Conflict, NOT_SEALED));
    }
    Ok(Kept::Plain { secret: secrets.current.clone(), headers: secrets.headers.clone() })
}

pub(super) fn contended() -> Problem {
    Problem::unavailable("The destination is being changed by others at this moment.")
}

fn place(destination: &Destination) -> String {
    format!("/v1/destinations/{}", destination.id)
}

fn show(destination: &Destination) -> Result<Answer, Problem> {
    Answer::json(StatusCode::OK, &DestinationBody::new(destination))
}

fn created(state: &AppState, destination: &Destination) -> Result<Answer, Problem> {
    let body = DestinationBody::with_secret(destination, &open(state, destination)?.current);
    Ok(Answer::created(place(destination), &body)?.with_secret())
}
