//! What the services without an API depend on: a dispatcher on the store and the bus, retry on the store.

use std::sync::Arc;

use signalpost_bus::Bus;
use signalpost_limits::Limits;
use signalpost_store::Store;
use signalpost_telemetry::Health;

async fn store_check(store: Arc<dyn Store>) -> Result<(), String> {
    store.check().await.map(drop).map_err(|error| error.to_string())
}

async fn bus_check(bus: Arc<dyn Bus>) -> Result<(), String> {
    bus.check().await.map_err(|error| error.to_string())
}

async fn limits_check(limits: Arc<dyn Limits>) -> Result<(), String> {
    limits.check().await.map_err(|error| error.to_string())
}

/// Without the store it starts nothing new, without the bus nothing comes.
pub fn dispatcher(store: Arc<dyn Store>, bus: Arc<dyn Bus>, limits: Arc<dyn Limits>) -> Health {
    Health::new("dispatcher")
        .required("store", move || store_check(Arc::clone(&store)))
        .required("bus", move || bus_check(Arc::clone(&bus)))
        .optional("limits", move || limits_check(Arc::clone(&limits)))
}

/// Without the bus what is due waits; all else goes on.
pub fn retry(store: Arc<dyn Store>, bus: Arc<dyn Bus>) -> Health {
    Health::new("retry")
        .required("store", move || store_check(Arc::clone(&store)))
        .optional("bus", move || bus_check(Arc::clone(&bus)))
}
