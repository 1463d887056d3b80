//! Starting: join the group, wire the tasks, serve, and end the way one is told to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use signalpost_bus::{BusError, Consumer};
use signalpost_core::Timestamp;
use signalpost_limits::{CLAIM_LEASE, Owner, SLOT_LEASE};
use signalpost_runtime::Shutdown;
use tokio::{sync::mpsc::unbounded_channel, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Ended, Engine, shared::Shared};
use crate::{
    DispatcherError, Parts, Settings,
    backoff::Backoff,
    cache::Cache,
    circuits::Circuits,
    claims::Claims,
    heartbeat,
    partitions::Partitions,
    payloads::Payloads,
    queues::{Bounds, Queues},
    request::{Context, Meters},
    tellings::Tellings,
    writer::Writer,
};

/// Runs the dispatcher until it is told to stop.
pub(crate) async fn run(parts: Parts, settings: Settings, shutdown: Shutdown) -> Result<(), DispatcherError> {
    let settings = Arc::new(settings);
    let mut changes = parts.changes.clone();
    // Counted before the moment from which on changes are asked for.
    let read = *changes.borrow_and_update();
    let Some((consumer, since)) = begin(&parts, &shutdown).await? else { return Ok(()) };
    let (signal, signals) = unbounded_channel();
    let (writer, mut writer_task) =
        Writer::start(Arc::clone(&parts.store), Arc::clone(&parts.clock), signal.clone(), settings.write_batch);
    let (payloads, payloads_task) = Payloads::start(Arc::clone(&parts.store), settings.max_large_bytes);
    let mut owner = [0; 8];
    parts.entropy.fill(&mut owner);
    let owner = Owner::from_le_bytes(owner);
    let alive = heartbeat::Alive::new(&parts.clock);
    let heart =
        tokio::spawn(heartbeat::beat(Arc::clone(&parts.store), Arc::clone(&parts.limits), owner, alive.clone()));
    let bounds = Bounds {
        in_flight: settings.max_in_flight,
        queued: settings.max_queued,
        bytes: settings.max_queued_bytes,
        wait: settings.max_wait,
        park: settings.park,
    };
    let queues = Queues::new(bounds);
    let context = Arc::new(Context {
        store: parts.store,
        limits: Arc::clone(&parts.limits),
        exchanger: parts.exchanger,
        clock: Arc::clone(&parts.clock),
        entropy: parts.entropy,
        settings: Arc::clone(&settings),
        writer,
        payloads,
        signals: signal,
        changes: changes.clone(),
        open_circuits: queues.open_circuits(),
        meters: Meters::new(),
    });
    let now = parts.clock.elapsed();
    let mut engine = Engine {
        clock: parts.clock,
        limits: parts.limits,
        changes,
        changes_ended: false,
        context,
        consumer,
        signals,
        tasks: JoinSet::new(),
        owner,
        partitions: Partitions::default(),
        queues,
        cache: Cache::new(settings.cached_destinations),
        claims: Claims::default(),
        circuits: Circuits::default(),
        tellings: Tellings::new(),
        admitting: BTreeSet::new(),
        aside: BTreeMap::new(),
        pending: Vec::new(),
        leaving: CancellationToken::new(),
        alive,
        writes: Vec::new(),
        admission: None,
        shared: Shared::default(),
        telling: None,
        refresh: None,
        gated: false,
        since,
        read,
        reading: read,
        refresh_at: now + settings.poll,
        refreshed_at: now,
        shed_at: now,
        renew_at: now + CLAIM_LEASE / 3,
        renew_slots_at: now + SLOT_LEASE / 3,
        receive_at: now,
        receive_backoff: Backoff::new(),
        wake: Box::pin(tokio::time::sleep(settings.poll)),
        wake_at: now + settings.poll,
        settings,
    };
    let result = engine.serve(&shutdown, &mut writer_task).await;
    let result = match result {
        Ok(Ended::Drained) => engine.drain(&shutdown, writer_task, &heart).await,
        Ok(Ended::Stopped) => {
            engine.tasks.abort_all();
            writer_task.abort();
            Ok(())
        }
        Err(error) => {
            engine.tasks.abort_all();
            Err(error)
        }
    };
    heart.abort();
    payloads_task.abort();
    result
}

/// Joins the group, and marks the moment from which on changes are asked for: before the first destination is loaded,
/// so that none is missed. None: told to stop meanwhile.
async fn begin(parts: &Parts, shutdown: &Shutdown) -> Result<Option<(Box<dyn Consumer>, Timestamp)>, DispatcherError> {
    let starting = async {
        let mut backoff = Backoff::new();
        let since = loop {
            match parts.store.changed_since(None).await {
                Ok((_, since)) => break since,
                Err(error) => tracing::warn!(error = %error, "waiting for the store"),
            }
            backoff.wait().await;
        };
        let mut backoff = Backoff::new();
        loop {
            match parts.bus.consume().await {
                Ok(consumer) => return Ok((consumer, since)),
                Err(BusError::Closed) => return Err(BusError::Closed),
                Err(error) => tracing::warn!(error = %error, "waiting for the bus"),
            }
            backoff.wait().await;
        }
    };
    tokio::select! {
        biased;
        () = shutdown.draining() => Ok(None),
        started = starting => Ok(Some(started?)),
    }
}
