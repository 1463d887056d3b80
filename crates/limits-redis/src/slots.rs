//! Slots, shared by leases in Redis or, while that is away, in equal parts; one, where nobody knows of how many.
//!
//! The rule is that of `SlotTable` in `signalpost_limits`, in Lua. A Redis that lost its data gives everybody an equal part until all
//! had time to tell what they hold. Slots are for isolation and for the sake of receivers: where a dispatcher is cut off
//! from Redis and the others are not, both sides together may have more out than `max`, at most twice.

use signalpost_limits::{LimitsUnavailable, Owner, SLOT_LEASE, SlotUse};

use crate::{link::Link, scripts::Batch};

/// What one may have out of each.
pub(crate) async fn tell(link: &Link, owner: Owner, uses: &[SlotUse]) -> Vec<u32> {
    if uses.is_empty() {
        return Vec::new();
    }
    let alive = link.alive().max(1);
    match tell_shared(link, owner, alive, uses).await {
        Ok(allowed) => allowed,
        Err(_) => uses.iter().map(|used| own_part(link.parts(), used)).collect(),
    }
}

async fn tell_shared(link: &Link, owner: Owner, alive: u32, uses: &[SlotUse]) -> Result<Vec<u32>, LimitsUnavailable> {
    let lease = SLOT_LEASE.as_millis().to_string();
    let mut batch = Batch::new(vec![owner.to_string(), lease, alive.to_string()]);
    for used in uses {
        let key = format!("signalpost:slots:{}", used.destination_id);
        batch.push(key, [used.max, used.held, used.wanted].map(|number| number.to_string()));
    }
    let answers =
        link.call(async |scripts, session| scripts.call(&mut session.connection, &scripts.slots, &batch).await).await?;
    if answers.len() != uses.len() {
        return Err(LimitsUnavailable(format!("{} answers", answers.len())));
    }
    Ok(answers.into_iter().map(|allowed| u32::try_from(allowed).unwrap_or(0)).collect())
}

fn own_part(parts: Option<u32>, used: &SlotUse) -> u32 {
    let part = parts.map_or(1, |parts| (used.max / parts.max(1)).max(1));
    used.held.saturating_add(used.wanted).min(part)
}
