//! Settings, as the operator wrote them, to the settings of the libraries.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit};
use signalpost_api::{ConnectionLimits, DestinationDefaults, ManageSettings, OperationsSettings};
use signalpost_config::Settings;
use signalpost_core::Secret;
use signalpost_sender::{EgressPolicy, EgressProxy, ExtraRoots, Sender, SenderSettings};
use signalpost_telemetry::Access;
use signalpost_vault::KeyRing;

use crate::{Failure, Process};

/// The keys of secrets at rest.
///
/// # Errors
/// They are not set, or are none.
pub fn vault(settings: &Settings) -> Result<Arc<KeyRing>, Failure> {
    let keys = settings.storage.encryption_keys.as_ref().map_or("", Secret::reveal);
    KeyRing::parse(keys).map(Arc::new).map_err(|error| {
        Failure::setting(format!(
            "SIGNALPOST_ENCRYPTION_KEYS: {error}; `echo \"k1:$(openssl rand -base64 32)\"` makes one, several are \
             separated by commas, newest first"
        ))
    })
}

/// The client that talks to destinations, and reads their secrets with these keys.
///
/// # Errors
/// The proxy or the file of certificates is none, or TLS cannot be set up.
pub fn sender(settings: &Settings, process: &Process, vault: Arc<KeyRing>) -> Result<Arc<Sender>, Failure> {
    let delivery = &settings.delivery;
    let egress = EgressPolicy {
        allow: delivery.egress_allow.clone(),
        require_https: delivery.require_https,
        deny_ports: delivery.egress_deny_ports.clone(),
    };
    let mut settings = SenderSettings::new(egress, Arc::clone(&process.clock), Arc::clone(&process.entropy), vault);
    if let Some(proxy) = &delivery.egress_proxy {
        let proxy = EgressProxy::parse(proxy.reveal());
        settings.proxy = Some(proxy.map_err(|error| Failure::setting(format!("SIGNALPOST_EGRESS_PROXY {error}")))?);
    }
    if let Some(path) = &delivery.egress_ca_file {
        settings.extra_roots = extra_roots(path)?;
    }
    Ok(Arc::new(Sender::new(settings).context("cannot start the client for destinations")?))
}

fn extra_roots(path: &Path) -> Result<ExtraRoots, Failure> {
    let wrong =
        |problem: String| Failure::setting(format!("SIGNALPOST_EGRESS_CA_FILE (`{}`) {problem}", path.display()));
    let pem = fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    ExtraRoots::from_pem(&pem).map_err(|error| wrong(error.to_string()))
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
        operator_keys: keys.iter().map(Secret::new).collect(),
        trusted_proxies: settings.service.trusted_proxies.clone(),
        open_registrations_per_hour: settings
            .service
            .open_registration
            .then_some(settings.service.open_registrations_per_hour),
        max_event_bytes: settings.ingest.max_event_bytes.get(),
        idempotency_ttl: settings.ingest.idempotency,
        operations: Some(OperationsSettings {
            metrics: process.metrics.clone(),
            access: Access::for_listener(address, keys),
        }),
        ..signalpost_api::Settings::default()
    }
}

/// What connections may take up of the API's listener. A quarter of the file descriptors is left to the database and
/// to requests to destinations.
pub fn connections(settings: &Settings) -> ConnectionLimits {
    let service = &settings.service;
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let room = usize::try_from(files / 4 * 3).unwrap_or(usize::MAX);
    let wanted = service.max_connections.get();
    if wanted > room {
        tracing::info!(
            files,
            connections = room,
            "the limit of open files allows fewer than SIGNALPOST_MAX_CONNECTIONS"
        );
    }
    ConnectionLimits {
        most: wanted.min(room),
        most_per_address: service.max_connections_per_address.get(),
        exempt: service.trusted_proxies.clone(),
        ..ConnectionLimits::default()
    }
}

/// The dispatcher. Its drain ends before the process's does.
pub fn dispatcher(settings: &Settings) -> signalpost_dispatcher::Settings {
    signalpost_dispatcher::Settings {
        max_age: settings.delivery.max_age,
        max_in_flight: settings.delivery.max_in_flight.get(),
        max_large_bytes: settings.delivery.max_large_payload_bytes.get(),
        drain: settings.service.drain.mul_f64(0.8),
        ..signalpost_dispatcher::Settings::default()
    }
}

/// Everything that time drives; `base` suits the deployment.
pub fn retry(settings: &Settings, base: signalpost_retry::Settings) -> signalpost_retry::Settings {
    let mut retention = base.retention;
    retention.events = settings.retention.events;
    retention.dead_letters = settings.retention.dead_letters;
    retention.audit = settings.retention.audit;
    signalpost_retry::Settings { max_age: settings.delivery.max_age, retention, ..base }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use signalpost_config::{Kind, load_from};
    use signalpost_sender::DEFAULT_DENY_PORTS;

    use super::*;

    #[test]
    fn the_default_ports_are_the_senders() {
        let settings = load_from(Kind::Standalone, None, []).unwrap();
        assert_eq!(settings.delivery.egress_deny_ports, DEFAULT_DENY_PORTS);
    }

    #[test]
    fn keys_that_are_none_are_told_with_how_to_make_one_and_not_shown() {
        let told = |keys: Option<&str>| {
            let mut settings = load_from(Kind::Standalone, None, []).unwrap();
            settings.storage.encryption_keys = keys.map(Secret::new);
            let Err(Failure::Setting(text)) = vault(&settings) else { panic!("{keys:?} were taken") };
            assert!(text.starts_with("SIGNALPOST_ENCRYPTION_KEYS: "), "{text}");
            assert!(text.contains("openssl rand -base64 32"), "{text}");
            assert!(!text.contains("planted"), "{text}");
            text
        };
        assert!(told(None).contains("there is no key in it"));
        assert!(told(Some("k1:cGxhbnRlZA==,planted")).contains("number 1 is not"));
    }

    #[test]
    fn a_file_of_certificates_that_is_none_stops_the_start() {
        let here = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        for (path, problem) in [(here, "holds no certificate"), (PathBuf::from("/nowhere.pem"), "cannot be read")] {
            let Err(Failure::Setting(text)) = extra_roots(&path) else { panic!("{path:?} was taken") };
            assert!(text.starts_with("SIGNALPOST_EGRESS_CA_FILE") && text.contains(problem), "{text}");
        }
    }
}
