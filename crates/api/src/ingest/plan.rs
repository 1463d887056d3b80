//! Which units go into one group, and what follows for those that cannot.
//!
//! Equal claims (idempotency keys, uids) never meet in one transaction: the first of them goes, the others wait for what
//! comes of it, and most are answered from that without another transaction. Units of a request that take places in lanes keep
//! their order: while one of them waits so, those behind it do, too.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use signalpost_core::TenantId;
use signalpost_store::{
    StoreError,
    ingest::{EventOutcome, IngestUnit, NewEvent, UnitOutcome},
};

use super::requests::Pending;
use crate::IngestSettings;

/// Units for one transaction.
#[derive(Default)]
pub struct Group {
    pub members: Vec<Pending>,
    /// Units that share a claim with the member at that index.
    pub followers: Vec<(usize, Pending)>,
    /// Units that must not overtake one of the followers: they come after this group.
    pub held: Vec<Pending>,
}

/// Takes the next group off the front. At least one unit, however large it is.
pub fn next_group(pending: &mut VecDeque<Pending>, settings: &IngestSettings) -> Group {
    let mut group = Group::default();
    let (mut deliveries, mut bytes) = (0, 0);
    let mut claims: HashMap<u64, usize> = HashMap::new();
    // Requests of which an ordered unit may have to be tried again.
    let mut held: HashSet<usize> = HashSet::new();
    while let Some(next) = pending.pop_front() {
        if next.ticket.is_ordered && held.contains(&next.ticket.request) {
            group.held.push(next);
            continue;
        }
        let (more_deliveries, more_bytes) = (next.submission.deliveries(), next.submission.bytes());
        let full =
            deliveries + more_deliveries > settings.group_deliveries || bytes + more_bytes > settings.group_bytes;
        if full && !group.members.is_empty() {
            pending.push_front(next);
            break;
        }
        let mine = claims_of(&next.submission.unit);
        if let Some(leader) = mine.iter().find_map(|claim| claims.get(claim)) {
            if next.ticket.is_ordered {
                held.insert(next.ticket.request);
            }
            group.followers.push((*leader, next));
            continue;
        }
        claims.extend(mine.into_iter().map(|claim| (claim, group.members.len())));
        group.members.push(next);
        deliveries += more_deliveries;
        bytes += more_bytes;
    }
    group
}

/// A number for each claim of a unit. Different claims may have the same number; then one of them waits in vain.
fn claims_of(unit: &IngestUnit) -> Vec<u64> {
    let key = unit.claim.as_ref().map(|claim| {
        let mut hasher = DefaultHasher::new();
        (unit.tenant, "key", &claim.scope, &claim.key).hash(&mut hasher);
        hasher.finish()
    });
    let uids = unit.events.iter().filter(|event| event.uid.is_some()).map(|event| {
        let mut hasher = DefaultHasher::new();
        (unit.tenant, "uid", &event.event.source, &event.event.uid).hash(&mut hasher);
        hasher.finish()
    });
    key.into_iter().chain(uids).collect()
}

/// What follows for a unit from what came of one that shares a claim with it. None: nothing; it has to try itself.
pub fn settle(
    leader: &IngestUnit,
    outcome: &Result<UnitOutcome, StoreError>,
    follower: &IngestUnit,
) -> Option<Result<UnitOutcome, StoreError>> {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        // The store is away: that holds for both. Refused data says nothing about the other's.
        Err(StoreError::Data(_)) => return None,
        Err(error) => return Some(Err(error.clone())),
    };
    if leader.tenant != follower.tenant {
        return None;
    }
    match (&leader.claim, &follower.claim) {
        (Some(first), Some(second)) if (&first.scope, &first.key) == (&second.scope, &second.key) => {
            let same = first.body_hash == second.body_hash;
            let settled = match outcome {
                UnitOutcome::Committed(events) if same => UnitOutcome::Replayed((first.answer)(events)),
                UnitOutcome::Replayed(answer) if same => UnitOutcome::Replayed(answer.clone()),
                UnitOutcome::Mismatch if !same => return None,
                UnitOutcome::Rerouted => return None,
                _ => UnitOutcome::Mismatch,
            };
            Some(Ok(settled))
        }
        (_, None) => settle_uid(leader, outcome, follower.tenant, &follower.events),
        _ => None,
    }
}

/// For a unit of one event whose uid the leader has, too.
fn settle_uid(
    leader: &IngestUnit,
    outcome: &UnitOutcome,
    tenant: TenantId,
    events: &[NewEvent],
) -> Option<Result<UnitOutcome, StoreError>> {
    let (UnitOutcome::Committed(outcomes), [event]) = (outcome, events) else {
        return None;
    };
    let claim = event.uid.as_ref()?;
    let place = leader.events.iter().position(|first| {
        first.uid.is_some()
            && (first.event.tenant_id, &first.event.source, &first.event.uid)
                == (tenant, &event.event.source, &event.event.uid)
    })?;
    let first = &leader.events[place];
    let same = first.uid.as_ref().is_some_and(|uid| uid.content_hash == claim.content_hash);
    let settled = match outcomes.get(place)? {
        EventOutcome::Accepted if same => EventOutcome::Duplicate(first.answer.clone()),
        EventOutcome::Duplicate(answer) if same => EventOutcome::Duplicate(answer.clone()),
        EventOutcome::UidConflict if !same => return None,
        _ => EventOutcome::UidConflict,
    };
    Some(Ok(UnitOutcome::Committed(vec![settled])))
}
