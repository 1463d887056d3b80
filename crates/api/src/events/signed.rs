//! Events that their producer signed: what a tenant's `ingest_signature` asks for.
//!
//! [`check`] judges the signature, before the body is parsed; [`Mark`] sees to it that what was signed is taken once. The mark is of what was signed, not of
//! the signature's text, which can be written in more than one way.
//!
//! `standard` signs an id and a time: a request is taken within five minutes and once, and a producer that tries again signs again. `hmac` signs the
//! body alone. There the same bytes may be the producer's own repetition: they are let through where they say so themselves, by an `Idempotency-Key` or by
//! a `uid` in what is signed, and then they are the duplicate that they claim to be. Without one they are refused as long as keys are kept; after that time
//! such a request can be played again.
//!
//! What it does not protect: headers. They are not signed, but for the id and time of `standard`.

use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use sha2::{Digest as _, Sha256};
use signalpost_core::{Tenant, TenantId, Timestamp, secret::Secret, tenant::IngestSignature};
use signalpost_sender::signatures;
use signalpost_signing::{Canonical, ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, TOLERANCE, VerifyError};
use signalpost_store::{
    ingest::StoredAnswer,
    manage::{Begun, IdempotencyKey},
};
use signalpost_vault::Place;
use tracing::Instrument as _;

use crate::{
    idempotency,
    problem::{Code, Problem},
    state::AppState,
};

/// Of the marks, among idempotency keys. No route is called so.
const SCOPE: &str = "signature";

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not signed.
    #[error("The header `{0}` is missing, or is no text.")]
    Missing(String),
    /// The signature is another body's, or made with another secret.
    #[error("The signature does not fit.")]
    Wrong,
    /// It was signed too long ago, or in the future.
    #[error("The signature is more than {} minutes old, or from the future.", TOLERANCE.as_secs() / 60)]
    Stale,
    /// It was taken before.
    #[error("What is signed here was taken before.")]
    Replayed,
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let code = if refused == Refused::Replayed { Code::SignatureReplayed } else { Code::SignatureInvalid };
        Self::new(code, refused.to_string())
    }
}

/// A request whose signature is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The hash of what was signed.
    content: [u8; 32],
    /// Nothing in it is the request's own, so that a repetition of the producer's looks the same.
    timeless: bool,
}

/// Judges a signature by the scheme, with any of the secrets.
///
/// # Errors
/// Why it is refused.
pub fn verify(
    scheme: &IngestSignature,
    secrets: &[Secret],
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<Signed, Refused> {
    match scheme {
        IngestSignature::Standard => {
            let [id, timestamp, signature] =
                [ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER].map(|name| text(headers, name));
            let (id, timestamp, signature) = (id?, timestamp?, signature?);
            let secrets: Vec<_> =
                secrets.iter().filter_map(|secret| signalpost_signing::Secret::parse(secret.reveal()).ok()).collect();
            signalpost_signing::verify(&secrets, id, timestamp, signature, body, now.as_secs(), TOLERANCE).map_err(
                |error| match error {
                    VerifyError::Old | VerifyError::Future => Refused::Stale,
                    VerifyError::Timestamp | VerifyError::Signature => Refused::Wrong,
                },
            )?;
            // As it is signed: `+1` and `01` are the same time.
            let timestamp: i64 = timestamp.parse().map_err(|_| Refused::Wrong)?;
            let head = format!("standard\0{id}.{timestamp}.");
            Ok(Signed {
                content: Sha256::new().chain_update(head).chain_update(body).finalize().into(),
                timeless: false,
            })
        }
        IngestSignature::Hmac(scheme) => {
            let value = text(headers, &scheme.header)?;
            let canonical = signatures::hmac(scheme, "").canonical();
            let fits = secrets.iter().any(|secret| signatures::hmac(scheme, secret.reveal()).verify(body, value));
            if !fits {
                return Err(Refused::Wrong);
            }
            let signed = Canonical::of(canonical, body);
            Ok(Signed {
                content: Sha256::new().chain_update("hmac\0").chain_update(signed).finalize().into(),
                timeless: true,
            })
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Refused> {
    let missing = || Refused::Missing(name.to_ascii_lowercase());
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| missing())?;
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim).ok_or_else(missing)
}

/// Judges a request to a tenant; none where the tenant's producers need not sign.
///
/// # Errors
/// 403; 500 where the tenant's secret cannot be read: then nothing is taken.
pub fn check(state: &AppState, tenant: &Tenant, headers: &HeaderMap, body: &[u8]) -> Result<Option<Signed>, Problem> {
    let Some(scheme) = &tenant.spec.ingest_signature else { return Ok(None) };
    let secret = secret_of(state, tenant)?;
    Ok(Some(verify(scheme, &[secret], headers, body, state.ports.clock.now())?))
}

/// The secret that a tenant's producers sign with.
///
/// # Errors
/// 500: there is none, or the key that it is encrypted with is not set.
pub fn secret_of(state: &AppState, tenant: &Tenant) -> Result<Secret, Problem> {
    let sealed =
        tenant.ingest_secret.as_ref().ok_or_else(|| Problem::internal(&"a tenant without its ingest secret"))?;
    let opened =
        state.ports.sender.vault().open(Place::Ingest(tenant.id), sealed).map_err(|error| Problem::internal(&error))?;
    let text = std::str::from_utf8(&opened).map_err(|error| Problem::internal(&error))?;
    Ok(Secret::new(text))
}

/// What makes a repetition harmless: it is recognised by something else, and answered as a duplicate.
#[derive(Debug, Clone, Copy)]
pub enum Repeatable<'a> {
    /// By its `Idempotency-Key`.
    Key(&'a str),
    /// By the `uid` of each of its events, which is signed.
    Uid,
    /// By nothing.
    No,
}

impl<'a> Repeatable<'a> {
    /// Of a request with this key, whose events all have a `uid` in what is signed, or do not.
    pub fn new(key: Option<&'a str>, all_have_uids: bool) -> Self {
        match key {
            Some(key) => Self::Key(key),
            None if all_have_uids => Self::Uid,
            None => Self::No,
        }
    }
}

/// That something signed is being taken, or was.
#[derive(Debug)]
#[must_use = "a request that failed gives its mark back"]
pub struct Mark {
    tenant: TenantId,
    key: IdempotencyKey,
    /// It is this request's.
    first: bool,
}

impl Mark {
    /// Marks what was signed. `path`: one route's duplicates are not known to another one.
    ///
    /// # Errors
    /// 403: it was taken before; 503.
    pub async fn take(
        state: &AppState,
        tenant: TenantId,
        signed: Option<Signed>,
        path: &str,
        repeatable: Repeatable<'_>,
    ) -> Result<Option<Self>, Problem> {
        let Some(signed) = signed else { return Ok(None) };
        let repeatable = if signed.timeless { repeatable } else { Repeatable::No };
        let by = match repeatable {
            Repeatable::Key(key) => format!("key {path} {key}"),
            Repeatable::Uid => "uid".to_owned(),
            Repeatable::No => String::new(),
        };
        let ttl = if signed.timeless { state.settings.idempotency_ttl } else { Self::timed() };
        let key = IdempotencyKey {
            scope: SCOPE.to_owned(),
            key: hex::encode(signed.content),
            body_hash: Sha256::digest(by).into(),
            ttl,
        };
        // Until it is known to be taken it is marked for no longer than a request takes: one whose process died may come again.
        let first = match state.ports.store.begin_idempotent(tenant, &key, idempotency::LEASE.min(ttl)).await? {
            Begun::First => true,
            Begun::InFlight | Begun::Answered(_) if !matches!(repeatable, Repeatable::No) => false,
            Begun::InFlight => return Err(Problem::unavailable("What is signed here is being taken just now.")),
            Begun::Answered(_) | Begun::Mismatch => return Err(Refused::Replayed.into()),
        };
        Ok(Some(Self { tenant, key, first }))
    }

    /// How long a signature with a time is remembered: it is stale before.
    const fn timed() -> Duration {
        Duration::from_secs(2 * TOLERANCE.as_secs() + 60)
    }

    /// Does the work that is marked; then keeps the mark, or, where it failed, gives it back, so that it may be sent again as it is.
    /// Also for a caller that goes away meanwhile.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn around<F>(self, state: &AppState, work: F) -> Result<Response, Problem>
    where
        F: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        if !self.first {
            return work.await;
        }
        let state = state.clone();
        let marked = async move {
            let result = work.await;
            // Before the answer: whoever repeats it then is told for certain that it was taken.
            self.settle(&state, result.as_ref().is_ok_and(|response| response.status().is_success())).await;
            result
        };
        tokio::spawn(marked.in_current_span()).await.unwrap_or_else(|panic| Err(Problem::internal(&panic)))
    }

    async fn settle(&self, state: &AppState, taken: bool) {
        let mark = StoredAnswer { status: StatusCode::ACCEPTED.as_u16(), body: Bytes::new() };
        let settled = state.ports.store.finish_idempotent(self.tenant, &self.key, taken.then_some(&mark)).await;
        if let Err(error) = settled {
            tracing::warn!(%error, taken, "what was signed is marked for two minutes, whether it was taken or not");
        }
    }
}

#[cfg(test)]
mod tests {
    use signalpost_core::signature::{self, DigestEncoding, HmacScheme};
    use signalpost_signing::{Encoding, HmacHeader};

    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NOW: i64 = 1_700_000_000;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn standard(headers: &HeaderMap, body: &[u8]) -> Result<Signed, Refused> {
        let secrets = [Secret::new("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), Secret::new(SECRET)];
        verify(&IngestSignature::Standard, &secrets, headers, body, Timestamp::from_millis(NOW * 1000))
    }

    #[test]
    fn standard_wants_its_three_headers_right() {
        let sign = |id: &str, at: i64| signalpost_signing::Secret::parse(SECRET).unwrap().sign(id, at, b"{}");
        let of = |at: &str, signature: &str| {
            headers(&[("webhook-id", "m1"), ("webhook-timestamp", at), ("webhook-signature", signature)])
        };
        let now = NOW.to_string();
        let good = standard(&of(&now, &sign("m1", NOW)), b"{}").unwrap();
        assert!(!good.timeless);
        // The same however it is written.
        for (at, signature) in
            [(format!("+{now}"), sign("m1", NOW)), (format!("0{now}"), format!("v1,AAAA {}", sign("m1", NOW)))]
        {
            assert_eq!(standard(&of(&at, &signature), b"{}"), Ok(good.clone()));
        }
        assert_ne!(standard(&of(&(NOW + 1).to_string(), &sign("m1", NOW + 1)), b"{}").unwrap(), good);
        for (at, signature, refused) in [
            (now.clone(), sign("m2", NOW), Refused::Wrong),
            (now.clone(), "v1,".to_owned(), Refused::Wrong),
            ("soon".to_owned(), sign("m1", NOW), Refused::Wrong),
            ((NOW - 301).to_string(), sign("m1", NOW - 301), Refused::Stale),
            ((NOW + 301).to_string(), sign("m1", NOW + 301), Refused::Stale),
        ] {
            assert_eq!(standard(&of(&at, &signature), b"{}"), Err(refused), "{at} {signature}");
        }
        assert_eq!(standard(&of(&now, &sign("m1", NOW)), b"{ }"), Err(Refused::Wrong));
        assert_eq!(standard(&headers(&[]), b"{}"), Err(Refused::Missing("webhook-id".into())));
        let two = headers(&[("webhook-id", "m1"), ("webhook-timestamp", &now)]);
        assert_eq!(standard(&two, b"{}"), Err(Refused::Missing("webhook-signature".into())));
    }

    #[test]
    fn hmac_signs_the_document_whatever_its_form() {
        let scheme = IngestSignature::Hmac(HmacScheme {
            header: "X-HMAC-Signature".into(),
            prefix: String::new(),
            encoding: DigestEncoding::Hex,
            canonical: signature::Canonical::SortedKeys,
        });
        let check = |body: &[u8], value: &str| {
            let headers = headers(&[("x-hmac-signature", value)]);
            verify(&scheme, &[Secret::new("key")], &headers, body, Timestamp::from_millis(0))
        };
        let value = HmacHeader::new(b"key", "", Encoding::Hex, Canonical::Raw).sign(br#"{"a": 1, "b": 2}"#);
        let one = check(br#"{"b":2,"a":1}"#, &value).unwrap();
        assert!(one.timeless);
        assert_eq!(check(br#"{"a":1,"b":2}"#, &value.to_uppercase()), Ok(one), "one content, one mark");
        assert_eq!(check(br#"{"a":1,"b":3}"#, &value), Err(Refused::Wrong));
        assert_eq!(check(b"{}", ""), Err(Refused::Wrong));
        let none = verify(&scheme, &[], &headers(&[("x-hmac-signature", &value)]), b"{}", Timestamp::from_millis(0));
        assert_eq!(none, Err(Refused::Wrong), "without a secret nothing fits");
    }
}
