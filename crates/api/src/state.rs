//! What every handler can reach.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use signalpost_bus::Bus;
use signalpost_core::{Clock, Entropy};
use signalpost_limits::Limits;
use signalpost_sender::Sender;
use signalpost_store::{IngestStore, Store, StoreError};

use crate::{
    Settings,
    auth::{Directory, LastUse, OperatorKeys},
    ingest::{Ingest, IngestPorts},
    json::BodyBudget,
    meters::Meters,
    quota::{EventQuotas, Registrations},
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
    pub operators: OperatorKeys,
    /// Which tenants there are, and who holds which key.
    pub directory: Directory,
    /// When tenants' keys were last used.
    pub last_use: LastUse,
    /// What they may use up.
    pub quotas: EventQuotas,
    /// How often strangers may register.
    pub registrations: Registrations,
    /// Whether secrets are known to be encrypted when they are written.
    sealed: AtomicBool,
    /// The memory of bodies that are being read.
    pub bodies: BodyBudget,
    /// Where events go.
    pub router: Arc<EventRouter>,
    /// Commits and publishes them.
    pub ingest: Ingest,
    /// Counts requests.
    pub meters: Meters,
}

impl AppState {
    /// The state at start. Starts the committer and the publisher.
    pub fn new(ports: Ports, settings: Settings) -> Self {
        let operators = OperatorKeys::new(&settings.operator_keys);
        let directory = Directory::new(Arc::clone(&ports.store), Arc::clone(&ports.clock));
        let store: Arc<dyn IngestStore> = ports.store.clone();
        let router = Arc::new(EventRouter::new(Arc::clone(&store)));
        let (bus, clock, entropy) = (ports.bus.clone(), ports.clock.clone(), ports.entropy.clone());
        let ingest = Ingest::start(&IngestPorts { store, bus, clock, entropy }, settings.ingest);
        let quotas = EventQuotas::new(Arc::clone(&ports.clock));
        let registrations = Registrations::new(settings.open_registrations_per_hour, Arc::clone(&ports.clock));
        let bodies = BodyBudget::new(settings.body_bytes);
        Self(Arc::new(Inner {
            ports,
            settings,
            operators,
            directory,
            last_use: LastUse::default(),
            quotas,
            registrations,
            sealed: AtomicBool::new(false),
            bodies,
            router,
            ingest,
            meters: Meters::default(),
        }))
    }
}

impl AppState {
    /// Whether secrets are encrypted when they are written. Once they are, they stay so.
    ///
    /// # Errors
    /// The store is away.
    pub async fn is_sealed(&self) -> Result<bool, StoreError> {
        if !self.sealed.load(Ordering::Relaxed) && self.ports.store.is_sealed().await? {
            self.sealed.store(true, Ordering::Relaxed);
        }
        Ok(self.sealed.load(Ordering::Relaxed))
    }
}

impl Deref for AppState {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}
