//! Whether a signature is right.

use http::HeaderMap;
use serde::Serialize;
use signalpost_signing::{ID_HEADER, SIGNATURE_HEADER, Secret, TIMESTAMP_HEADER, TOLERANCE, verify};

/// What is known of a request's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "signature", content = "why")]
pub enum Verdict {
    /// It is right.
    Valid,
    /// It is missing or wrong, for this reason.
    Invalid(String),
    /// No secret is known here.
    Unchecked,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Valid => f.write_str("signature ok"),
            Self::Invalid(why) => write!(f, "SIGNATURE WRONG: {why}"),
            Self::Unchecked => f.write_str("signature not checked"),
        }
    }
}

/// Judges a request by Standard Webhooks 1.0. `now` is in seconds since the Unix epoch; without secrets nothing is judged.
pub fn judge(secrets: &[Secret], headers: &HeaderMap, body: &[u8], now: i64) -> Verdict {
    if secrets.is_empty() {
        return Verdict::Unchecked;
    }
    let mut values = [""; 3];
    for (value, name) in values.iter_mut().zip([ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER]) {
        match headers.get(name).map(http::HeaderValue::to_str) {
            Some(Ok(text)) => *value = text,
            Some(Err(_)) => return Verdict::Invalid(format!("header {name} is not ASCII")),
            None => return Verdict::Invalid(format!("header {name} is missing")),
        }
    }
    let [id, timestamp, signature] = values;
    match verify(secrets, id, timestamp, signature, body, now, TOLERANCE) {
        Ok(()) => Verdict::Valid,
        Err(error) => Verdict::Invalid(error.to_string()),
    }
}
