//! The dispatcher: takes deliveries off the bus, sends them, records what came of them.
//!
//! The way of a message, and the file that each step stands in:
//!
//! 1. `engine`: the consumer loop. It owns all state and never waits for anything but its own `select!`.
//! 2. `tracker`: its offset is out until its delivery is safe; the contiguous prefix is committed.
//! 3. `admission`: destinations are loaded, suspects examined, attempts claimed; a batch at a time.
//! 4. `queues`: it waits its turn in the queue of its destination, for a slot and a token; not for long: what cannot
//!    be sent soon is parked in the store, so that no destination fills the dispatcher.
//! 5. `request`: one task makes the request. Still out after a second, it is detached: noted in the store, so that its
//!    offset need not wait for it.
//! 6. `writer`: what came of it is written, in batches, in order, until it is written. Only then is the offset done.
//!
//! A failure of ours (store away, a panic) never counts as an attempt and never loses a delivery: until its outcome is
//! written, either its offset is not committed or its row in `waiting` brings it back.

mod admission;
mod backoff;
mod cache;
mod circuits;
mod claims;
mod engine;
mod heartbeat;
mod job;
mod observer;
mod partitions;
mod payloads;
mod queues;
mod request;
mod settings;
mod tellings;
mod tracker;
mod writer;

#[cfg(test)]
mod fakes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
pub use observer::{AttemptReport, Observer};
pub use settings::Settings;
use signalpost_bus::{Bus, BusError};
use signalpost_core::{Clock, Entropy};
use signalpost_limits::Limits;
use signalpost_runtime::Shutdown;
use signalpost_sender::{Exchange, Outgoing, Sender};
use signalpost_store::{Changes, DispatchStore, Store};
#[cfg(feature = "benching")]
pub use tracker::Tracker;

/// What the dispatcher works with.
#[derive(Clone)]
pub struct Ports {
    /// Everything durable.
    pub store: Arc<dyn Store>,
    /// Where deliveries come from.
    pub bus: Arc<dyn Bus>,
    /// Tokens and claims.
    pub limits: Arc<dyn Limits>,
    /// Talks to destinations.
    pub exchanger: Arc<dyn Exchanger>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

/// Why the dispatcher ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum DispatcherError {
    /// The bus was closed under it.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The task that writes outcomes ended: a bug.
    #[error("the task that writes outcomes ended")]
    WriterEnded,
}

/// Runs until `shutdown` says drain (then finishes what is out, within [`Settings::drain`]) or stop.
///
/// # Errors
/// It cannot go on. Outages of store, bus and limits are no errors: it waits until they are over.
pub async fn run(ports: Ports, settings: Settings, shutdown: Shutdown) -> Result<(), DispatcherError> {
    let changes = ports.store.changes();
    let parts = Parts {
        store: ports.store,
        changes,
        bus: ports.bus,
        limits: ports.limits,
        exchanger: ports.exchanger,
        clock: ports.clock,
        entropy: ports.entropy,
    };
    engine::run(parts, settings, shutdown).await
}

/// The ports as the engine sees them: no more than it uses.
#[derive(Clone)]
pub(crate) struct Parts {
    pub store: Arc<dyn DispatchStore>,
    pub changes: Changes,
    pub bus: Arc<dyn Bus>,
    pub limits: Arc<dyn Limits>,
    pub exchanger: Arc<dyn Exchanger>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
}

/// Makes one request. The sender; in tests and in the simulation something that answers by script.
#[async_trait]
pub trait Exchanger: Send + Sync + 'static {
    /// What came of it. Never fails: every failure is an answer. Whoever drops it gives the request up.
    async fn exchange(&self, outgoing: &Outgoing<'_>) -> Exchange;
}

#[async_trait]
impl Exchanger for Sender {
    async fn exchange(&self, outgoing: &Outgoing<'_>) -> Exchange {
        self.send(outgoing).await
    }
}
