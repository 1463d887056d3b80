//! The pure part of Signalpost: what an event, a destination and a delivery are, and the rules that
//! decide what happens to them.
//!
//! Nothing here does I/O, reads a clock or draws a random number: time and randomness come in as
//! parameters ([`Clock`], [`Entropy`]), so that every rule can be walked through in a test.

pub mod audit;
pub mod circuit;
pub mod classify;
pub mod clock;
pub mod delivery;
pub mod destination;
pub mod entropy;
pub mod event;
pub mod id;
pub mod key;
pub mod ordering;
pub mod pattern;
pub mod retry_policy;
pub mod secret;
pub mod signature;
pub mod tenant;
pub mod timestamp;

pub use audit::{AuditEntry, AuditOutcome};
pub use circuit::{CircuitPolicy, CircuitRecord, CircuitState};
pub use clock::Clock;
pub use delivery::{AttemptOutcome, DeadReason, DeliveryState, DeliveryStatus, WaitReason};
pub use destination::{Destination, DestinationSpec, DestinationState, Guarantee};
pub use entropy::Entropy;
pub use event::{Event, EventMeta};
pub use id::{AuditId, DeliveryId, DestinationId, EventId, KeyId, OutboxId, ReplayId, TenantId};
pub use key::{ApiKey, KeyHash, Scope, Scopes};
pub use ordering::LaneId;
pub use secret::{DestinationSecrets, Kept, Sealed, Secret};
pub use signature::SignatureScheme;
pub use tenant::{Tenant, TenantSpec};
pub use timestamp::{NotATime, Timestamp};
