//! Tells where events go.
//!
//! Each tenant's [`Table`] is kept with its version. That a table is not too old is not checked here: the transaction
//! that commits an event compares the version (I13), and an event that was routed by an old one is routed again
//! by the table that [`EventRouter::table`] loads then. Following [`signalpost_store::IngestStore::changes`] and
//! asking for spilled queues is economy: it spares that second round.

mod table;

use std::{
    collections::HashSet,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use moka::sync::Cache;
use signalpost_core::{DestinationId, TenantId};
use signalpost_runtime::Shutdown;
use signalpost_store::{IngestStore, StoreError, ingest::RoutingVersion};
pub use table::{Table, Target};

/// The most tenants whose tables are kept.
const MOST_TENANTS: u64 = 10_000;

/// The most tables that are loaded ahead at a change; with more, each is loaded when it is found to be old.
const MOST_LOADED_AHEAD: u64 = 16;

/// How often the store is asked which queues are spilled, while events come in.
const SPILLED_POLL: Duration = Duration::from_secs(1);

/// The tables of tenants, and which destinations' queues are spilled.
#[derive(Debug)]
pub struct EventRouter {
    store: Arc<dyn IngestStore>,
    slots: Cache<TenantId, Arc<Slot>>,
    spilled: RwLock<Arc<HashSet<DestinationId>>>,
    /// Set by who routes, cleared by the poll: an idle process asks nothing.
    used: AtomicBool,
}

#[derive(Debug, Default)]
struct Slot {
    table: RwLock<Option<Arc<Table>>>,
    /// Set by who routes, cleared by who loads ahead: what nobody uses is not loaded at every change.
    used: AtomicBool,
    /// Held by the one who loads; the others wait for its result.
    loading: tokio::sync::Mutex<()>,
}

impl Slot {
    fn get(&self) -> Option<Arc<Table>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn usable(&self, outdated: Option<RoutingVersion>) -> Option<Arc<Table>> {
        self.get().filter(|table| outdated != Some(table.version))
    }
}

impl EventRouter {
    /// One that knows nothing yet.
    pub fn new(store: Arc<dyn IngestStore>) -> Self {
        let slots = Cache::builder().max_capacity(MOST_TENANTS).build();
        Self { store, slots, spilled: RwLock::default(), used: AtomicBool::new(true) }
    }

    /// A tenant's table: the one at hand, but for the version that is known to be outdated.
    ///
    /// # Errors
    /// It has to be loaded, and the store is away.
    pub async fn table(&self, tenant: TenantId, outdated: Option<RoutingVersion>) -> Result<Arc<Table>, StoreError> {
        self.used.store(true, Ordering::Relaxed);
        let slot = self.slots.get_with(tenant, Arc::default);
        slot.used.store(true, Ordering::Relaxed);
        if let Some(table) = slot.usable(outdated) {
            return Ok(table);
        }
        let _loading = slot.loading.lock().await;
        if let Some(table) = slot.usable(outdated) {
            return Ok(table);
        }
        self.load(tenant, &slot).await
    }

    async fn load(&self, tenant: TenantId, slot: &Slot) -> Result<Arc<Table>, StoreError> {
        let table = Arc::new(Table::new(self.store.routes(tenant).await?));
        *slot.table.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&table));
        Ok(table)
    }

    /// The destinations whose new deliveries go straight to the store. May be a second old.
    pub fn spilled(&self) -> Arc<HashSet<DestinationId>> {
        Arc::clone(&self.spilled.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps both up to date until the process drains.
    pub async fn follow(&self, shutdown: Shutdown) {
        let mut changes = self.store.changes();
        let mut poll = tokio::time::interval(SPILLED_POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut follows = true;
        loop {
            tokio::select! {
                biased;
                () = shutdown.draining() => return,
                changed = changes.changed(), if follows => match changed {
                    Ok(()) => self.load_ahead().await,
                    // The store tells no more: versions are still checked at every commit.
                    Err(_) => follows = false,
                },
                _ = poll.tick() => if self.used.swap(false, Ordering::Relaxed) {
                    self.poll_spilled().await;
                },
            }
        }
    }

    async fn load_ahead(&self) {
        if self.slots.entry_count() > MOST_LOADED_AHEAD {
            return;
        }
        let slots: Vec<_> = self.slots.iter().collect();
        for (tenant, slot) in slots {
            if !slot.used.swap(false, Ordering::Relaxed) {
                continue;
            }
            let _loading = slot.loading.lock().await;
            if let Err(error) = self.load(*tenant, &slot).await {
                tracing::debug!(%error, "routes could not be loaded ahead");
                return;
            }
        }
    }

    async fn poll_spilled(&self) {
        match self.store.spilled().await {
            Ok(spilled) => {
                let spilled = Arc::new(spilled.into_iter().collect());
                *self.spilled.write().unwrap_or_else(PoisonError::into_inner) = spilled;
            }
            Err(error) => tracing::debug!(%error, "spilled queues could not be asked for"),
        }
    }
}
