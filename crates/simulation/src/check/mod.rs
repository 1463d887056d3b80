//! The invariants, checked after every step.
//!
//! The checker keeps its own picture of the store, from the changes that its triggers note, and its own log of what
//! reached destinations. Each step costs what changed in it; [`crate::run`] looks at the whole store now and then and at
//! the end.

mod changes;
mod circuits;
mod lanes;
mod requests;
mod tokens;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use signalpost_core::{AttemptOutcome, DeliveryId, DeliveryState, DestinationId, EventId, Timestamp};
use signalpost_limits::Owner;
use tokio::time::Instant;

pub use self::requests::Request;
use self::{
    circuits::Circuit,
    lanes::{Lane, LaneKey},
    tokens::Allowance,
};
use crate::knobs::Knobs;

/// How long a delivery to a healthy destination may wait for its first request while nothing of ours is wrong.
const PROMPT: Duration = Duration::from_secs(5);

/// What is promised (docs/architecture.md, "What holds").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Invariant {
    /// I1.
    Durable,
    /// I2.
    NeverForgotten,
    /// I3.
    Accounted,
    /// I4.
    AtMostOnce,
    /// I5.
    Order,
    /// I6.
    Isolation,
    /// I7.
    Limits,
    /// I8.
    Circuit,
    /// I13.
    ReadYourRouting,
    /// What a person was told is so: what is paused or cancelled is not sent.
    Control,
    /// Nothing is sent twice without need.
    Once,
    /// Nothing panics, tables agree with each other, services do not end by themselves.
    Sound,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Durable => "I1 durable",
            Self::NeverForgotten => "I2 never forgotten",
            Self::Accounted => "I3 accounted",
            Self::AtMostOnce => "I4 at most once",
            Self::Order => "I5 order",
            Self::Isolation => "I6 isolation",
            Self::Limits => "I7 limits",
            Self::Circuit => "I8 circuit",
            Self::ReadYourRouting => "I13 read your routing",
            Self::Control => "control",
            Self::Once => "nothing twice without need",
            Self::Sound => "sound",
        })
    }
}

/// An invariant that does not hold.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// How that shows.
    pub text: String,
}

impl Violation {
    fn of<T>(invariant: Invariant, text: String) -> Result<T, Self> {
        Err(Self { invariant, text })
    }
}

/// A delivery, as the store was seen to change it.
#[derive(Debug)]
pub struct Known {
    /// Of which event.
    pub event: EventId,
    /// Where to.
    pub destination: DestinationId,
    /// Where it is.
    pub state: DeliveryState,
    /// Attempts that are recorded.
    pub attempts: BTreeMap<u32, AttemptOutcome>,
    /// Its lane and its place there.
    pub lane: Option<([u8; 16], i64)>,
    /// The mark of the latest lease of it.
    lease: Option<Timestamp>,
    at_most_once: bool,
    /// Requests made for it.
    pub requests: u32,
}

/// What the checks expect of a destination.
#[derive(Debug, Default)]
pub struct Expected {
    /// In the trace.
    pub name: String,
    /// It is healthy, unlimited and left alone: what goes there is prompt.
    pub reference: bool,
    /// Every event goes there.
    pub routed: bool,
    /// A dead delivery blocks its lane there. None: nobody knows, as a change of that is under way, or was not answered.
    pub blocks: Option<bool>,
    /// When a person was told that it is paused; None: it may be sent to.
    pub paused_at: Option<Instant>,
    circuit: Circuit,
    rate: Option<Allowance>,
    /// Requests at once, and how many are out.
    max_in_flight: Option<u32>,
    in_flight: u32,
}

/// All checks.
#[derive(Debug)]
pub struct Checker {
    /// When something of ours last went wrong on purpose.
    pub trouble_at: Instant,
    /// All deliveries.
    pub deliveries: BTreeMap<DeliveryId, Known>,
    /// All destinations that were created.
    pub destinations: BTreeMap<DestinationId, Expected>,
    events: BTreeMap<EventId, BTreeSet<DestinationId>>,
    uids: BTreeMap<String, EventId>,
    uid_of: BTreeMap<EventId, String>,
    lanes: BTreeMap<LaneKey, Lane>,
    /// All requests so far, by delivery and number.
    sent: BTreeSet<(DeliveryId, u32)>,
    /// All requests.
    pub requests: Vec<Request>,
    /// Lives that ended without being asked.
    dead: BTreeSet<String>,
    /// Whose calls to the limits are whose.
    owners: BTreeMap<Owner, String>,
    /// Lives, and the circuits for which the limits did not answer them when they last asked.
    alone: BTreeSet<(String, DestinationId)>,
    /// Deliveries to reference destinations that have seen no request.
    unsent: BTreeMap<DeliveryId, Instant>,
    /// What was accepted, and where it must go.
    accepted: BTreeMap<EventId, BTreeSet<DestinationId>>,
    calm: bool,
    fans_out: bool,
    dispatchers: u32,
    /// The limits always answer, and their answers arrive.
    sure_limits: bool,
}

impl Checker {
    /// One that knows nothing yet.
    pub fn new(knobs: &Knobs) -> Self {
        Self {
            trouble_at: Instant::now(),
            deliveries: BTreeMap::new(),
            destinations: BTreeMap::new(),
            events: BTreeMap::new(),
            uids: BTreeMap::new(),
            uid_of: BTreeMap::new(),
            lanes: BTreeMap::new(),
            sent: BTreeSet::new(),
            requests: Vec::new(),
            dead: BTreeSet::new(),
            owners: BTreeMap::new(),
            alone: BTreeSet::new(),
            unsent: BTreeMap::new(),
            accepted: BTreeMap::new(),
            calm: knobs.calm,
            fans_out: knobs.fan_out_above < 100,
            sure_limits: !(knobs.limits_outages || knobs.kills)
                && knobs.fails_before + knobs.fails_after + knobs.slow <= 0.0,
            dispatchers: u32::try_from(knobs.dispatchers).unwrap_or(1),
        }
    }

    /// A destination in the trace.
    pub fn name_of(&self, destination: DestinationId) -> String {
        self.destinations.get(&destination).map_or_else(|| destination.to_string(), |expected| expected.name.clone())
    }

    /// Where every event goes now.
    pub fn routed(&self) -> BTreeSet<DestinationId> {
        self.destinations.iter().filter(|(_, expected)| expected.routed).map(|(id, _)| *id).collect()
    }

    /// A producer got a 202 for this event, which must go to these destinations.
    ///
    /// # Errors
    /// I1: it is not there. I13: it does not go there.
    pub fn accepted(&mut self, event: EventId, to: BTreeSet<DestinationId>) -> Result<(), Violation> {
        let Some(goes_to) = self.events.get(&event) else {
            return Violation::of(Invariant::Durable, format!("{event} was accepted, and is not in the store"));
        };
        if !self.fans_out
            && let Some(missing) = to.difference(goes_to).next()
        {
            let name = self.name_of(*missing);
            return Violation::of(
                Invariant::ReadYourRouting,
                format!("{event} was accepted, and does not go to {name}"),
            );
        }
        self.accepted.insert(event, to);
        Ok(())
    }

    /// The life ended without being asked: what it had out, it cannot account for.
    pub fn life_ended(&mut self, life: &str) {
        self.dead.insert(life.to_owned());
        for request in self.requests.iter_mut().filter(|request| request.life == life && request.is_out) {
            request.is_out = false;
            if let Some(expected) = self.destinations.get_mut(&request.destination) {
                expected.in_flight = expected.in_flight.saturating_sub(1);
            }
        }
    }

    /// Whether what goes to healthy destinations is prompt.
    ///
    /// # Errors
    /// I6: it is not.
    pub fn prompt(&self, now: Instant) -> Result<(), Violation> {
        let late = self.unsent.iter().find(|(_, born)| now.saturating_duration_since(**born) > PROMPT);
        match late.filter(|_| self.calm) {
            None => Ok(()),
            Some((delivery, born)) => {
                let name =
                    self.deliveries.get(delivery).map_or_else(String::new, |known| self.name_of(known.destination));
                let waited = now.saturating_duration_since(*born);
                let text = format!("{delivery} to {name}, which is healthy, has waited for {waited:?}");
                Violation::of(Invariant::Isolation, text)
            }
        }
    }

    /// What must hold once everything has come to rest.
    ///
    /// # Errors
    /// I1, I3 or I13.
    pub fn at_rest(&self, accountable: impl Fn(&str) -> bool) -> Result<(), Violation> {
        for (event, to) in &self.accepted {
            let Some(goes_to) = self.events.get(event) else {
                return Violation::of(Invariant::Durable, format!("{event} was accepted, and is gone"));
            };
            // What was deleted before it was expanded gets none.
            let lacks = |to: &&DestinationId| self.destinations.get(to).is_some_and(|expected| expected.routed);
            if let Some(missing) = to.difference(goes_to).find(lacks) {
                let name = self.name_of(*missing);
                return Violation::of(Invariant::ReadYourRouting, format!("{event} never went to {name}"));
            }
        }
        self.all_accounted(accountable)
    }
}
