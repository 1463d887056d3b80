//! A URL that wants events, and how it wants them.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    CircuitPolicy, CircuitRecord, DestinationId, TenantId, Timestamp,
    ordering::Ordering,
    pattern::EventPattern,
    retry_policy::RetryPolicy,
    secret::Kept,
    signature::{SignatureScheme, default_signatures},
};

/// A destination as the store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    /// Its id.
    pub id: DestinationId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The caller's own id; unique in the tenant.
    pub uid: Option<String>,
    /// What its owner set.
    pub spec: DestinationSpec,
    /// What signs its requests, and what else of it is secret.
    pub secrets: Kept,
    /// Whether it is sent to.
    pub state: DestinationState,
    /// Why it is disabled, for a person.
    pub disabled_reason: Option<String>,
    /// What its circuit did last. Not a change of it: `version` does not move.
    pub circuit: CircuitRecord,
    /// Grows by one with each change. Travels in bus messages, so that a dispatcher knows that its copy is old.
    pub version: u32,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Destination {
    /// A new one, that is sent to from now on. Its owner gave it no id.
    pub fn new(
        id: DestinationId,
        tenant_id: TenantId,
        spec: DestinationSpec,
        secrets: Kept,
        created_at: Timestamp,
    ) -> Self {
        Self {
            id,
            tenant_id,
            uid: None,
            spec,
            secrets,
            state: DestinationState::Active,
            disabled_reason: None,
            circuit: CircuitRecord::default(),
            version: 1,
            created_at,
            updated_at: created_at,
        }
    }
}

/// What the owner of a destination sets. Serialised into stores; grows by fields with a default only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DestinationSpec {
    /// For people.
    #[serde(default)]
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Absolute, `http` or `https`, normalised.
    pub url: String,
    /// Which types it wants.
    pub event_types: Vec<EventPattern>,
    /// The method of its requests.
    #[serde(default)]
    pub method: Method,
    /// The names of further headers of its requests; their values are among its secrets.
    #[serde(default)]
    pub header_names: BTreeSet<String>,
    /// How its requests are signed: 1 to 10 schemes.
    #[serde(default = "default_signatures")]
    pub signatures: Vec<SignatureScheme>,
    /// The shape of its bodies.
    #[serde(default)]
    pub body_format: BodyFormat,
    /// Bounds a whole exchange, body included.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u32,
    /// None: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// How many requests may be out at once, over all dispatchers.
    #[serde(default = "default_max_in_flight")]
    pub max_in_flight: NonZeroU32,
    /// When and how often a failed delivery is tried again.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// When it is left alone because it fails.
    #[serde(default)]
    pub circuit: CircuitPolicy,
    /// How often a delivery may be sent. Fixed for a delivery at its acceptance.
    #[serde(default)]
    pub guarantee: Guarantee,
    /// Which deliveries must not overtake each other.
    #[serde(flatten, default)]
    pub ordering: Ordering,
    /// When it is given up.
    #[serde(default)]
    pub disable_after: DisableAfter,
    /// The owner's own notes.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

impl DestinationSpec {
    /// The time-out of a whole exchange.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.timeout_ms))
    }

    /// Whether it wants events of that type.
    pub fn wants(&self, event_type: &str) -> bool {
        self.event_types.iter().any(|pattern| pattern.matches(event_type))
    }
}

/// 15 s, in milliseconds.
pub const fn default_timeout_ms() -> u32 {
    15_000
}

/// 100 requests at once.
pub const fn default_max_in_flight() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(99)
}

/// Whether a destination is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DestinationState {
    /// It is.
    Active,
    /// Its deliveries wait until it is resumed.
    Paused,
    /// It gets no new deliveries; what waits, waits.
    Disabled,
    /// It is being deleted: what waits is cancelled in chunks, then the row goes. Not shown by the API.
    Deleted,
}

impl DestinationState {
    /// The name in the API and in stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
            Self::Deleted => "deleted",
        }
    }

    /// From its name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Active, Self::Paused, Self::Disabled, Self::Deleted].into_iter().find(|state| state.as_str() == name)
    }
}

/// The method of a destination's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    #[default]
    #[allow(missing_docs)]
    Post,
    #[allow(missing_docs)]
    Put,
    #[allow(missing_docs)]
    Patch,
}

/// The shape of a destination's bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyFormat {
    /// `{"id","type","timestamp","data"}` of Standard Webhooks.
    #[default]
    Standard,
    /// The bytes of `data` alone, under their own content type.
    Data,
    /// Structured CloudEvents 1.0 JSON.
    Cloudevents,
}

/// How often a delivery may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Guarantee {
    /// Until it arrives: twice where a crash or a lost answer made that unavoidable.
    #[default]
    AtLeastOnce = 0,
    /// One request, whatever comes of it; claimed in the store before the first byte leaves.
    AtMostOnce = 1,
}

impl Guarantee {
    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at_least_once",
            Self::AtMostOnce => "at_most_once",
        }
    }

    /// From the number that a store kept.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::AtLeastOnce),
            1 => Some(Self::AtMostOnce),
            _ => None,
        }
    }
}

/// A destination to which nothing arrived for `days`, while at least `attempts` were made, is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DisableAfter {
    /// 1 to 365.
    pub days: NonZeroU32,
    /// 1 to 1,000,000.
    pub attempts: NonZeroU32,
}

impl Default for DisableAfter {
    fn default() -> Self {
        Self { days: NonZeroU32::MIN.saturating_add(4), attempts: NonZeroU32::MIN.saturating_add(99) }
    }
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Tokens that come per second: 0.001 to 100,000.
    pub per_second: f64,
    /// Tokens that it holds; absent: `max(1, per_second / 10)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<NonZeroU32>,
}

impl RateLimit {
    /// Tokens that the bucket holds.
    pub fn burst(&self) -> f64 {
        self.burst.map_or_else(|| (self.per_second / 10.0).max(1.0), |burst| f64::from(burst.get()))
    }
}
