//! What a producer posted.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{DestinationId, EventId, TenantId, Timestamp};

/// The content type of `data` that was posted as JSON.
pub const JSON: &str = "application/json";

/// Whether a content type says JSON: `application/json`, `text/json` or any `+json`, with or without parameters.
pub fn is_json(content_type: &str) -> bool {
    let media_type = media_type(content_type);
    media_type == JSON || media_type == "text/json" || media_type.ends_with("+json")
}

/// A content type without its parameters, in lower case.
pub fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The event type of an event that was posted for one destination without a type.
pub const DEFAULT_TYPE: &str = "message";

/// An accepted event. Immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Sent as `webhook-id`, the same on every retry and replay. Its millisecond is the time of acceptance.
    pub id: EventId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// Dot-separated, at most 256 characters.
    pub event_type: String,
    /// The producer's own id.
    pub uid: Option<String>,
    /// Where the producer says that it came from.
    pub source: Option<String>,
    /// All that is not searched by an index.
    pub meta: EventMeta,
    /// `data`, byte for byte as it was posted (base64 decoded where it was posted so).
    pub data: Bytes,
}

impl Event {
    /// When it was accepted, to the millisecond.
    pub fn created_at(&self) -> Timestamp {
        self.id.created_at()
    }
}

/// The lesser parts of an event. Serialised into stores and bus messages; grows by optional fields only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EventMeta {
    /// When it happened, as the producer says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<Timestamp>,
    /// What must not overtake each other shares it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordering_key: Option<String>,
    /// The one destination that it is for, where the producer named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_id: Option<DestinationId>,
    /// The producer's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The version of the schema that `data` follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<String>,
    /// Of `data`; absent for `application/json`. Where it [says JSON](is_json), `data` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Extension attributes of a CloudEvent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: BTreeMap<String, serde_json::Value>,
    /// W3C trace context of the request that brought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_known_by_its_type() {
        for json in ["application/json", "Application/JSON ; charset=utf-8", "text/json", "application/ld+json;a=b"] {
            assert!(is_json(json), "{json}");
        }
        for other in ["", "text/plain", "application/jsonl", "application/x-ndjson", "text/plain; a=+json"] {
            assert!(!is_json(other), "{other}");
        }
    }
}
