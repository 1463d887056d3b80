//! Changes of destinations: told by the store at once where it can, and asked for twice a second in any case.

use std::{sync::Arc, time::Duration};

use signalpost_core::DestinationState;

use super::{Engine, Refreshed};
use crate::job::Job;

/// When to ask again after a failure.
const AGAIN: Duration = Duration::from_millis(100);
/// Who has not heard from the store for so many polls does not know what is paused by now, or whose circuit is open.
pub(super) const MISSED_POLLS: u32 = 4;

impl Engine {
    /// Begins a refresh where one is due.
    pub(super) fn look_for_changes(&mut self, now: Duration) {
        if self.refresh.is_some() {
            return;
        }
        let is_told = self.changes.has_changed().unwrap_or(false);
        if is_told || now >= self.refresh_at {
            self.begin_refresh(is_told);
        }
    }

    /// `gated`: something has changed for certain; nothing starts until it is known what.
    pub(super) fn begin_refresh(&mut self, gated: bool) {
        self.gated |= gated;
        self.reading = *self.changes.borrow_and_update();
        let (store, since, begun) = (Arc::clone(&self.context.store), self.since, self.clock.elapsed());
        self.refresh = Some(Box::pin(async move { (begun, store.changed_since(Some(since)).await) }));
    }

    pub(super) fn refreshed(&mut self, (begun, refreshed): Refreshed, now: Duration) {
        self.refresh = None;
        let (destinations, since) = match refreshed {
            Ok(refreshed) => refreshed,
            Err(error) => {
                tracing::warn!(error = %error, "changes of destinations not read; trying again");
                self.refresh_at = now + AGAIN;
                return;
            }
        };
        self.gated = false;
        self.refreshed_at = begun;
        self.read = self.reading;
        self.since = since;
        self.refresh_at = now + self.settings.poll;
        for destination in destinations {
            let id = destination.id;
            let grace = self.settings.detach_grace;
            if destination.state == DestinationState::Deleted {
                self.forget_circuit(id);
            }
            if let Some(gate) = self.circuits.loaded(&destination, grace, now) {
                self.queues.set_gate(id, Some(gate));
            }
            if self.circuits.changed(&destination, grace, now) {
                // The change let its stored queue go, which its circuit tries first.
                self.tellings.hold(id, Duration::ZERO, self.circuits.trial(id), now);
            }
            let is_newer = self.cache.get(id).is_none_or(|known| known.version < destination.version);
            self.cache.put(destination, |id| self.queues.holds(id));
            if !is_newer {
                continue;
            }
            if !self.queues.holds(id) {
                continue;
            }
            let Some(destination) = self.cache.get(id) else { continue };
            if destination.state == DestinationState::Active {
                self.queues.reconfigure(id, &destination.spec);
            } else {
                for job in self.queues.take_all(id, now) {
                    self.turn_away(job, destination.state);
                }
            }
        }
    }

    /// Settles a job whose destination is not sent to.
    pub(super) fn turn_away(&mut self, job: Job, state: DestinationState) {
        let write = job.turn_away(state);
        self.put_back(job, write);
    }
}
