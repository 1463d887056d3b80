//! HMAC-SHA256 of a body, in a header of the receiver's choice.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::sorted_keys::sorted_keys;

/// How a digest is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// Lower case. Upper case is understood as well.
    #[default]
    Hex,
    /// Standard alphabet, padded.
    Base64,
}

/// What of a body is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Canonical {
    /// Its bytes.
    #[default]
    Raw,
    /// [`sorted_keys`] of it; its bytes where it is not JSON.
    SortedKeys,
}

impl Canonical {
    /// What is signed of this body.
    pub fn of(self, body: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::Raw => Cow::Borrowed(body),
            Self::SortedKeys => sorted_keys(body).map_or(Cow::Borrowed(body), |text| Cow::Owned(text.into_bytes())),
        }
    }
}

/// A secret, and how a receiver wants its HMAC. Never shown by `Debug`.
#[derive(Clone)]
pub struct HmacHeader {
    /// Keyed once; cloned per signature.
    mac: Hmac<Sha256>,
    prefix: String,
    encoding: Encoding,
    canonical: Canonical,
}

impl HmacHeader {
    /// Of a secret of any length. `prefix` stands before the digest: `sha256=`, or nothing.
    pub fn new(secret: &[u8], prefix: impl Into<String>, encoding: Encoding, canonical: Canonical) -> Self {
        Self { mac: keyed(secret), prefix: prefix.into(), encoding, canonical }
    }

    /// The value of the header.
    pub fn sign(&self, body: &[u8]) -> String {
        self.sign_canonical(&self.canonical.of(body))
    }

    /// As [`Self::sign`], of what [`Canonical::of`] made: for who signs one body with several secrets.
    pub fn sign_canonical(&self, canonical: &[u8]) -> String {
        let digest = self.digest(canonical);
        match self.encoding {
            Encoding::Hex => format!("{}{}", self.prefix, hex::encode(digest)),
            Encoding::Base64 => format!("{}{}", self.prefix, STANDARD.encode(digest)),
        }
    }

    /// What of a body is signed.
    pub const fn canonical(&self) -> Canonical {
        self.canonical
    }

    /// Whether this is the value of the header for that body. Compares in constant time.
    pub fn verify(&self, body: &[u8], value: &str) -> bool {
        let Some(encoded) = value.strip_prefix(self.prefix.as_str()) else { return false };
        let given = match self.encoding {
            Encoding::Hex => hex::decode(encoded).ok(),
            Encoding::Base64 => STANDARD.decode(encoded).ok(),
        };
        given.is_some_and(|given| self.digest(&self.canonical.of(body)).as_slice().ct_eq(&given).into())
    }

    fn digest(&self, canonical: &[u8]) -> [u8; 32] {
        self.mac.clone().chain_update(canonical).finalize().into_bytes().into()
    }
}

/// HMAC takes keys of every length.
fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    // The error cannot be: it is for constructions that take keys of one length alone.
    Hmac::new_from_slice(secret).unwrap_or_else(|_| Hmac::new(&[0; 64].into()))
}

impl fmt::Debug for HmacHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HmacHeader")
            .field("prefix", &self.prefix)
            .field("encoding", &self.encoding)
            .field("canonical", &self.canonical)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_and_verifies_published_vectors() {
        // RFC 4231, test cases 1, 2 and 6 (a key longer than a block); GitHub's documentation.
        for (key, body, digest) in [
            (&[0x0b; 20][..], &b"Hi There"[..], "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                b"It's a Secret to Everybody",
                b"Hello, World!",
                "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            ),
        ] {
            let raw = HmacHeader::new(key, "sha256=", Encoding::Hex, Canonical::Raw);
            assert_eq!(raw.sign(body), format!("sha256={digest}"));
            let base64 = HmacHeader::new(key, "", Encoding::Base64, Canonical::Raw);
            assert_eq!(base64.sign(body), STANDARD.encode(hex::decode(digest).unwrap()));
            for (scheme, value) in [(&raw, raw.sign(body)), (&base64, base64.sign(body))] {
                assert!(scheme.verify(body, &value));
                assert!(!scheme.verify(b"other", &value));
                assert!(!scheme.verify(body, &value[..value.len() - 2]));
            }
            assert!(raw.verify(body, &format!("sha256={}", digest.to_uppercase())));
            for wrong in ["", "sha256=", digest, "sha1=00", "sha256=zz"] {
                assert!(!raw.verify(body, wrong), "{wrong}");
            }
        }
    }

    #[test]
    fn sorted_keys_sign_the_document() {
        let sorted = HmacHeader::new(b"secret", "", Encoding::Hex, Canonical::SortedKeys);
        let raw = HmacHeader::new(b"secret", "", Encoding::Hex, Canonical::Raw);
        let value = sorted.sign(br#"{"b":1,"a":[true,null]}"#);
        assert_eq!(value, raw.sign(br#"{"a": [true, null], "b": 1}"#));
        assert!(sorted.verify(b"{ \"a\":[true,null], \"b\":1 }", &value));
        assert_eq!(sorted.sign(b"no json"), raw.sign(b"no json"));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let scheme = HmacHeader::new(b"hush-hush", "p=", Encoding::Hex, Canonical::Raw);
        assert!(!format!("{scheme:?}").contains("hush"));
    }
}
