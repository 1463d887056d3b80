//! Deliveries and dead letters: retried, cancelled, sent again, discarded by a person.

use signalpost_core::{
    DeadReason, DeliveryId, DeliveryState, DestinationId, Entropy, EventId, Guarantee, LaneId, TenantId, WaitReason,
};
use signalpost_store::{
    HANDOVER_LEASE,
    manage::{Cancelled, Retried},
};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{
    due,
    error::Failure,
    lanes::{self, Lanes},
    queues::{QueueChanges, micros},
    rows::{self, count, destination_columns, guarantee, id, named, optional_id, optional_lane},
    waiting::{self, Newborn},
};

/// A delivery, locked.
struct Locked {
    id: DeliveryId,
    tenant_id: TenantId,
    destination_id: DestinationId,
    event_id: EventId,
    event_type: String,
    state: DeliveryState,
    attempts: u32,
    replayed_by: Option<DeliveryId>,
    guarantee: Guarantee,
    lane: Option<LaneId>,
    place: Option<i64>,
}

impl Locked {
    /// A new delivery of the same event to the same destination.
    fn again(self, entropy: &dyn Entropy) -> Newborn {
        let newborn = Newborn::new(self.tenant_id, self.destination_id, self.event_id, self.event_type, entropy);
        let replay_of = Some((self.id, self.place));
        Newborn { replay_of, guarantee: self.guarantee, lane: self.lane, is_born_now: true, ..newborn }
    }
}

async fn lock(
    transaction: &mut PgConnection,
    tenant: TenantId,
    delivery: DeliveryId,
) -> Result<Option<Locked>, Failure> {
    let row = sqlx::query(
        "SELECT id, tenant_id, destination_id, event_id, event_type, state, attempts, replayed_by, guarantee, lane, lane_seq
         FROM deliveries
         WHERE id = $1 AND tenant_id = $2 FOR UPDATE",
    )
    .bind(delivery.uuid())
    .bind(tenant.uuid())
    .fetch_optional(transaction)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Locked {
        id: id(&row, "id")?,
        tenant_id: id(&row, "tenant_id")?,
        destination_id: id(&row, "destination_id")?,
        event_id: id(&row, "event_id")?,
        event_type: row.try_get("event_type")?,
        state: named(&row, "state", DeliveryState::from_number)?,
        attempts: count(&row, "attempts")?,
        replayed_by: optional_id(&row, "replayed_by")?,
        guarantee: guarantee(&row, "guarantee")?,
        lane: optional_lane(&row, "lane")?,
        place: row.try_get("lane_seq")?,
    }))
}

/// The last of the line of replays that begins with that delivery, locked. Replays form a chain.
async fn newest(transaction: &mut PgConnection, tenant: TenantId, found: Locked) -> Result<Locked, Failure> {
    let mut newest = found;
    while let Some(next) = newest.replayed_by {
        let Some(next) = lock(transaction, tenant, next).await? else { break };
        newest = next;
    }
    Ok(newest)
}

/// Whether the destination is there and not deleted, and the event stored.
async fn can_be_sent(
    transaction: &mut PgConnection,
    tenant: TenantId,
    destination: DestinationId,
    event: EventId,
) -> Result<bool, Failure> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM destinations WHERE id = $1 AND tenant_id = $2 AND state <> 'deleted')
            AND EXISTS (SELECT FROM events WHERE id = $3)",
    )
    .bind(destination.uuid())
    .bind(tenant.uuid())
    .bind(event.uuid())
    .fetch_one(transaction)
    .await?)
}

pub(super) async fn retry(
    transaction: &mut PgConnection,
    tenant: TenantId,
    delivery: DeliveryId,
    entropy: &dyn Entropy,
) -> Result<Retried, Failure> {
    let Some(found) = lock(transaction, tenant, delivery).await? else { return Ok(Retried::NotFound) };
    if !can_be_sent(transaction, tenant, found.destination_id, found.event_id).await? {
        return Ok(Retried::Gone);
    }
    // An ended delivery that was sent again already: it is that one's turn.
    let newest = newest(transaction, tenant, found).await?;
    let on_its_way = if newest.id == delivery { Retried::DueNow } else { Retried::Again(newest.id) };
    match newest.state {
        // By the bus.
        DeliveryState::Queued => Ok(on_its_way),
        DeliveryState::Waiting => {
            let is_out = !make_due(transaction, &newest).await?;
            Ok(if is_out { Retried::InFlight } else { on_its_way })
        }
        _ if newest.guarantee == Guarantee::AtMostOnce => Ok(Retried::AtMostOnce),
        DeliveryState::Delivered | DeliveryState::Dead | DeliveryState::Cancelled => {
            let newborn = newest.again(entropy);
            let new = newborn.id;
            waiting::replay(transaction, vec![newborn]).await?;
            Ok(Retried::Again(new))
        }
    }
}

/// Makes a waiting delivery due now. One that was fed keeps its lease: it is on its way; one that follows others in its lane is
/// due when they have ended. False: a request of it is out.
async fn make_due(transaction: &mut PgConnection, found: &Locked) -> Result<bool, Failure> {
    let Some(row) = waiting_row(transaction, found.id).await? else { return Ok(true) };
    if row.is_out() {
        return Ok(false);
    }
    if row.is_due || row.leased || row.follows {
        return Ok(true);
    }
    sqlx::query("UPDATE waiting SET due_at = statement_timestamp() WHERE delivery_id = $1")
        .bind(found.id.uuid())
        .execute(&mut *transaction)
        .await?;
    let mut changes = QueueChanges::default();
    changes.due(found.tenant_id, found.destination_id, 0);
    changes.apply(transaction).await?;
    Ok(true)
}

/// How a delivery waits.
struct WaitingRow {
    reason: WaitReason,
    leased: bool,
    /// Its lease is so short that it may be a dispatcher's, and not only the bus's.
    is_taken: bool,
    is_due: bool,
    /// Others of its lane are before it.
    follows: bool,
}

impl WaitingRow {
    /// A detached request of it may still be out.
    fn is_out(&self) -> bool {
        self.reason == WaitReason::InFlight && !self.is_due
    }
}

async fn waiting_row(transaction: &mut PgConnection, id: DeliveryId) -> Result<Option<WaitingRow>, Failure> {
    let row = sqlx::query(
        "SELECT reason, leased, due_at <= statement_timestamp() AS is_due, due_at = 'infinity' AS follows,
                leased AND due_at > statement_timestamp()
                    AND due_at <= statement_timestamp() + $2 * interval '1 microsecond' AS is_taken
         FROM waiting WHERE delivery_id = $1 FOR UPDATE",
    )
    .bind(id.uuid())
    .bind(micros(HANDOVER_LEASE))
    .fetch_optional(transaction)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(WaitingRow {
        reason: named(&row, "reason", WaitReason::from_number)?,
        leased: row.try_get("leased")?,
        is_taken: row.try_get("is_taken")?,
        is_due: row.try_get("is_due")?,
        follows: row.try_get("follows")?,
    }))
}

pub(super) async fn cancel(
    transaction: &mut PgConnection,
    tenant: TenantId,
    delivery: DeliveryId,
) -> Result<Cancelled, Failure> {
    let Some(found) = lock(transaction, tenant, delivery).await? else { return Ok(Cancelled::NotFound) };
    let mut lanes = Lanes::default();
    match found.state {
        DeliveryState::Cancelled => return Ok(Cancelled::Yes),
        DeliveryState::Delivered | DeliveryState::Dead => {
            return Ok(Cancelled::Ended(found.state.status(found.attempts)));
        }
        DeliveryState::Queued => {}
        DeliveryState::Waiting => {
            if let Some(lane) = found.lane {
                lanes.lock(transaction, [(found.destination_id, lane)].into()).await?;
            }
            // The end of one of a lane lets the next one go, so nobody may be about to send it.
            let is_in_hand = |row: WaitingRow| row.is_out() || (found.lane.is_some() && row.is_taken);
            if waiting_row(transaction, found.id).await?.is_some_and(is_in_hand) {
                return Ok(Cancelled::InFlight);
            }
        }
    }
    sqlx::query(
        "WITH gone AS (DELETE FROM waiting WHERE delivery_id = $1)
         UPDATE deliveries SET state = $2, ended_at = statement_timestamp() WHERE id = $1",
    )
    .bind(found.id.uuid())
    .bind(DeliveryState::Cancelled as i16)
    .execute(&mut *transaction)
    .await?;
    if found.state == DeliveryState::Waiting {
        let mut changes = QueueChanges::default();
        changes.removed(found.tenant_id, found.destination_id);
        if let Some(lane) = found.lane {
            lanes.ended((found.destination_id, lane));
        }
        lanes.settle(transaction, false, &mut changes).await?;
        changes.apply(transaction).await?;
    }
    Ok(Cancelled::Yes)
}

pub(super) async fn replay_event(
    transaction: &mut PgConnection,
    tenant: TenantId,
    event: EventId,
    destination: Option<DestinationId>,
    entropy: &dyn Entropy,
) -> Result<Option<Vec<DeliveryId>>, Failure> {
    let event_type: Option<String> = sqlx::query_scalar("SELECT type FROM events WHERE id = $1 AND tenant_id = $2")
        .bind(event.uuid())
        .bind(tenant.uuid())
        .fetch_optional(&mut *transaction)
        .await?;
    let Some(event_type) = event_type else { return Ok(None) };
    // Of each destination the newest one: that which was not sent again.
    let rows = sqlx::query(
        "SELECT d.id, d.destination_id, d.guarantee, d.lane, d.lane_seq FROM deliveries d
         JOIN destinations t ON t.id = d.destination_id AND t.state <> 'deleted'
         WHERE d.event_id = $1 AND d.tenant_id = $2 AND d.id BETWEEN $3 AND $4 AND d.replayed_by IS NULL
           AND ($5::uuid IS NULL OR d.destination_id = $5)
         ORDER BY d.id FOR UPDATE OF d",
    )
    .bind(event.uuid())
    .bind(tenant.uuid())
    .bind(EventId::floor(event.created_at()).uuid())
    .bind(last_of_millisecond(event))
    .bind(destination.map(DestinationId::uuid))
    .fetch_all(&mut *transaction)
    .await?;
    let mut newborn: Vec<Newborn> = Vec::new();
    for row in &rows {
        let destination_id: DestinationId = id(row, "destination_id")?;
        // Several may be the end of a line where one was sent again twice.
        if newborn.iter().any(|delivery| delivery.destination_id == destination_id) {
            continue;
        }
        let mut new = Newborn::new(tenant, destination_id, event, event_type.clone(), entropy);
        new.replay_of = Some((id(row, "id")?, row.try_get("lane_seq")?));
        new.guarantee = guarantee(row, "guarantee")?;
        new.lane = optional_lane(row, "lane")?;
        new.is_born_now = true;
        newborn.push(new);
    }
    if let Some(destination) = destination
        && newborn.is_empty()
    {
        newborn.extend(first_time(transaction, tenant, destination, event, entropy).await?);
    }
    let ids = newborn.iter().map(|delivery| delivery.id).collect();
    waiting::replay(transaction, newborn).await?;
    Ok(Some(ids))
}

/// The first delivery of an event to a destination, as that is now; None where one of them is gone.
async fn first_time(
    transaction: &mut PgConnection,
    tenant: TenantId,
    destination: DestinationId,
    event: EventId,
    entropy: &dyn Entropy,
) -> Result<Option<Newborn>, Failure> {
    let row = sqlx::query(concat!(
        "SELECT ",
        destination_columns!(),
        " FROM destinations WHERE id = $1 AND tenant_id = $2 AND state <> 'deleted'"
    ))
    .bind(destination.uuid())
    .bind(tenant.uuid())
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let destination = rows::destination(&row)?;
    let events = due::whole_events(transaction, &[event]).await?;
    Ok(events.first().map(|event| Newborn::late(&destination, event, entropy)))
}

fn last_of_millisecond(event: EventId) -> Uuid {
    Uuid::from_u128(event.uuid().as_u128() | (u128::MAX >> 48))
}

pub(super) async fn replay_dead_letter(
    transaction: &mut PgConnection,
    tenant: TenantId,
    letter: DeliveryId,
    entropy: &dyn Entropy,
) -> Result<Retried, Failure> {
    // The delivery first, as everybody locks; it may be gone with its partition.
    lock(transaction, tenant, letter).await?;
    let row = sqlx::query(
        "SELECT destination_id, event_id, event_type, guarantee, lane, lane_seq,
                EXISTS (SELECT FROM destinations t WHERE t.id = destination_id AND t.state <> 'deleted') AS can_be_sent
         FROM dead_letters WHERE delivery_id = $1 AND tenant_id = $2 FOR UPDATE",
    )
    .bind(letter.uuid())
    .bind(tenant.uuid())
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(row) = row else { return Ok(Retried::NotFound) };
    if !row.try_get::<bool, _>("can_be_sent")? {
        return Ok(Retried::Gone);
    }
    waiting::restore_events(transaction, &[letter]).await?;
    let (destination_id, event_id) = (id(&row, "destination_id")?, id(&row, "event_id")?);
    let newborn = Newborn::new(tenant, destination_id, event_id, row.try_get("event_type")?, entropy);
    let newborn = Newborn {
        replay_of: Some((letter, row.try_get("lane_seq")?)),
        guarantee: guarantee(&row, "guarantee")?,
        lane: optional_lane(&row, "lane")?,
        is_born_now: true,
        ..newborn
    };
    let new = newborn.id;
    waiting::replay(transaction, vec![newborn]).await?;
    Ok(Retried::Again(new))
}

pub(super) async fn discard(
    transaction: &mut PgConnection,
    tenant: TenantId,
    letter: DeliveryId,
) -> Result<bool, Failure> {
    lock(transaction, tenant, letter).await?;
    let gone = sqlx::query(
        "DELETE FROM dead_letters WHERE delivery_id = $1 AND tenant_id = $2 RETURNING destination_id, lane",
    )
    .bind(letter.uuid())
    .bind(tenant.uuid())
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some(row) = &gone {
        sqlx::query("UPDATE deliveries SET reason = $2 WHERE id = $1")
            .bind(letter.uuid())
            .bind(DeadReason::Discarded as i16)
            .execute(&mut *transaction)
            .await?;
        if optional_lane(row, "lane")?.is_some() {
            lanes::release(transaction, &[(id(row, "destination_id")?, letter)]).await?;
        }
    }
    Ok(gone.is_some())
}
