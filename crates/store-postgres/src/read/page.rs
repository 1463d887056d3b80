//! Pages by key.

use signalpost_core::id::{Id, Kind};
use signalpost_store::read::Page;
use sqlx::{Postgres, QueryBuilder};

/// The end of a list's statement: after the last item of the page before, in order, as many as asked for.
pub(crate) fn push_page<K: Kind>(query: &mut QueryBuilder<Postgres>, key: &'static str, page: Page<Id<K>>) {
    let (comparison, order) = if page.descending { (" < ", " DESC") } else { (" > ", " ASC") };
    if let Some(after) = page.after {
        query.push(" AND ").push(key).push(comparison).push_bind(after.uuid());
    }
    query.push(" ORDER BY ").push(key).push(order);
    push_limit(query, page.limit);
}

pub(super) fn push_limit(query: &mut QueryBuilder<Postgres>, limit: usize) {
    query.push(" LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
}
