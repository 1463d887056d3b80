//! What is asked of others before something starts: tokens of a rate, shares of slots.

use std::time::Duration;

use signalpost_limits::{SlotUse, TokenGrant, TokenRequest};

use super::{Gate, Queues, TOKEN_LIFE, free_for, shares::Use};

impl Queues {
    /// The tokens that are needed now, for as much as can be sent now.
    pub(crate) fn wanted_tokens(&mut self) -> Vec<TokenRequest> {
        let mut requests = Vec::new();
        for id in std::mem::take(&mut self.wanting) {
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            let free = free_for(&self.bounds, self.in_flight, &self.in_flight_of, queue.tenant);
            let most =
                self.gates.get(&id).map_or(usize::MAX, |gate| gate.most(queue.in_flight)).min(queue.max_in_flight);
            let slots = most.saturating_sub(queue.in_flight).min(free);
            match queue.wanted_tokens(id, slots) {
                Some(request) => requests.push(request),
                None => {
                    queue.is_asking = false;
                    // Others took the last room meanwhile: it is next when some of it is given back.
                    if free == 0 {
                        self.crowd(id);
                    }
                }
            }
        }
        requests
    }

    /// What came of asking for tokens. None: it could not be asked; later.
    pub(crate) fn granted(&mut self, request: &TokenRequest, grant: Option<TokenGrant>, now: Duration) {
        let Some(queue) = self.queues.get_mut(&request.destination_id) else { return };
        queue.is_asking = false;
        let grant = grant.unwrap_or(TokenGrant::none(TOKEN_LIFE));
        // Else it is of a limit that does not hold any more.
        if queue.rate == Some(request.limit) {
            queue.tokens.extend(grant.ready_in().map(|ready_in| now + ready_in));
            if grant.granted < request.wanted {
                // Never at once again, whatever the answer says.
                queue.tokens_at = now + grant.retry_after.max(Duration::from_millis(1));
            }
        }
        self.make_ready(request.destination_id);
    }

    /// What is to be told and asked of slots now.
    pub(crate) fn wanted_slots(&mut self) -> Vec<SlotUse> {
        let (queues, gates) = (&self.queues, &self.gates);
        self.shares.wanted(|id| {
            let Some(queue) = queues.get(&id) else { return Use::default() };
            let most = match gates.get(&id) {
                Some(Gate::Ramp { most }) => *most,
                _ => u32::MAX,
            };
            let as_u32 = |number| u32::try_from(number).unwrap_or(u32::MAX);
            let held = as_u32(queue.in_flight);
            Use { held, waiting: as_u32(queue.jobs.len()), max: as_u32(queue.max_in_flight).min(most) }
        })
    }

    /// What came of asking for slots. None: it could not be asked.
    pub(crate) fn slots_granted(&mut self, told: &SlotUse, allowed: Option<u32>, asked_at: Duration, now: Duration) {
        self.shares.granted(told, allowed, asked_at, now);
        self.make_ready(told.destination_id);
    }

    /// Whether there are shares of slots to renew.
    pub(crate) fn has_slots(&self) -> bool {
        self.shares.has_any()
    }

    /// Begins to renew all shares of slots.
    pub(crate) fn renew_slots(&mut self) {
        self.shares.renew();
    }

    /// All shares, given back at the end.
    pub(crate) fn give_slots_back(&mut self) -> Vec<SlotUse> {
        self.shares.give_back()
    }

    /// How many dispatchers live, where that is known.
    pub(crate) const fn set_alive(&mut self, alive: Option<u32>) {
        self.shares.set_alive(alive);
    }
}
