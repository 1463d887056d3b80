//! Secrets at rest: XChaCha20-Poly1305 under one of several keys, bound to the row that they belong to.
//!
//! A sealed value is `0x01`, the length of the key's id, that id, 24 random bytes, and the ciphertext with its tag. What it belongs to
//! ([`Place`]) is associated data: a value that was moved to another row or tenant does not open. The newest key seals;
//! every key that is set opens, so that a key is replaced by setting a new one before it and sealing all rows again.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use signalpost_core::{DestinationId, DestinationSecrets, Entropy, Kept, Sealed, TenantId, secret::Secret};
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const NONCE: usize = 24;
const MAX_ID: usize = 32;

/// The keys of an installation, newest first.
pub struct KeyRing(Vec<(String, XChaCha20Poly1305)>);

/// What a sealed value belongs to.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// The secrets of a destination.
    Destination(TenantId, DestinationId),
    /// The secret that a tenant's producers sign with.
    Ingest(TenantId),
    /// A stored answer to a request with an idempotency key.
    Answer {
        /// Whose.
        tenant: TenantId,
        /// The scope of the key.
        scope: &'a str,
        /// The key.
        key: &'a str,
    },
}

/// Why a list of keys is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// None.
    #[error("there is no key in it")]
    Empty,
    /// The place in the list, from 1. What stands there is not told: it may be a key.
    #[error("number {0} is not `id:` and the base64 of 32 bytes; the id has 1 to 32 of a-z, 0-9, - and _")]
    Malformed(usize),
    /// Two keys have this id.
    #[error("the id `{0}` stands twice")]
    Twice(String),
}

/// Why a value does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It was sealed with a key that is not set.
    #[error("it is sealed with the key `{0}`, which is not set")]
    UnknownKey(String),
    /// It was changed, belongs elsewhere, or the key with this id is another one.
    #[error("it does not open: changed, moved from elsewhere, or sealed with another key of the same id")]
    Forged,
    /// No value of ours.
    #[error("it is no sealed value")]
    Malformed,
}

impl KeyRing {
    /// From a setting: `id:base64(32 bytes)`, comma-separated, newest first.
    ///
    /// # Errors
    /// It is empty, one of them is malformed, or an id stands twice.
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        let mut keys: Vec<(String, XChaCha20Poly1305)> = Vec::new();
        for (index, entry) in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).enumerate() {
            let malformed = KeyRingError::Malformed(index + 1);
            let (id, key) = entry.split_once(':').ok_or_else(|| malformed.clone())?;
            let is_id = (1..=MAX_ID).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte));
            let bytes = Zeroizing::new(STANDARD.decode(key).map_err(|_| malformed.clone())?);
            let cipher = XChaCha20Poly1305::new_from_slice(&bytes).map_err(|_| malformed.clone())?;
            if !is_id {
                return Err(malformed);
            }
            if keys.iter().any(|(known, _)| known == id) {
                return Err(KeyRingError::Twice(id.to_owned()));
            }
            keys.push((id.to_owned(), cipher));
        }
        if keys.is_empty() { Err(KeyRingError::Empty) } else { Ok(Self(keys)) }
    }

    /// A new key, as it stands in the setting.
    pub fn generate(id: &str, entropy: &dyn Entropy) -> Secret {
        let mut key = Zeroizing::new([0_u8; 32]);
        entropy.fill(&mut *key);
        Secret::new(format!("{id}:{}", STANDARD.encode(key.as_slice())))
    }

    /// The id of the key that seals.
    pub fn newest(&self) -> &str {
        self.0.first().map_or("", |(id, _)| id)
    }

    /// The ids of all keys, newest first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(id, _)| id.as_str())
    }

    /// Whether a key with this id is set.
    pub fn knows(&self, id: &str) -> bool {
        self.0.iter().any(|(known, _)| known == id)
    }

    /// Encrypts with the newest key.
    pub fn seal(&self, entropy: &dyn Entropy, place: Place<'_>, plain: &[u8]) -> Sealed {
        let Some((id, cipher)) = self.0.first() else { return Sealed::new(Bytes::new()) };
        let mut nonce = [0_u8; NONCE];
        entropy.fill(&mut nonce);
        let mut sealed = Vec::with_capacity(2 + id.len() + NONCE + plain.len() + 16);
        sealed.push(VERSION);
        sealed.push(u8::try_from(id.len()).unwrap_or_default());
        sealed.extend_from_slice(id.as_bytes());
        sealed.extend_from_slice(&nonce);
        let payload = Payload { msg: plain, aad: &place.associated() };
        // Fails for texts of 256 GiB and more alone.
        sealed.extend_from_slice(&cipher.encrypt(&XNonce::from(nonce), payload).unwrap_or_default());
        Sealed::new(sealed.into())
    }

    /// Decrypts.
    ///
    /// # Errors
    /// The key is not set, or the value is not what was sealed for this place.
    pub fn open(&self, place: Place<'_>, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (id, rest) = sealed.split().ok_or(OpenError::Malformed)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE>().ok_or(OpenError::Malformed)?;
        let (_, cipher) =
            self.0.iter().find(|(known, _)| known == id).ok_or_else(|| OpenError::UnknownKey(id.to_owned()))?;
        let payload = Payload { msg: ciphertext, aad: &place.associated() };
        cipher.decrypt(&XNonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| OpenError::Forged)
    }

    /// Encrypts the secrets of a destination.
    pub fn seal_destination(
        &self,
        entropy: &dyn Entropy,
        tenant: TenantId,
        id: DestinationId,
        secrets: &DestinationSecrets,
    ) -> Sealed {
        self.seal(entropy, Place::Destination(tenant, id), &secrets.to_json())
    }

    /// The secrets of a destination, however its row keeps them.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn destination(
        &self,
        tenant: TenantId,
        id: DestinationId,
        kept: &Kept,
    ) -> Result<DestinationSecrets, OpenError> {
        match kept {
            Kept::Sealed(sealed) => {
                let json = self.open(Place::Destination(tenant, id), sealed)?;
                DestinationSecrets::from_json(&json).ok_or(OpenError::Malformed)
            }
            Kept::Plain { secret, headers } => {
                Ok(DestinationSecrets { headers: headers.clone(), ..DestinationSecrets::signing(secret.clone()) })
            }
        }
    }
}

impl Place<'_> {
    fn associated(&self) -> Vec<u8> {
        match self {
            Self::Destination(tenant, id) => {
                [b"destination".as_slice(), tenant.uuid().as_bytes(), id.uuid().as_bytes()].concat()
            }
            Self::Ingest(tenant) => [b"ingest".as_slice(), tenant.uuid().as_bytes()].concat(),
            Self::Answer { tenant, scope, key } => {
                let length = (scope.len() as u64).to_be_bytes();
                [b"answer".as_slice(), tenant.uuid().as_bytes(), &length, scope.as_bytes(), key.as_bytes()].concat()
            }
        }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}

#[cfg(test)]
mod tests;
