//! A store that fails as a test says, before a real one.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use signalpost_api::Settings;
use signalpost_core::{DestinationId, TenantId, Timestamp};
use signalpost_store::{
    Changes, Health as _, IngestStore as _, ManageStore as _, Store, StoreError, TenantStore as _,
    ingest::{IngestGroup, UnitOutcome},
    layers::{LayeredStore, StoreLayer},
};
use signalpost_store_sqlite::SqliteStore;

use crate::app::App;

/// The type of the events that it refuses.
pub const REFUSED: &str = "refused";

/// See the module.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: SqliteStore,
    faults: Arc<Faults>,
}

/// What is wrong with it now.
#[derive(Debug, Default)]
pub struct Faults {
    /// Every call fails.
    pub away: AtomicBool,
    /// Calls of this name fail, those of ingest excepted.
    pub fails: Mutex<Option<&'static str>>,
    /// Its clock is that many seconds ahead.
    pub seconds_ahead: AtomicUsize,
    /// Who asks to be told of changes is told of none.
    pub tells_nothing: AtomicBool,
    /// It is of an earlier version, whose processes cannot read encrypted secrets.
    pub unsealed: AtomicBool,
    /// Groups that it was given.
    pub groups: AtomicUsize,
    /// The group with this number is not taken, from 1.
    pub fails_at: AtomicUsize,
    /// Before every third group this destination changes, so that what was routed before is routed again.
    pub restless: Mutex<Option<DestinationId>>,
}

/// An API on such a store, and its faults.
pub fn start(settings: Settings) -> (App, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    let theirs = Arc::clone(&faults);
    (App::start_with(settings, |store| Arc::new(LayeredStore(FaultyStore::new(store, theirs)))), faults)
}

impl FaultyStore {
    /// A healthy one.
    pub fn new(inner: SqliteStore, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }

    fn check_away(&self) -> Result<(), StoreError> {
        if self.faults.away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("the test took it away".to_owned()));
        }
        Ok(())
    }
}

impl StoreLayer for FaultyStore {
    fn inner(&self) -> &dyn Store {
        &self.inner
    }

    async fn via<T: Send>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.check_away()?;
        if *self.faults.fails.lock().unwrap() == Some(name) {
            return Err(StoreError::Unavailable("the test let it fail".to_owned()));
        }
        call.await
    }

    async fn ingest(&self, group: &IngestGroup) -> Result<Vec<UnitOutcome>, StoreError> {
        self.check_away()?;
        let number = self.faults.groups.fetch_add(1, Ordering::SeqCst) + 1;
        if self.faults.fails_at.load(Ordering::SeqCst) == number {
            return Err(StoreError::Unavailable("the test let it fail".to_owned()));
        }
        let restless = *self.faults.restless.lock().unwrap();
        if let Some(id) = restless.filter(|_| number.is_multiple_of(3) && !group.units.is_empty()) {
            self.inner.set_paused(TenantId::DEFAULT, id, number.is_multiple_of(2)).await?;
        }
        if group.units.iter().flat_map(|unit| &unit.events).any(|new| new.event.event_type == REFUSED) {
            return Err(StoreError::Data("the test refuses it".to_owned()));
        }
        self.inner.ingest(group).await
    }

    fn changes(&self) -> Changes {
        if self.faults.tells_nothing.load(Ordering::SeqCst) {
            return tokio::sync::watch::channel(0).1;
        }
        self.inner.changes()
    }

    async fn check(&self) -> Result<Timestamp, StoreError> {
        self.check_away()?;
        let ahead = self.faults.seconds_ahead.load(Ordering::SeqCst);
        Ok(self.inner.check().await? + Duration::from_secs(ahead as u64))
    }

    async fn is_sealed(&self) -> Result<bool, StoreError> {
        self.check_away()?;
        Ok(self.inner.is_sealed().await? && !self.faults.unsealed.load(Ordering::SeqCst))
    }
}
