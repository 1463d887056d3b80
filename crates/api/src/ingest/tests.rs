//! The committer and the publisher on a store and a bus that do as a test says.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use signalpost_bus::{BusError, Consumer, Origin, Payload};
use signalpost_core::{DeliveryId, DestinationId, Event, EventId, EventMeta, Guarantee, OutboxId, TenantId, Timestamp};
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_store::{
    Changes,
    ingest::{EventOutcome, IngestGroup, KeyClaim, NewDelivery, NewEvent, Routes, Start, StoredAnswer, UidClaim},
};
use tokio::sync::{Semaphore, watch};

use super::*;

mod order;

/// Keeps claims and outbox records; refuses events of type `refused`, and breaks at `breaks`.
#[derive(Debug)]
struct FakeStore {
    /// A group takes one; without, it waits.
    turns: Semaphore,
    entered: AtomicUsize,
    groups: Mutex<Vec<usize>>,
    known: Mutex<BTreeMap<String, ([u8; 32], StoredAnswer)>>,
    outbox: Mutex<Vec<OutboxId>>,
    away: AtomicBool,
    /// Routes are those of version 1 from the group on that has this number, from 1.
    moves_at: AtomicUsize,
    /// Nothing is known of the group that has this number, from 1.
    fails_at: AtomicUsize,
    /// The types of committed events.
    order: Mutex<Vec<String>>,
}

impl FakeStore {
    fn new(turns: usize) -> Arc<Self> {
        Arc::new(Self {
            turns: Semaphore::new(turns),
            entered: AtomicUsize::new(0),
            groups: Mutex::default(),
            known: Mutex::default(),
            outbox: Mutex::default(),
            away: AtomicBool::new(false),
            moves_at: AtomicUsize::new(usize::MAX),
            fails_at: AtomicUsize::new(usize::MAX),
            order: Mutex::default(),
        })
    }

    fn order(&self) -> String {
        self.order.lock().unwrap().join(" ")
    }

    /// The number of units in each committed group.
    fn groups(&self) -> Vec<usize> {
        self.groups.lock().unwrap().clone()
    }

    fn outbox(&self) -> usize {
        self.outbox.lock().unwrap().len()
    }
}

#[async_trait]
impl IngestStore for FakeStore {
    async fn ingest(&self, group: &IngestGroup) -> Result<Vec<UnitOutcome>, StoreError> {
        let number = self.entered.fetch_add(1, Ordering::SeqCst) + 1;
        self.turns.acquire().await.map_err(|error| StoreError::Internal(error.to_string()))?.forget();
        if self.away.load(Ordering::SeqCst) || self.fails_at.load(Ordering::SeqCst) == number {
            return Err(StoreError::Unavailable("away".to_owned()));
        }
        let breaks = group.units.iter().flat_map(|unit| &unit.events).any(|new| new.event.event_type == "breaks");
        assert!(!breaks, "the store breaks");
        let refused = |unit: &IngestUnit| unit.events.iter().any(|new| new.event.event_type == "refused");
        if group.units.iter().any(refused) {
            return Err(StoreError::Data("refused".to_owned()));
        }
        let mut known = self.known.lock().unwrap();
        let mut seen = std::collections::BTreeSet::new();
        let mut outcomes = Vec::new();
        let mut queued = 0;
        for unit in &group.units {
            if number >= self.moves_at.load(Ordering::SeqCst) && unit.routing_version == 0 {
                outcomes.push(UnitOutcome::Rerouted);
                continue;
            }
            if let Some(claim) = &unit.claim {
                assert!(seen.insert(claim.key.clone()), "equal keys met in one group");
                if let Some((hash, answer)) = known.get(&claim.key) {
                    let same = *hash == claim.body_hash;
                    outcomes.push(if same { UnitOutcome::Replayed(answer.clone()) } else { UnitOutcome::Mismatch });
                    continue;
                }
            }
            let mut events = Vec::new();
            for new in &unit.events {
                let uid = new.event.uid.clone().map(|uid| format!("uid {uid}"));
                if let (Some(uid), Some(claim)) = (uid, &new.uid) {
                    assert!(seen.insert(uid.clone()), "equal uids met in one group");
                    if let Some((hash, answer)) = known.get(&uid) {
                        let same = *hash == claim.content_hash;
                        events.push(if same {
                            EventOutcome::Duplicate(answer.body.clone())
                        } else {
                            EventOutcome::UidConflict
                        });
                        continue;
                    }
                    known.insert(uid, (claim.content_hash, StoredAnswer { status: 202, body: new.answer.clone() }));
                }
                queued += new.deliveries.len();
                self.order.lock().unwrap().push(new.event.event_type.clone());
                events.push(EventOutcome::Accepted);
            }
            if let Some(claim) = &unit.claim {
                known.insert(claim.key.clone(), (claim.body_hash, (claim.answer)(&events)));
            }
            outcomes.push(UnitOutcome::Committed(events));
        }
        let mut outbox = self.outbox.lock().unwrap();
        outbox.retain(|id| !group.published.contains(id));
        if queued > 0 {
            outbox.push(group.outbox_id);
        }
        self.groups.lock().unwrap().push(group.units.len());
        Ok(outcomes)
    }

    async fn routes(&self, _tenant: TenantId) -> Result<Routes, StoreError> {
        Ok(Routes { version: 0, routes: Vec::new() })
    }

    async fn spilled(&self) -> Result<Vec<DestinationId>, StoreError> {
        Ok(Vec::new())
    }

    fn changes(&self) -> Changes {
        watch::channel(0).1
    }
}

#[derive(Debug, Default)]
struct FakeBus {
    published: Mutex<Vec<DeliveryId>>,
    calls: AtomicUsize,
    away: AtomicBool,
}

#[async_trait]
impl Bus for FakeBus {
    async fn publish(&self, batch: Vec<Arc<Message>>) -> Result<(), BusError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Err(BusError::Unavailable("away".to_owned()));
        }
        self.published.lock().unwrap().extend(batch.iter().map(|message| message.delivery_id));
        Ok(())
    }

    async fn consumed_until(&self) -> Option<Timestamp> {
        None
    }

    async fn consume(&self) -> Result<Box<dyn Consumer>, BusError> {
        Err(BusError::Closed)
    }

    async fn lag(&self) -> Option<u64> {
        None
    }

    async fn check(&self) -> Result<(), BusError> {
        Ok(())
    }
}

struct Rig {
    store: Arc<FakeStore>,
    bus: Arc<FakeBus>,
    ingest: Ingest,
}

fn rig(turns: usize, settings: IngestSettings) -> Rig {
    let store = FakeStore::new(turns);
    let bus = Arc::new(FakeBus::default());
    let ports = IngestPorts {
        store: store.clone(),
        bus: bus.clone(),
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SystemEntropy),
    };
    Rig { store, bus, ingest: Ingest::start(&ports, settings) }
}

const MANY: usize = 1_000_000;

/// A unit of one event for one destination.
fn submission(event_type: &str) -> Submission {
    submission_of(event_type, SystemClock::new().now())
}

fn submission_of(event_type: &str, at: Timestamp) -> Submission {
    let event = Arc::new(Event {
        id: EventId::new(at, &SystemEntropy),
        tenant_id: TenantId::DEFAULT,
        event_type: event_type.to_owned(),
        uid: None,
        source: None,
        meta: EventMeta::default(),
        data: Bytes::from_static(b"{}"),
    });
    let destination_id = DestinationId::floor(at);
    let delivery = NewDelivery {
        id: DeliveryId::new(at, &SystemEntropy),
        destination_id,
        start: Start::Queued,
        lane: None,
        guarantee: Guarantee::AtLeastOnce,
    };
    let message = Message {
        delivery_id: delivery.id,
        tenant_id: TenantId::DEFAULT,
        destination_id,
        destination_version: 1,
        attempt: 1,
        origin: Origin::Fresh,
        event: Arc::clone(&event),
        payload: Payload::Inline,
        lane: None,
        guarantee: Guarantee::AtLeastOnce,
        born_at: None,
    };
    let answer = Bytes::from(format!("{{\"id\":\"{}\"}}", event.id));
    let new = NewEvent { event, deliveries: vec![delivery], fan_out: Vec::new(), uid: None, answer };
    let unit = IngestUnit { tenant: TenantId::DEFAULT, routing_version: 0, claim: None, events: vec![new] };
    Submission { unit, messages: vec![vec![Arc::new(message)]] }
}

fn with_key(key: &str, body: u8) -> Submission {
    let mut submission = submission("a");
    let answer = submission.unit.events[0].answer.clone();
    submission.unit.claim = Some(KeyClaim {
        scope: "POST /v1/events".to_owned(),
        key: key.to_owned(),
        body_hash: [body; 32],
        ttl: Duration::from_secs(60),
        answer: Arc::new(move |_| StoredAnswer { status: 202, body: answer.clone() }),
    });
    submission
}

fn with_uid(uid: &str, content: u8) -> Submission {
    let mut submission = submission("a");
    let new = &mut submission.unit.events[0];
    let mut event = (*new.event).clone();
    event.uid = Some(uid.to_owned());
    new.event = Arc::new(event);
    new.uid = Some(UidClaim { content_hash: [content; 32], ttl: Duration::from_secs(60) });
    submission
}

/// Submits one that holds the committer, then the others, then lets it go on: so that they are in one group.
async fn together(rig: &Rig, submissions: Vec<Submission>) -> Vec<Result<UnitOutcome, IngestError>> {
    let before = rig.store.entered.load(Ordering::SeqCst);
    let ingest = rig.ingest.clone();
    let first = tokio::spawn(async move { ingest.submit(submission("first")).await });
    while rig.store.entered.load(Ordering::SeqCst) == before {
        tokio::task::yield_now().await;
    }
    let others = join_all(submissions.into_iter().map(|submission| rig.ingest.submit(submission)));
    let release = async {
        // All the others have been polled once, and wait.
        tokio::task::yield_now().await;
        rig.store.turns.add_permits(MANY);
    };
    let (others, ()) = tokio::join!(others, release);
    assert!(matches!(first.await, Ok(Ok(UnitOutcome::Committed(_)))));
    others
}

#[tokio::test]
async fn a_group_is_what_arrived_while_the_commit_before_ran() {
    let rig = rig(0, IngestSettings::default());
    let outcomes = together(&rig, (0..100).map(|_| submission("a")).collect()).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(UnitOutcome::Committed(_)))));
    assert_eq!(rig.store.groups(), [1, 100]);
    rig.ingest.drained().await;
    assert_eq!(rig.bus.published.lock().unwrap().len(), 101);
    assert_eq!(rig.store.outbox(), 0, "drained records are deleted");
}

#[tokio::test]
async fn a_group_is_bounded_in_deliveries() {
    let rig = rig(0, IngestSettings { group_deliveries: 40, ..IngestSettings::default() });
    together(&rig, (0..100).map(|_| submission("a")).collect()).await;
    assert_eq!(rig.store.groups(), [1, 40, 40, 20]);
}

#[tokio::test]
async fn a_group_is_bounded_in_bytes_and_a_large_unit_stands_alone() {
    let rig = rig(0, IngestSettings { group_bytes: 1, ..IngestSettings::default() });
    together(&rig, (0..3).map(|_| submission("a")).collect()).await;
    assert_eq!(rig.store.groups(), [1, 1, 1, 1]);
}

#[tokio::test]
async fn refused_data_falls_on_the_culprit_alone() {
    let rig = rig(0, IngestSettings::default());
    let mut submissions: Vec<Submission> = (0..50).map(|_| submission("a")).collect();
    submissions[17] = submission("refused");
    submissions[49] = submission("refused");
    let outcomes = together(&rig, submissions).await;
    for (index, outcome) in outcomes.iter().enumerate() {
        let refused = matches!(outcome, Err(IngestError::Store(StoreError::Data(_))));
        assert_eq!(refused, index == 17 || index == 49, "{index}: {outcome:?}");
    }
    rig.ingest.drained().await;
    assert_eq!(rig.bus.published.lock().unwrap().len(), 49, "48 and the first");
}

#[tokio::test]
async fn equal_keys_are_resolved_before_the_store() {
    let rig = rig(0, IngestSettings::default());
    let mut submissions: Vec<Submission> = (0..50).map(|_| with_key("k", 1)).collect();
    submissions.push(with_key("k", 2));
    let outcomes = together(&rig, submissions).await;
    let count = |wanted: fn(&UnitOutcome) -> bool| outcomes.iter().filter(|o| o.as_ref().is_ok_and(wanted)).count();
    assert_eq!(count(|outcome| matches!(outcome, UnitOutcome::Committed(_))), 1);
    assert_eq!(count(|outcome| matches!(outcome, UnitOutcome::Replayed(_))), 49);
    assert_eq!(count(|outcome| matches!(outcome, UnitOutcome::Mismatch)), 1);
    assert_eq!(rig.store.groups(), [1, 1], "one transaction for all of them");
    rig.ingest.drained().await;
    assert_eq!(rig.bus.published.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn equal_uids_are_resolved_before_the_store() {
    let rig = rig(0, IngestSettings::default());
    let submissions = vec![with_uid("u", 1), with_uid("u", 1), with_uid("u", 2), with_uid("v", 1)];
    let first_answer = submissions[0].unit.events[0].answer.clone();
    let outcomes = together(&rig, submissions).await;
    let of = |index: usize| match &outcomes[index] {
        Ok(UnitOutcome::Committed(events)) => events[0].clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(of(0), EventOutcome::Accepted);
    assert_eq!(of(1), EventOutcome::Duplicate(first_answer));
    assert_eq!(of(2), EventOutcome::UidConflict);
    assert_eq!(of(3), EventOutcome::Accepted);
    assert_eq!(rig.store.groups(), [1, 2]);
}

#[tokio::test]
async fn one_whose_claim_tells_nothing_tries_itself() {
    let rig = rig(MANY, IngestSettings::default());
    assert!(matches!(rig.ingest.submit(with_uid("u", 2)).await, Ok(UnitOutcome::Committed(_))));
    let known = rig.store.groups().len();
    rig.store.turns.forget_permits(MANY);
    // The first conflicts with what is stored; that does not say that the second does, which is a duplicate of it.
    let outcomes = together(&rig, vec![with_uid("u", 1), with_uid("u", 2)]).await;
    let of = |index: usize| match &outcomes[index] {
        Ok(UnitOutcome::Committed(events)) => events[0].clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(of(0), EventOutcome::UidConflict);
    assert!(matches!(of(1), EventOutcome::Duplicate(_)));
    assert_eq!(rig.store.groups().len() - known, 3);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let rig = rig(0, IngestSettings { queue_requests: 2, ..IngestSettings::default() });
    // One is with the committer, two are in the queue.
    let outcomes = together(&rig, (0..10).map(|_| submission("a")).collect()).await;
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Err(IngestError::Overloaded))).count(), 8);
}

#[tokio::test]
async fn waiting_bytes_are_bounded_too() {
    let rig = rig(0, IngestSettings { queue_bytes: 4 * 1024, ..IngestSettings::default() });
    let outcomes = together(&rig, (0..10).map(|_| submission("a")).collect()).await;
    // Each takes its bytes and an overhead of 1 KiB: two blocks. One such is with the committer.
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(rig.ingest.submit(submission("a")).await.is_ok(), "what was committed makes room");
}

#[tokio::test]
async fn a_store_that_is_away_is_told_and_loses_no_record() {
    let rig = rig(MANY, IngestSettings::default());
    assert!(rig.ingest.submit(submission("a")).await.is_ok());
    rig.store.away.store(true, Ordering::SeqCst);
    rig.ingest.drained().await;
    let outcome = rig.ingest.submit(submission("a")).await;
    assert!(matches!(outcome, Err(IngestError::Store(StoreError::Unavailable(_)))));
    assert_eq!(rig.store.outbox(), 1);
    rig.store.away.store(false, Ordering::SeqCst);
    rig.ingest.drained().await;
    assert_eq!(rig.store.outbox(), 0, "the acknowledged record was remembered");
}

#[tokio::test]
async fn what_the_bus_does_not_take_is_left_to_the_relay() {
    let rig = rig(MANY, IngestSettings::default());
    rig.bus.away.store(true, Ordering::SeqCst);
    assert!(rig.ingest.submit(submission("a")).await.is_ok(), "events are accepted all the while");
    rig.ingest.drained().await;
    assert_eq!(rig.store.outbox(), 1, "its record stays");
    rig.bus.away.store(false, Ordering::SeqCst);
    assert!(rig.ingest.submit(submission("a")).await.is_ok());
    rig.ingest.drained().await;
    assert_eq!(rig.store.outbox(), 1, "only what was acknowledged is deleted");
    assert_eq!(rig.bus.published.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn acknowledged_records_go_with_the_next_group_or_after_a_second() {
    let rig = rig(MANY, IngestSettings::default());
    assert!(rig.ingest.submit(submission("a")).await.is_ok());
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(rig.store.outbox(), 1, "it waits for a group to go with");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.store.outbox(), 0, "the record was not deleted");
    assert_eq!(rig.store.groups(), [1, 0], "an empty group deleted it");
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_stop_its_commit() {
    let rig = rig(0, IngestSettings::default());
    let gone = tokio::time::timeout(Duration::from_millis(1), rig.ingest.submit(submission("a"))).await;
    assert!(gone.is_err());
    rig.store.turns.add_permits(MANY);
    rig.ingest.drained().await;
    assert_eq!(rig.store.groups()[0], 1);
    assert_eq!(rig.bus.published.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_waited_too_long_is_not_committed_any_more() {
    let rig = rig(0, IngestSettings::default());
    let late = SystemClock::new().now() - Duration::from_secs(13);
    let outcomes = together(&rig, vec![submission_of("late", late), submission("a")]).await;
    assert!(matches!(outcomes[0], Err(IngestError::Store(StoreError::Unavailable(_)))), "{:?}", outcomes[0]);
    assert!(outcomes[1].is_ok());
    assert_eq!(rig.store.groups(), [1, 1]);
}

#[tokio::test]
async fn a_store_that_breaks_ends_one_group_and_not_all_ingest() {
    let rig = rig(MANY, IngestSettings::default());
    let outcome = rig.ingest.submit(submission("breaks")).await;
    assert!(matches!(outcome, Err(IngestError::Store(StoreError::Internal(_)))), "{outcome:?}");
    assert!(rig.ingest.submit(submission("a")).await.is_ok());
}
