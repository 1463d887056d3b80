//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).
//!
//! Events keep their keys in their own transaction ([`signalpost_store::ingest::KeyClaim`]). Every other POST runs through
//! [`run`]: the key is taken under a lease, the work is done in a task of its own (a client that hangs up does not stop
//! it half-way), then the answer is kept. A process that dies in between leaves a key whose lease runs out.

use std::{future::Future, time::Duration};

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use signalpost_core::{DestinationId, Sealed, TenantId};
use signalpost_store::{
    StoreError,
    ingest::StoredAnswer,
    manage::{Begun, IdempotencyKey},
};
use signalpost_vault::Place;

use crate::{
    problem::{self, Code, Problem},
    state::AppState,
};

/// Tells that an answer was given before.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// How long a key stays taken by a process that died. Longer than any request of ours lasts.
pub const LEASE: Duration = Duration::from_secs(120);

/// How long a request waits for the first one with its key.
const MOST_WAIT: Duration = Duration::from_secs(90);

/// The key of a request, where it has one.
///
/// # Errors
/// 400: it is not 1 to 255 visible ASCII characters, with or without quotes.
pub fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key").or_else(|| headers.get("x-idempotency-key")) else {
        return Ok(None);
    };
    let text = value.as_bytes().trim_ascii();
    let key = match text {
        [b'"', inner @ .., b'"'] => unescape(inner),
        other => other.to_vec(),
    };
    let fits = (1..=255).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
    String::from_utf8(key)
        .ok()
        .filter(|_| fits)
        .map(Some)
        .ok_or_else(|| Problem::new(Code::BadRequest, "The Idempotency-Key must be 1 to 255 visible ASCII characters."))
}

/// The content of a string of RFC 8941: a backslash stands before quotes and backslashes.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        out.push(if *byte == b'\\' { *rest.next().unwrap_or(byte) } else { *byte });
    }
    out
}

/// What a handler answers: can be kept and given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// JSON; empty where there is none.
    pub body: Bytes,
    /// Of what was created: the path.
    pub location: Option<String>,
    /// It holds a secret or a key: it is encrypted where it is kept, and masked in the audit log.
    pub secret: bool,
}

impl Answer {
    /// With a JSON body.
    pub fn json(status: StatusCode, body: &impl Serialize) -> Result<Self, Problem> {
        let body = serde_json::to_vec(body).map_err(|error| Problem::internal(&error))?;
        Ok(Self { status, body: body.into(), location: None, secret: false })
    }

    /// 201 with `Location`.
    pub fn created(location: String, body: &impl Serialize) -> Result<Self, Problem> {
        Ok(Self { location: Some(location), ..Self::json(StatusCode::CREATED, body)? })
    }

    /// The same; it holds a secret or a key.
    #[must_use]
    pub fn with_secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// Without a body.
    pub const fn empty(status: StatusCode) -> Self {
        Self { status, body: Bytes::new(), location: None, secret: false }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let media_type = if self.status.is_client_error() { problem::MEDIA_TYPE } else { "application/json" };
        let empty = self.body.is_empty();
        let mut response = (self.status, self.body).into_response();
        let headers = response.headers_mut();
        if empty {
            headers.remove(header::CONTENT_TYPE);
        } else {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        if let Some(location) = self.location.and_then(|location| HeaderValue::try_from(location).ok()) {
            headers.insert(header::LOCATION, location);
        }
        response
    }
}

/// The first answer as it is given again: with `duplicate: true`.
pub fn as_duplicate(body: &Bytes) -> Bytes {
    // All our answers are objects with members; they are not parsed again for the sake of one more.
    match body.strip_suffix(b"}") {
        Some(members) if members.len() > 1 => [members, b",\"duplicate\":true}"].concat().into(),
        _ => body.clone(),
    }
}

/// Answers with what was answered before.
pub fn replayed(mut response: Response) -> Response {
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// Does the work of a POST other than of events once per key.
///
/// `path` is the path of the request (ids included); what was created lies below it. `scope` is that of the key, within the
/// tenant ([`scope`]). `body` is what makes two requests the same. Without a key the work is just done. Problems are not kept:
/// a request that failed may be sent again with the same key, with a mended body.
///
/// # Errors
/// Those of the work; 422 where the key was used with another body; 503 where the first request does not end.
pub async fn run<W, F>(
    state: &AppState,
    tenant: TenantId,
    headers: &HeaderMap,
    path: &str,
    scope: String,
    body: &[u8],
    work: W,
) -> Result<Response, Problem>
where
    W: FnOnce() -> F,
    F: Future<Output = Result<Answer, Problem>> + Send + 'static,
{
    let Some(key) = key_of(headers)? else {
        return Ok(work().await?.into_response());
    };
    let key =
        IdempotencyKey { scope, key, body_hash: Sha256::digest(body).into(), ttl: state.settings.idempotency_ttl };
    if let Some(mut answer) = begin(state, tenant, &key).await? {
        answer.body = open(state, tenant, &key, answer.body)?;
        let mut answer = restore(path, answer);
        answer.body = as_duplicate(&answer.body);
        return Ok(replayed(answer.into_response()));
    }
    let (state, work) = (state.clone(), work());
    let done = tokio::spawn(async move {
        let result = work.await;
        let kept = match &result {
            Ok(answer) => keep(&state, tenant, &key, answer).await.map(Some),
            Err(_) => Ok(None),
        };
        let finished = match kept {
            Ok(kept) => state.ports.store.finish_idempotent(tenant, &key, kept.as_ref()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = finished {
            // It was done, but a repetition would not know: the client has to ask again with the key.
            tracing::warn!(%error, "the answer of an idempotent request could not be kept");
            return result.and(Err(Problem::from(error)));
        }
        result
    });
    match done.await {
        Ok(result) => Ok(result?.into_response()),
        Err(panic) => Err(Problem::internal(&panic)),
    }
}

/// Of a key: the route, and the destination where one is given.
pub fn scope(path: &str, destination: Option<DestinationId>) -> String {
    destination.map_or_else(|| format!("POST {path}"), |id| format!("POST {path} {id}"))
}

/// None: the key is ours. Else what was answered before.
async fn begin(state: &AppState, tenant: TenantId, key: &IdempotencyKey) -> Result<Option<StoredAnswer>, Problem> {
    let start = state.ports.clock.elapsed();
    let mut pause = Duration::from_millis(10);
    loop {
        match state.ports.store.begin_idempotent(tenant, key, LEASE).await? {
            Begun::First => return Ok(None),
            Begun::Answered(answer) => return Ok(Some(answer)),
            Begun::Mismatch => return Err(mismatch()),
            Begun::InFlight if state.ports.clock.elapsed().saturating_sub(start) > MOST_WAIT => {
                return Err(Problem::unavailable("The first request with this Idempotency-Key has not ended."));
            }
            Begun::InFlight => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(250));
            }
        }
    }
}

/// 422: the key was used with another body.
pub fn mismatch() -> Problem {
    Problem::new(Code::IdempotencyMismatch, "This Idempotency-Key was used with another body.")
}

/// The answer of then. `Location` is not kept: it is the path and the id of what was created.
fn restore(path: &str, answer: StoredAnswer) -> Answer {
    #[derive(serde::Deserialize)]
    struct Created {
        id: String,
    }
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Shown {
        Itself(Created),
        Tenant { tenant: Created },
    }
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let location = (status == StatusCode::CREATED)
        .then(|| serde_json::from_slice(&answer.body).ok())
        .flatten()
        .map(|(Shown::Itself(created) | Shown::Tenant { tenant: created })| format!("{path}/{}", created.id));
    Answer { location, body: answer.body, ..Answer::empty(status) }
}

/// An answer as it is kept: encrypted where it holds a secret or a key. Not yet where processes run that cannot read what is
/// encrypted; those know no keys.
async fn keep(
    state: &AppState,
    tenant: TenantId,
    key: &IdempotencyKey,
    answer: &Answer,
) -> Result<StoredAnswer, StoreError> {
    let status = answer.status.as_u16();
    let is_of_keys = key.scope.starts_with("POST /v1/tenants");
    if !answer.secret || !(is_of_keys || state.is_sealed().await?) {
        return Ok(StoredAnswer { status, body: answer.body.clone() });
    }
    let ports = &state.ports;
    let sealed = ports.sender.vault().seal(&*ports.entropy, place(tenant, key), &answer.body);
    Ok(StoredAnswer { status, body: Bytes::copy_from_slice(sealed.as_bytes()) })
}

/// The body of an answer that was kept. What is encrypted begins as no JSON does.
fn open(state: &AppState, tenant: TenantId, key: &IdempotencyKey, body: Bytes) -> Result<Bytes, Problem> {
    let sealed = Sealed::new(body.clone());
    if sealed.key_id().is_none() {
        return Ok(body);
    }
    let opened = state.ports.sender.vault().open(place(tenant, key), &sealed);
    opened.map(|body| Bytes::copy_from_slice(&body)).map_err(|error| Problem::internal(&error))
}

fn place(tenant: TenantId, key: &IdempotencyKey) -> Place<'_> {
    Place::Answer { tenant, scope: &key.scope, key: &key.key }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_optional() {
        let read = |name: &'static str, value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_bytes(value).unwrap());
            key_of(&headers).map_err(|problem| problem.code)
        };
        assert_eq!(read("idempotency-key", b"abc"), Ok(Some("abc".to_owned())));
        assert_eq!(read("idempotency-key", b"\"abc\""), Ok(Some("abc".to_owned())));
        assert_eq!(read("x-idempotency-key", b"\"a\\\"c\""), Ok(Some("a\"c".to_owned())));
        assert_eq!(read("idempotency-key", &[b'k'; 255]), Ok(Some("k".repeat(255))));
        for bad in [b"".as_slice(), b"\"\"", b"a b", &[b'k'; 256], "ü".as_bytes()] {
            assert_eq!(read("idempotency-key", bad), Err(Code::BadRequest), "{bad:?}");
        }
        assert_eq!(key_of(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn what_is_given_again_says_so() {
        let again = |body: &'static [u8]| as_duplicate(&Bytes::from_static(body));
        assert_eq!(again(br#"{"id":"x"}"#), br#"{"id":"x","duplicate":true}"#.as_slice());
        assert_eq!(again(b"{}"), b"{}".as_slice());
        assert_eq!(again(b""), b"".as_slice());
    }

    #[test]
    fn the_place_of_what_was_created_is_found_again() {
        let stored = StoredAnswer { status: 201, body: Bytes::from_static(br#"{"id":"dst_1","name":"x"}"#) };
        let answer = restore("/v1/destinations", stored);
        assert_eq!(answer.location.as_deref(), Some("/v1/destinations/dst_1"));
    }
}
