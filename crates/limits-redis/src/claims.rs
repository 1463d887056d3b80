//! Claims, which are economy: whoever cannot have one goes on without.
//!
//! They are entries of hashes, "owner until" by delivery and attempt. A call is for many claims of one hash: as keys with leases of their own
//! they cost Redis twice as much. The deliveries of five minutes share a hash, so that those of a batch, which are mostly of one age, are in
//! one or two.
//!
//! A claim ends with its lease. Its entry is taken by who claims it next, or goes with its hash, after none of that was claimed or renewed for
//! the time of a lease. So what a dispatcher held when it died lies in Redis for as long as others work on deliveries of those minutes:
//! some 100 bytes for each.

use std::{collections::BTreeMap, time::Duration};

use redis::{Cmd, Pipeline, Script};
use signalpost_limits::{CLAIM_LEASE, Claim, Claimed, LimitsUnavailable, Owner};

use crate::{
    link::Link,
    scripts::{ENTRIES_PER_CALL, Scripts},
};

/// Deliveries that were created within the same one of these share a hash.
const SPAN: Duration = Duration::from_secs(300);

pub(crate) async fn claim(link: &Link, owner: Owner, claims: &[Claim]) -> Result<Vec<Claimed>, LimitsUnavailable> {
    let parts = parts(claims);
    let others = ask(link, |scripts| &scripts.claim, &[owner.to_string(), lease()], &parts).await?;
    if others.len() != parts.len() {
        return Err(LimitsUnavailable(format!("{} answers", others.len())));
    }
    let mut answers = vec![Claimed::Ours; claims.len()];
    for (part, others) in parts.iter().zip(others) {
        for number in others {
            // Counted from one.
            let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
            let place = index.and_then(|index| part.places.get(index));
            match place.and_then(|place| answers.get_mut(*place)) {
                Some(answer) => *answer = Claimed::Others,
                None => return Err(LimitsUnavailable(format!("an answer for claim {number}"))),
            }
        }
    }
    Ok(answers)
}

pub(crate) async fn renew(link: &Link, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable> {
    ask(link, |scripts| &scripts.renew, &[owner.to_string(), lease()], &parts(claims)).await.map(drop)
}

pub(crate) async fn release(link: &Link, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable> {
    ask(link, |scripts| &scripts.release, &[owner.to_string()], &parts(claims)).await.map(drop)
}

fn lease() -> String {
    CLAIM_LEASE.as_millis().to_string()
}

/// What one call is for.
struct Part {
    hash: String,
    entries: Vec<[u8; 20]>,
    /// Where these stand in the batch.
    places: Vec<usize>,
}

fn parts(claims: &[Claim]) -> Vec<Part> {
    let mut by_hash: BTreeMap<u128, Vec<usize>> = BTreeMap::new();
    for (place, claim) in claims.iter().enumerate() {
        let created = u128::try_from(claim.delivery_id.created_at().as_millis()).unwrap_or(0);
        by_hash.entry(created / SPAN.as_millis()).or_default().push(place);
    }
    let parts = by_hash.iter().flat_map(|(span, places)| {
        places.chunks(ENTRIES_PER_CALL).map(move |places| Part {
            hash: format!("signalpost:claims:{span}"),
            entries: places.iter().map(|place| entry(&claims[*place])).collect(),
            places: places.to_vec(),
        })
    });
    parts.collect()
}

/// The delivery, and which attempt.
fn entry(claim: &Claim) -> [u8; 20] {
    let mut entry = [0; 20];
    let (delivery, attempt) = entry.split_at_mut(16);
    delivery.copy_from_slice(claim.delivery_id.uuid().as_bytes());
    attempt.copy_from_slice(&claim.attempt.to_be_bytes());
    entry
}

/// The answers for each part, of a script that begins with these arguments.
async fn ask(
    link: &Link,
    which: fn(&Scripts) -> &Script,
    arguments: &[String],
    parts: &[Part],
) -> Result<Vec<Vec<i64>>, LimitsUnavailable> {
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    link.call(async |scripts, session| {
        let mut pipeline = Pipeline::with_capacity(parts.len());
        for part in parts {
            let mut call = Cmd::new();
            call.arg("EVALSHA").arg(which(scripts).get_hash()).arg(1).arg(&part.hash).arg(arguments);
            for entry in &part.entries {
                call.arg(entry);
            }
            pipeline.add_command(call);
        }
        scripts.run(&mut session.connection, &pipeline).await
    })
    .await
}
