//! `signalpost-api`.

use std::sync::Arc;

use anyhow::Context as _;
use signalpost_api::{Api, Ports};
use signalpost_bus::Bus;
use signalpost_config::Kind;
use signalpost_runtime::Shutdown;
use signalpost_store::Store;
use signalpost_wiring::{Failure, Parts, Process, listen, settings as to};
use tokio::time::timeout_at;

use crate::{Args, connect};

/// Runs until it is told to stop.
pub async fn run(args: Args, shutdown: Shutdown) -> Result<(), Failure> {
    let settings = args.settings(Kind::Api)?;
    let process = Process::start(&settings, "signalpost-api")?;
    let defaults = to::destination_defaults(&settings)?;
    let store: Arc<dyn Store> = connect::postgres(&settings, &process).await?;
    let bus: Arc<dyn Bus> = connect::kafka(&settings, &process)?;
    let ports = Ports {
        store,
        bus,
        limits: connect::redis(&settings, &process).await?,
        sender: to::sender(&settings, &process, to::vault(&settings)?)?,
        clock: Arc::clone(&process.clock),
        entropy: Arc::clone(&process.entropy),
    };
    let listener = listen::bind(settings.service.listen, "SIGNALPOST_LISTEN").await?;
    let address = listener.local_addr().context("the listener has no address")?;
    let keys = settings.service.admin_keys.reveal();
    let stop = Shutdown::new();
    let api = Api::start(ports, to::api(&settings, &process, keys, address, defaults), stop.clone());
    let mut parts = Parts::new();
    parts.spawn("the API", signalpost_api::serve(listener, api.router(), stop.clone()));
    listen::serve_metrics_apart(&settings, &process, &api.health(), &mut parts, &stop).await?;
    let deadline = parts.run(&shutdown, &stop, settings.service.drain).await?;
    // What was accepted is committed already; what is not published in time is the relay's.
    let _left_to_the_relay = timeout_at(deadline, api.drained()).await;
    Ok(())
}
