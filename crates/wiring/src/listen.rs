//! Listeners, and the routes of operations on them.

use std::{io, net::SocketAddr};

use anyhow::anyhow;
use signalpost_api::ConnectionLimits;
use signalpost_config::Settings;
use signalpost_runtime::Shutdown;
use signalpost_telemetry::{
    Access, Health,
    health::{self, Operations},
};
use tokio::net::TcpListener;

use crate::{Failure, Parts, Process};

/// Listens. The error says what to do.
///
/// # Errors
/// The port is in use, or the address is not this machine's.
pub async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| refused(address, setting, error))
}

/// Why an address that `setting` names cannot be listened on, and what to do.
#[must_use]
pub fn refused(address: SocketAddr, setting: &str, error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AddrInUse => Failure::Other(anyhow!(
            "{address} is in use by another process; stop it, or choose another port with {setting}"
        )),
        io::ErrorKind::AddrNotAvailable => {
            Failure::setting(format!("{setting}: {address} is no address of this machine"))
        }
        io::ErrorKind::PermissionDenied => {
            Failure::setting(format!("{setting}: this user may not listen on {address}; choose a port from 1024 on"))
        }
        _ => Failure::Other(anyhow::Error::new(error).context(format!("cannot listen on {address}"))),
    }
}

/// Health and metrics of a service without an API, on its listener; and on `METRICS_LISTEN`, where that is set.
///
/// # Errors
/// An address cannot be listened on.
pub async fn serve_operations(
    settings: &Settings,
    process: &Process,
    health: &Health,
    parts: &mut Parts,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let listener = bind(settings.service.listen, "SIGNALPOST_LISTEN").await?;
    let access = Access::for_listener(settings.service.listen, settings.service.admin_keys.reveal());
    serve_on(listener, operations(process, health, access), "operations", parts, shutdown);
    serve_metrics_apart(settings, process, health, parts, shutdown).await
}

/// Health and metrics on `METRICS_LISTEN`, where that is set: open to all who reach it.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve_metrics_apart(
    settings: &Settings,
    process: &Process,
    health: &Health,
    parts: &mut Parts,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    if let Some(address) = settings.service.metrics_listen {
        let listener = bind(address, "SIGNALPOST_METRICS_LISTEN").await?;
        serve_on(listener, operations(process, health, Access::Open), "metrics", parts, shutdown);
    }
    Ok(())
}

fn operations(process: &Process, health: &Health, access: Access) -> Operations {
    Operations { health: health.clone(), metrics: process.metrics.clone(), access }
}

fn serve_on(listener: TcpListener, operations: Operations, name: &'static str, parts: &mut Parts, shutdown: &Shutdown) {
    let router = health::alone(operations);
    parts.spawn(name, signalpost_api::serve(listener, router, ConnectionLimits::of_operations(), shutdown.clone()));
}
