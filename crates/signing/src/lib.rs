#![doc = include_str!("../README.md")]

mod ed25519;
mod hmac_header;
mod secret;
pub mod sorted_keys;
mod verify;

pub use ed25519::{PublicKey, SigningKey};
pub use hmac_header::{Canonical, Encoding, HmacHeader};
pub use secret::{Secret, SecretError};
pub use verify::{Key, TOLERANCE, VerifyError, VerifyingKey, verify};

/// The header with the id of the message.
pub const ID_HEADER: &str = "webhook-id";
/// The header with the time of the attempt, in seconds since the Unix epoch.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// The header with the signatures.
pub const SIGNATURE_HEADER: &str = "webhook-signature";
