//! Destinations, as the API shows them, and the shape of what their owner sends. The latter is never deserialised:
//! [`crate::manage::destination::read`] reads it; a test holds both to the same fields.

use std::collections::BTreeMap;

use serde::Serialize;
use signalpost_core::{
    Destination, DestinationId, DestinationState, Timestamp,
    destination::{BodyFormat, Method, RateLimit},
    pattern::EventPattern,
    retry_policy::RetryPolicy,
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};

use crate::openapi::types::{DestinationIdText, DestinationStateText, EventPatternText, SecretText, TimeText};

/// A URL that wants events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Destination)]
pub struct DestinationBody {
    #[allow(missing_docs)]
    #[schema(value_type = DestinationIdText)]
    pub id: DestinationId,
    /// The caller's own id.
    pub uid: Option<String>,
    /// For people.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Where to, in its normal form.
    pub url: String,
    /// Which types it wants: exact, `*` for one segment, `**` for any number, a lone `*` for everything.
    #[schema(value_type = Vec<EventPatternText>)]
    pub event_types: Vec<EventPattern>,
    /// Of its requests.
    #[schema(value_type = MethodName)]
    pub method: Method,
    /// Further headers of its requests.
    pub headers: BTreeMap<String, String>,
    /// The shape of its bodies.
    #[schema(value_type = BodyFormatName)]
    pub body_format: BodyFormat,
    /// Bounds a whole exchange, body included.
    pub timeout_ms: u32,
    /// Null: no limit.
    #[schema(value_type = Option<RateLimitSchema>)]
    pub rate_limit: Option<RateLimit>,
    /// How many of its requests may be out at once, per dispatcher.
    pub max_in_flight: u32,
    /// When and how often a failed delivery is tried again.
    #[schema(value_type = RetrySchema)]
    pub retry: RetryPolicy,
    /// The owner's own notes.
    pub metadata: BTreeMap<String, String>,
    /// Whether it is sent to.
    #[schema(value_type = DestinationStateText)]
    pub state: DestinationState,
    /// Why it is disabled; null where it is not.
    pub disabled_reason: Option<String>,
    /// The signing secret: in the answer to the request that created it, and at `GET …/secret`; nowhere else.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SecretText>)]
    pub secret: Option<String>,
    #[allow(missing_docs)]
    #[schema(value_type = TimeText)]
    pub created_at: Timestamp,
    #[allow(missing_docs)]
    #[schema(value_type = TimeText)]
    pub updated_at: Timestamp,
}

impl DestinationBody {
    /// As everybody may see it.
    pub fn new(destination: &Destination) -> Self {
        let spec = &destination.spec;
        Self {
            id: destination.id,
            uid: destination.uid.clone(),
            name: spec.name.clone(),
            description: spec.description.clone(),
            url: spec.url.clone(),
            event_types: spec.event_types.clone(),
            method: spec.method,
            headers: spec.headers.clone(),
            body_format: spec.body_format,
            timeout_ms: spec.timeout_ms,
            rate_limit: spec.rate_limit,
            max_in_flight: spec.max_in_flight.get(),
            retry: spec.retry.clone(),
            metadata: spec.metadata.clone(),
            state: destination.state,
            disabled_reason: destination.disabled_reason.clone(),
            secret: None,
            created_at: destination.created_at,
            updated_at: destination.updated_at,
        }
    }

    /// As the one sees it who creates it.
    pub fn with_secret(destination: &Destination) -> Self {
        Self { secret: Some(destination.secret.reveal().to_owned()), ..Self::new(destination) }
    }
}

/// The signing secret of a destination.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Secret)]
pub struct SecretBody {
    /// What signs its requests.
    #[schema(value_type = SecretText)]
    pub secret: String,
    /// Earlier secrets that still sign, too.
    pub previous: Vec<PreviousSecret>,
}

/// An earlier secret that still signs, too.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreviousSecret {
    /// Until when.
    #[schema(value_type = TimeText)]
    pub expires_at: Timestamp,
}

/// What the owner of a destination sets. What is absent or null takes its default: the operator's, where the settings of this
/// Signalpost have one, else the one told here.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DestinationInput {
    /// The caller's own id, unique among its destinations; cannot be changed.
    #[schema(min_length = 1, max_length = 256, pattern = r"^\S+$")]
    pub uid: Option<String>,
    /// For people.
    #[schema(max_length = 256)]
    pub name: Option<String>,
    /// For people.
    #[schema(max_length = 4096)]
    pub description: Option<String>,
    /// Absolute, `http` or `https`, without userinfo. An address that is not allowed, in any spelling, is refused.
    #[schema(max_length = 4096, format = "uri", example = "https://example.com/webhooks")]
    pub url: String,
    /// Which types it wants. Default: `["*"]`.
    #[schema(max_items = 1000, value_type = Option<Vec<EventPatternText>>)]
    pub event_types: Option<Vec<String>>,
    /// Default: `POST`.
    pub method: Option<MethodName>,
    /// Further headers of its requests. Values may hold `{event.id}`, `{event.uid}`, `{event.type}`, `{delivery.id}`,
    /// `{attempt}` and `{timestamp}`.
    pub headers: Option<BTreeMap<String, String>>,
    /// Default: `standard`.
    pub body_format: Option<BodyFormatName>,
    /// Made where it is absent.
    #[schema(value_type = Option<SecretText>)]
    pub secret: Option<String>,
    /// Bounds a whole exchange, body included. Default: 15000.
    #[schema(minimum = 1000, maximum = 60000)]
    pub timeout_ms: Option<u32>,
    /// Null: no limit. Default: none.
    pub rate_limit: Option<RateLimitSchema>,
    /// How many of its requests may be out at once, per dispatcher. Default: 100.
    #[schema(minimum = 1, maximum = 10000)]
    pub max_in_flight: Option<u32>,
    /// When and how often a failed delivery is tried again. Default: the schedule of Standard Webhooks.
    pub retry: Option<RetrySchema>,
    /// The owner's own notes.
    pub metadata: Option<BTreeMap<String, String>>,
}

/// A change of a destination (RFC 7396): the same fields as at creation, none required.
#[derive(Debug)]
pub enum DestinationPatch {}

impl PartialSchema for DestinationPatch {
    fn schema() -> RefOr<Schema> {
        let mut schema = DestinationInput::schema();
        if let RefOr::T(Schema::Object(object)) = &mut schema {
            object.required.clear();
            object.description = Some(
                "RFC 7396: absent is unchanged, null is the default. `headers` and `metadata` merge by key (null takes a \
                 key out), other objects and lists are replaced whole."
                    .to_owned(),
            );
        }
        schema
    }
}

impl ToSchema for DestinationPatch {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        <DestinationInput as ToSchema>::schemas(schemas);
    }
}

/// The method of a destination's requests.
#[derive(Debug, ToSchema)]
#[schema(as = Method, rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum MethodName {
    Post,
    Put,
    Patch,
}

/// The shape of a destination's bodies: `standard` is `{"id","type","timestamp","data"}` of Standard Webhooks, `data`
/// the bytes of `data` alone, `cloudevents` structured CloudEvents 1.0 JSON.
#[derive(Debug, ToSchema)]
#[schema(as = BodyFormat, rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum BodyFormatName {
    Standard,
    Data,
    Cloudevents,
}

/// A token bucket: limits delay, they never drop.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RateLimit)]
pub struct RateLimitSchema {
    /// Requests per second.
    #[schema(minimum = 0.001, maximum = 100_000.0)]
    pub per_second: f64,
    /// Requests at once after a pause. Absent or null: `max(1, per_second / 10)`.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub burst: Option<u32>,
}

/// When a failed delivery is tried again. Without `strategy` the other members tell which one is meant.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RetryPolicy)]
pub struct RetrySchema {
    /// `exponential` takes `initial_ms`, `factor`, `max_ms` and `max_attempts`; `schedule` takes `delays_ms`.
    pub strategy: Option<StrategyName>,
    /// The first pause. Default: 5000.
    #[schema(minimum = 10, maximum = 604_800_000)]
    pub initial_ms: Option<u64>,
    /// How much longer each pause is than the one before. Default: 2.
    #[schema(minimum = 1, maximum = 10)]
    pub factor: Option<f64>,
    /// The longest pause. Default: one day.
    #[schema(minimum = 10, maximum = 604_800_000)]
    pub max_ms: Option<u64>,
    /// Counts every request. Default: 16; null: no limit.
    #[schema(minimum = 1)]
    pub max_attempts: Option<u32>,
    /// `delays_ms[i]` is the pause before attempt i + 2: three delays make four attempts.
    #[schema(max_items = 100)]
    pub delays_ms: Option<Vec<u64>>,
    /// Each pause is multiplied by a number uniform in 1 − jitter to 1 + jitter. Default: 0.2.
    #[schema(minimum = 0, maximum = 1)]
    pub jitter: Option<f64>,
    /// What to do about a 4xx that has no rule of its own. Default: `auto`.
    pub on_4xx: Option<On4xxName>,
}

/// How pauses grow.
#[derive(Debug, ToSchema)]
#[schema(as = RetryStrategy, rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum StrategyName {
    Exponential,
    Schedule,
}

/// What to do about a 4xx that has no rule of its own: `auto` retries those that a deploy or a proxy gone wrong would
/// answer.
#[derive(Debug, ToSchema)]
#[schema(as = On4xx, rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum On4xxName {
    Auto,
    Always,
    Never,
}
