//! `signalpost-api`.

use std::sync::Arc;

use anyhow::Context as _;
use signalpost_api::{Api, Ports};
use signalpost_bus::Bus;
use signalpost_config::Kind;
use signalpost_runtime::Shutdown;
use signalpost_store::Store;
use signalpost_wiring::{Failure, Parts, Process, keys, listen, settings as to};
use tokio::time::timeout_at;

use crate::{Args, connect};

/// Runs until it is told to stop.
pub async fn run(args: Args, shutdown: Shutdown) -> Result<(), Failure> {
    let settings = args.settings(Kind::Api)?;
    let process = Process::start(&settings, "signalpost-api")?;
    let defaults = to::destination_defaults(&settings)?;
    let vault = to::vault(&settings)?;
    let store: Arc<dyn Store> = connect::postgres(&settings, Arc::clone(&process.entropy)).await?;
    let bus: Arc<dyn Bus> = connect::kafka(&settings, &process)?;
    let (mut parts, stop) = (Parts::new(), Shutdown::new());
    keys::require(&store, &vault, &mut parts, &stop).await?;
    let ports = Ports {
        store,
        bus,
        limits: connect::redis(&settings, &process).await?,
        sender: to::sender(&settings, &process, vault)?,
        clock: Arc::clone(&process.clock),
        entropy: Arc::clone(&process.entropy),
    };
    let listener = listen::bind(settings.service.listen, "SIGNALPOST_LISTEN").await?;
    let address = listener.local_addr().context("the listener has no address")?;
    let keys = settings.service.admin_keys.reveal();
    let api = Api::start(ports, to::api(&settings, &process, keys, address, defaults), stop.clone());
    parts.spawn("the API", signalpost_api::serve(listener, api.router(), to::connections(&settings), stop.clone()));
    listen::serve_metrics_apart(&settings, &process, &api.health(), &mut parts, &stop).await?;
    let deadline = parts.run(&shutdown, &stop, settings.service.drain).await?;
    // What was accepted is committed already; what is not published in time is the relay's.
    let _left_to_the_relay = timeout_at(deadline, api.drained()).await;
    Ok(())
}
