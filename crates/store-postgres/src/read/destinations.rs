//! Destinations that are not deleted.

use signalpost_core::{Destination, DestinationId, DestinationState, TenantId};
use signalpost_store::read::Page;
use sqlx::{PgConnection, QueryBuilder};

use super::page::push_page;
use crate::{
    error::Failure,
    rows::{self, destination_columns},
};

pub(super) async fn one(
    connection: &mut PgConnection,
    tenant: TenantId,
    id: DestinationId,
) -> Result<Option<Destination>, Failure> {
    let row = sqlx::query(concat!(
        "SELECT ",
        destination_columns!(),
        " FROM destinations WHERE id = $1 AND tenant_id = $2 AND state <> 'deleted'"
    ))
    .bind(id.uuid())
    .bind(tenant.uuid())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(rows::destination).transpose()
}

pub(super) async fn by_uid(
    connection: &mut PgConnection,
    tenant: TenantId,
    uid: &str,
) -> Result<Option<Destination>, Failure> {
    let row = sqlx::query(concat!(
        "SELECT ",
        destination_columns!(),
        " FROM destinations WHERE uid = $1 AND tenant_id = $2 AND state <> 'deleted'"
    ))
    .bind(uid)
    .bind(tenant.uuid())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(rows::destination).transpose()
}

pub(super) async fn list(
    connection: &mut PgConnection,
    tenant: TenantId,
    state: Option<DestinationState>,
    page: Page<DestinationId>,
) -> Result<Vec<Destination>, Failure> {
    let mut query = QueryBuilder::new(concat!(
        "SELECT ",
        destination_columns!(),
        " FROM destinations WHERE state <> 'deleted' AND tenant_id = "
    ));
    query.push_bind(tenant.uuid());
    if let Some(state) = state {
        query.push(" AND state = ").push_bind(state.as_str());
    }
    push_page(&mut query, "id", page);
    query.build().fetch_all(connection).await?.iter().map(rows::destination).collect()
}
