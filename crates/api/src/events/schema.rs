//! The shapes of bodies, for the document that describes the API. Bodies are not read through these.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type},
    },
};

use super::answer::EventAnswer;
use crate::{
    openapi::types::{DestinationIdText, TimeText},
    problem::ProblemBody,
};

/// An event.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EventInput)]
pub struct EventBody {
    /// Dot-separated segments of `[A-Za-z0-9_:/-]`, at most 256 characters; `signalpost.` is reserved. Required, unless
    /// `destination_id` is given; then `message` by default.
    #[serde(rename = "type")]
    #[schema(
        required = false,
        example = "order.created",
        max_length = 256,
        pattern = r"^[A-Za-z0-9_:/-]+(\.[A-Za-z0-9_:/-]+)*$"
    )]
    pub event_type: String,
    /// Any JSON; forwarded byte for byte. Required, or `data_base64`.
    #[schema(required = false, value_type = serde_json::Value)]
    pub data: Option<()>,
    /// What is not JSON.
    #[schema(
        content_encoding = "base64",
        pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$"
    )]
    pub data_base64: Option<String>,
    /// The media type of `data_base64`; default `application/octet-stream`.
    #[schema(max_length = 256, pattern = "^[!-.0-~]+/[!-.0-:<-~]+(;[ -~]*)?$")]
    pub content_type: Option<String>,
    /// Your own id: 1 to 256 visible characters, unique per `source`. Sent again, the event is a duplicate.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\s\x00-\x1f\x7f-\x9f]+$")]
    pub uid: Option<String>,
    /// Where it came from.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    pub source: Option<String>,
    /// When it happened.
    #[schema(value_type = Option<TimeText>)]
    pub occurred_at: Option<String>,
    /// Events with the same key are sent one after the other, in the order of acceptance, to destinations with `ordering: "key"`.
    #[schema(min_length = 1, max_length = 256)]
    pub ordering_key: Option<String>,
    /// Send it to this destination only: its id, not its `uid`.
    #[schema(value_type = Option<DestinationIdText>)]
    pub destination_id: Option<String>,
    /// Your own labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// The version of the schema that `data` follows.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    pub schema_version: Option<String>,
}

/// As [`EventBody::data_base64`] has it.
const BASE64: &str = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";

/// As [`EventBody::content_type`] has it.
const MEDIA_TYPE: &str = "^[!-.0-~]+/[!-.0-:<-~]+(;[ -~]*)?$";

/// A CloudEvent in JSON.
#[derive(Debug)]
pub enum CloudEventBody {}

impl PartialSchema for CloudEventBody {
    fn schema() -> RefOr<Schema> {
        let text =
            |most: usize| ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(most));
        let time = SchemaFormat::KnownFormat(KnownFormat::DateTime);
        let base64 = ObjectBuilder::new().schema_type(Type::String).content_encoding("base64").pattern(Some(BASE64));
        // The types that an attribute has in JSON.
        let kinds = [Type::String, Type::Boolean, Type::Integer, Type::Null];
        let extension = ObjectBuilder::new()
            .schema_type(SchemaType::Array(kinds.into()))
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
            .minimum(Some(i32::MIN))
            .maximum(Some(i32::MAX));
        let event = ObjectBuilder::new()
            .description(Some(
                "An event of CloudEvents 1.0. `id`, `source`, `time` and `partitionkey` are what `uid`, `source`, `occurred_at` and \
                 `ordering_key` are of an event; what has no name here is kept as an extension.",
            ))
            .property("specversion", text(3).enum_values(Some(["1.0"])))
            .required("specversion")
            .property("id", text(256).pattern(Some(r"^[^\s\x00-\x1f\x7f-\x9f]+$")))
            .required("id")
            .property("source", text(256).pattern(Some(r"^[^\x00-\x1f\x7f-\x9f]+$")))
            .required("source")
            .property("type", text(256).pattern(Some(r"^[A-Za-z0-9_:/-]+(\.[A-Za-z0-9_:/-]+)*$")))
            .required("type")
            .property("time", ObjectBuilder::new().schema_type(Type::String).format(Some(time)))
            .property("partitionkey", text(256))
            .property("datacontenttype", text(256).pattern(Some(MEDIA_TYPE)))
            .property("data", ObjectBuilder::new().schema_type(SchemaType::AnyValue))
            .property("data_base64", base64)
            .additional_properties(Some(extension));
        RefOr::T(event.into())
    }
}

impl ToSchema for CloudEventBody {
    fn name() -> std::borrow::Cow<'static, str> {
        "CloudEvent".into()
    }
}

/// Many events.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
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
