//! Writes what was decided: one statement for deliveries, attempts, dead letters and waiting rows.

use signalpost_core::{DeliveryId, DeliveryState, WaitReason};
use signalpost_store::dispatch::Attempt;
use sqlx::PgConnection;
use uuid::Uuid;

use super::decide::{Change, Found, To};
use crate::{
    error::Failure,
    queues::QueueChanges,
    rows::{guarantee_number, lane_uuid},
    time::Time,
};

/// Requests, as columns.
#[derive(Default)]
pub(super) struct AttemptColumns<'w> {
    pub(super) ids: Vec<Uuid>,
    pub(super) numbers: Vec<i32>,
    pub(super) started_at: Vec<Time>,
    pub(super) durations_us: Vec<i64>,
    pub(super) outcomes: Vec<i16>,
    pub(super) status_codes: Vec<Option<i32>>,
    pub(super) excerpts: Vec<&'w [u8]>,
    pub(super) errors: Vec<Option<String>>,
}

impl<'w> AttemptColumns<'w> {
    pub(super) fn push(&mut self, id: DeliveryId, attempt: &'w Attempt) {
        self.ids.push(id.uuid());
        self.numbers.push(number(attempt.number));
        self.started_at.push(Time(attempt.started_at));
        self.durations_us.push(crate::queues::micros(attempt.duration));
        self.outcomes.push(attempt.outcome as i16);
        self.status_codes.push(attempt.status_code.map(i32::from));
        self.excerpts.push(&attempt.response_excerpt);
        // Text of a stranger's making: what PostgreSQL cannot keep must not cost the outcome.
        self.errors.push(attempt.error.as_ref().map(|error| error.replace('\0', "\u{fffd}")));
    }
}

/// Everything that a round changes, as columns.
#[derive(Default)]
pub(super) struct Plan<'w> {
    changed: Changed,
    attempts: AttemptColumns<'w>,
    attempt_owners: Owners,
    dead: Dead,
    waiting: Waiting,
    /// No longer in `waiting`.
    ended: Vec<Uuid>,
}

#[derive(Default)]
struct Changed {
    ids: Vec<Uuid>,
    states: Vec<i16>,
    attempts: Vec<i32>,
    reasons: Vec<Option<i16>>,
}

#[derive(Default)]
struct Owners {
    tenants: Vec<Uuid>,
    destinations: Vec<Uuid>,
    events: Vec<Uuid>,
}

#[derive(Default)]
struct Dead {
    ids: Vec<Uuid>,
    owners: Owners,
    types: Vec<String>,
    reasons: Vec<i16>,
    attempts: Vec<i32>,
    lanes: Vec<Option<Uuid>>,
    places: Vec<Option<i64>>,
    guarantees: Vec<Option<i16>>,
}

#[derive(Default)]
struct Waiting {
    ids: Vec<Uuid>,
    owners: Owners,
    due_us: Vec<i64>,
    reasons: Vec<i16>,
    claims: Vec<Option<i64>>,
}

impl Owners {
    fn push(&mut self, found: &Found) {
        self.tenants.push(found.tenant_id.uuid());
        self.destinations.push(found.destination_id.uuid());
        self.events.push(found.event_id.uuid());
    }
}

impl<'w> Plan<'w> {
    /// Deliveries come in the order of their ids.
    pub(super) fn add(&mut self, found: &Found, change: &Change<'w>, queues: &mut QueueChanges) {
        let attempts = change.attempt.map_or(found.attempts, |attempt| attempt.number);
        let id = found.delivery_id.uuid();
        if let Some(attempt) = change.attempt {
            self.attempts.push(found.delivery_id, attempt);
            self.attempt_owners.push(found);
        }
        let (state, reason) = match change.to {
            To::Delivered => (DeliveryState::Delivered, None),
            To::Cancelled => (DeliveryState::Cancelled, None),
            To::Dead(reason) => (DeliveryState::Dead, Some(reason as i16)),
            To::Waiting { .. } | To::Following => (DeliveryState::Waiting, None),
        };
        if let (To::Dead(_), Some(reason), false) = (change.to, reason, found.is_replayed) {
            self.dead.ids.push(id);
            self.dead.owners.push(found);
            self.dead.types.push(found.event_type.clone());
            self.dead.reasons.push(reason);
            self.dead.attempts.push(number(attempts));
            self.dead.lanes.push(found.lane.map(lane_uuid));
            self.dead.places.push(found.place);
            self.dead.guarantees.push(guarantee_number(found.guarantee));
        }
        if (state, attempts) != (found.state, found.attempts) {
            self.changed.ids.push(id);
            self.changed.states.push(state as i16);
            self.changed.attempts.push(number(attempts));
            self.changed.reasons.push(reason);
        }
        self.move_in_queue(found, change.to, queues);
    }

    fn move_in_queue(&mut self, found: &Found, to: To, queues: &mut QueueChanges) {
        let (tenant, destination) = (found.tenant_id, found.destination_id);
        let waited = found.state == DeliveryState::Waiting;
        if let To::Waiting { due_us, reason, hold, claim } = to {
            self.waiting.ids.push(found.delivery_id.uuid());
            self.waiting.owners.push(found);
            self.waiting.due_us.push(due_us);
            self.waiting.reasons.push(reason as i16);
            self.waiting.claims.push(claim);
            if waited {
                queues.due(tenant, destination, due_us);
            } else {
                queues.added(tenant, destination, due_us);
            }
            if hold {
                queues.hold(tenant, destination, due_us);
            }
        } else if to.is_end() && waited {
            self.ended.push(found.delivery_id.uuid());
            queues.removed(tenant, destination);
        }
    }

    pub(super) async fn apply(self, transaction: &mut PgConnection) -> Result<(), Failure> {
        if self.changed.ids.is_empty() && self.waiting.ids.is_empty() && self.attempts.ids.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "WITH changed AS (
                 UPDATE deliveries d SET state = i.state, attempts = i.attempts, reason = i.reason,
                        ended_at = CASE WHEN i.state >= $27 THEN statement_timestamp() END
                 FROM unnest($1::uuid[], $2::smallint[], $3::int[], $4::smallint[]) AS i(id, state, attempts, reason)
                 WHERE d.id = i.id AND d.id = ANY($1)
             ), attempted AS (
                 INSERT INTO attempts (delivery_id, number, tenant_id, destination_id, event_id, started_at,
                                       duration_us, outcome, status_code, response_excerpt, error)
                 SELECT * FROM unnest($5::uuid[], $6::int[], $7::uuid[], $8::uuid[], $9::uuid[], $10::timestamptz[],
                                      $11::bigint[], $12::smallint[], $13::int[], $14::bytea[], $15::text[])
                 ON CONFLICT (delivery_id, number) DO UPDATE SET
                     started_at = EXCLUDED.started_at, duration_us = EXCLUDED.duration_us, outcome = EXCLUDED.outcome,
                     status_code = EXCLUDED.status_code, response_excerpt = EXCLUDED.response_excerpt,
                     error = EXCLUDED.error
             ), buried AS (
                 INSERT INTO dead_letters (delivery_id, tenant_id, destination_id, event_id, event_type, reason, dead_at,
                                           attempts, lane, lane_seq, guarantee, uid, source, meta, data)
                 SELECT i.id, i.tenant_id, i.destination_id, i.event_id, i.event_type, i.reason, statement_timestamp(),
                        i.attempts, i.lane, i.lane_seq, i.guarantee, e.uid, e.source, e.meta, e.data
                 FROM unnest($16::uuid[], $17::uuid[], $18::uuid[], $19::uuid[], $20::text[], $21::smallint[], $22::int[],
                             $31::uuid[], $32::bigint[], $33::smallint[])
                      AS i(id, tenant_id, destination_id, event_id, event_type, reason, attempts, lane, lane_seq, guarantee)
                 JOIN events e ON e.id = i.event_id AND e.id = ANY($19)
                 ON CONFLICT (delivery_id) DO NOTHING
             ), gone AS (
                 DELETE FROM waiting WHERE delivery_id = ANY($23)
             )
             INSERT INTO waiting AS w (delivery_id, tenant_id, destination_id, event_id, due_at, reason, claim)
             SELECT i.id, i.tenant_id, i.destination_id, i.event_id,
                    statement_timestamp() + i.due_us * interval '1 microsecond', i.reason, i.claim
             FROM unnest($24::uuid[], $25::uuid[], $26::uuid[], $28::uuid[], $29::bigint[], $30::smallint[], $34::bigint[])
                  AS i(id, tenant_id, destination_id, event_id, due_us, reason, claim)
             ON CONFLICT (delivery_id) DO UPDATE SET due_at = EXCLUDED.due_at, reason = EXCLUDED.reason, leased = false,
                 claim = CASE WHEN EXCLUDED.reason = $35 THEN COALESCE(EXCLUDED.claim, w.claim) END",
        )
        .bind(self.changed.ids)
        .bind(self.changed.states)
        .bind(self.changed.attempts)
        .bind(self.changed.reasons)
        .bind(self.attempts.ids)
        .bind(self.attempts.numbers)
        .bind(self.attempt_owners.tenants)
        .bind(self.attempt_owners.destinations)
        .bind(self.attempt_owners.events)
        .bind(self.attempts.started_at)
        .bind(self.attempts.durations_us)
        .bind(self.attempts.outcomes)
        .bind(self.attempts.status_codes)
        .bind(self.attempts.excerpts)
        .bind(self.attempts.errors)
        .bind(self.dead.ids)
        .bind(self.dead.owners.tenants)
        .bind(self.dead.owners.destinations)
        .bind(self.dead.owners.events)
        .bind(self.dead.types)
        .bind(self.dead.reasons)
        .bind(self.dead.attempts)
        .bind(self.ended)
        .bind(self.waiting.ids)
        .bind(self.waiting.owners.tenants)
        .bind(self.waiting.owners.destinations)
        .bind(DeliveryState::Delivered as i16)
        .bind(self.waiting.owners.events)
        .bind(self.waiting.due_us)
        .bind(self.waiting.reasons)
        .bind(self.dead.lanes)
        .bind(self.dead.places)
        .bind(self.dead.guarantees)
        .bind(self.waiting.claims)
        // Of a request that may be out. What waits for anything else has none.
        .bind(WaitReason::InFlight as i16)
        .execute(transaction)
        .await?;
        Ok(())
    }
}

fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
