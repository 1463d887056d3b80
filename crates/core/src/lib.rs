//! The pure part of Signalpost: what an event, a destination and a delivery are, and the rules that
//! decide what happens to them.
//!
//! Nothing here does I/O, reads a clock or draws a random number: time and randomness come in as
//! parameters ([`Clock`], [`Entropy`]), so that every rule can be walked through in a test.

pub mod circuit;
pub mod classify;
pub mod clock;
pub mod delivery;
pub mod destination;
pub mod entropy;
pub mod event;
pub mod id;
pub mod ordering;
pub mod pattern;
pub mod retry_policy;
pub mod timestamp;

pub use circuit::{CircuitPolicy, CircuitRecord, CircuitState};
pub use clock::Clock;
pub use delivery::{AttemptOutcome, DeadReason, DeliveryState, DeliveryStatus, WaitReason};
pub use destination::{Destination, DestinationSpec, DestinationState, Guarantee};
pub use entropy::Entropy;
pub use event::{Event, EventMeta};
pub use id::{DeliveryId, DestinationId, EventId, KeyId, OutboxId, ReplayId, TenantId};
pub use ordering::LaneId;
pub use timestamp::Timestamp;
