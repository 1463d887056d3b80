//! The shapes of bodies, for the document that describes the API. Bodies are not read through these.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::answer::EventAnswer;
use crate::problem::ProblemBody;

/// An event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventInput)]
pub struct EventBody {
    /// Dot-separated segments of `[A-Za-z0-9_:/-]`, at most 256 characters; `signalpost.` is reserved. Required, unless
    /// `destination_id` is given; then `message` by default.
    #[serde(rename = "type")]
    #[schema(required = false, example = "order.created")]
    pub event_type: String,
    /// Any JSON; forwarded byte for byte. Required, or `data_base64`.
    #[schema(required = false, value_type = serde_json::Value)]
    pub data: Option<()>,
    /// What is not JSON.
    pub data_base64: Option<String>,
    /// The media type of `data_base64`; default `application/octet-stream`.
    pub content_type: Option<String>,
    /// Your own id: 1 to 256 visible characters, unique per `source`. Sent again, the event is a duplicate.
    #[schema(min_length = 1, max_length = 256)]
    pub uid: Option<String>,
    /// Where it came from.
    #[schema(min_length = 1, max_length = 256)]
    pub source: Option<String>,
    /// When it happened.
    #[schema(format = DateTime)]
    pub occurred_at: Option<String>,
    /// Events with the same key are sent one after the other, in the order of acceptance, to destinations with `ordering: "key"`.
    #[schema(min_length = 1, max_length = 256)]
    pub ordering_key: Option<String>,
    /// Send it to this destination only: its id, not its `uid`.
    pub destination_id: Option<String>,
    /// Your own labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// The version of the schema that `data` follows.
    #[schema(min_length = 1, max_length = 64)]
    pub schema_version: Option<String>,
}

/// Many events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventBatch)]
pub struct BatchBody {
    /// 1 to 1,000.
    #[schema(min_items = 1, max_items = 1000)]
    pub events: Vec<EventBody>,
}

/// What became of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventBatchAnswer)]
pub struct BatchAnswerBody {
    /// How many were accepted, duplicates included.
    pub accepted: usize,
    /// How many were not.
    pub rejected: usize,
    /// In the order of the events.
    pub results: Vec<BatchItemBody>,
}

/// What became of one event of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventBatchItem)]
#[serde(untagged)]
#[allow(dead_code, reason = "it only describes")]
pub enum BatchItemBody {
    /// It was accepted.
    Accepted(EventAnswer),
    /// It was not.
    Rejected {
        /// Why.
        error: ProblemBody,
    },
}
