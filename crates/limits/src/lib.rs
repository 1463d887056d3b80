//! The limits port: what dispatchers share about a destination at this moment.
//!
//! Tokens of a destination's rate limit are for a promise (I7); claims are for economy: they keep a stalled owner and
//! its successor from sending the same attempt twice, but every rule of correctness holds without them.
//!
//! Slots across dispatchers and circuits come to this port as further methods.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod local;

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use signalpost_core::{DeliveryId, DestinationId, destination::RateLimit};

/// The shared limits are away or slow (50 ms). Callers go on without.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the limits are unavailable: {0}")]
pub struct LimitsUnavailable(pub String);

/// How many tokens of a destination somebody wants now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenRequest {
    /// Whose bucket.
    pub destination_id: DestinationId,
    /// Its present size and rate; a changed one applies at once.
    pub limit: RateLimit,
    /// At least 1.
    pub wanted: u32,
}

/// What one got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenGrant {
    /// 0 to `wanted`. A granted token is used within 50 ms or lost.
    pub granted: u32,
    /// When fewer than wanted: how long until the next token comes.
    pub retry_after: Duration,
}

/// A request that is about to go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Of which delivery.
    pub delivery_id: DeliveryId,
    /// Which attempt.
    pub attempt: u32,
}

/// Who claims: one running process (random at its start).
pub type Owner = u64;

/// What came of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// It is ours (again).
    Ours,
    /// Another process has it, and lives or died less than [`CLAIM_LEASE`] ago. Do not send: park the delivery
    /// for that long, as a suspect.
    Others,
}

/// How long a claim outlives its last renewal.
pub const CLAIM_LEASE: Duration = Duration::from_secs(5);

/// The port. Every call is one round trip for a whole batch and bounded by 50 ms.
#[async_trait]
pub trait Limits: Debug + Send + Sync + 'static {
    /// Takes tokens, a batch at once; grants are in the order of the requests.
    ///
    /// # Errors
    /// The shared state is away; the implementation falls back to a local share where it can, so callers see this only
    /// where it cannot.
    async fn take_tokens(&self, requests: &[TokenRequest]) -> Result<Vec<TokenGrant>, LimitsUnavailable>;

    /// Claims attempts for `owner`, a batch at once; answers are in the order of the claims.
    ///
    /// # Errors
    /// The shared state is away: send without.
    async fn claim(&self, owner: Owner, claims: &[Claim]) -> Result<Vec<Claimed>, LimitsUnavailable>;

    /// Extends claims whose requests are still out. Called every [`CLAIM_LEASE`] / 3.
    ///
    /// # Errors
    /// The shared state is away.
    async fn renew(&self, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable>;

    /// Forgets claims whose outcome is written.
    ///
    /// # Errors
    /// The shared state is away; they expire by themselves.
    async fn release(&self, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable>;

    /// Whether the shared state can be reached now, for health.
    ///
    /// # Errors
    /// It cannot.
    async fn check(&self) -> Result<(), LimitsUnavailable>;
}
