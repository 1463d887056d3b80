//! What must hold at the moment when a request begins: its destination is known as it is now, and its circuit is not open, it
//! has a token where there is a rate limit, it is claimed where it is sent at most once, and in a lane its lease lasts.
//!
//! Each of these may take its time, in which the others go stale; then they are seen to again.

use std::{sync::Arc, time::Duration};

use signalpost_core::{Destination, DestinationState, Guarantee, WaitReason, destination::RateLimit};
use signalpost_limits::TokenRequest;
use signalpost_runtime::Rejected;
use signalpost_store::dispatch::{DeliveryWrite, Written};
use tokio::time::sleep;

use super::{Context, Start, exchange::deadline, outcome::AFTER_REFUSAL};
use crate::{
    backoff::Backoff,
    job::{Hold, Job, Signal},
};

/// A token is used within that time, or lost.
const TOKEN_LIFE: Duration = Duration::from_millis(50);
/// How long a request waits for a token that was lost while the store was asked.
const TOKEN_WAIT: Duration = Duration::from_secs(2);

/// Whether a request begins.
pub(super) enum Prepared {
    /// It does.
    Ready(Arc<Destination>),
    /// This is written instead.
    Instead(DeliveryWrite),
    /// Nothing is: the store brings it back, or somebody else has it. Why, for the metric.
    Dropped(&'static str),
}

pub(super) async fn prepare(context: &Context, start: Start, hold: &mut Hold) -> Result<Prepared, Rejected> {
    let Start { job, mut destination, mut changes, at: mut token_at, .. } = start;
    let is_once = job.message.guarantee == Guarantee::AtMostOnce;
    let mut random = [0; 8];
    context.entropy.fill(&mut random);
    let claim = u64::from_le_bytes(random);
    let mut claimed_at = None;
    loop {
        // A change holds for every request that starts after its answer.
        let present = *context.changes.borrow();
        if present != changes {
            destination = reload(context, &destination).await;
            changes = present;
        }
        // One that is claimed goes out although its destination was paused in the same moment: it cannot wait.
        let is_off = destination.state != DestinationState::Active;
        if is_off && (claimed_at.is_none() || destination.state == DestinationState::Deleted) {
            return Ok(Prepared::Instead(job.turn_away(destination.state)));
        }
        if context.open_circuits.contains(destination.id) {
            // It has its turn again. Nothing went out under its claim.
            let target = job.target();
            let claim = claimed_at.map(|_| claim);
            let (reason, after, hold_queue) = (WaitReason::Turn, Duration::ZERO, false);
            return Ok(Prepared::Instead(DeliveryWrite::Park { target, reason, after, hold_queue, claim }));
        }
        // The same claim again moves its deadline: one that is too old for the request to end in time is made anew.
        let now = context.clock.elapsed();
        if is_once && claimed_at.is_none_or(|at: Duration| now.saturating_sub(at) > context.settings.detach_grace / 2) {
            hold.claimed();
            let deadline = deadline(context, &destination);
            let write = DeliveryWrite::Claim { target: job.target(), claim, deadline };
            match context.writer.write_until(write, job.write_until().filter(|_| claimed_at.is_none())).await? {
                Some(Written::Done) => {}
                Some(Written::Superseded) => return Ok(Prepared::Dropped("claim")),
                None => return Ok(Prepared::Instead(job.park(WaitReason::Turn, AFTER_REFUSAL, false))),
            }
            if claimed_at.is_none()
                && let Some(place) = job.place
            {
                // From here on the store brings it to its end, whatever becomes of us.
                let _gone = context.signals.send(Signal::Detached(place));
            }
            claimed_at = Some(now);
        }
        if let Some(limit) = destination.spec.rate_limit
            && context.clock.elapsed().saturating_sub(token_at) > TOKEN_LIFE
        {
            // Else what waited for the store would go out all at once.
            match (take_token(context, &job, limit).await, claimed_at) {
                (true, _) => token_at = context.clock.elapsed(),
                (false, None) => {
                    return Ok(Prepared::Instead(job.park(WaitReason::RateLimit, context.settings.park, false)));
                }
                // It cannot wait elsewhere.
                (false, Some(_)) => continue,
            }
        }
        if claimed_at.is_none() && job.is_too_late(context.clock.elapsed()) {
            return Ok(Prepared::Dropped("lease"));
        }
        let now = context.clock.elapsed();
        let is_fresh = claimed_at.is_none_or(|at| now.saturating_sub(at) <= context.settings.detach_grace / 2);
        let is_open = context.open_circuits.contains(destination.id);
        if is_fresh && !is_open && *context.changes.borrow() == changes {
            return Ok(Prepared::Ready(destination));
        }
    }
}

/// Takes a token, for a while. False: there was none.
async fn take_token(context: &Context, job: &Job, limit: RateLimit) -> bool {
    let until = context.clock.elapsed() + TOKEN_WAIT;
    loop {
        let request = TokenRequest { destination_id: job.message.destination_id, limit, wanted: 1 };
        let pause = match context.limits.take_tokens(&[request]).await.as_deref() {
            Ok([grant]) if grant.granted > 0 => {
                if !grant.whole_in(0).is_zero() {
                    sleep(grant.whole_in(0)).await;
                }
                return true;
            }
            Ok([grant]) => grant.retry_after.max(Duration::from_millis(1)),
            Ok(_) | Err(_) => TOKEN_LIFE,
        };
        if context.clock.elapsed() + pause > until {
            return false;
        }
        sleep(pause).await;
    }
}

/// The destination as it is now: something has changed since its job was started. One that is gone is as one deleted.
async fn reload(context: &Context, known: &Destination) -> Arc<Destination> {
    let mut backoff = Backoff::new();
    loop {
        match context.store.destinations(&[known.id]).await {
            Ok(mut found) => {
                let gone = || Destination { state: DestinationState::Deleted, ..known.clone() };
                return Arc::new(found.pop().unwrap_or_else(gone));
            }
            Err(error) => tracing::warn!(error = %error, "a destination was not loaded; trying again"),
        }
        backoff.wait().await;
    }
}
