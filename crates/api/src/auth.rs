//! Who asks, and in which tenant.
//!
//! Today there is one kind of key, the operator's; it acts in the tenant named by the header `Signalpost-Tenant`, or in
//! `default`. Handlers take a [`Tenant`] and never look at headers themselves, so that keys of tenants come in here and
//! nowhere else.

use std::{sync::Arc, time::Duration};

use axum::extract::FromRequestParts;
use http::{HeaderMap, header, request::Parts};
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};
use signalpost_core::TenantId;
use signalpost_store::{Store, StoreError};
use subtle::ConstantTimeEq as _;

use crate::{
    problem::{Code, Problem},
    state::AppState,
};

/// Names the tenant that an operator acts in, by id or slug.
const TENANT_HEADER: &str = "signalpost-tenant";

/// The operator's keys, as hashes: comparing hashes in constant time tells nothing of a key, not even its length.
#[derive(Debug)]
pub struct OperatorKeys(Vec<[u8; 32]>);

impl OperatorKeys {
    /// Keeps the hashes of these keys.
    pub fn new(keys: &[String]) -> Self {
        Self(keys.iter().map(|key| Sha256::digest(key).into()).collect())
    }

    /// Whether this is one of them. Every one is compared, in constant time.
    pub fn knows(&self, key: &[u8]) -> bool {
        let hash: [u8; 32] = Sha256::digest(key).into();
        self.0.iter().fold(false, |found, known| found | bool::from(known.ct_eq(&hash)))
    }
}

/// Whoever shows one of the operator's keys.
#[derive(Debug, Clone, Copy)]
pub struct Operator;

/// The tenant that a request acts in, after its key was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenant(pub TenantId);

impl FromRequestParts<AppState> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let key = key_of(&parts.headers)
            .ok_or_else(|| Problem::new(Code::Unauthorized, "No key was sent with this request."))?;
        if state.keys.knows(key) { Ok(Self) } else { Err(Problem::new(Code::Unauthorized, "The key is not known.")) }
    }
}

impl FromRequestParts<AppState> for Tenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        Operator::from_request_parts(parts, state).await?;
        let Some(name) = parts.headers.get(TENANT_HEADER) else {
            return Ok(Self(TenantId::DEFAULT));
        };
        let name = name.to_str().map_err(|_| Problem::not_found("tenant"))?;
        state.tenants.find(name).await?.map(Self).ok_or_else(|| Problem::not_found("tenant"))
    }
}

fn key_of(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let value = value.as_bytes();
        let (scheme, key) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
    });
    bearer.or_else(|| headers.get("x-api-key").map(|value| value.as_bytes().trim_ascii()))
}

/// Finds tenants by name. Remembers those that it found for a few seconds (economy).
#[derive(Debug)]
pub struct TenantDirectory {
    store: Arc<dyn Store>,
    known: Cache<String, TenantId>,
}

impl TenantDirectory {
    /// One that knows nobody yet.
    pub fn new(store: Arc<dyn Store>) -> Self {
        let known = Cache::builder().max_capacity(10_000).time_to_live(Duration::from_secs(1)).build();
        Self { store, known }
    }

    /// The tenant with that id or slug.
    ///
    /// # Errors
    /// The store is away.
    pub async fn find(&self, name: &str) -> Result<Option<TenantId>, StoreError> {
        if name == "default" {
            return Ok(Some(TenantId::DEFAULT));
        }
        if let Some(id) = self.known.get(name) {
            return Ok(Some(id));
        }
        let found = match name.parse::<TenantId>() {
            Ok(id) => self.store.tenant_exists(id).await?.then_some(id),
            Err(_) => self.store.tenant_by_slug(name).await?,
        };
        if let Some(id) = found {
            self.known.insert(name.to_owned(), id);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_or_not() {
        let keys = OperatorKeys::new(&["first-key-1234567".to_owned(), "second-key-123456".to_owned()]);
        assert!(keys.knows(b"first-key-1234567"));
        assert!(keys.knows(b"second-key-123456"));
        assert!(!keys.knows(b"first-key-123456"));
        assert!(!keys.knows(b""));
        assert!(!OperatorKeys::new(&[]).knows(b""));
    }

    #[test]
    fn a_key_is_read_from_either_header() {
        let headers = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            headers
        };
        for (name, value, expected) in [
            ("authorization", "Bearer abc", Some("abc")),
            ("authorization", "bearer  abc ", Some("abc")),
            ("authorization", "Basic abc", None),
            ("authorization", "Bear", None),
            ("x-api-key", "abc", Some("abc")),
        ] {
            let headers = headers(name, value);
            assert_eq!(key_of(&headers), expected.map(str::as_bytes), "{name}: {value}");
        }
    }
}
