//! Replay jobs.

use signalpost_core::{ReplayId, TenantId};
use signalpost_store::{manage::ReplayJob, read::Page};
use sqlx::{PgConnection, QueryBuilder};

use super::page::push_page;
use crate::{
    error::Failure,
    manage::{job, job_columns},
};

const SELECT: &str = concat!("SELECT ", job_columns!(), " FROM replays WHERE tenant_id = ");

pub(super) async fn one(
    connection: &mut PgConnection,
    tenant: TenantId,
    id: ReplayId,
) -> Result<Option<ReplayJob>, Failure> {
    let mut query = QueryBuilder::new(SELECT);
    query.push_bind(tenant.uuid()).push(" AND id = ").push_bind(id.uuid());
    query.build().fetch_optional(connection).await?.as_ref().map(job).transpose()
}

pub(super) async fn list(
    connection: &mut PgConnection,
    tenant: TenantId,
    page: Page<ReplayId>,
) -> Result<Vec<ReplayJob>, Failure> {
    let mut query = QueryBuilder::new(SELECT);
    query.push_bind(tenant.uuid());
    push_page(&mut query, "id", page);
    query.build().fetch_all(connection).await?.iter().map(job).collect()
}
