//! Symmetric secrets of Standard Webhooks.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The prefix of a symmetric secret in its text form.
const PREFIX: &str = "whsec_";

/// A symmetric secret: 24 to 64 bytes. Never shown by `Debug`.
#[derive(Clone)]
pub struct Secret {
    /// Keyed once; cloned per signature.
    mac: Hmac<Sha256>,
    bytes: Zeroizing<Vec<u8>>,
}

/// Why a text is not a secret or a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It begins otherwise than what is asked for: `whsec_`, `whsk_` or `whpk_`.
    #[error("must begin with `{0}`")]
    Prefix(&'static str),
    /// What follows the prefix is not base64.
    #[error("must be base64 after `{0}`")]
    Base64(&'static str),
    /// A symmetric secret of fewer than 24 or more than 64 bytes.
    #[error("must hold 24 to 64 bytes")]
    Length,
    /// A private key of neither 32 (the seed) nor 64 bytes (the seed and the public key).
    #[error("must hold the 32 bytes of an Ed25519 seed, or 64: the seed and its public key")]
    KeyLength,
    /// The public half of a private key is not its own, or no public key at all.
    #[error("is no Ed25519 key")]
    Key,
}

impl Secret {
    /// From its text form, `whsec_` and base64 with padding.
    ///
    /// # Errors
    /// It is not of that form, or too short or long.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        Self::from_bytes(&decode(PREFIX, text)?)
    }

    /// From its bytes, which should be random.
    ///
    /// # Errors
    /// Fewer than 24 or more than 64.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SecretError> {
        if !(24..=64).contains(&bytes.len()) {
            return Err(SecretError::Length);
        }
        let mac = Hmac::new_from_slice(bytes).map_err(|_| SecretError::Length)?;
        Ok(Self { mac, bytes: Zeroizing::new(bytes.to_vec()) })
    }

    /// The text form.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&*self.bytes))
    }

    /// The value of `webhook-signature` for one message: `v1,` and base64. `timestamp` is in seconds since the Unix epoch,
    /// the time of this attempt. `id` must not contain a dot (Standard Webhooks 1.0.0, "Signature scheme").
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut signature = String::with_capacity(47);
        signature.push_str("v1,");
        STANDARD.encode_string(self.digest(id, timestamp, body), &mut signature);
        signature
    }

    pub(crate) fn digest(&self, id: &str, timestamp: i64, body: &[u8]) -> [u8; 32] {
        let mut mac = self.mac.clone();
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(timestamp.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        mac.finalize().into_bytes().into()
    }
}

/// The bytes of a text that is a prefix and base64.
pub(crate) fn decode(prefix: &'static str, text: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let encoded = text.strip_prefix(prefix).ok_or(SecretError::Prefix(prefix))?;
    STANDARD.decode(encoded).map(Zeroizing::new).map_err(|_| SecretError::Base64(prefix))
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_the_published_vector() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn refuses_what_is_no_secret() {
        let text = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        assert_eq!(Secret::parse(&text(23)).err(), Some(SecretError::Length));
        assert_eq!(Secret::parse(&text(65)).err(), Some(SecretError::Length));
        assert_eq!(Secret::parse("whsk_AAAA").err(), Some(SecretError::Prefix("whsec_")));
        assert_eq!(Secret::parse("whsec_***").err(), Some(SecretError::Base64("whsec_")));
        let secret = Secret::parse(&text(24)).unwrap();
        assert_eq!(secret.reveal(), text(24));
        assert!(!format!("{secret:?}").contains("Bw"));
    }

    #[test]
    fn the_official_library_accepts_it() {
        let secret = Secret::from_bytes(&[42; 32]).unwrap();
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let mut headers = http::HeaderMap::new();
        headers.insert("webhook-id", "evt_1".parse().unwrap());
        headers.insert("webhook-timestamp", now.into());
        let signature = secret.sign("evt_1", i64::try_from(now).unwrap(), b"{\"a\":1}");
        headers.insert("webhook-signature", signature.parse().unwrap());
        let official = standardwebhooks::Webhook::new(&secret.reveal()).unwrap();
        official.verify(b"{\"a\":1}", &headers).unwrap();
        assert!(official.verify(b"{\"a\":2}", &headers).is_err());
    }
}
