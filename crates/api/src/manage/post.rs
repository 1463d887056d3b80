//! A POST of the management half: done once per `Idempotency-Key`, its body judged after what its path names was found.

use std::future::Future;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Map, Value};
use signalpost_core::{DestinationId, TenantId};

use super::{
    fields::{Fields, Violations},
    named::Named,
};
use crate::{
    audit::{self, Change},
    auth::{Caller, Who},
    idempotency::{self, Answer},
    json::{self, Body, Document},
    problem::{Code, Problem},
    quota,
    settings::MAX_MANAGE_BYTES,
    state::AppState,
};

/// A body that has arrived and was not judged yet: a body that is too large is not worse than a path that leads nowhere.
pub struct Input {
    bytes: Result<Bytes, Problem>,
    is_json: bool,
}

impl Input {
    /// The JSON object that it is.
    ///
    /// # Errors
    /// 413, 415, 400, 422.
    pub fn object(self) -> Result<Map<String, Value>, Problem> {
        let bytes = self.bytes?;
        if !self.is_json {
            return Err(json::unsupported("application/json"));
        }
        Document::new(bytes)?.object()
    }

    /// The same of an operation that needs no body: an empty one, of any content type, is an empty object.
    ///
    /// # Errors
    /// 413, 415, 400, 422.
    pub fn object_if_any(self) -> Result<Map<String, Value>, Problem> {
        if self.bytes.as_ref().is_ok_and(Bytes::is_empty) { Ok(Map::new()) } else { self.object() }
    }

    /// For an operation that knows no fields.
    ///
    /// # Errors
    /// 413, 415, 400, 422.
    pub fn nothing(self) -> Result<(), Problem> {
        let members = self.object_if_any()?;
        let mut violations = Violations::default();
        Fields::new(&members, "", &mut violations).finish(&[]);
        violations.or(())
    }
}

/// Does `work` once per key. What the path names is looked up within `work`, before the body is judged: a repetition gets
/// the first answer even where the thing has gone since.
///
/// # Errors
/// Those of the work, and those of the key.
pub async fn once<F>(
    state: &AppState,
    caller: &Caller,
    body: Body,
    work: impl FnOnce(Input) -> F,
) -> Result<Response, Problem>
where
    F: Future<Output = Result<Answer, Problem>> + Send + 'static,
{
    let headers: HeaderMap = body.parts.headers.clone();
    let path = body.parts.uri.path().to_owned();
    let is_json = body.media_type().is_none_or(|media_type| json::is_json(&media_type));
    let bytes = body.bytes(MAX_MANAGE_BYTES).await;
    let Ok(content) = bytes.clone() else {
        // Nothing is done with a body that is not there; only the path may be judged before it.
        return work(Input { bytes, is_json }).await.map(IntoResponse::into_response);
    };
    let mut scope = idempotency::scope(&path, destination(&content));
    if caller.who == Who::Stranger {
        guard(&headers)?;
        scope = format!("{scope} {}", quota::network(caller.address));
    }
    idempotency::run(state, caller.tenant.id, &headers, &path, scope, &content, || work(Input { bytes, is_json })).await
}

/// The least characters of a stranger's `Idempotency-Key`.
const GUARDING: usize = 32;

/// Strangers have no key of ours: who sends the same `Idempotency-Key` gets the answer, in which a key stands.
fn guard(headers: &HeaderMap) -> Result<(), Problem> {
    if idempotency::key_of(headers)?.is_some_and(|key| key.len() < GUARDING) {
        let detail =
            format!("An Idempotency-Key that comes without a key of ours must have {GUARDING} or more characters.");
        return Err(Problem::new(Code::BadRequest, detail));
    }
    Ok(())
}

/// Does to what the path names what needs no body: [`once`], and with an entry in the audit log under the name `action`.
///
/// # Errors
/// 404; those of the work, and those of the key.
pub async fn act<T, F>(
    state: AppState,
    caller: Caller,
    action: &'static str,
    name: String,
    body: Body,
    work: impl FnOnce(AppState, TenantId, T) -> F + Send + 'static,
) -> Result<Response, Problem>
where
    T: Named,
    F: Future<Output = Result<Answer, Problem>> + Send + 'static,
{
    let (at, by) = (state.clone(), caller.clone());
    once(&state, &caller, body, |input| async move {
        let found = T::find(&at, by.tenant.id, &name).await?;
        input.nothing()?;
        let change = Change::new(action, found.id()).before(&found.shown());
        audit::change(&at, &by, change, work(at.clone(), by.tenant.id, found)).await
    })
    .await
}

/// The destination that a body names, where it is a valid one.
fn destination(content: &Bytes) -> Option<DestinationId> {
    let members = Document::new(content.clone()).and_then(|document| document.object()).ok()?;
    members.get("destination_id")?.as_str()?.parse().ok()
}
