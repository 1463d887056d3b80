//! Events, as the API shows them.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use signalpost_core::{DestinationId, Event, EventId, Timestamp};
use signalpost_store::read::{DeliveryCounts, EventView};
use utoipa::ToSchema;

use crate::{
    json,
    openapi::types::{DestinationIdText, EventIdText, EventStatusText, TimeText},
};

/// What a producer posted, without `data`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventAttributes)]
pub struct EventAttributes {
    #[allow(missing_docs)]
    #[schema(value_type = EventIdText)]
    pub id: EventId,
    #[allow(missing_docs)]
    #[serde(rename = "type")]
    pub event_type: String,
    /// The producer's own id.
    pub uid: Option<String>,
    /// Where it came from, as the producer says.
    pub source: Option<String>,
    /// When it happened, as the producer says.
    #[schema(value_type = Option<TimeText>)]
    pub occurred_at: Option<Timestamp>,
    /// What must not overtake each other shares it.
    pub ordering_key: Option<String>,
    /// The one destination that it is for, where the producer named one.
    #[schema(value_type = Option<DestinationIdText>)]
    pub destination_id: Option<DestinationId>,
    /// The producer's labels.
    pub labels: BTreeMap<String, String>,
    /// The version of the schema that `data` follows.
    pub schema_version: Option<String>,
    /// Of `data`; null for JSON.
    pub content_type: Option<String>,
    /// Extension attributes of a CloudEvent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: BTreeMap<String, serde_json::Value>,
    /// When it was accepted.
    #[schema(value_type = TimeText)]
    pub created_at: Timestamp,
}

impl From<&Event> for EventAttributes {
    fn from(event: &Event) -> Self {
        Self {
            id: event.id,
            event_type: event.event_type.clone(),
            uid: event.uid.clone(),
            source: event.source.clone(),
            occurred_at: event.meta.occurred_at,
            ordering_key: event.meta.ordering_key.clone(),
            destination_id: event.meta.destination_id,
            labels: event.meta.labels.clone(),
            schema_version: event.meta.schema_version.clone(),
            content_type: event.meta.content_type.clone(),
            extensions: event.meta.extensions.clone(),
            created_at: event.created_at(),
        }
    }
}

/// `data` as it was posted: JSON byte for byte, all else in base64. Neither where it was left out.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct EventData {
    /// The JSON that was posted, number for number and key for key. Left out of lists without `include=data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub data: Option<Box<RawValue>>,
    /// What was posted under another content type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
}

impl EventData {
    /// Of an event that was loaded with its data.
    pub fn of(event: &Event) -> Self {
        let of_json = event.meta.content_type.as_deref().is_none_or(json::is_json);
        match of_json.then(|| raw(&event.data)).flatten() {
            Some(data) => Self { data: Some(data), data_base64: None },
            None => Self { data: None, data_base64: Some(STANDARD.encode(&event.data)) },
        }
    }
}

fn raw(data: &Bytes) -> Option<Box<RawValue>> {
    RawValue::from_string(std::str::from_utf8(data).ok()?.to_owned()).ok()
}

/// An event and what became of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventBody {
    #[allow(missing_docs)]
    #[serde(flatten)]
    pub attributes: EventAttributes,
    /// What became of it.
    #[schema(value_type = EventStatusText)]
    pub status: &'static str,
    /// How many deliveries stand how. A replayed delivery counts by its replay.
    pub delivery_counts: Counts,
    #[allow(missing_docs)]
    #[serde(flatten)]
    pub data: EventData,
}

impl EventBody {
    /// With or without `data`.
    pub fn new(view: &EventView, with_data: bool) -> Self {
        Self {
            attributes: EventAttributes::from(&*view.event),
            status: status(&view.counts),
            delivery_counts: Counts::from(&view.counts),
            data: if with_data { EventData::of(&view.event) } else { EventData::default() },
        }
    }
}

/// How many deliveries stand how.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryCounts)]
#[allow(missing_docs)]
pub struct Counts {
    pub pending: u64,
    pub retrying: u64,
    pub delivered: u64,
    pub dead: u64,
    pub cancelled: u64,
}

impl From<&DeliveryCounts> for Counts {
    fn from(counts: &DeliveryCounts) -> Self {
        let DeliveryCounts { pending, retrying, delivered, dead, cancelled } = *counts;
        Self { pending, retrying, delivered, dead, cancelled }
    }
}

fn status(counts: &DeliveryCounts) -> &'static str {
    match counts {
        DeliveryCounts { pending: 0, retrying: 0, delivered: 0, dead: 0, cancelled: 0 } => "unrouted",
        DeliveryCounts { pending: 0, retrying: 0, delivered: 0, dead: 0, .. } => "cancelled",
        DeliveryCounts { pending: 0, retrying: 0, dead: 0, .. } => "delivered",
        DeliveryCounts { pending: 0, retrying: 0, .. } => "failed",
        _ => "pending",
    }
}

#[cfg(test)]
mod tests {
    use signalpost_core::EventMeta;

    use super::*;

    #[test]
    fn the_status_follows_from_the_counts() {
        let counts = |pending, retrying, delivered, dead, cancelled| DeliveryCounts {
            pending,
            retrying,
            delivered,
            dead,
            cancelled,
        };
        for (counts, expected) in [
            (counts(0, 0, 0, 0, 0), "unrouted"),
            (counts(1, 0, 5, 1, 0), "pending"),
            (counts(0, 1, 0, 1, 0), "pending"),
            (counts(0, 0, 2, 0, 0), "delivered"),
            (counts(0, 0, 2, 0, 1), "delivered"),
            (counts(0, 0, 2, 1, 0), "failed"),
            (counts(0, 0, 0, 0, 3), "cancelled"),
        ] {
            assert_eq!(status(&counts), expected, "{counts:?}");
        }
    }

    fn event(content_type: Option<&str>, data: &'static [u8]) -> Event {
        Event {
            id: EventId::floor(Timestamp::from_millis(1)),
            tenant_id: signalpost_core::TenantId::DEFAULT,
            event_type: "a.b".to_owned(),
            uid: None,
            source: None,
            meta: EventMeta { content_type: content_type.map(str::to_owned), ..EventMeta::default() },
            data: Bytes::from_static(data),
        }
    }

    #[test]
    fn data_is_shown_as_it_was_posted() {
        let odd = br#"{"a": 1.10, "a": 123456789012345678901234567890, "s": "\ud800\u0000"}"#;
        let shown = serde_json::to_string(&EventData::of(&event(None, odd))).unwrap();
        assert_eq!(shown, format!("{{\"data\":{}}}", std::str::from_utf8(odd).unwrap()));
        let shown = serde_json::to_string(&EventData::of(&event(Some("application/ld+json; a=b"), b"[1]"))).unwrap();
        assert_eq!(shown, r#"{"data":[1]}"#);
        let shown = serde_json::to_string(&EventData::of(&event(Some("text/plain"), b"hi"))).unwrap();
        assert_eq!(shown, r#"{"data_base64":"aGk="}"#);
    }
}
