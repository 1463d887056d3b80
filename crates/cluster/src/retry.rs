//! `signalpost-retry`.

use std::sync::Arc;

use signalpost_bus::Bus;
use signalpost_config::Kind;
use signalpost_retry::Ports;
use signalpost_runtime::Shutdown;
use signalpost_store::Store;
use signalpost_wiring::{Failure, Parts, Process, listen, settings as to};

use crate::{Args, connect, health};

/// Runs until it is told to stop.
pub async fn run(args: Args, shutdown: Shutdown) -> Result<(), Failure> {
    let settings = args.settings(Kind::Retry)?;
    let process = Process::start(&settings, "signalpost-retry")?;
    let store: Arc<dyn Store> = connect::postgres(&settings, Arc::clone(&process.entropy)).await?;
    let bus: Arc<dyn Bus> = connect::kafka(&settings, &process)?;
    let health = health::retry(Arc::clone(&store), Arc::clone(&bus));
    let stop = Shutdown::new();
    let mut parts = Parts::new();
    listen::serve_operations(&settings, &process, &health, &mut parts, &stop).await?;
    let ports = Ports { store, bus, clock: Arc::clone(&process.clock), entropy: Arc::clone(&process.entropy) };
    let retry = to::retry(&settings, signalpost_retry::Settings::default());
    parts.spawn("retry", Box::pin(signalpost_retry::run(ports, retry, stop.clone())));
    parts.run(&shutdown, &stop, settings.service.drain).await.map(drop)
}
