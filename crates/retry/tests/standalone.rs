//! The jobs on the store and the bus of standalone: what a process left behind is on the bus of the next one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use signalpost_bus::{Bus, Consumer, Delivered, Message, Origin};
use signalpost_bus_local::{Capacity, LocalBus};
use signalpost_core::{
    AttemptOutcome, Clock, DeliveryId, Destination, DestinationId, Entropy, Event, EventId, EventMeta, Kept, OutboxId,
    TenantId,
};
use signalpost_retry::{Ports, RetryError, Settings, recover, run};
use signalpost_runtime::{Shutdown, SystemClock, SystemEntropy};
use signalpost_store::{
    DispatchStore as _, IngestStore as _, ManageStore as _, ReadStore as _,
    dispatch::{Attempt, DeliveryWrite, Next, Target},
    ingest::{IngestGroup, IngestUnit, NewDelivery, NewEvent, Start, UnitOutcome},
    manage::Created,
    read::{AttemptFilter, Page},
};
use signalpost_store_sqlite::SqliteStore;
use tokio::{task::JoinHandle, time::timeout};

/// Far more than any of it takes.
const DEADLINE: Duration = Duration::from_secs(30);

/// One process: its store, its bus, and one dispatcher's place at the bus.
struct Process {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    store: SqliteStore,
    bus: LocalBus,
    consumer: Box<dyn Consumer>,
}

impl Process {
    async fn start(folder: &tempfile::TempDir, capacity: Capacity) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let bus = LocalBus::new(clock.as_ref(), capacity);
        let store = SqliteStore::open(folder.path(), Arc::clone(&clock), Arc::clone(&entropy)).unwrap();
        let consumer = bus.consume().await.unwrap();
        Self { clock, entropy, store, bus, consumer }
    }

    fn ports(&self) -> Ports {
        Ports {
            store: Arc::new(self.store.clone()),
            bus: Arc::new(self.bus.clone()),
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
        }
    }

    /// Starts everything that time drives.
    fn retry(&self, settings: Settings) -> (Shutdown, JoinHandle<Result<(), RetryError>>) {
        let shutdown = Shutdown::new();
        (shutdown.clone(), tokio::spawn(run(self.ports(), settings, shutdown)))
    }

    async fn destination(&self) -> Destination {
        let now = self.clock.now();
        let spec = serde_json::json!({
            "url": "https://example.com/hook", "event_types": ["*"],
            "retry": {"strategy": "schedule", "delays_ms": [10, 10]},
        });
        let destination = Destination::new(
            DestinationId::new(now, self.entropy.as_ref()),
            TenantId::DEFAULT,
            serde_json::from_value(spec).unwrap(),
            Kept::plain("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"),
            now,
        );
        assert_eq!(self.store.create_destination(&destination).await.unwrap(), Created::Yes);
        destination
    }

    /// Commits one event in a group of its own. `published` are the records of earlier groups that the bus took.
    async fn post(&self, to: &[DestinationId], fan_out: bool, published: Vec<OutboxId>) -> (OutboxId, Vec<Target>) {
        let (now, entropy) = (self.clock.now(), self.entropy.as_ref());
        let event = Event {
            id: EventId::new(now, entropy),
            tenant_id: TenantId::DEFAULT,
            event_type: "order.created".to_owned(),
            uid: None,
            source: None,
            meta: EventMeta::default(),
            data: Bytes::from_static(b"{\"n\":1}"),
        };
        let born = |to: &DestinationId| NewDelivery {
            id: DeliveryId::new(now, entropy),
            destination_id: *to,
            start: Start::Queued,
            lane: None,
            guarantee: signalpost_core::Guarantee::default(),
        };
        let deliveries = if fan_out { Vec::new() } else { to.iter().map(born).collect::<Vec<_>>() };
        let targets = deliveries.iter().map(|delivery| Target {
            delivery_id: delivery.id,
            tenant_id: event.tenant_id,
            destination_id: delivery.destination_id,
            event_id: event.id,
            lease: None,
        });
        let targets = targets.collect();
        let event = NewEvent {
            event: Arc::new(event),
            deliveries,
            fan_out: if fan_out { to.to_vec() } else { Vec::new() },
            uid: None,
            answer: Bytes::from_static(b"{}"),
        };
        let routing_version = self.store.routes(TenantId::DEFAULT).await.unwrap().version;
        let unit = IngestUnit { tenant: TenantId::DEFAULT, routing_version, claim: None, events: vec![event] };
        let outbox_id = OutboxId::new(now, entropy);
        let outcomes = self.store.ingest(&IngestGroup { units: vec![unit], outbox_id, published }).await.unwrap();
        assert!(matches!(outcomes[..], [UnitOutcome::Committed(_)]), "{outcomes:?}");
        (outbox_id, targets)
    }

    /// The next messages, at least one; each is delivered, so that it does not come again.
    async fn receive(&mut self) -> Vec<Arc<Message>> {
        let delivered = timeout(DEADLINE, self.consumer.receive(100)).await.expect("a message in time").unwrap();
        let mut messages = Vec::new();
        for item in delivered {
            let Delivered::Message { place, message, .. } = item else { panic!("{item:?}") };
            let mut next = place;
            next.offset += 1;
            self.write_attempt(target(&message), message.attempt, AttemptOutcome::Delivered, Next::Delivered).await;
            self.consumer.commit(next);
            messages.push(message);
        }
        messages
    }

    /// Receives until so many have come.
    async fn receive_all(&mut self, count: usize) -> Vec<Arc<Message>> {
        let mut messages = Vec::new();
        while messages.len() < count {
            messages.extend(self.receive().await);
        }
        messages
    }

    async fn write_attempt(&self, target: Target, number: u32, outcome: AttemptOutcome, next: Next) {
        let attempt = Attempt {
            number,
            started_at: self.clock.now(),
            duration: Duration::from_millis(1),
            outcome,
            status_code: None,
            response_excerpt: Bytes::new(),
            error: None,
        };
        self.store.write(&[DeliveryWrite::Attempt { target, attempt, next }], false).await.unwrap();
    }
}

fn target(message: &Message) -> Target {
    Target {
        delivery_id: message.delivery_id,
        tenant_id: message.tenant_id,
        destination_id: message.destination_id,
        event_id: message.event.id,
        lease: None,
    }
}

fn ids(messages: &[Arc<Message>]) -> BTreeSet<DeliveryId> {
    messages.iter().map(|message| message.delivery_id).collect()
}

async fn drain((shutdown, task): (Shutdown, JoinHandle<Result<(), RetryError>>)) {
    shutdown.drain();
    timeout(DEADLINE, task).await.expect("it drains in time").unwrap().unwrap();
}

#[tokio::test]
async fn what_the_last_process_had_queued_is_fed_by_the_next_while_new_events_come() {
    let folder = tempfile::tempdir().unwrap();
    let mut lost = BTreeSet::new();
    {
        let process = Process::start(&folder, Capacity::default()).await;
        let destination = process.destination().await;
        let mut published = Vec::new();
        // The bus took all but the last group, and then the process died: its bus is gone.
        for _ in 0..50 {
            let (outbox_id, targets) = process.post(&[destination.id], false, published).await;
            published = vec![outbox_id];
            lost.extend(targets.iter().map(|target| target.delivery_id));
        }
    }
    let mut process = Process::start(&folder, Capacity::default()).await;
    let destination = process.destination().await;
    // However slow this machine is, a record of this process stays its own.
    let settings = Settings { relay_older_than: Duration::from_secs(3600), ..Settings::standalone() };
    recover(process.ports(), &settings).await.unwrap();
    let retry = process.retry(settings);
    // Accepted by this process, whose API has them: neither relay nor reconciler may touch them.
    let mut own = BTreeSet::new();
    let mut published = Vec::new();
    for _ in 0..20 {
        let (outbox_id, targets) = process.post(&[destination.id], false, published).await;
        published = vec![outbox_id];
        own.extend(targets.iter().map(|target| target.delivery_id));
    }
    let messages = process.receive_all(lost.len()).await;
    assert_eq!(ids(&messages), lost);
    assert_eq!(messages.len(), lost.len(), "each once");
    assert!(messages.iter().all(|message| message.attempt == 1 && message.origin != Origin::Fresh));
    drain(retry).await;
    let own = own.into_iter().collect::<Vec<_>>();
    for standing in process.store.examine(&own).await.unwrap() {
        assert_eq!(standing.unwrap().state, signalpost_core::DeliveryState::Queued);
    }
}

#[tokio::test]
async fn a_failed_attempt_comes_back_after_its_pause() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(&folder, Capacity::default()).await;
    let destination = process.destination().await;
    let retry = process.retry(Settings::standalone());
    for _ in 0..20 {
        let (_, targets) = process.post(&[destination.id], false, Vec::new()).await;
        let pause = Duration::from_millis(50);
        // The pause counts from within the write, whose answer may come late.
        let written = process.clock.elapsed();
        process.write_attempt(targets[0], 1, AttemptOutcome::Retry, Next::Retry { after: pause }).await;
        let messages = process.receive().await;
        let waited = process.clock.elapsed() - written;
        assert_eq!((messages[0].delivery_id, messages[0].attempt), (targets[0].delivery_id, 2));
        assert!(waited + Duration::from_millis(5) >= pause, "not before its time: {waited:?}");
    }
    drain(retry).await;
}

#[tokio::test]
async fn a_detached_request_of_a_dead_process_is_recorded_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(&folder, Capacity::default()).await;
    let destination = process.destination().await;
    let (_, targets) = process.post(&[destination.id], false, Vec::new()).await;
    let deadline = Duration::from_millis(5);
    let detach = DeliveryWrite::Detach { target: targets[0], attempt: 1, deadline };
    process.store.write(&[detach], false).await.unwrap();
    let retry = process.retry(Settings::standalone());
    let messages = process.receive().await;
    assert_eq!((messages[0].delivery_id, messages[0].attempt), (targets[0].delivery_id, 2));
    let filter = AttemptFilter { delivery_id: Some(targets[0].delivery_id), ..AttemptFilter::default() };
    let page = Page { limit: 10, after: None, descending: false };
    let attempts = process.store.list_attempts(TenantId::DEFAULT, &filter, page).await.unwrap();
    let attempts = attempts.iter().map(|view| (view.attempt.number, view.attempt.outcome)).collect::<Vec<_>>();
    assert_eq!(attempts, [(1, AttemptOutcome::Interrupted), (2, AttemptOutcome::Delivered)]);
    drain(retry).await;
}

#[tokio::test]
async fn a_bus_too_small_for_what_is_due_gets_all_of_it_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut process =
        Process::start(&folder, Capacity { messages: 40, data_bytes: 1 << 20, patience: Duration::ZERO }).await;
    let mut destinations = Vec::new();
    for _ in 0..100 {
        destinations.push(process.destination().await.id);
    }
    destinations.sort_unstable();
    process.post(&destinations, true, Vec::new()).await;
    let retry = process.retry(Settings { most_on_bus: 30, ..Settings::standalone() });
    let messages = process.receive_all(destinations.len()).await;
    assert_eq!(messages.len(), destinations.len(), "each once");
    let reached = messages.iter().map(|message| message.destination_id).collect::<BTreeSet<_>>();
    assert_eq!(reached.len(), destinations.len());
    drain(retry).await;
}
