//! Which implementation stands behind which port, and in which order the parts end.

use std::{io::IsTerminal as _, net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use signalpost_api::{Api, DestinationDefaults};
use signalpost_bus::Bus;
use signalpost_bus_local::{Capacity, LocalBus};
use signalpost_config::Settings;
use signalpost_limits::{Limits, local::LocalLimits};
use signalpost_runtime::Shutdown;
use signalpost_store::Store;
use signalpost_store_sqlite::SqliteStore;
use signalpost_wiring::{Failure, Parts, Process, Threads, listen, settings as to};
use tokio::{net::TcpListener, time::Instant};

use super::{attempts::Attempts, watch};
use crate::{data_dir::DataDir, inbox::Inbox, terminal::Printer};

/// Groups of events that wait to be published. Few, as the bus takes them at once unless it is full.
const GROUPS_AHEAD: usize = 8;

/// Opens the database; its schema is brought up to date.
pub async fn store(data_dir: &DataDir, process: &Process) -> Result<Arc<dyn Store>, Failure> {
    let (file, clock, entropy) = (data_dir.database(), Arc::clone(&process.clock), Arc::clone(&process.entropy));
    let shown = file.display().to_string();
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(file, clock, entropy));
    let store = opened.await.context("the database could not be opened")?;
    Ok(Arc::new(store.with_context(|| format!("cannot open {shown}"))?))
}

/// A running `dev` or `standalone`.
pub struct Standalone {
    /// Where it listens.
    pub address: SocketAddr,
    api: Api,
    /// The API. Ends last: the inbox takes what is still being sent.
    front: Parts,
    front_shutdown: Shutdown,
    /// Dispatcher and retry.
    engine: Parts,
    engine_shutdown: Shutdown,
    /// Of the dispatcher: what producers post at once and what destinations answer do not wait for each other.
    delivery: Threads,
    printer: Option<Arc<Printer>>,
}

impl Standalone {
    /// Starts all parts. With a printer it is `dev`: with an inbox, and every attempt is told.
    pub async fn start(
        settings: &Settings,
        process: &Process,
        store: Arc<dyn Store>,
        keys: &[String],
        defaults: DestinationDefaults,
        listener: TcpListener,
        printer: Option<Printer>,
    ) -> Result<Self, Failure> {
        let address = listener.local_addr().context("the listener has no address")?;
        let (clock, entropy) = (Arc::clone(&process.clock), Arc::clone(&process.entropy));
        let bus: Arc<dyn Bus> = Arc::new(LocalBus::new(clock.as_ref(), Capacity::default()));
        let limits: Arc<dyn Limits> = Arc::new(LocalLimits::new(Arc::clone(&clock)));
        let sender = to::sender(settings, process, to::vault(settings)?)?;
        let printer = printer.map(Arc::new);
        let (front_shutdown, engine_shutdown) = (Shutdown::new(), Shutdown::new());

        let retry = to::retry(settings, signalpost_retry::Settings::standalone());
        let retry_ports = signalpost_retry::Ports {
            store: Arc::clone(&store),
            bus: Arc::clone(&bus),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
        };
        // While nobody else writes: what the process before had not published is taken over at once.
        signalpost_retry::recover(retry_ports.clone(), &retry)
            .await
            .context("the work of the last run could not be taken over")?;

        let api_ports = signalpost_api::Ports {
            store: Arc::clone(&store),
            bus: Arc::clone(&bus),
            limits: Arc::clone(&limits),
            sender: Arc::clone(&sender),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
        };
        let mut api = to::api(settings, process, keys, address, defaults);
        api.ingest.publish_groups = GROUPS_AHEAD;
        let api = Api::start(api_ports, api, front_shutdown.clone());
        let mut router = api.router();
        let mut dispatcher = to::dispatcher(settings);
        if let Some(printer) = &printer {
            let inbox = Inbox::new(Arc::clone(&store), Arc::clone(sender.vault()), Arc::clone(&clock), address.port());
            router = router.merge(api.surround(inbox.router()));
            dispatcher.observer = Some(Arc::new(Attempts::new(Arc::clone(printer), inbox)));
        }
        let mut front = Parts::new();
        let served = signalpost_api::serve(listener, router, to::connections(settings), front_shutdown.clone());
        front.spawn("the API", served);
        listen::serve_metrics_apart(settings, process, &api.health(), &mut front, &front_shutdown).await?;

        let mut engine = Parts::new();
        if let Some(printer) = &printer {
            let watch = watch::run(Arc::clone(&store), Arc::clone(printer), engine_shutdown.clone());
            engine.spawn("the watch of destinations", watch);
        }
        let dispatcher_ports = signalpost_dispatcher::Ports { store, bus, limits, exchanger: sender, clock, entropy };
        let delivery = Threads::start("delivery")?;
        let dispatching = Box::pin(signalpost_dispatcher::run(dispatcher_ports, dispatcher, engine_shutdown.clone()));
        engine.spawn_on(delivery.handle(), "the dispatcher", dispatching);
        engine.spawn("retry", Box::pin(signalpost_retry::run(retry_ports, retry, engine_shutdown.clone())));
        Ok(Self { address, api, front, front_shutdown, engine, engine_shutdown, delivery, printer })
    }

    /// Prints, in `dev` in the order of the attempts.
    pub fn say(&self, text: String) {
        match &self.printer {
            Some(printer) => printer.print(text),
            None if std::io::stderr().is_terminal() => eprintln!("{text}"),
            // Among the lines of the log, which a program reads.
            None => tracing::info!("{text}"),
        }
    }

    /// Waits until a part fails.
    pub async fn failed(&mut self) -> Failure {
        tokio::select! {
            biased;
            failure = self.engine.failed() => failure,
            failure = self.front.failed() => failure,
        }
    }

    /// Finishes what is under way: requests to destinations first, then requests to us, then what was accepted is
    /// committed. What is not sent is in the store, and is taken up at the next start.
    pub async fn drain(mut self, deadline: Instant) -> Result<(), Failure> {
        let engine = self.engine.drain(&self.engine_shutdown, deadline).await;
        let front = self.front.drain(&self.front_shutdown, deadline).await;
        self.delivery.end().await;
        let committed = tokio::time::timeout_at(deadline, self.api.drained()).await;
        if committed.is_err() {
            tracing::warn!("not all of what was taken in was committed in time; its producers got no 202");
        }
        engine.and(front)
    }
}
