//! The extractors of handlers.

use std::{net::IpAddr, ops::Deref, sync::Arc};

use axum::extract::FromRequestParts;
use http::{HeaderMap, header, request::Parts};
use signalpost_core::{KeyHash, KeyId, Scope, Scopes, Tenant, key::KEY_PREFIX};

use super::{KnownKey, client_address};
use crate::{
    edge::RequestId,
    problem::{Code, Problem},
    state::AppState,
};

/// Names the tenant that an operator acts in, by id or slug.
const TENANT_HEADER: &str = "signalpost-tenant";

/// What a tenant's key is long: others are not looked for.
const KEY_CHARS: usize = 55;

/// Who asks, in which tenant, with which scopes, from where.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub who: Who,
    /// In which tenant, as it was a moment ago.
    pub tenant: Arc<Tenant>,
    /// What the key may do.
    pub scopes: Scopes,
    /// From where; none where the connection is not known.
    pub address: Option<IpAddr>,
    /// The id of the request.
    pub request_id: Arc<str>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The operator, with the key whose hash begins so.
    Operator([u8; 4]),
    /// A tenant's key.
    Key(KeyId),
    /// Somebody without a key, who registers.
    Stranger,
}

impl Who {
    /// As the audit log names it.
    pub fn actor(self) -> String {
        match self {
            Self::Operator(hash) => format!("operator:{:08x}", u32::from_be_bytes(hash)),
            Self::Key(id) => id.to_string(),
            Self::Stranger => "registration".to_owned(),
        }
    }
}

impl Caller {
    async fn of(parts: &Parts, state: &AppState) -> Result<Self, Problem> {
        let shown = Shown::of(&parts.headers)?;
        let asked = parts.headers.get(TENANT_HEADER);
        if state.operators.knows(&shown.hash) {
            let name = match asked {
                None => "default",
                Some(name) => name.to_str().map_err(|_| no_tenant())?,
            };
            return Self::operator(parts, state, &shown.hash, name).await;
        }
        let known = shown.known(state).await?;
        state.last_use.note(known.key.id, state.ports.clock.now());
        let tenant = Arc::clone(&known.tenant);
        // The key decides. One that is sent to another tenant than its own is a mistake, and finds no such tenant.
        let is_own = |name: &[u8]| name == tenant.slug.as_bytes() || name == tenant.id.to_string().as_bytes();
        if asked.is_some_and(|name| !is_own(name.as_bytes())) {
            return Err(no_tenant());
        }
        Ok(Self::new(parts, state, Who::Key(known.key.id), tenant, known.key.scopes))
    }

    async fn operator(parts: &Parts, state: &AppState, hash: &KeyHash, tenant: &str) -> Result<Self, Problem> {
        let tenant = state.directory.tenant(tenant).await?.ok_or_else(no_tenant)?;
        let [a, b, c, d, ..] = *hash.as_bytes();
        Ok(Self::new(parts, state, Who::Operator([a, b, c, d]), tenant, Scopes::all()))
    }

    fn new(parts: &Parts, state: &AppState, who: Who, tenant: Arc<Tenant>, scopes: Scopes) -> Self {
        let request_id = parts.extensions.get::<RequestId>().map_or_else(|| "".into(), |id| Arc::clone(&id.0));
        let address = client_address(parts, &state.settings.trusted_proxies);
        Self { who, tenant, scopes, address, request_id }
    }

    fn check(&self, scope: u16) -> Result<(), Problem> {
        let missing = Scope::ALL.into_iter().find(|one| *one as u16 & scope != 0 && !self.scopes.contains(*one));
        match missing {
            None => Ok(()),
            Some(scope) => {
                let detail = format!("The key may not do this: it has not the scope `{}`.", scope.as_str());
                Err(Problem::new(Code::Forbidden, detail))
            }
        }
    }
}

/// A caller whose key has this scope (the bits of [`Scope`]).
#[derive(Debug, Clone)]
pub struct May<const SCOPE: u16>(pub Caller);

/// May post events.
pub type EventsWrite = May<{ Scope::EventsWrite as u16 }>;
/// May read events and what became of them.
pub type EventsRead = May<{ Scope::EventsRead as u16 }>;
/// May read destinations.
pub type DestinationsRead = May<{ Scope::DestinationsRead as u16 }>;
/// May change destinations.
pub type DestinationsWrite = May<{ Scope::DestinationsWrite as u16 }>;
/// May send again and discard.
pub type DeadLettersWrite = May<{ Scope::DeadLettersWrite as u16 }>;
/// May read the audit log.
pub type AuditRead = May<{ Scope::AuditRead as u16 }>;

impl<const SCOPE: u16> FromRequestParts<AppState> for May<SCOPE> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let caller = Caller::of(parts, state).await?;
        caller.check(SCOPE)?;
        Ok(Self(caller))
    }
}

impl<const SCOPE: u16> Deref for May<SCOPE> {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

/// The operator, who acts on tenants; in `default`, whatever tenant a header names.
#[derive(Debug, Clone)]
pub struct Operator(pub Caller);

impl FromRequestParts<AppState> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let shown = Shown::of(&parts.headers)?;
        if state.operators.knows(&shown.hash) {
            return Caller::operator(parts, state, &shown.hash, "default").await.map(Self);
        }
        shown.known(state).await?;
        Err(Problem::new(Code::Forbidden, "The key may not do this: it takes an operator's."))
    }
}

/// Who may create a tenant: the operator, or, where that is open to everybody, somebody without a key.
#[derive(Debug, Clone)]
pub struct Registrar(pub Caller);

impl FromRequestParts<AppState> for Registrar {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        if state.settings.open_registrations_per_hour.is_none() || key_of(&parts.headers).is_some() {
            return Operator::from_request_parts(parts, state).await.map(|Operator(caller)| Self(caller));
        }
        let tenant = state.directory.tenant("default").await?.ok_or_else(no_tenant)?;
        Ok(Self(Caller::new(parts, state, Who::Stranger, tenant, Scopes::default())))
    }
}

/// The key that a request shows.
struct Shown<'a> {
    text: &'a [u8],
    hash: KeyHash,
}

impl<'a> Shown<'a> {
    fn of(headers: &'a HeaderMap) -> Result<Self, Problem> {
        let missing = || {
            Problem::new(
                Code::Unauthorized,
                "No key was sent with this request: it belongs into the header `Authorization: Bearer <key>`.",
            )
        };
        let text = key_of(headers).ok_or_else(missing)?;
        Ok(Self { text, hash: KeyHash::of(text) })
    }

    /// Whose it is, where it is a tenant's. What cannot be one is not asked for.
    async fn known(&self, state: &AppState) -> Result<Arc<KnownKey>, Problem> {
        let unknown = || Problem::new(Code::Unauthorized, "The key is not known.");
        if self.text.len() != KEY_CHARS || !self.text.starts_with(KEY_PREFIX.as_bytes()) {
            return Err(unknown());
        }
        state.directory.key(self.hash).await?.ok_or_else(unknown)
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

fn no_tenant() -> Problem {
    Problem::not_found("tenant")
}

#[cfg(test)]
mod tests {
    use signalpost_runtime::SystemEntropy;

    use super::*;

    #[test]
    fn keys_that_are_made_are_looked_for() {
        assert_eq!(signalpost_core::key::new_key(&SystemEntropy).reveal().len(), KEY_CHARS);
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
