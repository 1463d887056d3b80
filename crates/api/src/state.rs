//! What every handler can reach.

use std::{ops::Deref, sync::Arc};

use signalpost_bus::Bus;
use signalpost_core::{Clock, Entropy};
use signalpost_limits::Limits;
use signalpost_sender::Sender;
use signalpost_store::{IngestStore, Store};

use crate::{
    Settings,
    auth::{OperatorKeys, TenantDirectory},
    ingest::{Ingest, IngestPorts},
    router::EventRouter,
};

/// What the API is wired to.
#[derive(Debug, Clone)]
pub struct Ports {
    /// Everything durable.
    pub store: Arc<dyn Store>,
    /// Where new deliveries are published.
    pub bus: Arc<dyn Bus>,
    /// Tells whether a request of a delivery is out, before that is cancelled or retried; and its health.
    pub limits: Arc<dyn Limits>,
    /// Sends pings to destinations, and judges their URLs.
    pub sender: Arc<Sender>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

/// Shared by all handlers. Cloning gives another handle of the same.
#[derive(Clone)]
pub struct AppState(Arc<Inner>);

/// What is behind [`AppState`].
pub struct Inner {
    /// What the API is wired to.
    pub ports: Ports,
    /// What the operator set.
    pub settings: Settings,
    /// Who is the operator.
    pub keys: OperatorKeys,
    /// Which tenants there are.
    pub tenants: TenantDirectory,
    /// Where events go.
    pub router: Arc<EventRouter>,
    /// Commits and publishes them.
    pub ingest: Ingest,
}

impl AppState {
    /// The state at start. Starts the committer and the publisher.
    pub fn new(ports: Ports, settings: Settings) -> Self {
        let keys = OperatorKeys::new(&settings.operator_keys);
        let tenants = TenantDirectory::new(Arc::clone(&ports.store));
        let store: Arc<dyn IngestStore> = ports.store.clone();
        let router = Arc::new(EventRouter::new(Arc::clone(&store)));
        let (bus, clock, entropy) = (ports.bus.clone(), ports.clock.clone(), ports.entropy.clone());
        let ingest = Ingest::start(&IngestPorts { store, bus, clock, entropy }, settings.ingest);
        Self(Arc::new(Inner { ports, settings, keys, tenants, router, ingest }))
    }
}

impl Deref for AppState {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}
