//! Destinations, as the API shows them, and the shape of what their owner sends. The latter is never deserialised:
//! [`crate::manage::destination::read`] reads it; a test holds both to the same fields.

use std::collections::BTreeMap;

use serde::Serialize;
use signalpost_core::{
    CircuitPolicy, CircuitState, Destination, DestinationId, DestinationSecrets, DestinationState, Guarantee, Secret,
    Timestamp,
    destination::{BodyFormat, DisableAfter, Method, RateLimit},
    ordering::{OnDead, OrderingMode},
    pattern::EventPattern,
    retry_policy::RetryPolicy,
    signature::SignatureScheme,
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};

use super::signature::{AuthSchema, SignatureSchema};
use crate::openapi::types::{
    CircuitStateText, DestinationIdText, DestinationStateText, EventPatternText, GuaranteeText, OnDeadText,
    OrderingText, PublicKeyText, SecretText, TimeText,
};

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
    /// Further headers of its requests; their values are secret, and shown as `***`.
    pub headers: BTreeMap<String, String>,
    /// How its requests are signed.
    #[schema(value_type = Vec<SignatureSchema>)]
    pub signatures: Vec<SignatureScheme>,
    /// The shape of its bodies.
    #[schema(value_type = BodyFormatName)]
    pub body_format: BodyFormat,
    /// Bounds a whole exchange, body included.
    pub timeout_ms: u32,
    /// Null: no limit.
    #[schema(value_type = Option<RateLimitSchema>)]
    pub rate_limit: Option<RateLimit>,
    /// How many of its requests may be out at once, over all dispatchers.
    pub max_in_flight: u32,
    /// When and how often a failed delivery is tried again.
    #[schema(value_type = RetrySchema)]
    pub retry: RetryPolicy,
    /// When it is left alone for a while because it fails.
    #[schema(value_type = CircuitSchema)]
    pub circuit: CircuitPolicy,
    /// How often a delivery may be sent.
    #[schema(value_type = GuaranteeText)]
    pub guarantee: Guarantee,
    /// Which deliveries must not overtake each other.
    #[schema(value_type = OrderingText)]
    pub ordering: OrderingMode,
    /// Where their key stands in the event: a JSON Pointer.
    pub ordering_key_from: String,
    /// What a delivery that failed for good means for those behind it.
    #[schema(value_type = OnDeadText)]
    pub ordering_on_dead: OnDead,
    /// When it is disabled because nothing arrives.
    #[schema(value_type = DisableAfterSchema)]
    pub disable_after: DisableAfter,
    /// The owner's own notes.
    pub metadata: BTreeMap<String, String>,
    /// Whether it is sent to.
    #[schema(value_type = DestinationStateText)]
    pub state: DestinationState,
    /// Why it is disabled; null where it is not.
    pub disabled_reason: Option<String>,
    /// What its circuit does.
    pub circuit_state: CircuitStateBody,
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
            headers: spec.header_names.iter().map(|name| (name.clone(), "***".to_owned())).collect(),
            signatures: spec.signatures.clone(),
            body_format: spec.body_format,
            timeout_ms: spec.timeout_ms,
            rate_limit: spec.rate_limit,
            max_in_flight: spec.max_in_flight.get(),
            retry: spec.retry.clone(),
            circuit: spec.circuit.clone(),
            guarantee: spec.guarantee,
            ordering: spec.ordering.mode,
            ordering_key_from: spec.ordering.key_from.clone(),
            ordering_on_dead: spec.ordering.on_dead,
            disable_after: spec.disable_after,
            metadata: spec.metadata.clone(),
            state: destination.state,
            disabled_reason: destination.disabled_reason.clone(),
            circuit_state: CircuitStateBody::of(destination),
            secret: None,
            created_at: destination.created_at,
            updated_at: destination.updated_at,
        }
    }

    /// As the one sees it who creates it.
    pub fn with_secret(destination: &Destination, secret: &Secret) -> Self {
        Self { secret: Some(secret.reveal().to_owned()), ..Self::new(destination) }
    }
}

/// What a circuit does. `closed`: requests go through; `open`: none does; `half_open`: a few do, to try.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CircuitState)]
pub struct CircuitStateBody {
    /// As it was last told.
    #[schema(value_type = CircuitStateText)]
    pub state: CircuitState,
    /// Since when.
    #[schema(value_type = TimeText)]
    pub since: Timestamp,
    /// How often it opened since the destination was created.
    pub trips: u32,
    /// Why it opened last; null where it is closed.
    pub reason: Option<String>,
}

impl CircuitStateBody {
    fn of(destination: &Destination) -> Self {
        let record = &destination.circuit;
        Self {
            state: record.state,
            since: record.since.unwrap_or(destination.created_at),
            trips: record.trips,
            reason: record.reason.clone(),
        }
    }
}

/// The signing secret of a destination.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Secret)]
pub struct SecretBody {
    /// What signs its requests.
    #[schema(value_type = SecretText)]
    pub secret: String,
    /// What receivers verify the scheme `standard_ed25519` with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<PublicKeyText>)]
    pub public_key: Option<String>,
    /// Earlier secrets that still sign, too; newest first.
    pub previous: Vec<PreviousSecret>,
}

impl SecretBody {
    /// As it is at that moment.
    pub fn new(secrets: &DestinationSecrets, now: Timestamp) -> Self {
        let secret = secrets.current.reveal().to_owned();
        let previous = secrets.previous.iter().filter(|previous| previous.expires_at > now);
        Self {
            public_key: signalpost_sender::signatures::public_key(&secret),
            secret,
            previous: previous.map(|previous| PreviousSecret { expires_at: previous.expires_at }).collect(),
        }
    }
}

/// A new secret in the place of the one that signs.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateInput {
    /// For so long the secret that signed until now signs too; 0: it stops at once. Default: 86400.
    #[schema(minimum = 0, maximum = 604_800)]
    pub overlap_seconds: Option<u64>,
    /// Made where it is absent.
    #[schema(value_type = Option<SecretText>)]
    pub secret: Option<String>,
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
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\s\x00-\x1f\x7f-\x9f]+$")]
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
    /// `{attempt}` and `{timestamp}`. `***`, which answers show instead of a value, keeps the value that is there.
    pub headers: Option<BTreeMap<String, String>>,
    /// How its requests are signed. No two schemes may write the same header. Default: `[{"scheme": "standard"}]`.
    #[schema(min_items = 1, max_items = 10, value_type = Option<Vec<SignatureSchema>>)]
    pub signatures: Option<Vec<SignatureScheme>>,
    /// Credentials that go with its requests; never shown. Null: none. Where it is absent in a PUT, they stay.
    #[schema(write_only, value_type = Option<AuthSchema>)]
    pub auth: Option<AuthSchema>,
    /// Default: `standard`.
    pub body_format: Option<BodyFormatName>,
    /// `whsec_…` for the scheme `standard`, `whsk_…` for `standard_ed25519`; for `hmac` alone any text. Made where it is absent at creation; it
    /// stays where it is absent in a PUT. It takes the place of all that sign: `…/secret/rotate` lets the old one sign too.
    #[schema(value_type = Option<SecretText>)]
    pub secret: Option<String>,
    /// Bounds a whole exchange, body included. Default: 15000.
    #[schema(minimum = 1000, maximum = 60000)]
    pub timeout_ms: Option<u32>,
    /// Null: no limit. Default: none.
    pub rate_limit: Option<RateLimitSchema>,
    /// How many of its requests may be out at once, over all dispatchers. Default: 100.
    #[schema(minimum = 1, maximum = 10000)]
    pub max_in_flight: Option<u32>,
    /// When and how often a failed delivery is tried again. Default: the schedule of Standard Webhooks.
    pub retry: Option<RetrySchema>,
    /// When it is left alone for a while because it fails. Members that are left out take their defaults.
    pub circuit: Option<CircuitSchema>,
    /// How often a delivery may be sent; fixed for a delivery when its event is accepted. Default: `at_least_once`.
    #[schema(value_type = Option<GuaranteeText>)]
    pub guarantee: Option<Guarantee>,
    /// Which deliveries must not overtake each other; fixed for a delivery when its event is accepted. Default: `none`.
    #[schema(value_type = Option<OrderingText>)]
    pub ordering: Option<OrderingMode>,
    /// Where their key stands in the event: a JSON Pointer (RFC 6901) to `/ordering_key`, `/type`, `/uid`, `/source`,
    /// `/schema_version`, or into `/labels` or `/data`. A string, a number or a boolean is a key; an event with none there is
    /// not ordered. Default: `/ordering_key`.
    #[schema(
        max_length = 1024,
        pattern = "^/((ordering_key|type|uid|source|schema_version)$|(labels|data)(/([^~]|~[01])*)?$)",
        example = "/data/customer/id"
    )]
    pub ordering_key_from: Option<String>,
    /// What a delivery that failed for good means for those behind it. Default: `continue`.
    #[schema(value_type = Option<OnDeadText>)]
    pub ordering_on_dead: Option<OnDead>,
    /// When it is disabled because nothing arrives. Members that are left out take their defaults.
    pub disable_after: Option<DisableAfterSchema>,
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

/// When a circuit opens, and for how long. While it is open nothing is sent, and no attempt is consumed.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Circuit)]
pub struct CircuitSchema {
    /// Whether there is a circuit at all. Default: true.
    pub enabled: Option<bool>,
    /// Opens on so many failures in a row, over at least 5 s, with no success between. Default: 5.
    #[schema(minimum = 1, maximum = 1000)]
    pub failures: Option<u32>,
    /// Opens when that part of at least 20 attempts of the last 30 s failed. Default: 0.5.
    #[schema(minimum = 0.01, maximum = 1)]
    pub failure_ratio: Option<f64>,
    /// How long it stays open the first time; doubles with each further opening, ± 20 %. Default: 30000.
    #[schema(minimum = 100, maximum = 3_600_000)]
    pub open_ms: Option<u64>,
    /// The longest that it stays open; not shorter than `open_ms`. Default: 300000, or `open_ms` where that is longer.
    #[schema(minimum = 100, maximum = 3_600_000)]
    pub max_open_ms: Option<u64>,
    /// Requests that are let through to try, once it has been open for that long: all must succeed. Default: 3.
    #[schema(minimum = 1, maximum = 100)]
    pub probes: Option<u32>,
}

/// A destination to which nothing arrived for `days`, while at least `attempts` were made, is disabled.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DisableAfter)]
pub struct DisableAfterSchema {
    /// Default: 5.
    #[schema(minimum = 1, maximum = 365)]
    pub days: Option<u32>,
    /// Default: 100.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub attempts: Option<u32>,
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
