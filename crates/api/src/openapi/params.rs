//! The query parameters of lists, as the document has them. They only describe: `crate::page` and `manage::filters` read the
//! query, and a test holds each list to what it is described with.

#![allow(dead_code, reason = "descriptions are never made")]

use utoipa::IntoParams;

use super::types::{
    AttemptOutcomeText, DeadReasonText, DeliveryIdText, DeliveryStatusText, DestinationNameText, DestinationStateText,
    EventIdText, TimeText,
};

/// What every list takes.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(missing_docs)]
pub struct PageParams {
    /// Items of a page: 1 to 250, default 50; with `include=data` 1 to 20, default 20.
    #[param(minimum = 1, maximum = 250)]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before, with the same filters and order.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$")]
    pub cursor: Option<String>,
    /// `desc` (default): newest first; or `asc`.
    #[param(inline)]
    pub order: Option<Order>,
}

/// The order of a list.
#[derive(Debug, utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Order {
    Desc,
    Asc,
}

/// What lists with `data` take.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct IncludeParams {
    /// `data`: with the data of events.
    #[param(inline)]
    pub include: Option<Include>,
}

/// What a list can include.
#[derive(Debug, utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Include {
    Data,
}

/// The filters of the audit log.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditParams {
    /// Of this actor: the id of a key, `operator:` and eight hex digits, or `registration`.
    pub actor: Option<String>,
    /// Of this action: `destination.update`.
    pub action: Option<String>,
}

/// Of lists that go by the time of acceptance, of the attempt, or of death.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RangeParams {
    /// At or after this time.
    #[param(value_type = Option<TimeText>)]
    pub since: Option<String>,
    /// Before this time.
    #[param(value_type = Option<TimeText>)]
    pub until: Option<String>,
}

/// Of events.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventParams {
    /// The type, exactly.
    #[param(rename = "type")]
    pub event_type: Option<String>,
    /// The producer's own id.
    pub uid: Option<String>,
    /// Where it came from, as the producer says.
    pub source: Option<String>,
    /// `label.<name>`: the value of a label. As often as there are labels.
    #[param(rename = "label.<name>")]
    pub label: Option<String>,
}

/// Of destinations.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DestinationParams {
    /// Only those in this state.
    #[param(value_type = Option<DestinationStateText>)]
    pub state: Option<String>,
}

/// Of deliveries.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeliveryParams {
    /// Only to this destination.
    #[param(value_type = Option<DestinationNameText>)]
    pub destination_id: Option<String>,
    /// Only those that stand so.
    #[param(value_type = Option<DeliveryStatusText>)]
    pub status: Option<String>,
    /// Only of this type, exactly.
    pub event_type: Option<String>,
}

/// Of attempts.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AttemptParams {
    /// Only to this destination.
    #[param(value_type = Option<DestinationNameText>)]
    pub destination_id: Option<String>,
    /// Only those of which this came.
    #[param(value_type = Option<AttemptOutcomeText>)]
    pub outcome: Option<String>,
}

/// Of lists over all events.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OfEventParams {
    /// Only of this event.
    #[param(value_type = Option<EventIdText>)]
    pub event_id: Option<String>,
}

/// Of lists over all deliveries.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OfDeliveryParams {
    /// Only of this delivery.
    #[param(value_type = Option<DeliveryIdText>)]
    pub delivery_id: Option<String>,
}

/// Of dead letters.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeadLetterParams {
    /// Only to this destination.
    #[param(value_type = Option<DestinationNameText>)]
    pub destination_id: Option<String>,
    /// Only of this type, exactly.
    pub event_type: Option<String>,
    /// Only those that failed so.
    #[param(value_type = Option<DeadReasonText>)]
    pub reason: Option<String>,
}
