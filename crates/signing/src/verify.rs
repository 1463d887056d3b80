//! Verification, as a receiver does it.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use subtle::ConstantTimeEq as _;

use crate::Secret;

/// How far a timestamp may be from the receiver's clock, either way. The specification gives no number; the reference
/// libraries use five minutes.
pub const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// Why a request is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// `webhook-timestamp` is not a whole number.
    #[error("the timestamp is not a whole number of seconds")]
    Timestamp,
    /// It was signed too long ago.
    #[error("the timestamp is too old")]
    Old,
    /// It was signed in the future.
    #[error("the timestamp is in the future")]
    Future,
    /// None of the signatures fits.
    #[error("no signature fits")]
    Signature,
}

/// Verifies one request. `signatures` is the whole header (several, with spaces between); it is enough that one of them fits one of
/// the secrets. `now` is in seconds since the Unix epoch. Compares in constant time.
///
/// # Errors
/// Why the request is not to be trusted.
pub fn verify(
    secrets: &[Secret],
    id: &str,
    timestamp: &str,
    signatures: &str,
    body: &[u8],
    now: i64,
    tolerance: Duration,
) -> Result<(), VerifyError> {
    let timestamp: i64 = timestamp.parse().map_err(|_| VerifyError::Timestamp)?;
    let tolerance = i64::try_from(tolerance.as_secs()).unwrap_or(i64::MAX);
    if timestamp < now.saturating_sub(tolerance) {
        return Err(VerifyError::Old);
    }
    if timestamp > now.saturating_add(tolerance) {
        return Err(VerifyError::Future);
    }
    let expected: Vec<[u8; 32]> = secrets.iter().map(|secret| secret.digest(id, timestamp, body)).collect();
    let fits = signatures
        .split(' ')
        .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
        .any(|given| expected.iter().any(|digest| bool::from(digest.as_slice().ct_eq(&given))));
    if fits { Ok(()) } else { Err(VerifyError::Signature) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn check(signatures: &str, timestamp: &str, body: &[u8]) -> Result<(), VerifyError> {
        verify(&[secret(1), secret(2)], "evt_1", timestamp, signatures, body, NOW, TOLERANCE)
    }

    fn secret(byte: u8) -> Secret {
        Secret::from_bytes(&[byte; 24]).unwrap()
    }

    #[test]
    fn one_fitting_signature_of_one_active_secret_is_enough() {
        let good = secret(2).sign("evt_1", NOW, b"body");
        let other = secret(3).sign("evt_1", NOW, b"body");
        let now = NOW.to_string();
        assert_eq!(check(&good, &now, b"body"), Ok(()));
        assert_eq!(check(&format!("v1a,AAAA {other} {good}"), &now, b"body"), Ok(()));
        assert_eq!(check(&other, &now, b"body"), Err(VerifyError::Signature));
        assert_eq!(check(&good, &now, b"Body"), Err(VerifyError::Signature));
        assert_eq!(check(&good[..good.len() - 4], &now, b"body"), Err(VerifyError::Signature));
        assert_eq!(check("", &now, b"body"), Err(VerifyError::Signature));
    }

    #[test]
    fn stale_and_future_requests_are_refused() {
        for (offset, expected) in
            [(-301, Err(VerifyError::Old)), (-300, Ok(())), (300, Ok(())), (301, Err(VerifyError::Future))]
        {
            let at = NOW + offset;
            assert_eq!(check(&secret(1).sign("evt_1", at, b"body"), &at.to_string(), b"body"), expected, "{offset}");
        }
        assert_eq!(check("v1,", "soon", b"body"), Err(VerifyError::Timestamp));
    }
}
