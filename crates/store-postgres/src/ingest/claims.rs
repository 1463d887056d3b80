//! Claims in the table `idempotency`: keys of requests and uids of events.
//!
//! An INSERT that meets an equal claim of a transaction still open waits for it; then it finds the claim, or takes its
//! place where the other was rolled back. All claims of a statement are sorted, so that two groups never wait for
//! each other.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use signalpost_core::{TenantId, id::Id};
use signalpost_store::ingest::StoredAnswer;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{error::Failure, queues::micros};

/// What is to be claimed.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) tenant: TenantId,
    pub(super) scope: String,
    pub(super) key: String,
    pub(super) hash: [u8; 32],
    pub(super) ttl: Duration,
    pub(super) answer: StoredAnswer,
}

impl Claim {
    fn name(&self) -> Name<'_> {
        (self.tenant.uuid(), &self.scope, &self.key)
    }
}

/// The primary key of a claim.
type Name<'c> = (Uuid, &'c str, &'c str);

/// What came of it.
#[derive(Debug, Clone)]
pub(super) enum Claimed {
    /// It is ours.
    Taken,
    /// It was somebody's before. `answer`: None while it is under way.
    Found { hash: [u8; 32], answer: Option<StoredAnswer> },
}

/// Claims them all, in order. Of equal claims in one call the first counts, and the others find it.
pub(super) async fn take(transaction: &mut PgConnection, claims: &[Claim]) -> Result<Vec<Claimed>, Failure> {
    if claims.is_empty() {
        return Ok(Vec::new());
    }
    let mut first = HashMap::<Name<'_>, usize>::new();
    for (place, claim) in claims.iter().enumerate() {
        first.entry(claim.name()).or_insert(place);
    }
    let mut sorted: Vec<(Name<'_>, usize)> = first.iter().map(|(name, place)| (*name, *place)).collect();
    sorted.sort_unstable();

    let mut claimed = vec![None; claims.len()];
    for place in insert(transaction, claims, &sorted).await? {
        claimed[place] = Some(Claimed::Taken);
    }
    let taken_before: Vec<(Name<'_>, usize)> =
        sorted.into_iter().filter(|(_, place)| claimed[*place].is_none()).collect();
    for (place, found) in find(transaction, &taken_before).await? {
        claimed[place] = Some(found);
    }
    claims
        .iter()
        .enumerate()
        .map(|(place, claim)| {
            let owner = first.get(&claim.name()).copied().unwrap_or(place);
            match &claimed[owner] {
                Some(Claimed::Taken) if owner != place => {
                    let owner = &claims[owner];
                    Ok(Claimed::Found { hash: owner.hash, answer: Some(owner.answer.clone()) })
                }
                Some(claimed) => Ok(claimed.clone()),
                None => Err(Failure::Inconsistent("a claim was neither taken nor found".to_owned())),
            }
        })
        .collect()
}

/// Gives the places of those that are ours: new, expired, or begun with the same body by somebody who did not come back in
/// time.
async fn insert(
    transaction: &mut PgConnection,
    claims: &[Claim],
    sorted: &[(Name<'_>, usize)],
) -> Result<Vec<usize>, Failure> {
    let of = |place: &usize| &claims[*place];
    let rows = sqlx::query(
        "INSERT INTO idempotency AS c (tenant_id, scope, key, body_hash, status, answer, state, expires_at)
         SELECT i.tenant_id, i.scope, i.key, i.body_hash, i.status, i.answer, 1,
                statement_timestamp() + i.ttl_us * interval '1 microsecond'
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::int[], $6::bytea[], $7::bigint[])
              AS i(tenant_id, scope, key, body_hash, status, answer, ttl_us)
         ON CONFLICT (tenant_id, scope, key) DO UPDATE SET
             body_hash = EXCLUDED.body_hash, status = EXCLUDED.status, answer = EXCLUDED.answer, state = 1,
             expires_at = EXCLUDED.expires_at, lease_until = NULL
         WHERE c.expires_at <= statement_timestamp()
            OR (c.state = 0 AND c.lease_until <= statement_timestamp() AND c.body_hash = EXCLUDED.body_hash)
         RETURNING tenant_id, scope, key",
    )
    .bind(sorted.iter().map(|(name, _)| name.0).collect::<Vec<_>>())
    .bind(sorted.iter().map(|(name, _)| name.1).collect::<Vec<_>>())
    .bind(sorted.iter().map(|(name, _)| name.2).collect::<Vec<_>>())
    .bind(sorted.iter().map(|(_, place)| of(place).hash.as_slice()).collect::<Vec<_>>())
    .bind(sorted.iter().map(|(_, place)| i32::from(of(place).answer.status)).collect::<Vec<_>>())
    .bind(sorted.iter().map(|(_, place)| of(place).answer.body.as_ref()).collect::<Vec<&[u8]>>())
    .bind(sorted.iter().map(|(_, place)| micros(of(place).ttl)).collect::<Vec<_>>())
    .fetch_all(transaction)
    .await?;
    let places: HashMap<Name<'_>, usize> = sorted.iter().copied().collect();
    rows.iter()
        .map(|row| {
            let name = (row.try_get("tenant_id")?, row.try_get("scope")?, row.try_get("key")?);
            places.get(&name).copied().ok_or_else(|| Failure::Inconsistent("a claim of somebody else".to_owned()))
        })
        .collect()
}

async fn find(transaction: &mut PgConnection, names: &[(Name<'_>, usize)]) -> Result<Vec<(usize, Claimed)>, Failure> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "SELECT i.place, c.body_hash, c.status, c.answer, c.state
         FROM unnest($1::uuid[], $2::text[], $3::text[]) WITH ORDINALITY AS i(tenant_id, scope, key, place)
         JOIN idempotency c ON c.tenant_id = i.tenant_id AND c.scope = i.scope AND c.key = i.key",
    )
    .bind(names.iter().map(|(name, _)| name.0).collect::<Vec<_>>())
    .bind(names.iter().map(|(name, _)| name.1).collect::<Vec<_>>())
    .bind(names.iter().map(|(name, _)| name.2).collect::<Vec<_>>())
    .fetch_all(transaction)
    .await?;
    rows.iter()
        .map(|row| {
            let ordinal: i64 = row.try_get("place")?;
            let place = usize::try_from(ordinal - 1).ok().and_then(|place| names.get(place));
            let (_, place) = place.ok_or_else(|| Failure::Inconsistent("a claim without a place".to_owned()))?;
            let answered = row.try_get::<i16, _>("state")? == 1;
            let answer = answered.then(|| answer(row)).transpose()?;
            Ok((*place, Claimed::Found { hash: hash(row)?, answer }))
        })
        .collect()
}

/// Replaces answers that were kept under the assumption that all events are accepted.
pub(super) async fn correct(
    transaction: &mut PgConnection,
    answers: &[(TenantId, &str, &str, StoredAnswer)],
) -> Result<(), Failure> {
    if answers.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE idempotency c SET status = i.status, answer = i.answer
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::bytea[]) AS i(tenant_id, scope, key, status, answer)
         WHERE c.tenant_id = i.tenant_id AND c.scope = i.scope AND c.key = i.key",
    )
    .bind(answers.iter().map(|(tenant, ..)| Id::uuid(*tenant)).collect::<Vec<_>>())
    .bind(answers.iter().map(|(_, scope, ..)| *scope).collect::<Vec<_>>())
    .bind(answers.iter().map(|(_, _, key, _)| *key).collect::<Vec<_>>())
    .bind(answers.iter().map(|(.., answer)| i32::from(answer.status)).collect::<Vec<_>>())
    .bind(answers.iter().map(|(.., answer)| answer.body.as_ref()).collect::<Vec<&[u8]>>())
    .execute(transaction)
    .await?;
    Ok(())
}

/// The answer of a row.
pub(crate) fn answer(row: &sqlx::postgres::PgRow) -> Result<StoredAnswer, Failure> {
    let status: i32 = row.try_get("status")?;
    Ok(StoredAnswer {
        status: u16::try_from(status).unwrap_or_default(),
        body: Bytes::from(row.try_get::<Vec<u8>, _>("answer")?),
    })
}

/// The hash of a row.
pub(crate) fn hash(row: &sqlx::postgres::PgRow) -> Result<[u8; 32], Failure> {
    let bytes: &[u8] = row.try_get("body_hash")?;
    bytes.try_into().map_err(|_| Failure::Inconsistent("a hash that is not 32 bytes long".to_owned()))
}
