//! Checks of what reaches destinations.

use std::time::Duration;

use signalpost_core::{DeliveryId, DeliveryState, DestinationId, destination::RateLimit};
use tokio::time::Instant;

use super::{Allowance, Checker, Expected, Invariant, Violation};

/// By when a change by a person holds for every request.
const CHANGE: Duration = Duration::from_secs(1);

/// One request that a destination saw.
#[derive(Debug, Clone)]
pub struct Request {
    /// Of which delivery.
    pub delivery: DeliveryId,
    /// The number of the attempt, as it was told to the destination.
    pub number: u32,
    /// Where to.
    pub destination: DestinationId,
    /// Who sent it.
    pub life: String,
    /// It has begun and not ended.
    pub is_out: bool,
    /// Who sent it got an answer.
    pub is_answered: bool,
}

impl Checker {
    /// A destination was created, or changed.
    pub fn expect(
        &mut self,
        id: DestinationId,
        name: &str,
        rate: Option<RateLimit>,
        max_in_flight: Option<u32>,
        now: Instant,
    ) {
        let expected =
            self.destinations.entry(id).or_insert_with(|| Expected { name: name.to_owned(), ..Expected::default() });
        expected.rate = rate.map(|rate| Allowance::new(rate, now));
        expected.max_in_flight = max_in_flight;
    }

    /// A request reaches its destination.
    ///
    /// # Errors
    /// I4, I5, I7.
    pub fn request_started(
        &mut self,
        life: &str,
        delivery: DeliveryId,
        number: u32,
        now: Instant,
    ) -> Result<usize, Violation> {
        let Some(known) = self.deliveries.get_mut(&delivery) else {
            return Violation::of(Invariant::Sound, format!("a request for {delivery}, which is not in the store"));
        };
        known.requests += 1;
        let again = !self.sent.insert((delivery, number));
        if self.calm && (again || matches!(known.state, DeliveryState::Delivered | DeliveryState::Dead)) {
            let text =
                format!("{delivery}/{number} is sent for the {}. time, while it is {:?}", known.requests, known.state);
            return Violation::of(Invariant::Once, text);
        }
        if self.calm && known.state == DeliveryState::Cancelled {
            return Violation::of(Invariant::Control, format!("{delivery} is cancelled, and starts"));
        }
        self.unsent.remove(&delivery);
        if known.at_most_once && known.requests > 1 {
            return Violation::of(
                Invariant::AtMostOnce,
                format!("{delivery} is sent for the {}. time", known.requests),
            );
        }
        let destination = known.destination;
        if let Some(known) = self.deliveries.get(&delivery) {
            self.may_start(delivery, known)?;
        }
        // Who does not reach the limits still has one slot.
        let beyond = if self.sure_limits { 0 } else { self.dispatchers };
        let refused_for = self.circuit_refuses(destination, life, now);
        if let Some(expected) = self.destinations.get_mut(&destination) {
            expected.in_flight += 1;
            let name = &expected.name;
            let is_known = |since: Instant| now.saturating_duration_since(since) > CHANGE;
            if self.calm && expected.paused_at.is_some_and(is_known) {
                return Violation::of(Invariant::Control, format!("{name} is paused, and {delivery} starts"));
            }
            if let Some(open) = refused_for {
                let text = format!("the circuit of {name} has been open for {open:?}, and {delivery} starts");
                return Violation::of(Invariant::Circuit, text);
            }
            if expected.max_in_flight.is_some_and(|most| expected.in_flight > most + beyond) {
                let text = format!("{} requests to {name} are out at once", expected.in_flight);
                return Violation::of(Invariant::Limits, text);
            }
            if let Some(lacking) = expected.rate.as_mut().and_then(|rate| rate.take(now)) {
                let text = format!("a request to {name} is sent {lacking:.2} tokens beyond its limit");
                return Violation::of(Invariant::Limits, text);
            }
        }
        let life = life.to_owned();
        self.requests.push(Request { delivery, number, destination, life, is_out: true, is_answered: false });
        Ok(self.requests.len() - 1)
    }

    /// It ended; `answered`: who sent it knows how.
    pub fn request_ended(&mut self, request: usize, answered: bool) {
        let Some(request) = self.requests.get_mut(request).filter(|request| request.is_out) else { return };
        (request.is_out, request.is_answered) = (false, answered);
        if let Some(expected) = self.destinations.get_mut(&request.destination) {
            expected.in_flight = expected.in_flight.saturating_sub(1);
        }
    }

    /// Every request that its process could account for is an attempt.
    pub(super) fn all_accounted(&self, accountable: impl Fn(&str) -> bool) -> Result<(), Violation> {
        for request in &self.requests {
            let lived = request.is_answered && !self.dead.contains(&request.life) && accountable(&request.life);
            let Some(known) = self.deliveries.get(&request.delivery).filter(|_| lived) else { continue };
            let ended_otherwise = matches!(known.state, DeliveryState::Cancelled | DeliveryState::Dead);
            if !known.attempts.contains_key(&request.number) && !ended_otherwise {
                let Request { delivery, number, life, .. } = request;
                let text = format!("request {number} of {delivery} by {life} is no attempt");
                return Violation::of(Invariant::Accounted, text);
            }
        }
        Ok(())
    }
}
