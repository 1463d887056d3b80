//! How requests are signed.

use serde::{Deserialize, Serialize};

/// One way to sign, to a destination or by a producer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "scheme", rename_all = "snake_case")]
pub enum SignatureScheme {
    /// Standard Webhooks, symmetric: `webhook-signature: v1,…`. The secret is `whsec_…`.
    Standard,
    /// Standard Webhooks, Ed25519: `webhook-signature: v1a,…`. The secret is `whsk_…`.
    StandardEd25519,
    /// HMAC-SHA256 of the body alone, in a header of its own.
    Hmac(HmacScheme),
}

/// HMAC-SHA256 of the body, as GitHub and many others do it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HmacScheme {
    /// The header that holds it.
    pub header: String,
    /// Stands before the digest: `sha256=`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// How the digest is written.
    #[serde(default)]
    pub encoding: DigestEncoding,
    /// What is signed.
    #[serde(default)]
    pub canonical: Canonical,
}

/// How a digest is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DigestEncoding {
    /// Lower case.
    #[default]
    Hex,
    /// Standard alphabet, padded.
    Base64,
}

/// What of a body is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Canonical {
    /// Its bytes.
    #[default]
    Raw,
    /// What Python's `json.dumps(body, sort_keys=True)` writes of it.
    SortedKeys,
}

/// The schemes of a destination that names none.
pub fn default_signatures() -> Vec<SignatureScheme> {
    vec![SignatureScheme::Standard]
}
