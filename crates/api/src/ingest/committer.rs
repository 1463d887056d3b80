//! One transaction after another, each with whatever arrived meanwhile.

use std::{collections::VecDeque, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt as _;
use signalpost_bus::Message;
use signalpost_core::OutboxId;
use signalpost_runtime::batcher::Entry;
use signalpost_store::{
    StoreError,
    ingest::{EventOutcome, IngestGroup, IngestUnit, UnitOutcome},
};
use signalpost_telemetry::names;

use super::{
    IngestPorts, Item, Reply, Submission,
    plan::{Group, next_group, settle},
    publisher::{Publication, Publisher},
    requests::{Outcome, Pending, Requests, Ticket},
};
use crate::IngestSettings;

/// A transaction that takes longer is given up: its outcome is unknown.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(15);

/// An event whose id is older is not committed any more. Deliveries carry its millisecond, and what looks for lost ones reads
/// them by that: it must not be past them when they come. With the time of a commit this stays below the 30 s that it
/// leaves.
const MOST_AGE: Duration = Duration::from_secs(12);

/// Commits groups.
pub struct Committer {
    ports: IngestPorts,
    settings: IngestSettings,
    publisher: Publisher,
}

/// A unit and what came of it.
type Decided = (IngestUnit, Outcome);

impl Committer {
    pub fn new(ports: &IngestPorts, settings: IngestSettings, publisher: Publisher) -> Self {
        Self { ports: ports.clone(), settings, publisher }
    }

    /// Commits all of these, in as many groups as their bounds need.
    pub async fn write(&self, entries: Vec<Entry<Item, Reply>>) {
        let mut pending = VecDeque::with_capacity(entries.len());
        let mut requests = Requests::default();
        let mut barriers = Vec::new();
        for entry in entries {
            match entry.split() {
                (Item::Units { submissions, share }, reply) => pending.extend(requests.add(submissions, share, reply)),
                (Item::Barrier, reply) => barriers.push(reply),
            }
        }
        loop {
            self.drop_hopeless(&mut pending, &mut requests);
            if pending.is_empty() {
                break;
            }
            let group = next_group(&mut pending, &self.settings);
            for again in self.commit_group(group, &mut requests).await.into_iter().rev() {
                pending.push_front(again);
            }
        }
        for barrier in barriers {
            // A caller that went away needs no answer.
            let _gone = barrier.send(Reply::Barrier);
        }
    }

    /// Decides those that must not be committed: they have waited for too long, as they do where the store was away or slow, or
    /// they would overtake one of their request that is tried again.
    fn drop_hopeless(&self, pending: &mut VecDeque<Pending>, requests: &mut Requests) {
        let now = self.ports.clock.now();
        pending.retain(|Pending { submission, ticket }| {
            let is_late = submission.unit.events.iter().any(|new| now.since(new.event.id.created_at()) > MOST_AGE);
            let hopeless = if is_late {
                Some(Err(StoreError::Unavailable("the request has waited for too long".to_owned())))
            } else {
                requests.behind(*ticket)
            };
            let keep = hopeless.is_none();
            if let Some(outcome) = hopeless {
                requests.decide(*ticket, outcome);
            }
            keep
        });
    }

    /// Commits a group; what of it is to be tried again, in order. At least one of its units is decided.
    async fn commit_group(&self, group: Group, requests: &mut Requests) -> Vec<Pending> {
        let Group { members, followers, held } = group;
        let mut units = Vec::with_capacity(members.len());
        let mut rest = Vec::with_capacity(members.len());
        for Pending { submission: Submission { unit, messages }, ticket } in members {
            units.push(unit);
            rest.push((messages, ticket));
        }
        let mut decided: Vec<Decided> = Vec::with_capacity(rest.len());
        // On refused data a run is split in two until the culprit stands alone. The runs stay in order, and end where nothing is
        // known of one of them.
        let mut runs = vec![units];
        let mut failed = None;
        while let Some(run) = runs.pop() {
            let first = decided.len();
            let committed = match &failed {
                None => self.commit(run, &mut rest[first..]).await,
                Some(error) => Committed::failed(run, error),
            };
            match committed {
                Committed::Decided(some) => {
                    failed = failed.or_else(|| some.iter().find_map(|(_, outcome)| unknown(outcome)));
                    for ((_, outcome), (_, ticket)) in some.iter().zip(&rest[first..]) {
                        requests.decide(*ticket, outcome.clone());
                    }
                    decided.extend(some);
                }
                Committed::Split(one, other) => runs.extend([other, one]),
            }
        }
        let mut again = Vec::new();
        for (leader, follower) in followers {
            let settled =
                decided.get(leader).and_then(|(unit, outcome)| settle(unit, outcome, &follower.submission.unit));
            match settled {
                Some(outcome) => requests.decide(follower.ticket, outcome),
                None => again.push(follower),
            }
        }
        again.extend(held);
        again
    }

    /// One transaction; publishes what it committed.
    async fn commit(&self, units: Vec<IngestUnit>, rest: &mut [Rest]) -> Committed {
        let outbox_id = OutboxId::new(self.ports.clock.now(), &*self.ports.entropy);
        let mut group = IngestGroup { units, outbox_id, published: self.publisher.take_acknowledged() };
        let started = self.ports.clock.elapsed();
        // A panic is a failure of this group, not the end of all ingest.
        let commit = AssertUnwindSafe(self.ports.store.ingest(&group)).catch_unwind();
        let result = match tokio::time::timeout(COMMIT_TIMEOUT, commit).await {
            Ok(Err(_)) => Err(StoreError::Internal("a panic".to_owned())),
            Ok(Ok(result)) => result.and_then(|outcomes| {
                if outcomes.len() == group.units.len() {
                    Ok(outcomes)
                } else {
                    Err(StoreError::Internal("the store answered for another number of units".to_owned()))
                }
            }),
            Err(_) => Err(StoreError::Unavailable("no answer in time".to_owned())),
        };
        let took = self.ports.clock.elapsed().saturating_sub(started);
        if result.is_err() {
            // Deleting a record twice is harmless.
            self.publisher.give_back_acknowledged(std::mem::take(&mut group.published));
        }
        match result {
            Ok(outcomes) => {
                measure(&group.units, &outcomes, took);
                let messages = accepted(&outcomes, rest);
                self.publisher.publish(Publication { outbox_id, messages, committed_at: self.ports.clock.elapsed() });
                Committed::Decided(group.units.into_iter().zip(outcomes.into_iter().map(Ok)).collect())
            }
            Err(StoreError::Data(_)) if group.units.len() > 1 => {
                let other = group.units.split_off(group.units.len() / 2);
                Committed::Split(group.units, other)
            }
            Err(error) => Committed::failed(group.units, &error),
        }
    }
}

/// What is left of a member once its unit went into the group: the messages of its events, and whose it is.
type Rest = (Vec<Vec<Arc<Message>>>, Ticket);

enum Committed {
    Decided(Vec<Decided>),
    Split(Vec<IngestUnit>, Vec<IngestUnit>),
}

impl Committed {
    /// The same for all.
    fn failed(units: Vec<IngestUnit>, error: &StoreError) -> Self {
        Self::Decided(units.into_iter().map(|unit| (unit, Err(error.clone()))).collect())
    }
}

/// The error after which nothing is known of a unit.
fn unknown(outcome: &Outcome) -> Option<StoreError> {
    match outcome {
        Ok(_) | Err(StoreError::Data(_)) => None,
        Err(error) => Some(error.clone()),
    }
}

/// The messages of the events that were committed now.
fn accepted(outcomes: &[UnitOutcome], rest: &mut [Rest]) -> Vec<Arc<Message>> {
    let mut accepted = Vec::new();
    for (outcome, (messages, _)) in outcomes.iter().zip(rest) {
        if let UnitOutcome::Committed(events) = outcome {
            for (event, messages) in events.iter().zip(std::mem::take(messages)) {
                if *event == EventOutcome::Accepted {
                    accepted.extend(messages);
                }
            }
        }
    }
    accepted
}

fn measure(units: &[IngestUnit], outcomes: &[UnitOutcome], took: Duration) {
    let (mut received, mut duplicate, mut unrouted, mut routed) = (0_u64, 0, 0, 0);
    for (unit, outcome) in units.iter().zip(outcomes) {
        match outcome {
            UnitOutcome::Committed(events) => {
                for (event, outcome) in unit.events.iter().zip(events) {
                    let deliveries = event.deliveries.len() + event.fan_out.len();
                    match outcome {
                        EventOutcome::Accepted => {
                            received += 1;
                            routed += deliveries as u64;
                            unrouted += u64::from(deliveries == 0);
                        }
                        EventOutcome::Duplicate(_) => duplicate += 1,
                        EventOutcome::UidConflict => {}
                    }
                }
            }
            UnitOutcome::Replayed(_) => duplicate += unit.events.len() as u64,
            UnitOutcome::Mismatch | UnitOutcome::Rerouted => {}
        }
    }
    metrics::counter!(names::EVENTS_RECEIVED).increment(received);
    metrics::counter!(names::EVENTS_DUPLICATE).increment(duplicate);
    metrics::counter!(names::EVENTS_UNROUTED).increment(unrouted);
    metrics::counter!(names::DELIVERIES_ROUTED).increment(routed);
    #[allow(clippy::cast_precision_loss, reason = "a count of at most some thousands")]
    metrics::histogram!(names::INGEST_GROUP_SIZE).record(received as f64);
    metrics::histogram!(names::INGEST_COMMIT_SECONDS).record(took.as_secs_f64());
}
