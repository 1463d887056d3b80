//! `/v1/tenants/{id}/keys`: create, list, revoke. For operators.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use serde_json::{Map, Value};
use signalpost_core::{
    ApiKey, KeyHash, KeyId, Scope, Scopes, Secret, Tenant, TenantId, Timestamp,
    key::{HINT_CHARS, new_key},
};

use super::{
    fields::{Fields, Violations},
    named::Named as _,
    post,
    tenants::being_deleted,
    views::key::{KeyBody, KeyInput},
};
use crate::{
    audit::{self, Change},
    auth::Operator,
    idempotency::Answer,
    json::Body,
    openapi::params::PageParams,
    page::{List, ListQuery},
    problem::Problem,
    state::AppState,
};

/// What people call it.
const KIND: &str = "key";

/// What is asked for a key.
#[derive(Debug, PartialEq)]
struct Draft {
    name: String,
    scopes: Scopes,
    expires_at: Option<Timestamp>,
}

fn read(members: &Map<String, Value>, now: Timestamp) -> Result<Draft, Problem> {
    let mut violations = Violations::default();
    let mut fields = Fields::new(members, "", &mut violations);
    for name in ["name", "scopes"] {
        if fields.value(name).is_none() {
            fields.wrong(name, "is required");
        }
    }
    let name = fields.text("name", 1..=256).unwrap_or_default().to_owned();
    let scopes = fields.items("scopes", Scope::ALL.len(), |item| {
        let scope = item.as_str().and_then(|name| Scope::ALL.into_iter().find(|scope| scope.as_str() == name));
        scope.ok_or_else(|| {
            format!("must be one of {}", Scope::ALL.map(|scope| format!("`{}`", scope.as_str())).join(", "))
        })
    });
    if members.get("scopes").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        fields.wrong("scopes", "must name at least one");
    }
    let expires_at = fields.parsed("expires_at", |text| match Timestamp::parse(text) {
        Ok(at) if at > now => Ok(at),
        Ok(_) => Err("must be in the future"),
        Err(_) => Err("must be an RFC 3339 time"),
    });
    fields.finish(&["id", "hint", "created_at", "last_used_at", "key"]);
    violations.or(Draft { name, scopes: scopes.unwrap_or_default().into_iter().collect(), expires_at })
}

/// A new key, and its text, which is not kept.
pub fn make(
    state: &AppState,
    tenant: TenantId,
    name: String,
    scopes: Scopes,
    expires_at: Option<Timestamp>,
) -> (ApiKey, Secret) {
    let ports = &state.ports;
    let (now, text) = (ports.clock.now(), new_key(&*ports.entropy));
    let key = ApiKey {
        id: KeyId::new(now, &*ports.entropy),
        tenant_id: tenant,
        hash: KeyHash::of(text.reveal().as_bytes()),
        hint: text.reveal().chars().take(HINT_CHARS).collect(),
        name,
        scopes,
        created_at: now,
        expires_at,
        last_used_at: None,
    };
    (key, text)
}

/// Creates a key
///
/// Its text is in the answer, and nowhere else.
#[utoipa::path(
    post, path = "/v1/tenants/{id}/keys", tag = "tenants", operation_id = "createKey",
    params(("id" = String, Path, description = "The tenant's id, or its slug.")),
    request_body = KeyInput,
    responses((status = 201, description = "The key, with its text.", body = KeyBody)),
)]
pub async fn create(
    State(state): State<AppState>,
    Operator(caller): Operator,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let (at, by) = (state.clone(), caller.clone());
    post::once(&state, &caller, body, |input| async move {
        let tenant = Tenant::find(&at, by.tenant.id, &name).await?;
        let draft = read(&input.object()?, at.ports.clock.now())?;
        let (key, text) = make(&at, tenant.id, draft.name, draft.scopes, draft.expires_at);
        let store = Arc::clone(&at.ports.store);
        audit::change(&at, &by, Change::new("key.create", key.id).in_tenant(tenant.id), async move {
            if !store.create_key(tenant.id, &key).await? {
                return Err(being_deleted());
            }
            let place = format!("/v1/tenants/{name}/keys/{}", key.id);
            Ok(Answer::created(place, &KeyBody::with_text(&key, &text))?.with_secret())
        })
        .await
    })
    .await
}

/// Lists keys
///
/// Also those that have expired.
#[utoipa::path(
    get, path = "/v1/tenants/{id}/keys", tag = "tenants", operation_id = "listKeys",
    params(("id" = String, Path, description = "The tenant's id, or its slug."), PageParams),
    responses((status = 200, description = "One page.", body = List<KeyBody>)),
)]
pub async fn list(
    State(state): State<AppState>,
    Operator(caller): Operator,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let tenant = Tenant::find(&state, caller.tenant.id, &name).await?;
    let query = ListQuery::read(&body.parts, &[], false)?;
    let found = state.ports.store.list_keys(tenant.id, query.page()?).await?;
    let list = query.list(found, |key| key.id, |key| KeyBody::new(&key));
    Ok(Answer::json(StatusCode::OK, &list)?.into_response())
}

/// Revokes a key
///
/// It does nothing any more: on this process at once, on every other within a second.
#[utoipa::path(
    delete, path = "/v1/tenants/{id}/keys/{key_id}", tag = "tenants", operation_id = "revokeKey",
    params(
        ("id" = String, Path, description = "The tenant's id, or its slug."),
        ("key_id" = String, Path, description = "The key's id."),
    ),
    responses((status = 204, description = "It is gone.")),
)]
pub async fn revoke(
    State(state): State<AppState>,
    Operator(caller): Operator,
    Path((name, key)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let tenant = Tenant::find(&state, caller.tenant.id, &name).await?;
    let key: KeyId = key.parse().map_err(|_| Problem::not_found(KIND))?;
    let at = state.clone();
    let revoke = async move {
        let revoked = at.ports.store.revoke_key(tenant.id, key).await?;
        at.directory.changed();
        if revoked { Ok(Answer::empty(StatusCode::NO_CONTENT)) } else { Err(Problem::not_found(KIND)) }
    };
    let change = Change::new("key.revoke", key).in_tenant(tenant.id);
    Ok(audit::change(&state, &caller, change, revoke).await?.into_response())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_key_needs() {
        let now = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        for (body, expected) in [
            (json!({"name": "a", "scopes": ["events:write"]}), vec![]),
            (
                json!({"name": "a", "scopes": ["events:write", "events:write"], "expires_at": "2026-01-02T00:00:00Z"}),
                vec![],
            ),
            (json!({}), vec!["/name", "/scopes"]),
            (json!({"name": "a", "scopes": []}), vec!["/scopes"]),
            (json!({"name": "a", "scopes": ["*", 5]}), vec!["/scopes/0", "/scopes/1"]),
            (
                json!({"name": "a", "scopes": ["events:read"], "expires_at": "2026-01-01T00:00:00Z"}),
                vec!["/expires_at"],
            ),
            (json!({"name": "a", "scopes": ["events:read"], "key": "sp_x"}), vec!["/key"]),
        ] {
            let errors = read(body.as_object().unwrap(), now).err().map(|problem| problem.errors).unwrap_or_default();
            let pointers: Vec<String> = errors.into_iter().map(|error| error.pointer).collect();
            assert_eq!(pointers, expected, "{body}");
        }
    }
}
