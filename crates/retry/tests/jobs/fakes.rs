//! A store and a bus that do what a test says and remember what they were asked.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use signalpost_bus::{Bus, BusError, Consumer, Message};
use signalpost_core::{
    CircuitRecord, Clock, DeliveryId, Destination, DestinationId, DestinationSpec, DestinationState, Entropy, Event,
    EventId, Guarantee, Kept, ReplayId, TenantId, Timestamp, WaitReason, retry_policy::RetryPolicy,
};
use signalpost_retry::{Needs, RetryError, Settings, run};
use signalpost_runtime::Shutdown;
use signalpost_store::{
    DispatchStore, Health, ScheduleStore, StoreError,
    dispatch::{DeliveryWrite, QueueHold, Standing, WriteReport, Written},
    pace::Pace,
    schedule::{Due, DueDelivery, FeedBudget, OpenReplay, Retention, Sample},
};
use tokio::{task::JoinHandle, time::Instant};

/// The time of the store when a test starts.
pub const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Follows the test's paused time.
#[derive(Debug)]
pub struct TestClock(Instant);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        START + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Always the middle: no jitter.
#[derive(Debug)]
pub struct Middle;

impl Entropy for Middle {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0x80);
    }
}

/// What was asked, and when after the start.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub at: Duration,
    pub name: &'static str,
    /// The numbers in it, in milliseconds where they are times.
    pub numbers: Vec<i64>,
}

/// What the fakes do.
#[derive(Debug, Default)]
pub struct State {
    pub calls: Vec<Call>,
    /// How often a method fails before it works.
    pub failures: BTreeMap<&'static str, usize>,
    /// Methods that never answer.
    pub hanging: Vec<&'static str>,
    /// What becomes due when, after the start.
    pub due: Vec<(Duration, DueDelivery)>,
    pub destinations: Vec<Destination>,
    /// How many outbox records there are.
    pub outbox: usize,
    /// How many destinations have failed for too long.
    pub failing: usize,
    /// Rows of tenants that are being deleted.
    pub doomed_rows: usize,
    /// What the bus has lost, in chunks.
    pub lost: usize,
    pub fan_outs: usize,
    /// Jobs, and how many deliveries each still creates.
    pub replays: Vec<(OpenReplay, usize)>,
    /// From when those with a rate may go on.
    pub paced: BTreeMap<ReplayId, Timestamp>,
    /// One whose steps always fail.
    pub broken_replay: Option<ReplayId>,
    /// The most outbox records of a transaction that does not run out of time.
    pub relay_bears: Option<usize>,
    pub given_back: Vec<(DeliveryId, Timestamp)>,
    pub writes: Vec<DeliveryWrite>,
    pub published: Vec<(Duration, Arc<Message>)>,
    /// The results of publications; after these all work.
    pub publications: VecDeque<bool>,
    pub lag: Option<u64>,
    pub consumed_until: Option<Timestamp>,
}

/// Store and bus in one.
#[derive(Debug)]
pub struct Fake {
    clock: TestClock,
    state: Mutex<State>,
}

impl Fake {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { clock: TestClock(Instant::now()), state: Mutex::default() })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn start(self: &Arc<Self>, settings: Settings) -> Running {
        let shutdown = Shutdown::new();
        let needs = Needs {
            schedule: self.clone(),
            dispatch: self.clone(),
            health: self.clone(),
            bus: self.clone(),
            clock: Arc::new(TestClock(self.clock.0)),
            entropy: Arc::new(Middle),
        };
        Running { task: tokio::spawn(run(needs, settings, shutdown.clone())), shutdown }
    }

    /// Runs for a time of the test.
    pub async fn run_for(self: &Arc<Self>, settings: Settings, time: Duration) {
        let running = self.start(settings);
        tokio::time::sleep(time).await;
        running.drain().await;
    }

    pub fn calls(&self, name: &str) -> Vec<Call> {
        self.state().calls.iter().filter(|call| call.name == name).cloned().collect()
    }

    pub fn published(&self) -> Vec<Arc<Message>> {
        self.state().published.iter().map(|(_, message)| Arc::clone(message)).collect()
    }

    /// Notes a call; hangs or fails where the test says so.
    async fn call(&self, name: &'static str, numbers: &[i64]) -> Result<(), StoreError> {
        let hangs = {
            let mut state = self.state();
            state.calls.push(Call { at: self.clock.elapsed(), name, numbers: numbers.to_vec() });
            if let Some(left) = state.failures.get_mut(name).filter(|left| **left > 0) {
                *left -= 1;
                return Err(StoreError::Unavailable("as the test says".to_owned()));
            }
            state.hanging.contains(&name)
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// The service under test.
pub struct Running {
    pub task: JoinHandle<Result<(), RetryError>>,
    pub shutdown: Shutdown,
}

impl Running {
    pub async fn drain(self) {
        self.shutdown.drain();
        let ended = tokio::time::timeout(Duration::from_secs(60), self.task).await;
        assert!(matches!(ended, Ok(Ok(Ok(())))), "{ended:?}");
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[async_trait]
impl ScheduleStore for Fake {
    async fn relay(&self, older_than: Duration, most: usize) -> Result<usize, StoreError> {
        self.call("relay", &[millis(older_than), number(most)]).await?;
        let mut state = self.state();
        let taken = state.outbox.min(most);
        if state.relay_bears.is_some_and(|bears| taken > bears) {
            return Err(StoreError::Unavailable("no answer in time".to_owned()));
        }
        state.outbox -= taken;
        Ok(taken)
    }

    async fn take_due(&self, budget: FeedBudget) -> Result<Due, StoreError> {
        self.call("take_due", &[number(budget.most), number(budget.per_destination)]).await?;
        let now = self.clock.elapsed();
        let mut state = self.state();
        let (mut due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut state.due).into_iter().partition(|d| d.0 <= now);
        let left = due.split_off(due.len().min(budget.most));
        let more = !left.is_empty();
        let next_in = later.iter().map(|(at, _)| *at - now).min();
        state.due = left.into_iter().chain(later).collect();
        let deliveries =
            due.into_iter().map(|(_, delivery)| DueDelivery { leased_until: START + now + budget.lease, ..delivery });
        Ok(Due { deliveries: deliveries.collect(), more, next_in: if more { None } else { next_in } })
    }

    async fn give_back(&self, deliveries: &[(DeliveryId, Timestamp)]) -> Result<(), StoreError> {
        self.call("give_back", &[number(deliveries.len())]).await?;
        self.state().given_back.extend_from_slice(deliveries);
        Ok(())
    }

    async fn requeue_lost(&self, until: Timestamp, most: usize) -> Result<(usize, bool), StoreError> {
        self.call("requeue_lost", &[until.as_millis() - START.as_millis(), number(most)]).await?;
        let mut state = self.state();
        let found = state.lost.min(most);
        state.lost -= found;
        Ok((found, state.lost == 0))
    }

    async fn expand_fan_outs(&self, most: usize) -> Result<usize, StoreError> {
        self.call("expand_fan_outs", &[number(most)]).await?;
        let mut state = self.state();
        let created = state.fan_outs.min(most);
        state.fan_outs -= created;
        Ok(created)
    }

    async fn open_replays(&self) -> Result<Vec<OpenReplay>, StoreError> {
        self.call("open_replays", &[]).await?;
        let (state, now) = (self.state(), self.clock.now());
        let open = |(replay, left): &&(OpenReplay, usize)| {
            *left > 0 && state.paced.get(&replay.id).is_none_or(|until| *until <= now)
        };
        Ok(state.replays.iter().filter(open).map(|(replay, _)| *replay).collect())
    }

    async fn step_replay(&self, id: ReplayId, most: usize) -> Result<(usize, bool), StoreError> {
        self.call("step_replay", &[number(most)]).await?;
        let mut state = self.state();
        if state.broken_replay == Some(id) {
            return Err(StoreError::Unavailable("no answer in time".to_owned()));
        }
        let Some(place) = state.replays.iter().position(|(replay, _)| replay.id == id) else {
            return Ok((0, false));
        };
        let (replay, left) = state.replays[place];
        let now = self.clock.now();
        let pace = replay.rate_per_second.map(|rate| Pace::new(rate, state.paced.get(&id).copied(), now));
        let created = pace.map_or(most, |pace| pace.allowed().min(most)).min(left);
        if let Some(pace) = pace {
            state.paced.insert(id, pace.after(created));
        }
        state.replays[place].1 -= created;
        Ok((created, left > created))
    }

    async fn sweep_deleted(&self, most: usize) -> Result<usize, StoreError> {
        self.call("sweep_deleted", &[number(most)]).await?;
        Ok(0)
    }

    async fn sweep_tenants(&self, most: usize) -> Result<usize, StoreError> {
        self.call("sweep_tenants", &[number(most)]).await?;
        let mut state = self.state();
        let swept = state.doomed_rows.min(most);
        state.doomed_rows -= swept;
        Ok(swept)
    }

    async fn disable_failing(&self, most: usize) -> Result<usize, StoreError> {
        self.call("disable_failing", &[number(most)]).await?;
        let mut state = self.state();
        let disabled = state.failing.min(most);
        state.failing -= disabled;
        Ok(disabled)
    }

    async fn prepare_partitions(&self, days_ahead: u32) -> Result<(), StoreError> {
        self.call("prepare_partitions", &[i64::from(days_ahead)]).await
    }

    async fn retain(&self, retention: Retention) -> Result<bool, StoreError> {
        self.call("retain", &[millis(retention.events)]).await?;
        Ok(false)
    }

    async fn sample(&self) -> Result<Sample, StoreError> {
        self.call("sample", &[]).await?;
        Ok(Sample::default())
    }
}

#[async_trait]
impl DispatchStore for Fake {
    async fn destinations(&self, ids: &[DestinationId]) -> Result<Vec<Destination>, StoreError> {
        self.call("destinations", &[number(ids.len())]).await?;
        Ok(self.state().destinations.iter().filter(|d| ids.contains(&d.id)).cloned().collect())
    }

    async fn changed_since(&self, _: Option<Timestamp>) -> Result<(Vec<Destination>, Timestamp), StoreError> {
        Err(StoreError::Internal("not asked for by retry".to_owned()))
    }

    async fn examine(&self, _: &[DeliveryId]) -> Result<Vec<Option<Standing>>, StoreError> {
        Err(StoreError::Internal("not asked for by retry".to_owned()))
    }

    async fn events(&self, _: &[EventId]) -> Result<Vec<Arc<Event>>, StoreError> {
        Err(StoreError::Internal("not asked for by retry".to_owned()))
    }

    async fn write(&self, batch: &[DeliveryWrite], hand_over: bool) -> Result<WriteReport, StoreError> {
        self.call("write", &[number(batch.len()), i64::from(hand_over)]).await?;
        self.state().writes.extend_from_slice(batch);
        Ok(WriteReport { written: vec![Written::Done; batch.len()], followers: Vec::new() })
    }

    async fn heartbeat(&self, _: u64) -> Result<u32, StoreError> {
        Err(StoreError::Internal("not asked for by retry".to_owned()))
    }

    async fn take_over(&self, _: &[(DeliveryId, Timestamp)]) -> Result<Vec<Option<Timestamp>>, StoreError> {
        Err(StoreError::Internal("not asked for by retry".to_owned()))
    }

    async fn farewell(&self, _: u64) -> Result<(), StoreError> {
        Err(StoreError::Internal("not asked for by retry".to_owned()))
    }

    async fn hold_queues(&self, _: &[QueueHold]) -> Result<(), StoreError> {
        Err(StoreError::Internal("not asked for by retry".to_owned()))
    }

    async fn record_circuits(&self, _: &[(DestinationId, CircuitRecord)]) -> Result<(), StoreError> {
        Err(StoreError::Internal("not asked for by retry".to_owned()))
    }

    async fn disable_destination(&self, _: TenantId, _: DestinationId, _: &str) -> Result<(), StoreError> {
        Err(StoreError::Internal("not asked for by retry".to_owned()))
    }
}

#[async_trait]
impl Health for Fake {
    async fn check(&self) -> Result<Timestamp, StoreError> {
        self.call("check", &[]).await?;
        Ok(self.clock.now())
    }
}

#[async_trait]
impl Bus for Fake {
    async fn publish(&self, batch: Vec<Arc<Message>>) -> Result<(), BusError> {
        let mut state = self.state();
        if state.publications.pop_front() == Some(false) {
            return Err(BusError::Unavailable("as the test says".to_owned()));
        }
        let at = self.clock.elapsed();
        state.published.extend(batch.into_iter().map(|message| (at, message)));
        Ok(())
    }

    async fn consumed_until(&self) -> Option<Timestamp> {
        self.state().consumed_until
    }

    async fn consume(&self) -> Result<Box<dyn Consumer>, BusError> {
        Err(BusError::Closed)
    }

    async fn lag(&self) -> Option<u64> {
        self.state().lag
    }

    async fn check(&self) -> Result<(), BusError> {
        Ok(())
    }
}

/// A destination whose policy makes so many attempts.
pub fn destination(number: u8, attempts: usize, state: DestinationState) -> Destination {
    let delays = vec![1000; attempts - 1];
    let mut spec: DestinationSpec = DestinationSpec {
        name: String::new(),
        description: None,
        url: "https://example.com/".to_owned(),
        event_types: Vec::new(),
        method: signalpost_core::destination::Method::Post,
        header_names: std::collections::BTreeSet::new(),
        signatures: signalpost_core::signature::default_signatures(),
        body_format: signalpost_core::destination::BodyFormat::Standard,
        timeout_ms: signalpost_core::destination::default_timeout_ms(),
        rate_limit: None,
        max_in_flight: signalpost_core::destination::default_max_in_flight(),
        retry: RetryPolicy::default(),
        circuit: signalpost_core::CircuitPolicy::default(),
        guarantee: Guarantee::AtLeastOnce,
        ordering: signalpost_core::ordering::Ordering::default(),
        disable_after: signalpost_core::destination::DisableAfter::default(),
        metadata: BTreeMap::new(),
    };
    spec.retry.strategy = signalpost_core::retry_policy::Strategy::Schedule { delays_ms: delays };
    Destination {
        id: destination_id(number),
        tenant_id: TenantId::DEFAULT,
        uid: None,
        spec,
        secrets: Kept::plain("whsec_"),
        state,
        disabled_reason: None,
        circuit: CircuitRecord::default(),
        version: 1,
        created_at: START,
        updated_at: START,
    }
}

pub fn destination_id(number: u8) -> DestinationId {
    DestinationId::from_parts(START, [number; 10])
}

/// Something due, for destination 1, with `size` bytes of data.
pub fn due(number: u16, size: usize) -> DueDelivery {
    let [high, low] = number.to_be_bytes();
    let mut random = [0; 10];
    (random[8], random[9]) = (high, low);
    let event = Event {
        id: EventId::from_parts(START, random),
        tenant_id: TenantId::DEFAULT,
        event_type: "order.created".to_owned(),
        uid: None,
        source: None,
        meta: signalpost_core::EventMeta::default(),
        data: Bytes::from(vec![b'1'; size]),
    };
    DueDelivery {
        delivery_id: DeliveryId::from_parts(START, random),
        tenant_id: TenantId::DEFAULT,
        destination_id: destination_id(1),
        destination_version: 3,
        attempts: 2,
        reason: WaitReason::Retry,
        lane: None,
        guarantee: Guarantee::AtLeastOnce,
        born_at: None,
        leased_until: Timestamp::default(),
        event: Arc::new(event),
        whole: true,
    }
}

/// As [`due`], but a detached request whose deadline has passed.
pub fn detached(number: u16, destination: u8, attempts: u32) -> DueDelivery {
    DueDelivery {
        destination_id: destination_id(destination),
        attempts,
        reason: WaitReason::InFlight,
        ..due(number, 1)
    }
}
