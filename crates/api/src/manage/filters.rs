//! The filters of lists, read from the query. `crate::openapi::params` describes them.

use std::time::Duration;

use signalpost_core::{
    AttemptOutcome, Clock, DeadReason, DeliveryId, DeliveryStatus, Destination, DestinationId, DestinationState,
    EventId, TenantId, Timestamp,
};

use super::named::Named as _;
use crate::{page::ListQuery, problem::Problem, state::AppState};

/// What a list covers that is asked for neither by destination nor by event nor by time.
const DEFAULT_RANGE: Duration = Duration::from_secs(24 * 60 * 60);

/// A range of time: `since` inclusive, `until` exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// From.
    pub since: Option<Timestamp>,
    /// Until.
    pub until: Option<Timestamp>,
}

impl Range {
    /// As it was given.
    ///
    /// # Errors
    /// 400.
    pub fn read(query: &ListQuery) -> Result<Self, Problem> {
        Ok(Self { since: query.time("since")?, until: query.time("until")? })
    }

    /// With a beginning: the one that was given, or a day before its end, which is now unless it was given.
    pub fn bounded(self, clock: &dyn Clock) -> Self {
        let since = self.since.unwrap_or_else(|| self.until.unwrap_or_else(|| clock.now()) - DEFAULT_RANGE);
        Self { since: Some(since), ..self }
    }
}

/// `destination_id`: an id, of a destination that may have gone since, or the `uid` of one that is there.
///
/// # Errors
/// 400; the store is away.
pub async fn destination_id(
    state: &AppState,
    tenant: TenantId,
    query: &ListQuery,
) -> Result<Option<DestinationId>, Problem> {
    let Some(text) = query.filter("destination_id") else { return Ok(None) };
    if let Ok(id) = text.parse() {
        return Ok(Some(id));
    }
    let found = Destination::look(state, tenant, text).await?;
    let found = found.ok_or_else(|| Problem::query("`destination_id` is neither the id nor the uid of a destination."));
    found.map(|destination| Some(destination.id))
}

/// `event_id`.
pub fn event_id(query: &ListQuery) -> Result<Option<EventId>, Problem> {
    query.parsed("event_id", "the id of an event", |text| text.parse().ok())
}

/// `delivery_id`.
pub fn delivery_id(query: &ListQuery) -> Result<Option<DeliveryId>, Problem> {
    query.parsed("delivery_id", "the id of a delivery", |text| text.parse().ok())
}

/// A filter that is the name of one of these.
fn one_of<T: Copy>(
    query: &ListQuery,
    filter: &str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<Option<T>, Problem> {
    let names: Vec<String> = all.iter().map(|one| format!("`{}`", name(*one))).collect();
    let expected = format!("one of {}", names.join(", "));
    query.parsed(filter, &expected, |text| all.iter().copied().find(|one| name(*one) == text))
}

/// `state`. Those that are being deleted are not shown.
pub fn state(query: &ListQuery) -> Result<Option<DestinationState>, Problem> {
    const SHOWN: [DestinationState; 3] =
        [DestinationState::Active, DestinationState::Paused, DestinationState::Disabled];
    one_of(query, "state", &SHOWN, DestinationState::as_str)
}

/// `status`.
pub fn status(query: &ListQuery) -> Result<Option<DeliveryStatus>, Problem> {
    one_of(query, "status", DeliveryStatus::ALL, DeliveryStatus::as_str)
}

/// `outcome`.
pub fn outcome(query: &ListQuery) -> Result<Option<AttemptOutcome>, Problem> {
    one_of(query, "outcome", AttemptOutcome::ALL, AttemptOutcome::as_str)
}

/// `reason`.
pub fn reason(query: &ListQuery) -> Result<Option<DeadReason>, Problem> {
    one_of(query, "reason", DeadReason::ALL, DeadReason::as_str)
}
