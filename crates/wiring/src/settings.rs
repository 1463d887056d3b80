//! Settings, as the operator wrote them, to the settings of the libraries.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use signalpost_api::{DestinationDefaults, ManageSettings, OperationsSettings};
use signalpost_config::Settings;
use signalpost_core::Secret;
use signalpost_sender::{EgressPolicy, Sender, SenderSettings};
use signalpost_telemetry::Access;
use signalpost_vault::KeyRing;

use crate::{Failure, Process};

/// The keys of secrets at rest.
///
/// # Errors
/// They are not set, or are none.
pub fn vault(settings: &Settings) -> Result<Arc<KeyRing>, Failure> {
    let keys = settings.storage.encryption_keys.as_ref().map_or("", Secret::reveal);
    let ring =
        KeyRing::parse(keys).map_err(|error| Failure::setting(format!("SIGNALPOST_ENCRYPTION_KEYS: {error}")))?;
    Ok(Arc::new(ring))
}

/// The client that talks to destinations, and reads their secrets with these keys.
///
/// # Errors
/// TLS cannot be set up.
pub fn sender(settings: &Settings, process: &Process, vault: Arc<KeyRing>) -> Result<Arc<Sender>, Failure> {
    let egress =
        EgressPolicy { allow: settings.delivery.egress_allow.clone(), require_https: settings.delivery.require_https };
    let settings = SenderSettings::new(egress, Arc::clone(&process.clock), Arc::clone(&process.entropy), vault);
    Ok(Arc::new(Sender::new(settings).context("cannot start the client for destinations")?))
}

/// The defaults of destinations, judged by the API: before anything is connected or listened on.
///
/// # Errors
/// No destination could have them.
pub fn destination_defaults(settings: &Settings) -> Result<DestinationDefaults, Failure> {
    DestinationDefaults::new(settings.destination_defaults.clone()).map_err(|bad| Failure::setting(bad.to_string()))
}

/// The API, with `keys` as the operator's, listening on `address`.
pub fn api(
    settings: &Settings,
    process: &Process,
    keys: &[String],
    address: SocketAddr,
    destination_defaults: DestinationDefaults,
) -> signalpost_api::Settings {
    signalpost_api::Settings {
        manage: ManageSettings { destination_defaults, ..ManageSettings::default() },
        operator_keys: keys.to_vec(),
        max_event_bytes: settings.ingest.max_event_bytes.get(),
        idempotency_ttl: settings.ingest.idempotency,
        operations: Some(OperationsSettings {
            metrics: process.metrics.clone(),
            access: Access::for_listener(address, keys),
        }),
        ..signalpost_api::Settings::default()
    }
}

/// The dispatcher. Its drain ends before the process's does.
pub fn dispatcher(settings: &Settings) -> signalpost_dispatcher::Settings {
    signalpost_dispatcher::Settings {
        max_age: settings.delivery.max_age,
        max_in_flight: settings.delivery.max_in_flight.get(),
        drain: settings.service.drain.mul_f64(0.8),
        ..signalpost_dispatcher::Settings::default()
    }
}

/// Everything that time drives; `base` suits the deployment.
pub fn retry(settings: &Settings, base: signalpost_retry::Settings) -> signalpost_retry::Settings {
    let mut retention = base.retention;
    retention.events = settings.retention.events;
    retention.dead_letters = settings.retention.dead_letters;
    signalpost_retry::Settings { max_age: settings.delivery.max_age, retention, ..base }
}
