//! Signs and verifies webhooks as Standard Webhooks 1.0.0 says. Depends on no other part of Signalpost, so that a
//! receiver in Rust can use it alone.
//!
//! What is signed is `id.timestamp.body`, with HMAC-SHA256; the header `webhook-signature` carries `v1,` and the base64 of
//! it, several of them with a space between while a secret is rotated.
//!
//! A signature proves who sent a request and that it was not changed. It does not hide the body, and it does not stop
//! a replay within the tolerance: a receiver keeps the `webhook-id`s of the last minutes for that.
//!
//! ```
//! use signalpost_signing::{Secret, TOLERANCE, verify};
//! let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?;
//! let signature = secret.sign("evt_1", 1_614_265_330, b"{}");
//! verify(&[secret], "evt_1", "1614265330", &signature, b"{}", 1_614_265_331, TOLERANCE)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod secret;
mod verify;

pub use secret::{Secret, SecretError};
pub use verify::{TOLERANCE, VerifyError, verify};

/// The header with the id of the message.
pub const ID_HEADER: &str = "webhook-id";
/// The header with the time of the attempt, in seconds since the Unix epoch.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// The header with the signatures.
pub const SIGNATURE_HEADER: &str = "webhook-signature";
