//! The shapes of `signatures` and `auth`, for the OpenAPI document alone: [`crate::manage::destination`] reads them.

use utoipa::ToSchema;

/// One way to sign.
#[derive(Debug, ToSchema)]
#[schema(as = SignatureScheme)]
#[serde(tag = "scheme", rename_all = "snake_case")]
pub enum SignatureSchema {
    /// Standard Webhooks 1.0: `webhook-signature: v1,…`, HMAC-SHA256 of `id.timestamp.body`; one per secret while several sign.
    Standard {},
    /// Standard Webhooks 1.0: `webhook-signature: v1a,…`, Ed25519.
    StandardEd25519 {},
    /// HMAC-SHA256 of the body in a header of its own, with the newest secret.
    Hmac {
        /// Its name; none that Signalpost sets.
        #[schema(min_length = 1, max_length = 128, example = "X-Hub-Signature-256")]
        header: String,
        /// Stands before the digest. Default: nothing.
        #[schema(max_length = 64, example = "sha256=")]
        prefix: Option<String>,
        /// How the digest is written. Default: `hex`.
        encoding: Option<DigestEncodingName>,
        /// What is signed. Default: `raw`.
        canonical: Option<CanonicalName>,
    },
}

/// How a digest is written: hex in lower case, or base64 with padding.
#[derive(Debug, ToSchema)]
#[schema(as = DigestEncoding, rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum DigestEncodingName {
    Hex,
    Base64,
}

/// What is signed: `raw`, the bytes of the body; `sorted_keys`, what Python's `json.dumps(json.loads(body), sort_keys=True)` writes of it.
#[derive(Debug, ToSchema)]
#[schema(as = Canonical, rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum CanonicalName {
    Raw,
    SortedKeys,
}

/// Credentials of requests to a destination.
#[derive(Debug, ToSchema)]
#[schema(as = Auth)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AuthSchema {
    /// `Authorization: Basic`.
    Basic {
        /// Without a colon.
        #[schema(max_length = 256)]
        username: String,
        #[allow(missing_docs)]
        #[schema(max_length = 4096)]
        password: String,
    },
    /// `Authorization: Bearer`.
    Bearer {
        /// Visible ASCII characters.
        #[schema(min_length = 1, max_length = 4096)]
        token: String,
    },
    /// A header of the receiver's choice.
    ApiKey {
        /// Its name; none of `headers`, and none that Signalpost sets.
        #[schema(min_length = 1, max_length = 128)]
        header: String,
        /// Visible ASCII characters.
        #[schema(min_length = 1, max_length = 4096)]
        value: String,
    },
}
