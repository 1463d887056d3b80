//! The requests whose units are being committed, and what has come of them so far.
//!
//! A request is answered when all its units are decided. Its units that take places in lanes keep their order: behind one that has
//! to be routed again, or of which nothing is known, none is committed, so that it finds its place before them when it is
//! tried again.

use signalpost_store::{StoreError, ingest::UnitOutcome};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Reply, Submission};

/// What came of a unit.
pub type Outcome = Result<UnitOutcome, StoreError>;

/// Which unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The place of its request.
    pub request: usize,
    /// Its place in it.
    pub unit: usize,
    /// It takes a place in a lane.
    pub is_ordered: bool,
}

/// A unit that is not decided yet.
pub struct Pending {
    pub submission: Submission,
    pub ticket: Ticket,
}

struct Request {
    /// None: not decided yet.
    outcomes: Vec<Option<Outcome>>,
    undecided: usize,
    /// What those of its ordered units get that come later.
    behind: Option<Outcome>,
    reply: Option<oneshot::Sender<Reply>>,
    /// Given back with the answer.
    share: Option<OwnedSemaphorePermit>,
}

/// All that is handed to the committer at once.
#[derive(Default)]
pub struct Requests(Vec<Request>);

impl Requests {
    /// Takes one in; its units, to be committed.
    pub fn add(
        &mut self,
        submissions: Vec<Submission>,
        share: OwnedSemaphorePermit,
        reply: oneshot::Sender<Reply>,
    ) -> impl Iterator<Item = Pending> {
        let request = self.0.len();
        self.0.push(Request {
            outcomes: vec![None; submissions.len()],
            undecided: submissions.len(),
            behind: None,
            reply: Some(reply),
            share: Some(share),
        });
        submissions.into_iter().enumerate().map(move |(unit, submission)| {
            let is_ordered = submission.is_ordered();
            Pending { submission, ticket: Ticket { request, unit, is_ordered } }
        })
    }

    /// What a unit gets for what came of one before it. None: it may be committed.
    pub fn behind(&self, ticket: Ticket) -> Option<Outcome> {
        self.0.get(ticket.request).filter(|_| ticket.is_ordered)?.behind.clone()
    }

    /// Notes what came of a unit; answers its request with the last one.
    pub fn decide(&mut self, ticket: Ticket, outcome: Outcome) {
        let Some(request) = self.0.get_mut(ticket.request) else { return };
        // What is refused for good lets those behind it go; what is tried again does not.
        let is_open =
            matches!(outcome, Ok(UnitOutcome::Rerouted) | Err(StoreError::Unavailable(_) | StoreError::Internal(_)));
        if ticket.is_ordered && is_open {
            request.behind.get_or_insert_with(|| outcome.clone());
        }
        match request.outcomes.get_mut(ticket.unit) {
            Some(place @ None) => *place = Some(outcome),
            _ => return,
        }
        request.undecided -= 1;
        if request.undecided == 0 {
            request.share = None;
            let outcomes = std::mem::take(&mut request.outcomes).into_iter().flatten().collect();
            if let Some(reply) = request.reply.take() {
                // A caller that went away needs no answer.
                let _gone = reply.send(Reply::Done(outcomes));
            }
        }
    }
}
