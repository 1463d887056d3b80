//! Idempotency keys and event uids: one table, one rule. A row counts until it expires; after that it is as if it were
//! not there, whether or not retention has removed it.

use bytes::Bytes;
use rusqlite::params;
use signalpost_core::{TenantId, Timestamp};
use signalpost_store::{
    ingest::StoredAnswer,
    manage::{Begun, IdempotencyKey},
};

use crate::{
    columns::{key, time},
    failure::{Failure, Outcome},
    tx::Tx,
};

/// What a table row says.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) body_hash: [u8; 32],
    pub(crate) standing: Standing,
}

/// How far its request is.
#[derive(Debug, Clone)]
pub(crate) enum Standing {
    UnderWay { lease_until: Timestamp },
    Answered(StoredAnswer),
}

/// Where a key is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) tenant: TenantId,
    pub(crate) scope: &'a str,
    pub(crate) key: &'a str,
}

impl Tx<'_> {
    /// What is known of a key that has not expired.
    pub(crate) fn known(&self, place: Place<'_>) -> Outcome<Option<Known>> {
        let row = self.row(
            "SELECT body_hash, state, lease_until, status, answer FROM idempotency
             WHERE tenant_id = ?1 AND scope = ?2 AND key = ?3 AND expires_at > ?4",
            params![key(place.tenant), place.scope, place.key, self.now.as_micros()],
            |row| {
                let body_hash = row.get(0)?;
                let answered: bool = row.get(1)?;
                let standing = if answered {
                    let body = Bytes::from(row.get::<_, Vec<u8>>(4)?);
                    Standing::Answered(StoredAnswer { status: row.get(3)?, body })
                } else {
                    Standing::UnderWay { lease_until: time(row, 2)? }
                };
                Ok(Known { body_hash, standing })
            },
        )?;
        Ok(row)
    }

    /// Keeps an answer under a key, whatever was there.
    pub(crate) fn keep_answer(
        &self,
        place: Place<'_>,
        body_hash: &[u8; 32],
        ttl: std::time::Duration,
        status: u16,
        body: &[u8],
    ) -> Outcome<()> {
        self.execute(
            "INSERT OR REPLACE INTO idempotency (tenant_id, scope, key, body_hash, state, expires_at, status, answer)
             VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7)",
            params![key(place.tenant), place.scope, place.key, body_hash, (self.now + ttl).as_micros(), status, body],
        )?;
        Ok(())
    }

    /// Takes a key under a lease, or says what is known of it.
    pub(crate) fn begin(
        &self,
        tenant: TenantId,
        wanted: &IdempotencyKey,
        lease: std::time::Duration,
    ) -> Outcome<Begun> {
        let place = Place { tenant, scope: &wanted.scope, key: &wanted.key };
        if let Some(known) = self.known(place)? {
            if known.body_hash != wanted.body_hash {
                return Ok(Begun::Mismatch);
            }
            match known.standing {
                Standing::Answered(answer) => return Ok(Begun::Answered(answer)),
                Standing::UnderWay { lease_until } if lease_until > self.now => return Ok(Begun::InFlight),
                // Whoever had it is gone: take it over.
                Standing::UnderWay { .. } => {}
            }
        }
        self.execute(
            "INSERT OR REPLACE INTO idempotency (tenant_id, scope, key, body_hash, state, expires_at, lease_until)
             VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6)",
            params![
                key(tenant),
                wanted.scope,
                wanted.key,
                wanted.body_hash,
                (self.now + wanted.ttl.max(lease)).as_micros(),
                (self.now + lease).as_micros()
            ],
        )?;
        Ok(Begun::First)
    }

    /// Keeps the answer of a request that began, or forgets its key. An answer that is there stays: it was the first.
    pub(crate) fn finish(
        &self,
        tenant: TenantId,
        begun: &IdempotencyKey,
        answer: Option<&StoredAnswer>,
    ) -> Outcome<()> {
        let place = Place { tenant, scope: &begun.scope, key: &begun.key };
        match (self.known(place)?, answer) {
            (Some(Known { standing: Standing::Answered(_), .. }), _) => Ok(()),
            (Some(known), _) if known.body_hash != begun.body_hash => {
                Err(Failure::internal("an idempotency key was finished by another request than began it"))
            }
            (_, Some(answer)) => self.keep_answer(place, &begun.body_hash, begun.ttl, answer.status, &answer.body),
            (_, None) => {
                self.execute(
                    "DELETE FROM idempotency WHERE tenant_id = ?1 AND scope = ?2 AND key = ?3",
                    params![key(tenant), begun.scope, begun.key],
                )?;
                Ok(())
            }
        }
    }
}
