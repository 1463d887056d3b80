//! `/v1/audit-log`: who changed what. Writing it is in [`crate::audit`].

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use signalpost_store::tenants::AuditFilter;

use super::{filters::Range, views::audit::AuditBody};
use crate::{
    auth::AuditRead,
    idempotency::Answer,
    json::Body,
    openapi::params::{AuditParams, PageParams, RangeParams},
    page::{List, ListQuery},
    problem::Problem,
    state::AppState,
};

/// Lists the audit log
///
/// Every change by a key in this tenant, but for the events that were posted. The log of the tenant `default` also tells which tenants
/// were created and deleted.
#[utoipa::path(
    get, path = "/v1/audit-log", tag = "audit log", operation_id = "listAuditLog",
    params(AuditParams, RangeParams, PageParams),
    responses((status = 200, description = "One page.", body = List<AuditBody>)),
    security(("bearer" = ["audit:read"])),
)]
pub async fn list(State(state): State<AppState>, caller: AuditRead, body: Body) -> Result<Response, Problem> {
    let query = ListQuery::read(&body.parts, &["actor", "action", "since", "until"], false)?;
    let Range { since, until } = Range::read(&query)?;
    let text = |name| query.filter(name).map(str::to_owned);
    let filter = AuditFilter { actor: text("actor"), action: text("action"), since, until };
    let found = state.ports.store.list_audit(caller.tenant.id, &filter, query.page()?).await?;
    let list = query.list(found, |entry| entry.id, AuditBody::from);
    Ok(Answer::json(StatusCode::OK, &list)?.into_response())
}
