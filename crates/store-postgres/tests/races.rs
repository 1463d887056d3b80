//! Everything that actors do to the tables at once, from many clients, with pauses within their transactions; then what must hold.
//!
//! What each client does is drawn from a seed; who comes first is not. So this finds what a seeded simulation cannot, the database's
//! own concurrency, and does not replay.

#![allow(clippy::expect_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use signalpost_core::{
    CircuitRecord, DeadReason, DeliveryId, Destination, Guarantee, LaneId, WaitReason,
    ordering::{OnDead, Ordering, OrderingMode},
};
use signalpost_runtime::SystemEntropy;
use signalpost_store::{
    DispatchStore as _, IngestStore as _, ManageStore as _, ScheduleStore as _, StoreError,
    dispatch::{DeliveryWrite, Next, QueueHold, Target, Written},
    ingest::{Start, StoredAnswer, UnitOutcome},
    manage::{Created, DestinationUpdate, ReplayJob, ReplaySelection, ReplayState},
    schedule::{DueDelivery, Retention},
};
use signalpost_store_postgres::{PostgresSettings, PostgresStore};
use signalpost_testkit::eventually;
use support::{
    Database,
    fixture::{self, TENANT, attempt, budget, claim, new_destination, now},
    pauses,
};

const CLIENTS: u64 = 9;
const STEPS: usize = 220;
const LANES: u64 = 3;
const NO_TIME: Duration = Duration::ZERO;
const LATER: Duration = Duration::from_secs(30);

/// What the clients know together.
#[derive(Default)]
struct Shared {
    posted: Mutex<Vec<Target>>,
    /// The one request that each delivery got that is to be sent once at most.
    claimed: Mutex<BTreeMap<DeliveryId, u64>>,
    /// What each idempotency key was answered, and how often it was taken.
    answers: Mutex<BTreeMap<u64, (Option<StoredAnswer>, usize)>>,
}

struct Client {
    store: Arc<PostgresStore>,
    sql: sqlx::PgPool,
    destinations: Vec<Destination>,
    shared: Arc<Shared>,
    seed: u64,
}

impl Client {
    /// SplitMix64.
    fn draw(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        let place = self.draw(u64::try_from(of.len()).ok()?.max(1));
        of.get(usize::try_from(place).ok()?).cloned()
    }

    fn some_target(&mut self) -> Option<Target> {
        let posted = self.shared.posted.lock().expect("no panic").clone();
        // The younger ones have more to lose.
        let young = posted.len().saturating_sub(40);
        self.pick(&posted[young..])
    }

    async fn step(&mut self) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        let destination = self.pick(&self.destinations.clone()).expect("a destination");
        match self.draw(24) {
            0..=3 => self.post().await,
            4..=9 => self.feed().await,
            10..=12 => self.send_queued().await,
            13 => store.relay(NO_TIME, 3).await.map(drop),
            14 => store.requeue_lost(now(), 20).await.map(drop),
            15 => match self.some_target() {
                Some(target) if self.draw(2) == 0 => store.cancel_delivery(TENANT, target.delivery_id).await.map(drop),
                Some(target) => store.retry_delivery(TENANT, target.delivery_id).await.map(drop),
                None => Ok(()),
            },
            16 => match self.some_target() {
                Some(target) if self.draw(3) == 0 => store.replay_event(TENANT, target.event_id, None).await.map(drop),
                Some(target) => store.replay_dead_letter(TENANT, target.delivery_id).await.map(drop),
                None => Ok(()),
            },
            17 => match self.some_target() {
                Some(target) => store.discard_dead_letter(TENANT, target.delivery_id).await.map(drop),
                None => Ok(()),
            },
            18 => self.replay_all(&destination).await,
            19 => store.set_paused(TENANT, destination.id, self.draw(3) == 0).await.map(drop),
            20 => self.update(&destination).await,
            21 => {
                let trial = NonZeroU32::new(u32::try_from(self.draw(3)).unwrap_or_default());
                let hold = Duration::from_millis(self.draw(2) * 20);
                store.hold_queues(&[QueueHold { destination_id: destination.id, hold, trial }]).await?;
                let record = CircuitRecord { trips: 1, since: Some(now()), ..CircuitRecord::default() };
                store.record_circuits(&[(destination.id, record)]).await
            }
            22 => {
                let beat = store.heartbeat(self.draw(3)).await?;
                assert!(beat >= 1);
                store.disable_failing(2).await.map(drop)
            }
            _ => {
                let retention = Retention { events: LATER * 100_000, dead_letters: LATER, audit: LATER, chunk: 5 };
                store.retain(retention).await?;
                store.sweep_deleted(10).await.map(drop)
            }
        }
    }

    /// A group of some events to all destinations, under a key that another client may use at the same time.
    async fn post(&mut self) -> Result<(), StoreError> {
        let at = now();
        let ids: Vec<_> = self.destinations.iter().map(|destination| destination.id).collect();
        let mut events = Vec::new();
        for _ in 0..=self.draw(3) {
            let start = if self.draw(3) == 0 { Start::Waiting(WaitReason::Turn) } else { Start::Queued };
            let mut new = fixture::new_event(fixture::event_at(at), &ids, start);
            let lane = LaneId::of(&self.draw(LANES).to_string());
            for (delivery, destination) in new.deliveries.iter_mut().zip(&self.destinations) {
                delivery.guarantee = destination.spec.guarantee;
                delivery.lane = (destination.spec.ordering.mode == OrderingMode::Key).then_some(lane);
            }
            events.push(new);
        }
        let key = self.draw(150);
        let mut unit = fixture::unit(&self.store, events).await;
        unit.claim = Some(claim(&key.to_string(), 1));
        let mut group = fixture::group(vec![unit]);
        let outcome = loop {
            let outcome = self.store.ingest(&group).await?.remove(0);
            if outcome != UnitOutcome::Rerouted {
                break outcome;
            }
            group.units[0].routing_version = self.store.routes(TENANT).await?.version;
        };
        let mut answers = self.shared.answers.lock().expect("no panic");
        let answer = answers.entry(key).or_default();
        match outcome {
            UnitOutcome::Committed(_) => {
                answer.1 += 1;
                self.shared.posted.lock().expect("no panic").extend(fixture::targets(&group));
            }
            UnitOutcome::Replayed(found) => {
                let before = answer.0.get_or_insert_with(|| found.clone()).clone();
                assert_eq!(before.status, found.status);
            }
            other => panic!("{other:?}"),
        }
        Ok(())
    }

    /// Takes what is due, and does with it what a dispatcher does; goes on with what is handed over.
    async fn feed(&mut self) -> Result<(), StoreError> {
        let lease = [Duration::from_millis(300), Duration::from_secs(60)][usize::from(self.draw(4) != 0)];
        let due = self.store.take_due(signalpost_store::schedule::FeedBudget { lease, ..budget(8) }).await?;
        let mut mine = due.deliveries;
        if self.draw(8) == 0 {
            let leases: Vec<_> = mine.iter().map(|due| (due.delivery_id, due.leased_until)).collect();
            return self.store.give_back(&leases).await;
        }
        for _ in 0..4 {
            self.nobody_before(&mine).await;
            let batch: Vec<DeliveryWrite> = mine.iter().map(|due| self.outcome(due)).collect();
            let hand_over = self.draw(3) != 0;
            let report = self.store.write(&batch, hand_over).await?;
            self.note_claims(&batch, &report.written);
            mine = report.followers;
        }
        Ok(())
    }

    /// No delivery of a lane is given to anybody while one before it has not ended.
    async fn nobody_before(&self, due: &[DueDelivery]) {
        let ids: Vec<_> = due.iter().filter(|due| due.lane.is_some()).map(|due| due.delivery_id.uuid()).collect();
        let overtaken: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM deliveries x JOIN deliveries d ON d.destination_id = x.destination_id AND d.lane = x.lane
             WHERE x.id = ANY($1) AND x.state < 2 AND d.state < 2 AND d.lane_seq < x.lane_seq",
        )
        .bind(ids)
        .fetch_one(&self.sql)
        .await
        .expect("a count");
        assert_eq!(overtaken, 0, "somebody of {due:?} overtakes");
    }

    /// What comes of a delivery that was taken.
    fn outcome(&mut self, due: &DueDelivery) -> DeliveryWrite {
        let target = Target {
            delivery_id: due.delivery_id,
            tenant_id: due.tenant_id,
            destination_id: due.destination_id,
            event_id: due.event.id,
            lease: None,
        };
        let number = due.attempts + 1;
        let once = due.guarantee == Guarantee::AtMostOnce;
        if due.reason == WaitReason::InFlight {
            let unknown = Next::Dead { reason: DeadReason::UnknownOutcome };
            return attempt(target, number, if once { unknown } else { Next::Retry { after: NO_TIME } });
        }
        if once && self.draw(3) != 0 {
            let deadline = Duration::from_millis(20);
            return DeliveryWrite::Claim { target, claim: self.draw(u64::MAX), deadline };
        }
        let after = Duration::from_millis(self.draw(3) * 10);
        match self.draw(10) {
            0..=4 => attempt(target, number, Next::Delivered),
            5 if !once => attempt(target, number, Next::Retry { after }),
            6 => attempt(target, number, Next::Dead { reason: DeadReason::Rejected }),
            7 => DeliveryWrite::Park {
                target,
                reason: WaitReason::Slot,
                after,
                hold_queue: self.draw(4) == 0,
                claim: None,
            },
            8 if !once => DeliveryWrite::Detach { target, attempt: number, deadline: after },
            9 => DeliveryWrite::End { target, dead: (self.draw(2) == 0).then_some(DeadReason::Expired) },
            _ => attempt(target, number, Next::Delivered),
        }
    }

    /// A claim that was granted is the only one.
    fn note_claims(&self, batch: &[DeliveryWrite], written: &[Written]) {
        for (write, written) in batch.iter().zip(written) {
            if let (DeliveryWrite::Claim { target, claim, .. }, Written::Done) = (write, written) {
                let other = self.shared.claimed.lock().expect("no panic").insert(target.delivery_id, *claim);
                assert_eq!(other, None, "{} was claimed twice", target.delivery_id);
            }
        }
    }

    /// What the bus brought: any of those that were posted, however they stand by now, some of them twice.
    async fn send_queued(&mut self) -> Result<(), StoreError> {
        let mut batch = Vec::new();
        for _ in 0..6 {
            let Some(target) = self.some_target() else { return Ok(()) };
            let destination = self.destinations.iter().find(|destination| destination.id == target.destination_id);
            let Some(spec) = destination.map(|destination| destination.spec.clone()) else { continue };
            // Of lanes there are no messages but those of the feed; once at most, a claim comes first.
            if spec.ordering.mode == OrderingMode::Key {
                continue;
            }
            if spec.guarantee == Guarantee::AtMostOnce {
                let deadline = Duration::from_millis(20);
                batch.push(DeliveryWrite::Claim { target, claim: self.draw(u64::MAX), deadline });
                continue;
            }
            let after = Duration::from_millis(self.draw(3) * 10);
            batch.push(match self.draw(8) {
                0..=4 => attempt(target, 1, Next::Delivered),
                5 => attempt(target, 1, Next::Retry { after }),
                6 => {
                    DeliveryWrite::Park { target, reason: WaitReason::RateLimit, after, hold_queue: true, claim: None }
                }
                _ => attempt(target, 1, Next::Dead { reason: DeadReason::Gone }),
            });
        }
        let report = self.store.write(&batch, false).await?;
        self.note_claims(&batch, &report.written);
        Ok(())
    }

    async fn replay_all(&mut self, destination: &Destination) -> Result<(), StoreError> {
        let job = ReplayJob {
            id: signalpost_core::ReplayId::new(now(), &SystemEntropy),
            tenant_id: TENANT,
            selection: ReplaySelection { destination_id: Some(destination.id), ..ReplaySelection::default() },
            rate_per_second: None,
            state: ReplayState::Running,
            matched: None,
            replayed: 0,
            created_at: now(),
            finished_at: None,
        };
        self.store.create_replay(&job).await?;
        for _ in 0..4 {
            if !self.store.step_replay(job.id, 6).await?.1 {
                return Ok(());
            }
        }
        self.store.cancel_replay(TENANT, job.id).await.map(drop)
    }

    /// Blocks on the dead, or not, from now on.
    async fn update(&mut self, destination: &Destination) -> Result<(), StoreError> {
        let mut now = self.store.destinations(&[destination.id]).await?;
        let Some(present) = now.pop() else { return Ok(()) };
        let mut spec = present.spec.clone();
        spec.ordering.on_dead = if self.draw(2) == 0 { OnDead::Block } else { OnDead::Continue };
        let update = DestinationUpdate { spec: &spec, secrets: &present.secrets };
        self.store.update_destination(TENANT, present.id, present.version, update).await.map(drop)
    }
}

async fn destinations(store: &PostgresStore) -> Vec<Destination> {
    let mut made = Vec::new();
    for place in 0..5 {
        let mut destination = new_destination();
        let ordered = Ordering { mode: OrderingMode::Key, ..Ordering::default() };
        match place {
            0 => destination.spec.ordering = ordered,
            1 => destination.spec.ordering = Ordering { on_dead: OnDead::Block, ..ordered },
            2 => destination.spec.guarantee = Guarantee::AtMostOnce,
            3 => (destination.spec.guarantee, destination.spec.ordering) = (Guarantee::AtMostOnce, ordered),
            _ => {}
        }
        assert_eq!(store.create_destination(&destination).await.expect("a destination"), Created::Yes);
        made.push(destination);
    }
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_that_pause_anywhere_leave_everything_in_order() {
    let database = Database::new().await;
    let settings = PostgresSettings { max_connections: 6, ..PostgresSettings::default() };
    let mut stores = Vec::new();
    for _ in 0..3 {
        stores.push(database.store_with(settings.clone()).await);
    }
    let destinations = destinations(&stores[0]).await;
    pauses::install(&database.sql).await;
    let shared = Arc::<Shared>::default();
    let begun = now();
    let mut clients = tokio::task::JoinSet::new();
    for (number, store) in (0..CLIENTS).zip(stores.iter().cycle()) {
        let mut client = Client {
            store: Arc::clone(store),
            sql: database.sql.clone(),
            destinations: destinations.clone(),
            shared: Arc::clone(&shared),
            seed: number,
        };
        clients.spawn(async move {
            for step in 0..STEPS {
                client.step().await.unwrap_or_else(|error| panic!("client {number}, step {step}: {error}"));
            }
        });
    }
    // A tenth one deletes one of them in the middle of it.
    clients.spawn(delete_in_the_middle(Arc::clone(&stores[1]), destinations[0].clone(), Arc::clone(&shared)));
    clients.join_all().await;
    pauses::end(&database.sql).await;
    database.assert_consistent().await;
    finish(&database, &stores[0], &destinations).await;
    database.assert_consistent().await;
    let turns = pauses::check(&database.sql).await;
    let taken = shared.answers.lock().expect("no panic").values().map(|(_, taken)| *taken).max();
    assert_eq!(taken, Some(1), "each idempotency key is taken once");
    let deadlocks = database.count("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").await;
    println!(
        "{} deliveries, {turns} turns in lanes, {} claims, {deadlocks} deadlocks, {:?}",
        shared.posted.lock().expect("no panic").len(),
        shared.claimed.lock().expect("no panic").len(),
        now().since(begun),
    );
    assert!(turns > 50);
}

async fn delete_in_the_middle(store: Arc<PostgresStore>, destination: Destination, shared: Arc<Shared>) {
    eventually("half of it is posted", Duration::from_secs(90), || async {
        let posted = shared.posted.lock().expect("no panic").len();
        if posted >= 500 { Ok(()) } else { Err(posted) }
    })
    .await;
    assert!(store.delete_destination(TENANT, destination.id).await.expect("deleted"));
}

/// Everything can come to its end: nothing is stuck.
async fn finish(database: &Database, store: &PostgresStore, destinations: &[Destination]) {
    for destination in destinations {
        let Some(present) = store.set_paused(TENANT, destination.id, false).await.expect("resumed") else { continue };
        let mut spec = present.spec.clone();
        spec.ordering.on_dead = OnDead::Continue;
        let update = DestinationUpdate { spec: &spec, secrets: &present.secrets };
        store.update_destination(TENANT, present.id, present.version, update).await.expect("no more blocks");
        let free = QueueHold { destination_id: present.id, hold: NO_TIME, trial: None };
        store.hold_queues(&[free]).await.expect("let go");
    }
    for _ in 0..2_000 {
        while store.relay(NO_TIME, 100).await.expect("relayed") > 0 {}
        store.requeue_lost(now(), 1_000).await.expect("anchored");
        store.sweep_deleted(1_000).await.expect("swept");
        database.pass_time().await;
        let due = store.take_due(budget(1_000)).await.expect("what is due").deliveries;
        let batch: Vec<_> = due
            .iter()
            .map(|due| {
                let target = Target {
                    delivery_id: due.delivery_id,
                    tenant_id: due.tenant_id,
                    destination_id: due.destination_id,
                    event_id: due.event.id,
                    lease: None,
                };
                attempt(target, due.attempts + 1, Next::Delivered)
            })
            .collect();
        let report = store.write(&batch, false).await.expect("written");
        assert!(report.written.iter().all(|written| *written == Written::Done), "nobody else is there");
        if due.is_empty() && store.sample().await.expect("a sample").waiting == 0 {
            return;
        }
    }
    panic!("something never ends");
}
