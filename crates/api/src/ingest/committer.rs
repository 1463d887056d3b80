//! One transaction after another, each with whatever arrived meanwhile.

use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt as _;
use signalpost_bus::Message;
use signalpost_core::OutboxId;
use signalpost_runtime::batcher::Intake;
use signalpost_store::{
    StoreError,
    ingest::{EventOutcome, IngestGroup, IngestUnit, UnitOutcome},
};
use signalpost_telemetry::names;
use tokio::sync::oneshot;

use super::{
    IngestPorts, Item, Reply, Submission,
    plan::{Group, next_group, settle},
    publisher::{Publication, Publisher},
    requests::{Outcome, Pending, Requests, Ticket},
};
use crate::IngestSettings;

/// The most entries that are looked at together.
const MOST_ENTRIES: usize = 4096;

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

/// What was taken in together, and is not answered yet.
#[derive(Default)]
struct Work {
    /// Its first group is made when its transaction begins, by whoever runs that.
    intake: Option<Intake<Item, Reply>>,
    pending: VecDeque<Pending>,
    requests: Requests,
    barriers: Vec<oneshot::Sender<Reply>>,
}

/// A group that was made.
struct Made {
    group: Arc<IngestGroup>,
    rest: Vec<Rest>,
    followers: Vec<(usize, Pending)>,
    held: Vec<Pending>,
}

/// Where the one who commits finds what was made for it.
#[derive(Default)]
struct Bench {
    work: Work,
    made: Option<Made>,
    /// Nobody waits for it any more: nothing is to be made.
    is_closed: bool,
}

impl Committer {
    pub fn new(ports: &IngestPorts, settings: IngestSettings, publisher: Publisher) -> Self {
        Self { ports: ports.clone(), settings, publisher }
    }

    /// Commits what waits, in as many groups as their bounds need.
    pub async fn write(self: &Arc<Self>, intake: Intake<Item, Reply>) {
        let mut work = Work { intake: Some(intake), ..Work::default() };
        loop {
            work = self.commit_next(work).await;
            if work.pending.is_empty() {
                break;
            }
        }
        for barrier in work.barriers {
            // A caller that went away needs no answer.
            let _gone = barrier.send(Reply::Barrier);
        }
    }

    /// Commits a group of it; what is left.
    async fn commit_next(self: &Arc<Self>, work: Work) -> Work {
        let bench = Arc::new(Mutex::new(Bench { work, ..Bench::default() }));
        let make = {
            let (committer, bench) = (Arc::clone(self), Arc::clone(&bench));
            Box::new(move || committer.make(&bench))
        };
        self.publisher.room().await;
        let started = self.ports.clock.elapsed();
        let result = guarded(self.ports.store.ingest_late(make)).await;
        if result.is_err() {
            // Where it came to no transaction, these are the ones that fail.
            self.make(&bench);
        }
        let took = self.ports.clock.elapsed().saturating_sub(started);
        let (mut work, made) = {
            let mut bench = bench.lock().unwrap_or_else(PoisonError::into_inner);
            bench.is_closed = true;
            (std::mem::take(&mut bench.work), bench.made.take())
        };
        if let Some(Made { group, rest, followers, held }) = made {
            let group = Arc::unwrap_or_clone(group);
            let committed = self.committed(group, result, took, rest);
            self.settle_group(committed, followers, held, &mut work).await;
        }
        work
    }

    /// Takes in what waits, and makes the next group.
    fn make(&self, bench: &Mutex<Bench>) -> Option<Arc<IngestGroup>> {
        let mut bench = bench.lock().unwrap_or_else(PoisonError::into_inner);
        if bench.is_closed || bench.made.is_some() {
            return None;
        }
        let Work { intake, pending, requests, barriers } = &mut bench.work;
        for entry in intake.take().into_iter().flat_map(|intake| intake.take(MOST_ENTRIES)) {
            match entry.split() {
                (Item::Units { submissions, share }, reply) => pending.extend(requests.add(submissions, share, reply)),
                (Item::Barrier, reply) => barriers.push(reply),
            }
        }
        self.drop_hopeless(pending, requests);
        if pending.is_empty() {
            return None;
        }
        let Group { members, followers, held } = next_group(pending, &self.settings);
        let mut units = Vec::with_capacity(members.len());
        let mut rest = Vec::with_capacity(members.len());
        for Pending { submission: Submission { unit, messages }, ticket } in members {
            units.push(unit);
            rest.push((messages, ticket));
        }
        let group = Arc::new(self.group(units));
        bench.made = Some(Made { group: Arc::clone(&group), rest, followers, held });
        Some(group)
    }

    fn group(&self, units: Vec<IngestUnit>) -> IngestGroup {
        let outbox_id = OutboxId::new(self.ports.clock.now(), &*self.ports.entropy);
        IngestGroup { units, outbox_id, published: self.publisher.take_acknowledged() }
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

    /// Decides the units of a group whose first transaction has ended. What of it is to be tried again comes first in `work`. At
    /// least one of its units is decided.
    async fn settle_group(
        &self,
        (first, mut rest): (Committed, Vec<Rest>),
        followers: Vec<(usize, Pending)>,
        held: Vec<Pending>,
        work: &mut Work,
    ) {
        let mut decided: Vec<Decided> = Vec::with_capacity(rest.len());
        // On refused data a run is split in two until the culprit stands alone. The runs stay in order, and end where nothing is
        // known of one of them.
        let mut runs = vec![Run::Ended(first)];
        let mut failed = None;
        while let Some(run) = runs.pop() {
            let from = decided.len();
            let committed = match (run, &failed) {
                (Run::Ended(committed), _) => committed,
                (Run::Open(units), Some(error)) => Committed::failed(units, error),
                (Run::Open(units), None) => {
                    let group = self.group(units);
                    let started = self.ports.clock.elapsed();
                    let result = guarded(self.ports.store.ingest(&group)).await;
                    let took = self.ports.clock.elapsed().saturating_sub(started);
                    let (committed, back) = self.committed(group, result, took, rest.split_off(from));
                    rest.extend(back);
                    committed
                }
            };
            match committed {
                Committed::Decided(some) => {
                    failed = failed.or_else(|| some.iter().find_map(|(_, outcome)| unknown(outcome)));
                    for ((_, outcome), (_, ticket)) in some.iter().zip(&rest[from..]) {
                        work.requests.decide(*ticket, outcome.clone());
                    }
                    decided.extend(some);
                }
                Committed::Split(one, other) => runs.extend([Run::Open(other), Run::Open(one)]),
            }
        }
        let mut again = Vec::new();
        for (leader, follower) in followers {
            let settled =
                decided.get(leader).and_then(|(unit, outcome)| settle(unit, outcome, &follower.submission.unit));
            match settled {
                Some(outcome) => work.requests.decide(follower.ticket, outcome),
                None => again.push(follower),
            }
        }
        again.extend(held);
        for again in again.into_iter().rev() {
            work.pending.push_front(again);
        }
    }

    /// What came of one transaction; publishes what it committed. `rest` begins with that of its units.
    fn committed(
        &self,
        mut group: IngestGroup,
        result: Result<Vec<UnitOutcome>, StoreError>,
        took: Duration,
        mut rest: Vec<Rest>,
    ) -> (Committed, Vec<Rest>) {
        let result = result.and_then(|outcomes| {
            if outcomes.len() == group.units.len() {
                Ok(outcomes)
            } else {
                Err(StoreError::Internal("the store answered for another number of units".to_owned()))
            }
        });
        if result.is_err() {
            // Deleting a record twice is harmless.
            self.publisher.give_back_acknowledged(std::mem::take(&mut group.published));
        }
        let committed = match result {
            Ok(outcomes) => {
                measure(&group.units, &outcomes, took);
                let messages = accepted(&outcomes, &mut rest);
                let committed_at = self.ports.clock.elapsed();
                self.publisher.publish(Publication { outbox_id: group.outbox_id, messages, committed_at });
                Committed::Decided(group.units.into_iter().zip(outcomes.into_iter().map(Ok)).collect())
            }
            Err(StoreError::Data(_)) if group.units.len() > 1 => {
                let other = group.units.split_off(group.units.len() / 2);
                Committed::Split(group.units, other)
            }
            Err(error) => Committed::failed(group.units, &error),
        };
        (committed, rest)
    }
}

/// One transaction, for as long as it is waited for. A panic is a failure of this group, not the end of all ingest.
async fn guarded(
    commit: impl Future<Output = Result<Vec<UnitOutcome>, StoreError>>,
) -> Result<Vec<UnitOutcome>, StoreError> {
    match tokio::time::timeout(COMMIT_TIMEOUT, AssertUnwindSafe(commit).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(StoreError::Internal("a panic".to_owned())),
        Err(_) => Err(StoreError::Unavailable("no answer in time".to_owned())),
    }
}

/// What is left of a member once its unit went into the group: the messages of its events, and whose it is.
type Rest = (Vec<Vec<Arc<Message>>>, Ticket);

/// Units that stand together.
enum Run {
    /// Their transaction has ended.
    Ended(Committed),
    /// It comes yet.
    Open(Vec<IngestUnit>),
}

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
