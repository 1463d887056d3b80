//! Replays, as the API shows them and as they are asked for.

use serde::Serialize;
use signalpost_core::{DeliveryId, DeliveryStatus, DestinationId, EventId, ReplayId, Timestamp, pattern::EventPattern};
use signalpost_store::manage::{ReplayJob, ReplayState};
use utoipa::ToSchema;

use crate::openapi::types::{
    DeliveryIdText, DeliveryStatusText, DestinationIdText, DestinationNameText, EndedStatusText, EventIdText,
    EventPatternText, ReplayIdText, ReplayStateText, TimeText,
};

/// A job that sends past deliveries again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Replay)]
pub struct ReplayBody {
    #[allow(missing_docs)]
    #[schema(value_type = ReplayIdText)]
    pub id: ReplayId,
    /// How far it is.
    #[schema(value_type = ReplayStateText)]
    pub state: ReplayState,
    /// How many deliveries it will create; null until they are counted.
    pub matched: Option<u64>,
    /// How many it has created.
    pub replayed: u64,
    /// Only to this destination.
    #[schema(value_type = Option<DestinationIdText>)]
    pub destination_id: Option<DestinationId>,
    /// Only deliveries that ended so.
    #[schema(value_type = Vec<DeliveryStatusText>)]
    pub statuses: Vec<DeliveryStatus>,
    /// Only of these types (patterns); empty: all.
    #[schema(value_type = Vec<EventPatternText>)]
    pub event_types: Vec<EventPattern>,
    /// Accepted at or after.
    #[schema(value_type = Option<TimeText>)]
    pub since: Option<Timestamp>,
    /// Accepted before.
    #[schema(value_type = Option<TimeText>)]
    pub until: Option<Timestamp>,
    /// Also events that the destination wants now and that have no delivery to it.
    pub missing: bool,
    /// At most so many per second; null: no limit.
    pub rate_per_second: Option<f64>,
    #[allow(missing_docs)]
    #[schema(value_type = TimeText)]
    pub created_at: Timestamp,
    /// When it was completed or cancelled.
    #[schema(value_type = Option<TimeText>)]
    pub finished_at: Option<Timestamp>,
}

impl From<&ReplayJob> for ReplayBody {
    fn from(job: &ReplayJob) -> Self {
        let selection = &job.selection;
        Self {
            id: job.id,
            state: job.state,
            matched: job.matched,
            replayed: job.replayed,
            destination_id: selection.destination_id,
            statuses: selection.statuses.clone(),
            event_types: selection.event_types.clone(),
            since: selection.since,
            until: selection.until,
            missing: selection.missing,
            rate_per_second: job.rate_per_second,
            created_at: job.created_at,
            finished_at: job.finished_at,
        }
    }
}

/// What a job would match (`dry_run`). No job is created, so there is no `id`.
#[derive(Debug, Serialize, ToSchema)]
pub struct DryRun {
    /// Always true.
    pub dry_run: bool,
    /// Always `completed`.
    #[schema(value_type = ReplayStateText)]
    pub state: ReplayState,
    /// How many deliveries a job would create now; counted up to a bound that the operator sets.
    pub matched: u64,
    /// Always 0.
    pub replayed: u64,
}

/// What asking for a replay answers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ReplayAnswer {
    /// The job.
    Job(ReplayBody),
    /// With `dry_run`.
    DryRun(DryRun),
}

/// Which past deliveries to send again. Needs `destination_id` or `since`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayInput {
    /// Only to this destination, by its id or its `uid`.
    #[schema(value_type = Option<DestinationNameText>)]
    pub destination_id: Option<String>,
    /// Only deliveries that ended so: `dead` (the default), `delivered`, `cancelled`.
    #[schema(max_items = 5, value_type = Option<Vec<EndedStatusText>>)]
    pub statuses: Option<Vec<DeliveryStatus>>,
    /// Only of these types (patterns).
    #[schema(max_items = 1000, value_type = Option<Vec<EventPatternText>>)]
    pub event_types: Option<Vec<String>>,
    /// Accepted at or after.
    #[schema(value_type = Option<TimeText>)]
    pub since: Option<Timestamp>,
    /// Accepted before.
    #[schema(value_type = Option<TimeText>)]
    pub until: Option<Timestamp>,
    /// With `destination_id`: also send stored events that it wants now and that have no delivery to it.
    pub missing: Option<bool>,
    /// At most so many deliveries per second.
    #[schema(minimum = 0.001, maximum = 100_000.0)]
    pub rate_per_second: Option<f64>,
    /// Only count what would match: no job is created.
    pub dry_run: Option<bool>,
}

/// Where to send an event again.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EventReplayInput {
    /// Only there, by its id or its `uid`; else to each destination that it went to.
    #[schema(value_type = Option<DestinationNameText>)]
    pub destination_id: Option<String>,
}

/// What sends an event again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventReplay)]
pub struct EventReplayBody {
    #[allow(missing_docs)]
    #[schema(value_type = EventIdText)]
    pub event_id: EventId,
    /// How many deliveries were created.
    pub deliveries: usize,
    /// Which.
    #[schema(value_type = Vec<DeliveryIdText>)]
    pub delivery_ids: Vec<DeliveryId>,
}
