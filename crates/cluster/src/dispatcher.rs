//! `signalpost-dispatcher`.

use std::sync::Arc;

use signalpost_bus::Bus;
use signalpost_config::Kind;
use signalpost_dispatcher::Ports;
use signalpost_runtime::Shutdown;
use signalpost_store::Store;
use signalpost_wiring::{Failure, Parts, Process, keys, listen, settings as to};

use crate::{Args, connect, health};

/// Runs until it is told to stop.
pub async fn run(args: Args, shutdown: Shutdown) -> Result<(), Failure> {
    let settings = args.settings(Kind::Dispatcher)?;
    let process = Process::start(&settings, "signalpost-dispatcher")?;
    let vault = to::vault(&settings)?;
    let store: Arc<dyn Store> = connect::postgres(&settings, Arc::clone(&process.entropy)).await?;
    let bus: Arc<dyn Bus> = connect::kafka(&settings, &process)?;
    let limits = connect::redis(&settings, &process).await?;
    let health = health::dispatcher(Arc::clone(&store), Arc::clone(&bus), Arc::clone(&limits));
    let stop = Shutdown::new();
    let mut parts = Parts::new();
    keys::require(&store, &vault, &mut parts, &stop).await?;
    listen::serve_operations(&settings, &process, &health, &mut parts, &stop).await?;
    let ports = Ports {
        store,
        bus,
        limits,
        exchanger: to::sender(&settings, &process, vault)?,
        clock: Arc::clone(&process.clock),
        entropy: Arc::clone(&process.entropy),
    };
    let dispatcher = signalpost_dispatcher::run(ports, to::dispatcher(&settings), stop.clone());
    parts.spawn("the dispatcher", Box::pin(dispatcher));
    parts.run(&shutdown, &stop, settings.service.drain).await.map(drop)
}
