//! One dispatcher on fakes.

use std::{sync::Arc, time::Duration};

use signalpost_bus::Payload;
use signalpost_core::{Destination, classify::Answer};
use signalpost_limits::{Limits, local::LocalLimits};
use signalpost_runtime::Shutdown;
use signalpost_sender::Outgoing;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    DispatcherError, Parts, Settings, engine,
    fakes::{BusHandle, Counting, FakeBus, FakeStore, Script, Scripted, TokioClock, event, message},
};

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A dispatcher that runs.
pub(super) struct Harness {
    pub store: Arc<FakeStore>,
    pub bus: Arc<FakeBus>,
    pub exchanger: Arc<Scripted>,
    pub shutdown: Shutdown,
    pub running: JoinHandle<Result<(), DispatcherError>>,
    pub start: Instant,
}

/// Every request ends so.
pub(super) fn always(after: Duration, answer: Answer) -> Script {
    Box::new(move |_: &Outgoing<'_>| (after, Some(answer)))
}

impl Harness {
    pub(super) fn start(destinations: impl IntoIterator<Item = Destination>, script: Script) -> Self {
        Self::with(destinations, script, Settings::default(), None)
    }

    pub(super) fn with(
        destinations: impl IntoIterator<Item = Destination>,
        script: Script,
        settings: Settings,
        limits: Option<Arc<dyn Limits>>,
    ) -> Self {
        let clock = Arc::new(TokioClock::new());
        let store = FakeStore::new(destinations);
        let bus = Arc::new(FakeBus::default());
        let exchanger = Scripted::new(script);
        let shutdown = Shutdown::new();
        let parts = Parts {
            changes: store.changes(),
            store: Arc::clone(&store) as _,
            bus: Arc::new(BusHandle(Arc::clone(&bus))),
            limits: limits.unwrap_or_else(|| Arc::new(LocalLimits::new(Arc::clone(&clock) as _))),
            exchanger: Arc::clone(&exchanger) as _,
            clock,
            entropy: Arc::new(Counting::default()),
        };
        let running = tokio::spawn(engine::run(parts, settings, shutdown.clone()));
        Self { store, bus, exchanger, shutdown, running, start: Instant::now() }
    }

    /// Waits for a condition, for a minute of paused time.
    pub(super) async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + ms(60_000);
        while !condition(self) {
            assert!(Instant::now() < deadline, "never: {what}");
            assert!(!self.running.is_finished(), "the dispatcher ended");
            sleep(ms(1)).await;
        }
    }

    /// Waits until every message in partition 0 is done.
    pub(super) async fn until_all_done(&self) {
        self.until("all done", |it| it.bus.committed() == it.bus.state().next_offset).await;
    }

    /// An event with so many bytes of data for destination 1, which its message leaves in the store.
    pub(super) fn send_large(&self, delivery: u32, bytes: usize) {
        let mut whole = event(delivery, b"");
        whole.data = "1".repeat(bytes).into();
        self.store.state().events.insert(whole.id, Arc::new(whole));
        let mut light = message(delivery, 1);
        light.payload = Payload::ByReference;
        light.event = Arc::new(event(delivery, b""));
        self.bus.send(light);
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Ends the dispatcher the friendly way; what it says.
    pub(super) async fn drain(self) -> Result<(), DispatcherError> {
        self.shutdown.drain();
        self.running.await.unwrap()
    }
}
