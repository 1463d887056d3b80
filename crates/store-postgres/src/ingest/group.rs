//! What becomes of each unit of a group: decided step by step within its transaction.
//!
//! 1. A unit of a tenant that is not there, or is being deleted, fails the group. Units whose tenant's routing moved drop out.
//! 2. Idempotency keys are claimed, with the answer that the unit gets if all its events are accepted. Units whose key is
//!    taken drop out.
//! 3. Uids of the events of the remaining units are claimed; events whose uid is taken drop out. Where that changes a
//!    unit's answer, the answer kept with its key is corrected.
//! 4. The rest is inserted.

use std::collections::{BTreeSet, HashMap, HashSet};

use signalpost_core::{EventId, TenantId};
use signalpost_store::ingest::{EventOutcome, IngestGroup, IngestUnit, NewEvent, StoredAnswer, UnitOutcome};
use sqlx::{PgConnection, Row};

use super::{
    claims::{self, Claim, Claimed},
    commit,
};
use crate::{error::Failure, ids::uuids, rows::id};

/// `committed`: events of this very group that an earlier try has stored.
pub(super) async fn commit(
    transaction: &mut PgConnection,
    group: &IngestGroup,
    committed: &HashSet<EventId>,
) -> Result<Vec<UnitOutcome>, Failure> {
    let versions = versions(transaction, group).await?;
    let gone = |unit: &&IngestUnit| !versions.contains_key(&unit.tenant) && !is_committed(unit, committed);
    if let Some(unit) = group.units.iter().find(gone) {
        return Err(Failure::Refused(format!("there is no tenant {}", unit.tenant)));
    }
    let mut outcomes: Vec<Option<UnitOutcome>> = group
        .units
        .iter()
        .map(|unit| {
            let moved = versions.get(&unit.tenant) != Some(&unit.routing_version);
            // What is stored already was routed well.
            (moved && !is_committed(unit, committed)).then_some(UnitOutcome::Rerouted)
        })
        .collect();

    claim_keys(transaction, group, committed, &mut outcomes).await?;
    let accepted = claim_uids(transaction, group, committed, &mut outcomes).await?;
    let new: Vec<&NewEvent> = accepted.into_iter().filter(|event| !committed.contains(&event.event.id)).collect();
    commit::insert(transaction, group.outbox_id, &new).await?;
    outcomes
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| Failure::Inconsistent("a unit of the group was left without an outcome".to_owned()))
}

fn is_committed(unit: &IngestUnit, committed: &HashSet<EventId>) -> bool {
    unit.events.iter().any(|event| committed.contains(&event.event.id))
}

/// The routing versions of the group's tenants. Deletes the outbox records that the bus acknowledged on the way.
async fn versions(transaction: &mut PgConnection, group: &IngestGroup) -> Result<HashMap<TenantId, i64>, Failure> {
    let tenants: BTreeSet<TenantId> = group.units.iter().map(|unit| unit.tenant).collect();
    let mut published = uuids(group.published.iter().copied());
    published.sort_unstable();
    let rows = sqlx::query(
        "WITH gone AS (DELETE FROM outbox WHERE id = ANY($2))
         SELECT id, routing_version FROM tenants WHERE id = ANY($1) AND deleting_at IS NULL",
    )
    .bind(uuids(tenants))
    .bind(published)
    .fetch_all(transaction)
    .await?;
    rows.iter().map(|row| Ok((id(row, "id")?, row.try_get("routing_version")?))).collect()
}

async fn claim_keys(
    transaction: &mut PgConnection,
    group: &IngestGroup,
    committed: &HashSet<EventId>,
    outcomes: &mut [Option<UnitOutcome>],
) -> Result<(), Failure> {
    let mut places = Vec::new();
    let mut wanted = Vec::new();
    for (place, unit) in group.units.iter().enumerate() {
        let Some(claim) = &unit.claim else { continue };
        if outcomes[place].is_some() || is_committed(unit, committed) {
            continue;
        }
        places.push(place);
        wanted.push(Claim {
            tenant: unit.tenant,
            scope: claim.scope.clone(),
            key: claim.key.clone(),
            hash: claim.body_hash,
            ttl: claim.ttl,
            answer: (claim.answer)(&vec![EventOutcome::Accepted; unit.events.len()]),
        });
    }
    let claimed = claims::take(transaction, &wanted).await?;
    for ((place, claim), claimed) in places.into_iter().zip(&wanted).zip(claimed) {
        outcomes[place] = match claimed {
            Claimed::Taken => None,
            Claimed::Found { hash, .. } if hash != claim.hash => Some(UnitOutcome::Mismatch),
            // Under way elsewhere under a lease, which requests for events do not take: come again.
            Claimed::Found { answer: None, .. } => Some(UnitOutcome::Rerouted),
            Claimed::Found { answer: Some(answer), .. } => Some(UnitOutcome::Replayed(answer)),
        };
    }
    Ok(())
}

/// Gives the events that are to be inserted; sets the outcomes of all units that have none yet.
async fn claim_uids<'g>(
    transaction: &mut PgConnection,
    group: &'g IngestGroup,
    committed: &HashSet<EventId>,
    outcomes: &mut [Option<UnitOutcome>],
) -> Result<Vec<&'g NewEvent>, Failure> {
    let open: Vec<usize> = (0..group.units.len()).filter(|place| outcomes[*place].is_none()).collect();
    let wanted: Vec<Claim> = open
        .iter()
        .flat_map(|place| group.units[*place].events.iter().map(|event| (group.units[*place].tenant, event)))
        .filter(|(_, event)| !committed.contains(&event.event.id))
        .filter_map(|(tenant, event)| uid_claim(tenant, event))
        .collect();
    let mut claimed = claims::take(transaction, &wanted).await?.into_iter();
    let mut accepted = Vec::new();
    let mut corrected = Vec::new();
    for place in open {
        let unit = &group.units[place];
        let mut of_events = Vec::with_capacity(unit.events.len());
        for event in &unit.events {
            let claim =
                event.uid.as_ref().filter(|_| event.event.uid.is_some() && !committed.contains(&event.event.id));
            let outcome = match claim {
                None => EventOutcome::Accepted,
                Some(claim) => match claimed.next() {
                    Some(Claimed::Found { hash, .. }) if hash != claim.content_hash => EventOutcome::UidConflict,
                    Some(Claimed::Found { answer, .. }) => {
                        EventOutcome::Duplicate(answer.map(|answer| answer.body).unwrap_or_default())
                    }
                    Some(Claimed::Taken) => EventOutcome::Accepted,
                    None => return Err(Failure::Inconsistent("a uid was left unclaimed".to_owned())),
                },
            };
            if outcome == EventOutcome::Accepted {
                accepted.push(event);
            }
            of_events.push(outcome);
        }
        if let Some(claim) = &unit.claim
            && !is_committed(unit, committed)
            && of_events.iter().any(|outcome| *outcome != EventOutcome::Accepted)
        {
            let answer = (claim.answer)(&of_events);
            corrected.push((unit.tenant, claim.scope.as_str(), claim.key.as_str(), answer));
        }
        outcomes[place] = Some(UnitOutcome::Committed(of_events));
    }
    claims::correct(transaction, &corrected).await?;
    Ok(accepted)
}

fn uid_claim(tenant: TenantId, event: &NewEvent) -> Option<Claim> {
    let claim = event.uid.as_ref()?;
    Some(Claim {
        tenant,
        scope: format!("uid:{}", event.event.source.as_deref().unwrap_or_default()),
        key: event.event.uid.clone()?,
        hash: claim.content_hash,
        ttl: claim.ttl,
        answer: StoredAnswer { status: 0, body: event.answer.clone() },
    })
}
