//! Claims: hashes of "owner until" by delivery and attempt. A call is for many claims of one hash, as a key for each, with a lease of
//! its own, costs Redis several times as much.
//!
//! The deliveries of an hour share a hash, which expires when none of its claims was made or renewed for the time of a lease: that forgets
//! what a dead owner left and nobody claimed since.

use std::collections::BTreeMap;

use redis::{Cmd, Pipeline, Script};
use signalpost_limits::{CLAIM_LEASE, Claim, Claimed, LimitsUnavailable, Owner};

use crate::{
    link::Link,
    scripts::{ENTRIES_PER_CALL, Scripts},
};

/// Of deliveries, by when they were created; in seconds.
const SHARED_BY: i64 = 3600;

pub(crate) async fn claim(link: &Link, owner: Owner, claims: &[Claim]) -> Result<Vec<Claimed>, LimitsUnavailable> {
    let calls = calls(claims);
    let mut answers = vec![Claimed::Ours; claims.len()];
    let others = call(link, |scripts| &scripts.claim, owner, &calls, claims).await?;
    if others.len() != calls.len() {
        return Err(LimitsUnavailable(format!("{} answers", others.len())));
    }
    for ((_, places), others) in calls.iter().zip(others) {
        for number in others {
            // Counted from one.
            let place = usize::try_from(number).ok().and_then(|number| places.get(number.checked_sub(1)?));
            match place.and_then(|place| answers.get_mut(*place)) {
                Some(answer) => *answer = Claimed::Others,
                None => return Err(LimitsUnavailable(format!("an answer for claim {number}"))),
            }
        }
    }
    Ok(answers)
}

pub(crate) async fn renew(link: &Link, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable> {
    call(link, |scripts| &scripts.renew, owner, &calls(claims), claims).await.map(drop)
}

pub(crate) async fn release(link: &Link, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable> {
    call(link, |scripts| &scripts.release, owner, &calls(claims), claims).await.map(drop)
}

/// A call: its hash, and the places of its claims in the batch.
type Call = (String, Vec<usize>);

fn calls(claims: &[Claim]) -> Vec<Call> {
    let mut by_hash: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (place, claim) in claims.iter().enumerate() {
        by_hash.entry(claim.delivery_id.created_at().as_secs() / SHARED_BY).or_default().push(place);
    }
    let calls = by_hash.iter().flat_map(|(hour, places)| {
        places.chunks(ENTRIES_PER_CALL).map(move |places| (format!("signalpost:claims:{hour}"), places.to_vec()))
    });
    calls.collect()
}

async fn call(
    link: &Link,
    which: fn(&Scripts) -> &Script,
    owner: Owner,
    calls: &[Call],
    claims: &[Claim],
) -> Result<Vec<Vec<i64>>, LimitsUnavailable> {
    if calls.is_empty() {
        return Ok(Vec::new());
    }
    let lease = CLAIM_LEASE.as_millis().to_string();
    link.call(async |scripts, session| {
        let mut pipeline = Pipeline::with_capacity(calls.len());
        for (hash, places) in calls {
            let mut call = Cmd::new();
            call.arg("EVALSHA").arg(which(scripts).get_hash()).arg(1).arg(hash).arg(owner).arg(&lease);
            for claim in places.iter().filter_map(|place| claims.get(*place)) {
                call.arg(&field(claim));
            }
            pipeline.add_command(call);
        }
        scripts.run(&mut session.connection, &pipeline).await
    })
    .await
}

/// The delivery, and which attempt.
fn field(claim: &Claim) -> [u8; 20] {
    let mut field = [0; 20];
    let (delivery, attempt) = field.split_at_mut(16);
    delivery.copy_from_slice(claim.delivery_id.uuid().as_bytes());
    attempt.copy_from_slice(&claim.attempt.to_be_bytes());
    field
}
