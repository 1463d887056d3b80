//! Verification of Standard Webhooks, as a receiver does it.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use subtle::ConstantTimeEq as _;

use crate::{PublicKey, Secret, SecretError};

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

/// What a signature is verified with.
pub trait Key: fmt::Debug + sealed::Sealed {
    /// Whether one of the signatures of the header is that of the message.
    fn fits(&self, id: &str, timestamp: i64, body: &[u8], signatures: &str) -> bool;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::Secret {}
    impl Sealed for crate::PublicKey {}
    impl Sealed for super::VerifyingKey {}
}

/// The signatures of a header that are of this version.
fn of_version(signatures: &str, version: &'static str) -> impl Iterator<Item = Vec<u8>> {
    signatures.split(' ').filter_map(move |signature| STANDARD.decode(signature.strip_prefix(version)?).ok())
}

impl Key for Secret {
    fn fits(&self, id: &str, timestamp: i64, body: &[u8], signatures: &str) -> bool {
        let digest = self.digest(id, timestamp, body);
        of_version(signatures, "v1,").any(|given| digest.as_slice().ct_eq(&given).into())
    }
}

impl Key for PublicKey {
    fn fits(&self, id: &str, timestamp: i64, body: &[u8], signatures: &str) -> bool {
        // What costs a curve operation each is bounded; more than ten secrets at once never sign.
        of_version(signatures, "v1a,").take(16).any(|given| PublicKey::fits(self, id, timestamp, body, &given))
    }
}

/// Either kind of key, as it stands in a setting.
#[derive(Debug, Clone)]
pub enum VerifyingKey {
    /// `whsec_…`, for `v1`.
    Symmetric(Secret),
    /// `whpk_…`, for `v1a`.
    Ed25519(PublicKey),
}

impl VerifyingKey {
    /// From its text form: `whsec_…` or `whpk_…`.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        if text.starts_with("whpk_") {
            PublicKey::parse(text).map(Self::Ed25519)
        } else {
            Secret::parse(text).map(Self::Symmetric)
        }
    }
}

impl Key for VerifyingKey {
    fn fits(&self, id: &str, timestamp: i64, body: &[u8], signatures: &str) -> bool {
        match self {
            Self::Symmetric(secret) => secret.fits(id, timestamp, body, signatures),
            Self::Ed25519(key) => Key::fits(key, id, timestamp, body, signatures),
        }
    }
}

/// Verifies one request. `signatures` is the whole header (several, with spaces between); it is enough that one of them fits one of
/// the keys. `now` is in seconds since the Unix epoch. Compares in constant time.
///
/// # Errors
/// Why the request is not to be trusted.
pub fn verify<K: Key>(
    keys: &[K],
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
    let fits = keys.iter().any(|key| key.fits(id, timestamp, body, signatures));
    if fits { Ok(()) } else { Err(VerifyError::Signature) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SigningKey;

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
    fn keys_of_both_kinds_stand_side_by_side() {
        let (old, new) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
        let keys =
            [VerifyingKey::parse(&secret(1).reveal()).unwrap(), VerifyingKey::parse(&new.public().reveal()).unwrap()];
        let check =
            |signatures: &str, id: &str| verify(&keys, id, &NOW.to_string(), signatures, b"body", NOW, TOLERANCE);
        let both = format!("{} {}", new.sign("evt_1", NOW, b"body"), old.sign("evt_1", NOW, b"body"));
        assert_eq!(check(&both, "evt_1"), Ok(()));
        assert_eq!(check(&both, "evt_2"), Err(VerifyError::Signature));
        assert_eq!(check(&secret(1).sign("evt_1", NOW, b"body"), "evt_1"), Ok(()));
        assert_eq!(check(&old.sign("evt_1", NOW, b"body"), "evt_1"), Err(VerifyError::Signature));
        // What is signed with one kind of key is none of the other kind.
        let as_symmetric = both.replace("v1a,", "v1,");
        assert_eq!(check(&as_symmetric, "evt_1"), Err(VerifyError::Signature));
        assert!(VerifyingKey::parse(&new.reveal()).is_err(), "a private key verifies nothing");
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
