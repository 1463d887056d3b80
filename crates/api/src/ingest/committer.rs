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
use tokio::sync::oneshot;

use super::{
    IngestPorts, Item, Reply, Submission,
    plan::{Group, Pending, next_group, settle},
    publisher::{Publication, Publisher},
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
type Decided = (IngestUnit, Result<UnitOutcome, StoreError>);

impl Committer {
    pub fn new(ports: &IngestPorts, settings: IngestSettings, publisher: Publisher) -> Self {
        Self { ports: ports.clone(), settings, publisher }
    }

    /// Commits all of these, in as many groups as their bounds need.
    pub async fn write(&self, entries: Vec<Entry<Item, Reply>>) {
        let mut pending = VecDeque::with_capacity(entries.len());
        let mut shares = Vec::with_capacity(entries.len());
        let mut barriers = Vec::new();
        for entry in entries {
            match entry.split() {
                (Item::Unit { submission, _share: share }, reply) => {
                    shares.push(share);
                    pending.push_back(Pending { submission, reply });
                }
                (Item::Barrier, reply) => barriers.push(reply),
            }
        }
        loop {
            pending = self.in_time(pending);
            if pending.is_empty() {
                break;
            }
            self.commit_group(next_group(&mut pending, &self.settings)).await;
        }
        drop(shares);
        for barrier in barriers {
            answer(barrier, Reply::Barrier);
        }
    }

    /// Refuses those that have waited for too long, as they do where the store was away or slow.
    fn in_time(&self, pending: VecDeque<Pending>) -> VecDeque<Pending> {
        let now = self.ports.clock.now();
        let is_late = |pending: &Pending| {
            pending.submission.unit.events.iter().any(|new| now.since(new.event.id.created_at()) > MOST_AGE)
        };
        let (late, in_time): (VecDeque<_>, _) = pending.into_iter().partition(is_late);
        for Pending { reply, .. } in late {
            let error = StoreError::Unavailable("the request has waited for too long".to_owned());
            answer(reply, Reply::Done(Err(error)));
        }
        in_time
    }

    async fn commit_group(&self, group: Group) {
        let Group { members, followers } = group;
        let mut units = Vec::with_capacity(members.len());
        let mut rest = Vec::with_capacity(members.len());
        for Pending { submission: Submission { unit, messages }, reply } in members {
            units.push(unit);
            rest.push((messages, Some(reply)));
        }
        let mut decided: Vec<Decided> = Vec::with_capacity(rest.len());
        // On refused data a run is split in two until the culprit stands alone. The runs stay in order.
        let mut runs = vec![units];
        while let Some(run) = runs.pop() {
            let first = decided.len();
            match self.commit(run, &mut rest[first..]).await {
                Committed::Decided(some) => decided.extend(some),
                Committed::Split(one, other) => runs.extend([other, one]),
            }
        }
        for (leader, Pending { submission, reply }) in followers {
            let settled = decided.get(leader).and_then(|(unit, outcome)| settle(unit, outcome, &submission.unit));
            match settled {
                Some(outcome) => answer(reply, Reply::Done(outcome)),
                None => answer(reply, Reply::Deferred(submission)),
            }
        }
    }

    /// One transaction; publishes what it committed and answers.
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
                let outcomes = outcomes.into_iter().map(Ok);
                Committed::Decided(reply_all(group.units, outcomes, rest))
            }
            Err(StoreError::Data(_)) if group.units.len() > 1 => {
                let other = group.units.split_off(group.units.len() / 2);
                Committed::Split(group.units, other)
            }
            Err(error) => {
                let outcomes = std::iter::repeat_with(move || Err(error.clone()));
                Committed::Decided(reply_all(group.units, outcomes, rest))
            }
        }
    }
}

/// What is left of a member once its unit went into the group: the messages of its events, and who waits.
type Rest = (Vec<Vec<Arc<Message>>>, Option<oneshot::Sender<Reply>>);

enum Committed {
    Decided(Vec<Decided>),
    Split(Vec<IngestUnit>, Vec<IngestUnit>),
}

fn reply_all(
    units: Vec<IngestUnit>,
    outcomes: impl Iterator<Item = Result<UnitOutcome, StoreError>>,
    rest: &mut [Rest],
) -> Vec<Decided> {
    let mut decided = Vec::with_capacity(units.len());
    for ((unit, outcome), (_, reply)) in units.into_iter().zip(outcomes).zip(rest) {
        if let Some(reply) = reply.take() {
            answer(reply, Reply::Done(outcome.clone()));
        }
        decided.push((unit, outcome));
    }
    decided
}

fn answer(reply: oneshot::Sender<Reply>, with: Reply) {
    // A caller that went away needs no answer.
    let _gone = reply.send(with);
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
