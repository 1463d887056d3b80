//! From an event that was posted to one that is committed.
//!
//! An event gets its id once; its deliveries are made anew each time that it is routed. The commit tells when the routes
//! were old; then they are loaded and the event is routed again (I13).

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use signalpost_bus::{Message, Origin};
use signalpost_core::{DeliveryId, DestinationId, Event, EventId, TenantId, WaitReason};
use signalpost_store::ingest::{IngestUnit, KeyClaim, NewDelivery, NewEvent, Start, UidClaim, UnitOutcome};

use super::{answer::EventAnswer, native::unknown_destination, posted::Posted};
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
}

/// Where events of a tenant go now.
pub struct Routing {
    table: Arc<Table>,
    spilled: Arc<HashSet<DestinationId>>,
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
}

/// Routes an event.
///
/// # Errors
/// 404: the destination that it names is not there.
pub fn route(state: &AppState, routing: &Routing, prepared: &Prepared) -> Result<Routed, Problem> {
    let event = &prepared.event;
    let targets = match event.meta.destination_id {
        Some(id) => routing.table.only(id).ok_or_else(unknown_destination)?,
        None => routing.table.route(&event.event_type),
    };
    let answer = EventAnswer::first(event, targets.len());
    let uid = prepared.content_hash.map(|content_hash| UidClaim { content_hash, ttl: state.settings.idempotency_ttl });
    let event = Arc::clone(event);
    let mut new = NewEvent { event, deliveries: Vec::new(), fan_out: Vec::new(), uid, answer };
    if targets.len() > state.settings.fan_out_above {
        new.fan_out = targets.iter().map(|target| target.destination_id).collect();
        return Ok(Routed { new, messages: Vec::new() });
    }
    let mut messages = Vec::with_capacity(targets.len());
    new.deliveries = targets.iter().map(|target| deliver(state, routing, &new.event, target, &mut messages)).collect();
    Ok(Routed { new, messages })
}

fn deliver(
    state: &AppState,
    routing: &Routing,
    event: &Arc<Event>,
    target: &Target,
    messages: &mut Vec<Arc<Message>>,
) -> NewDelivery {
    let destination_id = target.destination_id;
    // The delivery's millisecond is its event's.
    let id = DeliveryId::new(event.id.created_at(), &*state.ports.entropy);
    let start = if target.paused {
        Start::Waiting(WaitReason::Paused)
    } else if routing.spilled.contains(&destination_id) {
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
            destination_version: target.destination_version,
            attempt: 1,
            origin: Origin::Fresh,
            event,
            payload,
        }));
    }
    NewDelivery { id, destination_id, start }
}

/// Makes the unit of these events. One that would hold too many deliveries for one transaction has its largest events
/// expanded later.
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
        && let Some(largest) = routed.iter_mut().max_by_key(|event| event.new.deliveries.len())
        && !largest.new.deliveries.is_empty()
    {
        deliveries -= largest.new.deliveries.len();
        largest.new.fan_out = largest.new.deliveries.drain(..).map(|delivery| delivery.destination_id).collect();
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

/// Commits what `build` makes of the present routes, until these are the routes at the commit.
///
/// # Errors
/// Those of `build`; 422 where the key was used with another body or the store refuses the data; 503.
pub async fn commit(
    state: &AppState,
    tenant: TenantId,
    mut build: impl FnMut(&Routing) -> Result<Submission, Problem>,
) -> Result<Committed, Problem> {
    let mut outdated = None;
    for _ in 0..MOST_ROUNDS {
        let table = state.router.table(tenant, outdated).await?;
        let routing = Routing { table, spilled: state.router.spilled() };
        match state.ingest.submit(build(&routing)?).await? {
            UnitOutcome::Committed(outcomes) => return Ok(Committed::Now(outcomes)),
            UnitOutcome::Replayed(answer) => return Ok(Committed::Before(answer)),
            UnitOutcome::Mismatch => return Err(idempotency::mismatch()),
            UnitOutcome::Rerouted => outdated = Some(routing.table.version),
        }
    }
    Err(Problem::unavailable("The destinations of this tenant change faster than events can be routed."))
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
