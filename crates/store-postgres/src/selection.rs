//! What a replay job matches: deliveries that ended so, and with `missing` events that were never sent to its destination.
//!
//! Event types are matched here and not in SQL, so that they mean exactly what they mean when routing.

use std::collections::HashSet;

use signalpost_core::{
    DeadReason, DeliveryId, DeliveryState, DeliveryStatus, Destination, DestinationId, EventId, Guarantee, LaneId,
    TenantId, Timestamp, id::DeliveryKind,
};
use signalpost_store::manage::ReplaySelection;
use sqlx::{PgConnection, Postgres, QueryBuilder, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    error::Failure,
    ids::push_accepted,
    rows::{self, big_count, destination_columns, guarantee, id, optional_lane},
    time::Time,
};

/// The lowest id of the millisecond of the event `e`; all its deliveries lie between this and [`event_ceiling`].
macro_rules! event_floor {
    () => {
        "(substr(e.id::text, 1, 13) || '-0000-0000-000000000000')::uuid"
    };
}

/// The highest id of the millisecond of the event `e`.
macro_rules! event_ceiling {
    () => {
        "(substr(e.id::text, 1, 13) || '-ffff-ffff-ffffffffffff')::uuid"
    };
}

pub(crate) use event_ceiling;
pub(crate) use event_floor;

/// A selection of a tenant, as it was at a moment.
pub(crate) struct Matching<'s> {
    pub(crate) tenant: TenantId,
    pub(crate) selection: &'s ReplaySelection,
    /// By the store's clock. What ended, or was accepted, later is not part of it; so a job never finds its own.
    pub(crate) asked_at: Timestamp,
}

/// A delivery that is to be sent again.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) id: DeliveryId,
    pub(crate) destination_id: DestinationId,
    pub(crate) event_id: EventId,
    pub(crate) event_type: String,
    pub(crate) guarantee: Guarantee,
    pub(crate) lane: Option<LaneId>,
    /// In its lane.
    pub(crate) place: Option<i64>,
}

impl Matching<'_> {
    /// How many there are, up to `most`.
    pub(crate) async fn count(&self, connection: &mut PgConnection, most: u64) -> Result<u64, Failure> {
        let mut query = QueryBuilder::new("SELECT d.event_type AS type, count(*) AS count");
        self.push_deliveries(&mut query, None);
        query.push(" GROUP BY d.event_type");
        let mut count = self.add_up(connection, query, |_| true).await?;
        if count < most
            && let Some(destination) = self.missing_for(&mut *connection).await?
        {
            let mut query = QueryBuilder::new("SELECT e.type AS type, count(*) AS count");
            self.push_events(&mut query, destination.id, None);
            query.push(" GROUP BY e.type");
            count += self.add_up(connection, query, |event_type| destination.spec.wants(event_type)).await?;
        }
        Ok(count.min(most))
    }

    async fn add_up(
        &self,
        connection: &mut PgConnection,
        mut query: QueryBuilder<Postgres>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<u64, Failure> {
        let mut sum = 0;
        for row in query.build().fetch_all(connection).await? {
            let event_type: &str = row.try_get("type")?;
            if self.takes(event_type) && wanted(event_type) {
                sum += big_count(&row, "count")?;
            }
        }
        Ok(sum)
    }

    /// How many there are among the next `room` deliveries after one, and the last of those; the highest id of all when there are
    /// no more.
    pub(crate) async fn count_deliveries(
        &self,
        connection: &mut PgConnection,
        after: Uuid,
        room: usize,
    ) -> Result<(usize, Uuid), Failure> {
        let mut query = QueryBuilder::new("SELECT d.id, d.event_type");
        self.push_deliveries(&mut query, Some(after));
        query.push(" ORDER BY d.id LIMIT ").push_bind(i64::try_from(room).unwrap_or(i64::MAX));
        let rows = query.build().fetch_all(connection).await?;
        let mut count = 0;
        for row in &rows {
            count += usize::from(self.takes(row.try_get("event_type")?));
        }
        match rows.last() {
            Some(last) if rows.len() >= room => Ok((count, last.try_get("id")?)),
            _ => Ok((count, Uuid::max())),
        }
    }

    /// The next deliveries after one and not after the last, up to `room` before types are looked at. Locked, in the order of
    /// their ids, and with the last one looked at; None: there are no more.
    pub(crate) async fn next_deliveries(
        &self,
        transaction: &mut PgConnection,
        after: Uuid,
        last: Uuid,
        room: usize,
    ) -> Result<Option<(Vec<Ended>, Uuid)>, Failure> {
        let mut query = QueryBuilder::new(
            "SELECT d.id, d.destination_id, d.event_id, d.event_type, d.guarantee, d.lane, d.lane_seq",
        );
        self.push_deliveries(&mut query, Some(after));
        query.push(" AND d.id <= ").push_bind(last);
        query.push(" ORDER BY d.id LIMIT ").push_bind(i64::try_from(room).unwrap_or(i64::MAX));
        if !self.is_of_dead_letters() {
            query.push(" FOR UPDATE OF d");
        }
        let rows = query.build().fetch_all(&mut *transaction).await?;
        let Some(last) = rows.last() else { return Ok(None) };
        let last = last.try_get("id")?;
        let gone = self.lock_letters(transaction, &rows).await?;
        let mut ended = Vec::with_capacity(rows.len());
        for row in &rows {
            if gone.contains(&row.try_get("id")?) {
                continue;
            }
            let event_type: String = row.try_get("event_type")?;
            if self.takes(&event_type) {
                ended.push(Ended {
                    id: id(row, "id")?,
                    destination_id: id(row, "destination_id")?,
                    event_id: id(row, "event_id")?,
                    event_type,
                    guarantee: guarantee(row, "guarantee")?,
                    lane: optional_lane(row, "lane")?,
                    place: row.try_get("lane_seq")?,
                });
            }
        }
        Ok(Some((ended, last)))
    }

    /// Locks dead letters that were found, after their deliveries, as everybody does. Gives those that are gone meanwhile.
    async fn lock_letters(&self, transaction: &mut PgConnection, found: &[PgRow]) -> Result<HashSet<Uuid>, Failure> {
        if !self.is_of_dead_letters() {
            return Ok(HashSet::new());
        }
        let mut ids = found.iter().map(|row| row.try_get("id")).collect::<Result<HashSet<Uuid>, _>>()?;
        let wanted: Vec<Uuid> = ids.iter().copied().collect();
        sqlx::query("SELECT FROM deliveries WHERE id = ANY($1) ORDER BY id FOR UPDATE")
            .bind(&wanted)
            .execute(&mut *transaction)
            .await?;
        let there: Vec<Uuid> = sqlx::query_scalar(
            "SELECT delivery_id FROM dead_letters WHERE delivery_id = ANY($1) ORDER BY delivery_id FOR UPDATE",
        )
        .bind(wanted)
        .fetch_all(transaction)
        .await?;
        for id in there {
            ids.remove(&id);
        }
        Ok(ids)
    }

    /// As [`Self::next_deliveries`], for events that the destination wants and that were never sent to it.
    pub(crate) async fn next_events(
        &self,
        transaction: &mut PgConnection,
        destination: &Destination,
        after: Uuid,
        room: usize,
    ) -> Result<Option<(Vec<(EventId, String)>, Uuid)>, Failure> {
        let mut query = QueryBuilder::new("SELECT e.id, e.type");
        self.push_events(&mut query, destination.id, Some(after));
        query.push(" ORDER BY e.id LIMIT ").push_bind(i64::try_from(room).unwrap_or(i64::MAX));
        let rows = query.build().fetch_all(transaction).await?;
        let Some(last) = rows.last() else { return Ok(None) };
        let last = last.try_get("id")?;
        let mut missing = Vec::with_capacity(rows.len());
        for row in &rows {
            let event_type: String = row.try_get("type")?;
            if self.takes(&event_type) && destination.spec.wants(&event_type) {
                missing.push((id(row, "id")?, event_type));
            }
        }
        Ok(Some((missing, last)))
    }

    /// The destination for which events are looked for that it never got.
    pub(crate) async fn missing_for(&self, connection: &mut PgConnection) -> Result<Option<Destination>, Failure> {
        let Some(destination) = self.selection.destination_id.filter(|_| self.selection.missing) else {
            return Ok(None);
        };
        let row = sqlx::query(concat!(
            "SELECT ",
            destination_columns!(),
            " FROM destinations WHERE id = $1 AND tenant_id = $2 AND state <> 'deleted'"
        ))
        .bind(destination.uuid())
        .bind(self.tenant.uuid())
        .fetch_optional(connection)
        .await?;
        row.as_ref().map(rows::destination).transpose()
    }

    fn takes(&self, event_type: &str) -> bool {
        let patterns = &self.selection.event_types;
        patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(event_type))
    }

    /// The states that were asked for. What has not ended is never sent again.
    fn states(&self) -> Vec<i16> {
        let asked = match self.selection.statuses.as_slice() {
            [] => &[DeliveryStatus::Dead],
            asked => asked,
        };
        let state = |status: &DeliveryStatus| match status {
            DeliveryStatus::Pending | DeliveryStatus::Retrying => None,
            DeliveryStatus::Delivered => Some(DeliveryState::Delivered as i16),
            DeliveryStatus::Dead => Some(DeliveryState::Dead as i16),
            DeliveryStatus::Cancelled => Some(DeliveryState::Cancelled as i16),
        };
        asked.iter().filter_map(state).collect()
    }

    /// Whether only dead ones are asked for. They are found where they lie, with their event or without.
    pub(crate) fn is_of_dead_letters(&self) -> bool {
        self.states() == [DeliveryState::Dead as i16]
    }

    /// From the table `d`: the dead letters, or else the deliveries.
    fn push_deliveries(&self, query: &mut QueryBuilder<Postgres>, after: Option<Uuid>) {
        let dead_letters = self.is_of_dead_letters();
        query.push(if dead_letters {
            " FROM (SELECT *, delivery_id AS id FROM dead_letters) d"
        } else {
            " FROM deliveries d"
        });
        query.push(" JOIN destinations t ON t.id = d.destination_id AND t.state <> 'deleted' WHERE d.tenant_id = ");
        query.push_bind(self.tenant.uuid());
        if let Some(destination) = self.selection.destination_id {
            query.push(" AND d.destination_id = ").push_bind(destination.uuid());
        }
        self.within(query, "d.id", after);
        if dead_letters {
            query.push(" AND d.dead_at <= ").push_bind(Time(self.asked_at));
            return;
        }
        query.push(" AND d.state = ANY(").push_bind(self.states()).push(") AND d.replayed_by IS NULL");
        query.push(" AND d.ended_at <= ").push_bind(Time(self.asked_at));
        query.push(" AND d.reason IS DISTINCT FROM ").push_bind(DeadReason::Discarded as i16);
    }

    fn push_events(&self, query: &mut QueryBuilder<Postgres>, destination: DestinationId, after: Option<Uuid>) {
        query.push(" FROM events e WHERE e.tenant_id = ").push_bind(self.tenant.uuid());
        self.within(query, "e.id", after);
        query.push(" AND e.id < ").push_bind(EventId::floor(self.asked_at).uuid());
        // What was addressed to one destination is not for others.
        let name = destination.to_string();
        query.push(" AND COALESCE(e.meta ->> 'destination_id', ").push_bind(name.clone()).push(") = ").push_bind(name);
        query.push(" AND NOT EXISTS (SELECT FROM fan_outs f WHERE f.event_id = e.id)");
        query.push(" AND NOT EXISTS (SELECT FROM deliveries d WHERE d.destination_id = ").push_bind(destination.uuid());
        query.push(concat!(" AND d.event_id = e.id AND d.id BETWEEN ", event_floor!(), " AND ", event_ceiling!(), ")"));
    }

    /// Accepted between `since` and `until`, and after the last one looked at.
    fn within(&self, query: &mut QueryBuilder<Postgres>, key: &'static str, after: Option<Uuid>) {
        push_accepted::<DeliveryKind>(query, key, self.selection.since, self.selection.until);
        if let Some(after) = after {
            query.push(" AND ").push(key).push(" > ").push_bind(after);
        }
    }
}
