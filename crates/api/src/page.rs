//! Lists: reading `limit`, `cursor`, `order` and filters from the query, and writing the next cursor.
//!
//! A cursor is opaque: the key of the last item, behind a hash of the list's address, filters and order. So it is refused
//! with other filters than those that it was made for. It is no secret and no protection: it gives nobody more than
//! the list would.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Uri, request::Parts};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use signalpost_core::{DeliveryId, Timestamp, id::Kind};
use signalpost_store::read::Page;

use crate::problem::Problem;

/// Items of a page where the client does not say.
pub const DEFAULT_LIMIT: usize = 50;

/// The most items of a page.
pub const MAX_LIMIT: usize = 250;

/// The most items of a page with `include=data`.
pub const MAX_LIMIT_WITH_DATA: usize = 20;

/// One page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct List<T> {
    /// The items.
    pub data: Vec<T>,
    /// Give it as `cursor` for the next page; null on the last one.
    pub next_cursor: Option<String>,
}

/// What can be the key of a list.
pub trait CursorKey: Sized {
    /// As bytes.
    fn to_bytes(&self) -> Vec<u8>;
    /// From bytes that [`Self::to_bytes`] made.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl<K: Kind> CursorKey for signalpost_core::id::Id<K> {
    fn to_bytes(&self) -> Vec<u8> {
        self.uuid().as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        uuid::Uuid::from_slice(bytes).ok().map(Self::from_uuid)
    }
}

impl CursorKey for (DeliveryId, u32) {
    fn to_bytes(&self) -> Vec<u8> {
        [self.0.uuid().as_bytes().as_slice(), &self.1.to_be_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, number) = bytes.split_at_checked(16)?;
        Some((DeliveryId::from_bytes(id)?, u32::from_be_bytes(number.try_into().ok()?)))
    }
}

/// The query of a list.
#[derive(Debug)]
pub struct ListQuery {
    filters: BTreeMap<String, String>,
    limit: usize,
    descending: bool,
    with_data: bool,
    cursor: Option<String>,
    /// Of address, filters and order.
    fingerprint: [u8; 8],
}

impl ListQuery {
    /// Reads the query of a request. `filters` are the names that this list knows; one that ends in `.` stands for
    /// all names that begin so (`label.`). `data` tells whether the list knows `include=data`.
    ///
    /// # Errors
    /// 400: an unknown parameter, one that stands twice, or a value that is not allowed.
    pub fn read(parts: &Parts, filters: &[&str], data: bool) -> Result<Self, Problem> {
        let mut given = parameters(&parts.uri)?;
        let with_data = match given.remove("include").as_deref() {
            None => false,
            Some("data") if data => true,
            Some(_) => return Err(Problem::query("`include` can only be `data`, on lists that have data.")),
        };
        let most = if with_data { MAX_LIMIT_WITH_DATA } else { MAX_LIMIT };
        let limit = match given.remove("limit") {
            None => DEFAULT_LIMIT.min(most),
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=most).contains(limit))
                .ok_or_else(|| Problem::query(format!("`limit` must be a number from 1 to {most}.")))?,
        };
        let descending = match given.remove("order").as_deref() {
            None | Some("desc") => true,
            Some("asc") => false,
            Some(_) => return Err(Problem::query("`order` must be `desc` or `asc`.")),
        };
        let cursor = given.remove("cursor");
        for name in given.keys() {
            let known = filters.iter().any(|filter| match filter.strip_suffix('.') {
                Some(_) => name.len() > filter.len() && name.starts_with(filter),
                None => name == filter,
            });
            if !known {
                return Err(Problem::query(format!("`{name}` is not a parameter of this list.")));
            }
        }
        let fingerprint = fingerprint(parts.uri.path(), &given, descending);
        Ok(Self { filters: given, limit, descending, with_data, cursor, fingerprint })
    }

    /// A filter, as it was given.
    pub fn filter(&self, name: &str) -> Option<&str> {
        self.filters.get(name).map(String::as_str)
    }

    /// The filters that begin so, without that beginning.
    pub fn filters_under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.filters.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
    }

    /// A filter, read by `parse`; `expected` completes "must be".
    ///
    /// # Errors
    /// 400.
    pub fn parsed<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.filter(name) else {
            return Ok(None);
        };
        parse(text).map(Some).ok_or_else(|| Problem::query(format!("`{name}` must be {expected}.")))
    }

    /// A filter that is a time.
    ///
    /// # Errors
    /// 400.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        self.parsed(name, "an RFC 3339 time", |text| Timestamp::parse(text).ok())
    }

    /// Whether `include=data` was asked for.
    pub const fn with_data(&self) -> bool {
        self.with_data
    }

    /// What to ask the store for: one item more than the page has, to see whether there is a next one.
    ///
    /// # Errors
    /// 400: the cursor is not one of this list with these filters.
    pub fn page<K: CursorKey>(&self) -> Result<Page<K>, Problem> {
        let after = match &self.cursor {
            None => None,
            Some(cursor) => Some(self.decode(cursor).ok_or_else(|| {
                Problem::query("`cursor` is not one of this list with these filters and this order.")
            })?),
        };
        Ok(Page { limit: self.limit + 1, after, descending: self.descending })
    }

    fn decode<K: CursorKey>(&self, cursor: &str) -> Option<K> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        K::from_bytes(bytes.strip_prefix(&self.fingerprint)?)
    }

    /// The answer, from what the store gave for [`Self::page`].
    pub fn list<V, K: CursorKey, T>(
        &self,
        mut items: Vec<V>,
        key: impl Fn(&V) -> K,
        show: impl FnMut(V) -> T,
    ) -> List<T> {
        let more = items.len() > self.limit;
        items.truncate(self.limit);
        let next_cursor = items
            .last()
            .filter(|_| more)
            .map(|last| URL_SAFE_NO_PAD.encode([self.fingerprint.as_slice(), &key(last).to_bytes()].concat()));
        List { data: items.into_iter().map(show).collect(), next_cursor }
    }
}

/// The parameters of a request that is no list; each at most once.
///
/// # Errors
/// 400 where one stands twice.
pub fn parameters(uri: &Uri) -> Result<BTreeMap<String, String>, Problem> {
    let mut parameters = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        if value.contains('\0') || name.contains('\0') {
            return Err(Problem::query("The query holds a NUL."));
        }
        if parameters.insert(name.to_string(), value.into_owned()).is_some() {
            return Err(Problem::query(format!("`{name}` stands twice.")));
        }
    }
    Ok(parameters)
}

fn fingerprint(path: &str, filters: &BTreeMap<String, String>, descending: bool) -> [u8; 8] {
    let mut hash = Sha256::new();
    let mut add = |part: &str| {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    };
    add(path);
    add(if descending { "desc" } else { "asc" });
    for (name, value) in filters {
        add(name);
        add(value);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let mut start = [0; 8];
    start.copy_from_slice(&hash[..8]);
    start
}

#[cfg(test)]
mod tests {
    use signalpost_core::EventId;

    use super::*;

    fn query(uri: &str) -> Result<ListQuery, Problem> {
        let (parts, ()) = http::Request::get(uri).body(()).unwrap().into_parts();
        ListQuery::read(&parts, &["type", "since", "label."], true)
    }

    fn ids(from: i64, count: i64) -> Vec<EventId> {
        (from..from + count).map(|at| EventId::floor(Timestamp::from_millis(at))).collect()
    }

    #[test]
    fn bounds_are_held() {
        for bad in [
            "/e?limit=0",
            "/e?limit=251",
            "/e?limit=x",
            "/e?limit=",
            "/e?order=up",
            "/e?nonsense=1",
            "/e?type=a&type=b",
            "/e?include=x",
            "/e?include=data&limit=21",
            "/e?label.=x",
        ] {
            assert!(query(bad).is_err(), "{bad}");
        }
        assert_eq!(query("/e").unwrap().page::<EventId>().unwrap().limit, DEFAULT_LIMIT + 1);
        assert_eq!(query("/e?include=data").unwrap().page::<EventId>().unwrap().limit, MAX_LIMIT_WITH_DATA + 1);
        assert!(query("/e?since=yesterday").unwrap().time("since").is_err());
        let labels = query("/e?label.a=1&label.b.c=2").unwrap();
        assert_eq!(labels.filters_under("label.").collect::<Vec<_>>(), [("a", "1"), ("b.c", "2")]);
    }

    #[test]
    fn a_cursor_leads_to_the_next_page_of_the_same_list_only() {
        let first = query("/e?limit=2&type=a").unwrap();
        let list = first.list(ids(1, 3), |id| *id, |id| id);
        assert_eq!(list.data, ids(1, 2));
        let cursor = list.next_cursor.unwrap();
        let next = query(&format!("/e?limit=5&type=a&cursor={cursor}")).unwrap();
        assert_eq!(next.page::<EventId>().unwrap().after, Some(ids(2, 1)[0]));
        assert_eq!(next.list(ids(3, 1), |id| *id, |id| id).next_cursor, None);
        for other in [
            format!("/e?type=b&cursor={cursor}"),
            format!("/f?type=a&cursor={cursor}"),
            format!("/e?type=a&order=asc&cursor={cursor}"),
            "/e?type=a&cursor=nonsense".to_owned(),
        ] {
            assert!(query(&other).unwrap().page::<EventId>().is_err(), "{other}");
        }
    }
}
