//! `/v1/tenants`: create, read, change, delete. For operators; creating is for everybody, where the operator opened it.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use serde_json::{Map, Value};
use signalpost_core::{Destination, Scopes, Sealed, Secret, Tenant, TenantId, tenant::IngestSignature};
use signalpost_store::tenants::{NewTenant, TenantCreated};
use signalpost_vault::Place;

use super::{
    destinations, keys,
    named::Named as _,
    post,
    tenant::{self, Asked, Draft, IngestSecret},
    views::{
        destination::DestinationBody,
        tenant::{TenantBody, TenantCreatedBody, TenantInput, TenantPatch},
    },
};
use crate::{
    audit::{self, Change},
    auth::{Operator, Registrar, Who},
    idempotency::Answer,
    json::Body,
    openapi::params::PageParams,
    page::{List, ListQuery},
    problem::{Code, Problem},
    state::AppState,
};

/// How often a change is tried again that met another one.
const TRIES: usize = 10;

/// Creates a tenant
///
/// With a first key, which has all scopes, and, where one is given, a first destination: all of it or nothing. Where the operator has
/// opened registration this takes no key; then the `name` and a `destination` may be given.
#[utoipa::path(
    post, path = "/v1/tenants", tag = "tenants", operation_id = "createTenant",
    request_body = TenantInput,
    responses((status = 201, description = "The tenant, its key, and its destination.", body = TenantCreatedBody)),
)]
pub async fn create(
    State(state): State<AppState>,
    Registrar(caller): Registrar,
    body: Body,
) -> Result<Response, Problem> {
    let asked = if caller.who == Who::Stranger { Asked::Register } else { Asked::Create };
    if asked == Asked::Register {
        state.registrations.take(caller.address)?;
    }
    let (at, by) = (state.clone(), caller.clone());
    post::once(&state, &caller, body, |input| async move {
        let draft = tenant::read(&input.object()?, asked)?;
        let (tenant, destination) = make(&at, draft).await?;
        let (key, text) = keys::make(&at, tenant.id, "first".to_owned(), Scopes::all(), None);
        let within = at.clone();
        audit::change(&at, &by, Change::new("tenant.create", tenant.id), async move {
            let new = NewTenant { tenant: &tenant, key: &key, destination: destination.as_ref() };
            let created = within.ports.store.create_tenant(new).await?;
            if created == TenantCreated::SlugTaken {
                return Err(Problem::new(Code::SlugTaken, "Another tenant has this slug."));
            }
            within.directory.changed();
            // Their times are the store's.
            let tenant = within.ports.store.tenant(tenant.id).await?.unwrap_or(tenant);
            let destination = match destination {
                None => None,
                Some(made) => {
                    let stored = within.ports.store.destination(tenant.id, made.id).await?.unwrap_or(made);
                    let secrets = destinations::open(&within, &stored)?;
                    Some(DestinationBody::with_secret(&stored, &secrets.current))
                }
            };
            let key = text.reveal().to_owned();
            let body = TenantCreatedBody { tenant: TenantBody::from(&tenant), key, destination };
            Ok(Answer::created(format!("/v1/tenants/{}", tenant.id), &body)?.with_secret())
        })
        .await
    })
    .await
}

async fn make(state: &AppState, draft: Draft) -> Result<(Tenant, Option<Destination>), Problem> {
    let ports = &state.ports;
    let now = ports.clock.now();
    let id = TenantId::new(now, &*ports.entropy);
    let ingest_secret = match draft.ingest_secret {
        IngestSecret::None => None,
        IngestSecret::Present => return Err(needs_secret()),
        IngestSecret::Given(secret) => Some(seal(state, id, &secret)),
    };
    let tenant = Tenant {
        id,
        slug: draft.slug.unwrap_or_else(|| slug_of(id)),
        spec: draft.spec,
        ingest_secret,
        version: 1,
        created_at: now,
        updated_at: now,
        deleting: None,
    };
    let Some(document) = draft.destination else { return Ok((tenant, None)) };
    if tenant.spec.quotas.destinations == Some(0) {
        return Err(Problem::new(Code::QuotaExceeded, "The tenant may have no destinations."));
    }
    let destination =
        make_destination(state, &tenant, document).await.map_err(|problem| problem.below("/destination"))?;
    Ok((tenant, Some(destination)))
}

async fn make_destination(
    state: &AppState,
    tenant: &Tenant,
    document: Map<String, Value>,
) -> Result<Destination, Problem> {
    let draft = destinations::read_whole(state, tenant, document)?;
    destinations::check_resolved(state, &draft.spec).await?;
    destinations::make(state, tenant.id, draft).await
}

/// The end of an id is random: 55 bits.
fn slug_of(id: TenantId) -> String {
    let text = id.to_string();
    format!("t-{}", &text[text.len() - 11..])
}

fn seal(state: &AppState, tenant: TenantId, secret: &Secret) -> Sealed {
    let ports = &state.ports;
    ports.sender.vault().seal(&*ports.entropy, Place::Ingest(tenant), secret.reveal().as_bytes())
}

fn needs_secret() -> Problem {
    Problem::invalid_at("/ingest_signature/secret", "is required")
}

/// 409: nothing of a tenant is changed any more that is being deleted.
pub fn being_deleted() -> Problem {
    Problem::new(Code::Conflict, "The tenant is being deleted.")
}

/// Lists tenants
#[utoipa::path(
    get, path = "/v1/tenants", tag = "tenants", operation_id = "listTenants", params(PageParams),
    responses((status = 200, description = "One page.", body = List<TenantBody>)),
)]
pub async fn list(State(state): State<AppState>, _operator: Operator, body: Body) -> Result<Response, Problem> {
    let query = ListQuery::read(&body.parts, &[], false)?;
    let found = state.ports.store.list_tenants(query.page()?).await?;
    let list = query.list(found, |tenant| tenant.id, |tenant| TenantBody::from(&tenant));
    Ok(Answer::json(StatusCode::OK, &list)?.into_response())
}

/// Reads a tenant
#[utoipa::path(
    get, path = "/v1/tenants/{id}", tag = "tenants", operation_id = "getTenant",
    params(("id" = String, Path, description = "Its id, or its slug. One that is being deleted is found by its id only.")),
    responses((status = 200, description = "The tenant.", body = TenantBody)),
)]
pub async fn get(
    State(state): State<AppState>,
    Operator(caller): Operator,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let tenant = Tenant::find(&state, caller.tenant.id, &name).await?;
    Ok(show(StatusCode::OK, &tenant)?.into_response())
}

/// Changes a tenant
#[utoipa::path(
    patch, path = "/v1/tenants/{id}", tag = "tenants", operation_id = "patchTenant",
    params(("id" = String, Path, description = "Its id, or its slug.")),
    request_body(content(
        (TenantPatch = "application/merge-patch+json"),
        (TenantPatch = "application/json"),
    )),
    responses((status = 200, description = "The tenant as it is now.", body = TenantBody)),
)]
pub async fn patch(
    State(state): State<AppState>,
    Operator(caller): Operator,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let current = Tenant::find(&state, caller.tenant.id, &name).await?;
    let changes = body.json().await?.object()?;
    let change = Change::new("tenant.update", current.id).before(&current.shown()).in_tenant(current.id);
    let at = state.clone();
    let update = async move { merge(&at, current, &changes).await };
    Ok(audit::change(&state, &caller, change, update).await?.into_response())
}

async fn merge(state: &AppState, mut current: Tenant, changes: &Map<String, Value>) -> Result<Answer, Problem> {
    let store = &state.ports.store;
    for _ in 0..TRIES {
        if current.deleting.is_some() {
            return Err(being_deleted());
        }
        let mut document = tenant::document(&current);
        document.extend(changes.iter().map(|(name, value)| (name.clone(), value.clone())));
        let draft = tenant::read(&document, Asked::Patch)?;
        if draft.slug.as_ref() != Some(&current.slug) {
            return Err(Problem::invalid_at("/slug", "cannot be changed"));
        }
        let secret = match (&draft.ingest_secret, &draft.spec.ingest_signature) {
            (IngestSecret::Given(secret), _) => Some(seal(state, current.id, secret)),
            (IngestSecret::Present, Some(signature)) => Some(present_secret(state, &current, signature)?),
            _ => None,
        };
        if draft.spec == current.spec && secret == current.ingest_secret {
            return show(StatusCode::OK, &current);
        }
        let updated = store.update_tenant(current.id, current.version, &draft.spec, secret.as_ref()).await?;
        state.directory.changed();
        if let Some(tenant) = updated {
            return show(StatusCode::OK, &tenant);
        }
        current = Tenant::find(state, current.id, &current.id.to_string()).await?;
    }
    Err(Problem::unavailable("The tenant is being changed by others at this moment."))
}

/// The secret that is there, where it is one of that scheme.
fn present_secret(state: &AppState, tenant: &Tenant, signature: &IngestSignature) -> Result<Sealed, Problem> {
    let sealed = tenant.ingest_secret.as_ref().ok_or_else(needs_secret)?;
    let opened = state.ports.sender.vault().open(Place::Ingest(tenant.id), sealed);
    let opened = opened.map_err(|error| Problem::internal(&error))?;
    let text = str::from_utf8(&opened).map_err(|error| Problem::internal(&error))?;
    tenant::check_secret(signature, text).map_err(|detail| Problem::invalid_at("/ingest_signature/secret", detail))?;
    Ok(sealed.clone())
}

/// Deletes a tenant
///
/// Its keys do nothing any more: on this process at once, on every other within a second. All that is theirs is removed in the
/// background; `deleting` tells how far that is, until the tenant is gone, too.
#[utoipa::path(
    delete, path = "/v1/tenants/{id}", tag = "tenants", operation_id = "deleteTenant",
    params(("id" = String, Path, description = "Its id, or its slug.")),
    responses((status = 202, description = "It is being deleted.", body = TenantBody)),
)]
pub async fn delete(
    State(state): State<AppState>,
    Operator(caller): Operator,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let tenant = Tenant::find(&state, caller.tenant.id, &name).await?;
    if tenant.id == TenantId::DEFAULT {
        return Err(Problem::new(Code::Conflict, "The tenant `default` cannot be deleted."));
    }
    let change = Change::new("tenant.delete", tenant.id).before(&tenant.shown());
    let (at, store) = (state.clone(), Arc::clone(&state.ports.store));
    let delete = async move {
        let found = store.delete_tenant(tenant.id).await?;
        at.directory.changed();
        let now = if found { store.tenant(tenant.id).await? } else { None };
        show(StatusCode::ACCEPTED, &now.ok_or_else(|| Problem::not_found(Tenant::KIND))?)
    };
    Ok(audit::change(&state, &caller, change, delete).await?.into_response())
}

fn show(status: StatusCode, tenant: &Tenant) -> Result<Answer, Problem> {
    Answer::json(status, &TenantBody::from(tenant))
}
