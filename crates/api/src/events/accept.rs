//! From an event that was posted to one that is committed.
//!
//! An event gets its id once; its deliveries are made anew each time that it is routed. The commit tells when the routes
//! were old; then they are loaded and the event is routed again (I13).

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use signalpost_bus::{Message, Origin};
use signalpost_core::{
    DeliveryId, DestinationId, DestinationState, Event, EventId, LaneId, TenantId, WaitReason, ordering::LaneKeys,
};
use signalpost_store::ingest::{
    IngestUnit, KeyClaim, NewDelivery, NewEvent, RoutingVersion, Start, UidClaim, UnitOutcome,
};

use super::{
    answer::{self, EventAnswer, ItemResult},
    native::unknown_destination,
    posted::Posted,
};
use crate::{
    idempotency,
    ingest::{IngestError, Submission},
    problem::Problem,
    router::{Table, Target},
    state::AppState,
};

/// How often an event is routed again before its producer is asked to come back. Only a tenant that changes its
/// destinations all the time sees the end of it.
const MOST_ROUNDS: usize = 50;

/// A valid event with its id.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The event.
    pub event: Arc<Event>,
    /// Where it has a uid.
    pub content_hash: Option<[u8; 32]>,
}

impl Prepared {
    /// Gives an event its id.
    pub fn new(state: &AppState, tenant_id: TenantId, posted: Posted) -> Self {
        let content_hash = posted.uid.is_some().then(|| posted.content_hash());
        let id = EventId::new(state.ports.clock.now(), &*state.ports.entropy);
        let Posted { event_type, uid, source, meta, data } = posted;
        Self { event: Arc::new(Event { id, tenant_id, event_type, uid, source, meta, data }), content_hash }
    }

    /// The one destination that it is for, where its producer named one.
    fn names(&self) -> Option<DestinationId> {
        self.event.meta.destination_id
    }
}

/// Where events of a tenant go now.
pub struct Routing {
    table: Arc<Table>,
    spilled: Arc<HashSet<DestinationId>>,
}

impl Routing {
    /// As it is known here; newer than the version that is outdated, and than the destinations that events name.
    async fn now(
        state: &AppState,
        tenant: TenantId,
        outdated: Option<RoutingVersion>,
        named: impl Iterator<Item = DestinationId>,
    ) -> Result<Self, Problem> {
        let mut table = state.router.table(tenant, outdated).await?;
        let unknown: Vec<DestinationId> = named.filter(|id| !table.has(*id)).collect();
        // A commit would find out that the table is old, but what has no destination is not committed.
        if !unknown.is_empty() {
            let found = state.ports.store.destinations(&unknown).await?;
            if found.iter().any(|found| found.tenant_id == tenant && found.state != DestinationState::Deleted) {
                table = state.router.table(tenant, Some(table.version)).await?;
            }
        }
        Ok(Self { table, spilled: state.router.spilled() })
    }
}

/// An event with its deliveries.
pub struct Routed {
    /// What is committed.
    pub new: NewEvent,
    /// What is published after.
    pub messages: Vec<Arc<Message>>,
}

impl Routed {
    /// What its producer is told when it is accepted.
    pub fn answer(&self) -> Bytes {
        self.new.answer.clone()
    }

    /// How many of its deliveries have no place in a lane.
    fn unordered(&self) -> usize {
        self.new.deliveries.iter().filter(|delivery| delivery.lane.is_none()).count()
    }
}

/// How many groups the deliveries of one request may fill: others' events wait behind them.
const MOST_GROUPS: usize = 10;

/// How many deliveries more one request may bring with it. What goes beyond is expanded later.
#[derive(Debug)]
pub struct Room(usize);

impl Room {
    /// That of a request.
    pub fn new(state: &AppState) -> Self {
        Self(state.settings.ingest.group_deliveries.saturating_mul(MOST_GROUPS))
    }
}

/// Routes an event.
///
/// # Errors
/// 404: the destination that it names is not there.
pub fn route(state: &AppState, routing: &Routing, prepared: &Prepared, room: &mut Room) -> Result<Routed, Problem> {
    let event = &prepared.event;
    let targets = match event.meta.destination_id {
        Some(id) => routing.table.only(id).ok_or_else(unknown_destination)?,
        None => routing.table.route(&event.event_type),
    };
    let answer = EventAnswer::first(event, targets.len());
    let uid = prepared.content_hash.map(|content_hash| UidClaim { content_hash, ttl: state.settings.idempotency_ttl });
    let keys = LaneKeys::new(event);
    let large = targets.len() > state.settings.fan_out_above.min(room.0);
    let mut new = NewEvent { event: Arc::clone(event), deliveries: Vec::new(), fan_out: Vec::new(), uid, answer };
    let mut messages = Vec::with_capacity(if large { 0 } else { targets.len() });
    for target in targets {
        let lane = keys.lane(&target.ordering);
        // A place in a lane is taken with the event, however many destinations it has.
        if large && lane.is_none() {
            new.fan_out.push(target.destination_id);
        } else {
            new.deliveries.push(deliver(state, routing, &new.event, target, lane, &mut messages));
        }
    }
    room.0 = room.0.saturating_sub(new.deliveries.len());
    Ok(Routed { new, messages })
}

fn deliver(
    state: &AppState,
    routing: &Routing,
    event: &Arc<Event>,
    target: &Target,
    lane: Option<LaneId>,
    messages: &mut Vec<Arc<Message>>,
) -> NewDelivery {
    let &Target { destination_id, destination_version, guarantee, .. } = target;
    // The delivery's millisecond is its event's.
    let id = DeliveryId::new(event.id.created_at(), &*state.ports.entropy);
    let start = if target.paused {
        Start::Waiting(WaitReason::Paused)
    } else if lane.is_some() || routing.spilled.contains(&destination_id) {
        Start::Waiting(WaitReason::Turn)
    } else {
        Start::Queued
    };
    if start == Start::Queued {
        // The event that travels is made once and shared.
        let (event, payload) = match messages.first() {
            Some(first) => (Arc::clone(&first.event), first.payload),
            None => Message::carry(Arc::clone(event)),
        };
        messages.push(Arc::new(Message {
            delivery_id: id,
            tenant_id: event.tenant_id,
            destination_id,
            destination_version,
            attempt: 1,
            origin: Origin::Fresh,
            event,
            payload,
            lane,
            guarantee,
            born_at: None,
        }));
    }
    NewDelivery { id, destination_id, start, lane, guarantee }
}

/// Makes the unit of these events. One that would hold too many deliveries for one transaction has its largest events
/// expanded later, but for what has a place in a lane.
pub fn unit(
    state: &AppState,
    tenant: TenantId,
    routing: &Routing,
    claim: Option<KeyClaim>,
    mut routed: Vec<Routed>,
) -> Submission {
    let most = state.settings.ingest.group_deliveries;
    let mut deliveries: usize = routed.iter().map(|event| event.new.deliveries.len()).sum();
    while deliveries > most
        && let Some(largest) = routed.iter_mut().max_by_key(|event| event.unordered())
        && largest.unordered() > 0
    {
        deliveries -= largest.unordered();
        let (unordered, ordered) = largest.new.deliveries.drain(..).partition(|delivery| delivery.lane.is_none());
        let unordered: Vec<NewDelivery> = unordered;
        largest.new.deliveries = ordered;
        largest.new.fan_out.extend(unordered.into_iter().map(|delivery| delivery.destination_id));
        largest.messages.clear();
    }
    let (events, messages) = routed.into_iter().map(|event| (event.new, event.messages)).unzip();
    Submission { unit: IngestUnit { tenant, routing_version: routing.table.version, claim, events }, messages }
}

/// What came of a unit, for its producer.
#[derive(Debug)]
pub enum Committed {
    /// It is committed; what came of each event.
    Now(Vec<signalpost_store::ingest::EventOutcome>),
    /// Its key was answered before.
    Before(signalpost_store::ingest::StoredAnswer),
}

/// Commits what `build` makes of these events and the present routes, until these are the routes at the commit.
///
/// # Errors
/// Those of `build`; 422 where the key was used with another body or the store refuses the data; 503.
pub async fn commit(
    state: &AppState,
    tenant: TenantId,
    items: &[Prepared],
    mut build: impl FnMut(&Routing) -> Result<Submission, Problem>,
) -> Result<Committed, Problem> {
    let mut outdated = None;
    for _ in 0..MOST_ROUNDS {
        let routing = Routing::now(state, tenant, outdated, items.iter().filter_map(Prepared::names)).await?;
        match state.ingest.submit(build(&routing)?).await? {
            UnitOutcome::Committed(outcomes) => return Ok(Committed::Now(outcomes)),
            UnitOutcome::Replayed(answer) => return Ok(Committed::Before(answer)),
            UnitOutcome::Mismatch => return Err(idempotency::mismatch()),
            UnitOutcome::Rerouted => outdated = Some(routing.table.version),
        }
    }
    Err(restless())
}

/// Commits events each for itself, in their order, until the routes are those at the commit; what their producer is told of each.
/// Places in lanes are taken in the order of the events: behind one of which nothing is known (503) none in a lane is accepted.
pub async fn commit_each(state: &AppState, tenant: TenantId, items: &[Prepared]) -> Vec<ItemResult> {
    let mut results: Vec<Option<ItemResult>> = vec![None; items.len()];
    let mut outdated = None;
    for _ in 0..MOST_ROUNDS {
        let open: Vec<usize> = (0..items.len()).filter(|index| results[*index].is_none()).collect();
        if open.is_empty() {
            break;
        }
        match commit_round(state, tenant, items, &open, outdated, &mut results).await {
            Ok(version) => outdated = Some(version),
            Err(problem) => {
                for index in open {
                    results[index].get_or_insert_with(|| Err(problem.clone()));
                }
            }
        }
    }
    results.into_iter().map(|result| result.unwrap_or_else(|| Err(restless()))).collect()
}

/// One round for those that have no result yet. Those that have to be routed again have none after it. The version of the routes.
async fn commit_round(
    state: &AppState,
    tenant: TenantId,
    items: &[Prepared],
    open: &[usize],
    outdated: Option<RoutingVersion>,
    results: &mut [Option<ItemResult>],
) -> Result<RoutingVersion, Problem> {
    let named = open.iter().filter_map(|index| items[*index].names());
    let routing = Routing::now(state, tenant, outdated, named).await?;
    let mut submissions = Vec::with_capacity(open.len());
    let mut submitted = Vec::with_capacity(open.len());
    let mut room = Room::new(state);
    for index in open.iter().copied() {
        match route(state, &routing, &items[index], &mut room) {
            Ok(routed) => {
                submitted.push((index, routed.answer()));
                submissions.push(unit(state, tenant, &routing, None, vec![routed]));
            }
            Err(problem) => results[index] = Some(Err(problem)),
        }
    }
    let outcomes = state.ingest.submit_all(submissions).await?;
    for ((index, first), outcome) in submitted.into_iter().zip(outcomes) {
        results[index] = match outcome {
            Ok(UnitOutcome::Committed(outcomes)) => Some(match outcomes.first() {
                Some(outcome) => answer::result_of(outcome, &first),
                None => Err(Problem::internal(&"an event without an outcome")),
            }),
            Ok(UnitOutcome::Rerouted) => None,
            Ok(UnitOutcome::Replayed(_) | UnitOutcome::Mismatch) => {
                Some(Err(Problem::internal(&"an answer to a key that was not given")))
            }
            Err(error) => Some(Err(error.into())),
        };
    }
    Ok(routing.table.version)
}

fn restless() -> Problem {
    Problem::unavailable("The destinations of this tenant change faster than events can be routed.")
}

impl From<IngestError> for Problem {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Store(error) => error.into(),
            IngestError::Overloaded => Self::unavailable("Too many requests are waiting."),
            IngestError::Stopping => Self::unavailable("This process is stopping."),
        }
    }
}
