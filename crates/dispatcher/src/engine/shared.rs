//! What dispatchers share about a destination: tokens and slots are asked for, circuits are reported. One call of each kind
//! is under way at most, for as many destinations as need it.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use signalpost_core::{CircuitState, DestinationId};
use signalpost_limits::{CircuitReport, CircuitView, SlotUse, TokenGrant, TokenRequest};
use signalpost_telemetry::names;

use super::{Engine, pending_or};
use crate::{
    circuits::{Applied, Change, Load},
    queues::Gate,
};

/// While circuits cannot be asked about, a few requests try one whose time is over this long after that.
const TRY_ALONE_AFTER: Duration = Duration::from_secs(1);

/// What was asked, and what came of it. None: it could not be asked.
pub(super) enum Answer {
    Tokens(Vec<TokenRequest>, Option<Vec<TokenGrant>>),
    Slots { told: Vec<SlotUse>, allowed: Option<Vec<u32>>, asked_at: Duration },
    Circuits(Vec<CircuitReport>, Option<Vec<CircuitView>>),
}

/// The calls that are under way.
#[derive(Default)]
pub(super) struct Shared {
    tokens: Option<BoxFuture<'static, Answer>>,
    slots: Option<BoxFuture<'static, Answer>>,
    circuits: Option<BoxFuture<'static, Answer>>,
}

impl Shared {
    /// The next answer.
    pub(super) async fn answer(&mut self) -> Answer {
        tokio::select! {
            biased;
            answer = pending_or(&mut self.slots) => answer,
            answer = pending_or(&mut self.tokens) => answer,
            answer = pending_or(&mut self.circuits) => answer,
        }
    }

    /// Whether a report of circuits is under way.
    pub(super) const fn is_reporting(&self) -> bool {
        self.circuits.is_some()
    }
}

fn unavailable(error: &signalpost_limits::LimitsUnavailable, what: &'static str) {
    metrics::counter!(names::LIMITS_UNAVAILABLE).increment(1);
    tracing::debug!(error = %error, what, "the limits did not answer");
}

impl Engine {
    pub(super) fn ask_for_tokens(&mut self) {
        if self.shared.tokens.is_some() {
            return;
        }
        let requests = self.queues.wanted_tokens();
        if requests.is_empty() {
            return;
        }
        let limits = Arc::clone(&self.limits);
        self.shared.tokens = Some(Box::pin(async move {
            let grants = limits.take_tokens(&requests).await.inspect_err(|error| unavailable(error, "tokens"));
            Answer::Tokens(requests, grants.ok())
        }));
    }

    pub(super) fn ask_for_slots(&mut self, now: Duration) {
        if self.shared.slots.is_some() {
            return;
        }
        let told = self.queues.wanted_slots();
        if told.is_empty() {
            return;
        }
        let (limits, owner) = (Arc::clone(&self.limits), self.owner);
        self.shared.slots = Some(Box::pin(async move {
            let allowed = limits.slots(owner, &told).await.inspect_err(|error| unavailable(error, "slots"));
            let allowed = allowed.ok().filter(|allowed| allowed.len() == told.len());
            Answer::Slots { told, allowed, asked_at: now }
        }));
    }

    pub(super) fn answered(&mut self, answer: Answer, now: Duration) {
        match answer {
            Answer::Tokens(requests, grants) => {
                self.shared.tokens = None;
                for (place, request) in requests.iter().enumerate() {
                    let grant = grants.as_ref().and_then(|grants| grants.get(place).copied());
                    self.queues.granted(request, grant, now);
                }
            }
            Answer::Slots { told, allowed, asked_at } => {
                self.shared.slots = None;
                self.queues.set_alive(self.alive.parts());
                for (place, told) in told.iter().enumerate() {
                    let allowed = allowed.as_ref().and_then(|allowed| allowed.get(place).copied());
                    self.queues.slots_granted(told, allowed, asked_at, now);
                }
            }
            Answer::Circuits(reports, views) => self.viewed(reports, views, now),
        }
    }

    /// Reports what was seen of circuits, where there is something to report.
    pub(super) fn report_circuits(&mut self, now: Duration) {
        if self.shared.is_reporting() || self.circuits.next_report().is_none_or(|at| now < at) {
            return;
        }
        let queues = &self.queues;
        let reports = self.circuits.reports(now, |id| {
            let (waiting, in_flight) = queues.load(id);
            Load { waiting, in_flight, gate: queues.gate(id) }
        });
        self.count_open_circuits();
        if reports.is_empty() {
            return;
        }
        for report in &reports {
            // What may be sent and is not there to be sent is given back with the report.
            let (waiting, _) = self.queues.load(report.destination_id);
            if let Some(Gate::Trying { left }) = self.queues.gate(report.destination_id)
                && usize::try_from(left).is_ok_and(|left| left > waiting)
            {
                let left = u32::try_from(waiting).unwrap_or(u32::MAX);
                self.queues.set_gate(report.destination_id, Some(Gate::Trying { left }));
            }
        }
        let (limits, owner) = (Arc::clone(&self.limits), self.owner);
        self.shared.circuits = Some(Box::pin(async move {
            let views = limits.circuits(owner, &reports).await.inspect_err(|error| unavailable(error, "circuits"));
            let views = views.ok().filter(|views| views.len() == reports.len());
            Answer::Circuits(reports, views)
        }));
    }

    fn count_open_circuits(&self) {
        #[allow(clippy::cast_precision_loss)]
        metrics::gauge!(names::CIRCUITS_OPEN).set(self.circuits.open() as f64);
    }

    /// A destination is there no more: nor is its circuit.
    pub(super) fn forget_circuit(&mut self, id: DestinationId) {
        self.queues.set_gate(id, None);
        if self.circuits.forget(id) {
            self.count_open_circuits();
        }
    }

    fn viewed(&mut self, reports: Vec<CircuitReport>, views: Option<Vec<CircuitView>>, now: Duration) {
        self.shared.circuits = None;
        let Some(views) = views else {
            for report in reports {
                self.try_alone(&report, now);
                self.circuits.failed(report);
            }
            return;
        };
        for (report, view) in reports.into_iter().zip(views) {
            let id = report.destination_id;
            let left = if let Some(Gate::Trying { left }) = self.queues.gate(id) { left } else { 0 };
            let Some(Applied { gate, keep, change }) = self.circuits.seen(&report, view, left, now) else { continue };
            self.queues.set_gate(id, gate);
            if let Some(keep) = keep {
                let parked = self.queues.park_beyond(id, keep, now);
                self.park_all(parked);
            }
            if let Some(change) = change {
                self.tell_change(change, now);
            }
        }
    }

    fn tell_change(&mut self, change: Change, now: Duration) {
        let Change { destination_id, record, hold, trial } = change;
        let to = match record.state {
            CircuitState::Closed => "closed",
            CircuitState::Open => "open",
            CircuitState::HalfOpen => "half_open",
        };
        metrics::counter!(names::CIRCUIT_TRANSITIONS, "to" => to).increment(1);
        tracing::info!(
            destination.id = %destination_id,
            to,
            trips = record.trips,
            reason = record.reason.as_deref(),
            "circuit changed"
        );
        if let Some(hold) = hold {
            self.tellings.hold(destination_id, hold, trial, now);
        }
        self.tellings.record(destination_id, record);
    }

    /// Nobody answers: a circuit whose time is over is tried all the same, a few requests at a time.
    fn try_alone(&mut self, report: &CircuitReport, now: Duration) {
        let id = report.destination_id;
        let gate = match self.queues.gate(id) {
            Some(Gate::Open { until }) if now >= until + TRY_ALONE_AFTER => {
                Gate::Trying { left: report.policy.probes.get() }
            }
            Some(Gate::Trying { left: 0 }) => Gate::Open { until: now },
            _ => return,
        };
        self.queues.set_gate(id, Some(gate));
    }
}
