//! Asymmetric keys of Standard Webhooks: Ed25519 (RFC 8032). Who verifies knows nothing that signs.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use zeroize::Zeroizing;

use crate::secret::{SecretError, decode};

const PRIVATE: &str = "whsk_";
const PUBLIC: &str = "whpk_";

/// A private key. Never shown by `Debug`.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

/// The key that signatures of its [`SigningKey`] are verified with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl SigningKey {
    /// From its text form: `whsk_` and base64, with padding, of the 32 bytes of the seed, or of 64: the seed and the public
    /// key.
    ///
    /// # Errors
    /// It is not of that form, or the public key is not that of the seed.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let bytes = decode(PRIVATE, text)?;
        if let Ok(seed) = <&[u8; 32]>::try_from(bytes.as_slice()) {
            return Ok(Self::from_seed(seed));
        }
        let pair = <&[u8; 64]>::try_from(bytes.as_slice()).map_err(|_| SecretError::KeyLength)?;
        ed25519_dalek::SigningKey::from_keypair_bytes(pair).map(Self).map_err(|_| SecretError::Key)
    }

    /// From its seed, which should be random.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The text form, of 64 bytes.
    pub fn reveal(&self) -> String {
        let pair = Zeroizing::new(self.0.to_keypair_bytes());
        format!("{PRIVATE}{}", STANDARD.encode(pair.as_slice()))
    }

    /// What receivers verify with.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// The value of `webhook-signature` for one message: `v1a,` and base64. As [`crate::Secret::sign`].
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signature = self.0.sign(&message(id, timestamp, body));
        let mut text = String::with_capacity(92);
        text.push_str("v1a,");
        STANDARD.encode_string(signature.to_bytes(), &mut text);
        text
    }
}

impl PublicKey {
    /// From its text form, `whpk_` and base64 with padding.
    ///
    /// # Errors
    /// It is not of that form.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let bytes = decode(PUBLIC, text)?;
        let bytes = <&[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| SecretError::Key)?;
        VerifyingKey::from_bytes(bytes).map(Self).map_err(|_| SecretError::Key)
    }

    /// The text form.
    pub fn reveal(&self) -> String {
        format!("{PUBLIC}{}", STANDARD.encode(self.0.to_bytes()))
    }

    /// Whether this is the signature of the message; strictly (RFC 8032 5.1.7, and no key or signature of small order).
    pub(crate) fn fits(&self, id: &str, timestamp: i64, body: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify_strict(&message(id, timestamp, body), &signature).is_ok())
    }
}

fn message(id: &str, timestamp: i64, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.to_string().as_bytes(), b".", body].concat()
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.reveal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const SIGNATURE: &str =
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";

    #[test]
    fn signs_the_published_vector() {
        let key = SigningKey::parse(KEY).unwrap();
        let signed = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, SIGNATURE);
        assert_eq!(key.reveal(), KEY);
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let key = SigningKey::parse(KEY).unwrap();
        let pair = STANDARD.decode(&KEY["whsk_".len()..]).unwrap();
        let seed_alone = format!("whsk_{}", STANDARD.encode(&pair[..32]));
        assert_eq!(SigningKey::parse(&seed_alone).unwrap().reveal(), KEY);
        assert_eq!(PublicKey::parse(&key.public().reveal()), Ok(key.public()));
        assert_eq!(key.public().reveal(), format!("whpk_{}", STANDARD.encode(&pair[32..])));
        let shown = format!("{key:?}");
        assert!(!shown.contains("6Xb") && !shown.contains("233"), "{shown}");
    }

    #[test]
    fn refuses_what_is_no_key() {
        let private = |bytes: &[u8]| SigningKey::parse(&format!("whsk_{}", STANDARD.encode(bytes))).err();
        assert_eq!(private(&[7; 31]), Some(SecretError::KeyLength));
        assert_eq!(private(&[7; 33]), Some(SecretError::KeyLength));
        assert_eq!(private(&[7; 64]), Some(SecretError::Key), "the public half is another key's");
        assert_eq!(SigningKey::parse("whsec_AAAA").err(), Some(SecretError::Prefix("whsk_")));
        assert_eq!(SigningKey::parse("whsk_*").err(), Some(SecretError::Base64("whsk_")));
        assert_eq!(PublicKey::parse("whpk_AAAA").err(), Some(SecretError::Key));
        assert_eq!(PublicKey::parse(KEY).err(), Some(SecretError::Prefix("whpk_")));
    }
}
