//! The bytes of a message on a bus that has bytes: envelope versions 1 and 3.
//!
//! A value is a head, in JSON, behind its length (four bytes, big-endian), and then `data` as it was posted:
//!
//! ```text
//! 00 00 01 2c {"delivery_id":"dlv_…",…} <data>
//! ```
//!
//! Next to it travel headers, for who cannot or need not read the head: [`VERSION_HEADER`], [`DELIVERY_HEADER`] and
//! [`DESTINATION_VERSION_HEADER`].
//!
//! Versions N−1, N and N+1 read each other: a head may gain fields, which older readers ignore, so a change that an
//! older reader must not ignore takes a new version. What this version cannot read is an [`Undecodable`]; no bytes
//! make it panic.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use signalpost_core::{DeliveryId, DestinationId, Event, EventId, EventMeta, Guarantee, LaneId, TenantId, Timestamp};

use crate::{Message, Origin, Payload};

/// What this version writes where an older reader does no harm.
pub const VERSION: u32 = 1;

/// What this version writes for deliveries of lanes and those that are sent once at most: readers of before those promises do
/// not know this version, so that they set the message aside instead of sending it unguarded; its lease brings it back.
pub const GUARDED_VERSION: u32 = 3;

/// The newest that this version reads.
pub const NEWEST_READABLE: u32 = GUARDED_VERSION + 1;

/// The envelope version, in decimal digits.
pub const VERSION_HEADER: &str = "signalpost-envelope";

/// The delivery id, in its text form.
pub const DELIVERY_HEADER: &str = "signalpost-delivery";

/// The version of the destination, in decimal digits.
pub const DESTINATION_VERSION_HEADER: &str = "signalpost-destination-version";

const LENGTH_BYTES: usize = 4;

/// A message as a bus with keys, headers and values carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The destination id, and the lane where there is one: what a bus spreads messages by.
    pub key: String,
    /// Names and values.
    pub headers: [(&'static str, String); 3],
    /// Head and data.
    pub value: Vec<u8>,
}

/// Bytes that are no message to this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// Not one of ours, or its header got lost.
    #[error("no envelope version")]
    NoVersion,
    /// Written by a newer Signalpost.
    #[error("envelope version {0} is newer than this program reads")]
    Newer(u32),
    /// It ends too early.
    #[error("the value is cut off")]
    CutOff,
    /// The head is no JSON, or lacks what it must have.
    #[error("the head is malformed: {0}")]
    Head(String),
}

#[derive(Serialize)]
struct HeadOut<'a> {
    delivery_id: DeliveryId,
    tenant_id: TenantId,
    destination_id: DestinationId,
    destination_version: u32,
    attempt: u32,
    origin: OriginForm,
    event_id: EventId,
    #[serde(rename = "type")]
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    meta: &'a EventMeta,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    by_reference: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    lane: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    guarantee: Guarantee,
    #[serde(skip_serializing_if = "Option::is_none")]
    born_at_us: Option<i64>,
}

fn is_default(guarantee: &Guarantee) -> bool {
    *guarantee == Guarantee::default()
}

#[derive(Deserialize)]
struct HeadIn {
    delivery_id: DeliveryId,
    tenant_id: TenantId,
    destination_id: DestinationId,
    destination_version: u32,
    attempt: std::num::NonZeroU32,
    origin: OriginForm,
    event_id: EventId,
    #[serde(rename = "type")]
    event_type: String,
    #[serde(default)]
    uid: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    meta: EventMeta,
    #[serde(default)]
    by_reference: bool,
    #[serde(default)]
    lane: Option<String>,
    #[serde(default)]
    guarantee: Guarantee,
    #[serde(default)]
    born_at_us: Option<i64>,
}

impl HeadIn {
    fn lane(&self) -> Result<Option<LaneId>, Undecodable> {
        let Some(text) = &self.lane else { return Ok(None) };
        let number = u128::from_str_radix(text, 16).map_err(|error| Undecodable::Head(format!("lane: {error}")))?;
        Ok(Some(LaneId::from_bytes(number.to_be_bytes())))
    }
}

fn lane_text(lane: LaneId) -> String {
    format!("{:032x}", u128::from_be_bytes(*lane.as_bytes()))
}

/// An origin that is not known here makes the head malformed: who ignored it would send unchecked.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OriginForm {
    Fresh,
    Feed { leased_until_us: i64 },
}

impl From<Origin> for OriginForm {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Fresh => Self::Fresh,
            Origin::Feed { leased_until } => Self::Feed { leased_until_us: leased_until.as_micros() },
        }
    }
}

impl From<OriginForm> for Origin {
    fn from(form: OriginForm) -> Self {
        match form {
            OriginForm::Fresh => Self::Fresh,
            OriginForm::Feed { leased_until_us } => {
                Self::Feed { leased_until: Timestamp::from_micros(leased_until_us) }
            }
        }
    }
}

/// The bytes of a message.
///
/// # Errors
/// Its meta cannot be written as JSON, or its head has more than 4 GiB; neither gets past acceptance.
pub fn encode(message: &Message) -> Result<Encoded, serde_json::Error> {
    let event = &*message.event;
    let head = HeadOut {
        delivery_id: message.delivery_id,
        tenant_id: message.tenant_id,
        destination_id: message.destination_id,
        destination_version: message.destination_version,
        attempt: message.attempt,
        origin: message.origin.into(),
        event_id: event.id,
        event_type: &event.event_type,
        uid: event.uid.as_deref(),
        source: event.source.as_deref(),
        meta: &event.meta,
        by_reference: message.payload == Payload::ByReference,
        lane: message.lane.map(lane_text),
        guarantee: message.guarantee,
        born_at_us: message.born_at.map(Timestamp::as_micros),
    };
    let mut value = Vec::with_capacity(LENGTH_BYTES + 512 + event.data.len());
    value.extend_from_slice(&[0; LENGTH_BYTES]);
    serde_json::to_writer(&mut value, &head)?;
    let length = u32::try_from(value.len() - LENGTH_BYTES).map_err(serde::ser::Error::custom)?;
    value[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    value.extend_from_slice(&event.data);
    Ok(Encoded {
        key: match message.lane {
            Some(lane) => format!("{}/{}", message.destination_id, lane_text(lane)),
            None => message.destination_id.to_string(),
        },
        headers: [
            (VERSION_HEADER, version_of(message).to_string()),
            (DELIVERY_HEADER, message.delivery_id.to_string()),
            (DESTINATION_VERSION_HEADER, message.destination_version.to_string()),
        ],
        value,
    })
}

/// The version that a message takes.
fn version_of(message: &Message) -> u32 {
    let is_guarded = message.lane.is_some() || message.guarantee == Guarantee::AtMostOnce;
    if is_guarded { GUARDED_VERSION } else { VERSION }
}

/// The message of these bytes. `version` is the value of its [`VERSION_HEADER`], if it has one. The data is not copied.
///
/// # Errors
/// This version cannot read it.
pub fn decode(version: Option<&[u8]>, value: &Bytes) -> Result<Message, Undecodable> {
    let version: u32 =
        version.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).ok_or(Undecodable::NoVersion)?;
    if version > NEWEST_READABLE {
        return Err(Undecodable::Newer(version));
    }
    let (length, rest) = value.split_first_chunk::<LENGTH_BYTES>().ok_or(Undecodable::CutOff)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Undecodable::CutOff)?;
    let head = rest.get(..length).ok_or(Undecodable::CutOff)?;
    let head: HeadIn = serde_json::from_slice(head).map_err(|error| Undecodable::Head(error.to_string()))?;
    Ok(Message {
        lane: head.lane()?,
        guarantee: head.guarantee,
        born_at: head.born_at_us.map(Timestamp::from_micros),
        delivery_id: head.delivery_id,
        tenant_id: head.tenant_id,
        destination_id: head.destination_id,
        destination_version: head.destination_version,
        attempt: head.attempt.get(),
        origin: head.origin.into(),
        event: Arc::new(Event {
            id: head.event_id,
            tenant_id: head.tenant_id,
            event_type: head.event_type,
            uid: head.uid,
            source: head.source,
            meta: head.meta,
            data: value.slice(LENGTH_BYTES + length..),
        }),
        payload: if head.by_reference { Payload::ByReference } else { Payload::Inline },
    })
}

/// The delivery id of a message whose value cannot be read, from its [`DELIVERY_HEADER`].
pub fn delivery_id(header: Option<&[u8]>) -> Option<DeliveryId> {
    std::str::from_utf8(header?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn message() -> Message {
        let at = Timestamp::from_millis(1_700_000_000_123);
        let tenant_id = TenantId::DEFAULT;
        let destination_id = DestinationId::from_parts(at, [2; 10]);
        Message {
            delivery_id: DeliveryId::from_parts(at, [1; 10]),
            tenant_id,
            destination_id,
            destination_version: 7,
            attempt: 3,
            origin: Origin::Feed { leased_until: Timestamp::from_micros(1_700_000_060_000_001) },
            event: Arc::new(Event {
                id: EventId::from_parts(at, [3; 10]),
                tenant_id,
                event_type: "order.created".to_owned(),
                uid: Some("o-1".to_owned()),
                source: Some("shop".to_owned()),
                meta: EventMeta {
                    occurred_at: Some(at),
                    labels: BTreeMap::from([("region".to_owned(), "eu".to_owned())]),
                    ..EventMeta::default()
                },
                data: Bytes::from_static(b"{\"total\":12.50}"),
            }),
            payload: Payload::Inline,
            lane: None,
            guarantee: Guarantee::AtLeastOnce,
            born_at: None,
        }
    }

    #[test]
    fn a_guarded_message_takes_a_version_that_older_readers_refuse() {
        let mut message = message();
        message.lane = Some(LaneId::of("customer 7"));
        message.guarantee = Guarantee::AtMostOnce;
        message.born_at = Some(Timestamp::from_micros(1_700_000_050_000_007));
        let encoded = encode(&message).unwrap();
        assert_eq!(encoded.headers[0], (VERSION_HEADER, "3".to_owned()));
        assert_eq!(encoded.key, format!("{}/{}", message.destination_id, lane_text(LaneId::of("customer 7"))));
        assert_eq!(decode(Some(b"3"), &encoded.value.into()).unwrap(), message);
    }

    /// What version 1 looks like. Never change it: messages written by an older program lie on the bus.
    const GOLDEN_HEAD: &str = concat!(
        r#"{"delivery_id":"dlv_01hf7yat3ve40r2081040g2081","tenant_id":"tnt_0000000000e008000000000001","#,
        r#""destination_id":"dst_01hf7yat3ve81840g2081040g2","destination_version":7,"attempt":3,"#,
        r#""origin":{"feed":{"leased_until_us":1700000060000001}},"event_id":"evt_01hf7yat3vec1r60r30c1g60r3","#,
        r#""type":"order.created","uid":"o-1","source":"shop","#,
        r#""meta":{"occurred_at":"2023-11-14T22:13:20.123Z","labels":{"region":"eu"}}}"#,
    );

    fn golden() -> Vec<u8> {
        let mut bytes = u32::try_from(GOLDEN_HEAD.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(GOLDEN_HEAD.as_bytes());
        bytes.extend_from_slice(b"{\"total\":12.50}");
        bytes
    }

    #[test]
    fn version_1_is_pinned() {
        let encoded = encode(&message()).unwrap();
        assert_eq!(String::from_utf8_lossy(&encoded.value), String::from_utf8_lossy(&golden()));
        assert_eq!(encoded.key, message().destination_id.to_string());
        assert_eq!(encoded.headers[0], ("signalpost-envelope", "1".to_owned()));
        assert_eq!(encoded.headers[1], ("signalpost-delivery", message().delivery_id.to_string()));
        assert_eq!(encoded.headers[2], ("signalpost-destination-version", "7".to_owned()));
        assert_eq!(decode(Some(b"1"), &golden().into()), Ok(message()));
    }

    #[test]
    fn a_newer_neighbour_is_read_and_its_unknown_fields_are_ignored() {
        let head =
            GOLDEN_HEAD.replacen('{', r#"{"colour":{"hue":4},"#, 1).replace(r#""meta":{"#, r#""meta":{"later":1,"#);
        let mut bytes = u32::try_from(head.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(b"{\"total\":12.50}");
        assert_eq!(decode(Some(b"4"), &bytes.clone().into()), Ok(message()));
        assert_eq!(decode(Some(b"5"), &bytes.into()), Err(Undecodable::Newer(5)));
    }

    #[test]
    fn what_is_missing_or_unknown_is_told() {
        let check = |version: Option<&[u8]>, head: &str| {
            let mut bytes = u32::try_from(head.len()).unwrap().to_be_bytes().to_vec();
            bytes.extend_from_slice(head.as_bytes());
            decode(version, &bytes.into()).unwrap_err()
        };
        assert_eq!(check(None, GOLDEN_HEAD), Undecodable::NoVersion);
        assert_eq!(check(Some(b"one"), GOLDEN_HEAD), Undecodable::NoVersion);
        let unknown_origin = GOLDEN_HEAD.replace("feed", "oracle");
        assert!(matches!(check(Some(b"1"), &unknown_origin), Undecodable::Head(_)));
        let no_attempt = GOLDEN_HEAD.replace(r#""attempt":3"#, r#""attempt":0"#);
        assert!(matches!(check(Some(b"1"), &no_attempt), Undecodable::Head(_)));
        assert!(matches!(check(Some(b"1"), ""), Undecodable::Head(_)));
        assert_eq!(decode(Some(b"1"), &Bytes::from_static(b"\0\0\0")), Err(Undecodable::CutOff));
        assert_eq!(decode(Some(b"1"), &Bytes::from_static(b"\xff\xff\xff\xff{}")), Err(Undecodable::CutOff));
    }

    #[test]
    fn the_delivery_can_be_known_from_its_header_alone() {
        let id = message().delivery_id;
        assert_eq!(delivery_id(Some(id.to_string().as_bytes())), Some(id));
        assert_eq!(delivery_id(Some(b"dlv_\xff")), None);
        assert_eq!(delivery_id(None), None);
    }

    fn text() -> impl Strategy<Value = String> {
        prop::collection::vec(any::<char>(), 0..12).prop_map(String::from_iter)
    }

    fn id_bytes() -> impl Strategy<Value = uuid::Uuid> {
        any::<u128>().prop_map(uuid::Uuid::from_u128)
    }

    prop_compose! {
        fn metas()(
            occurred_at in prop::option::of((-60_000_000_000_000_000_i64..200_000_000_000_000_000).prop_map(Timestamp::from_micros)),
            ordering_key in prop::option::of(text()),
            destination_id in prop::option::of(id_bytes().prop_map(DestinationId::from_uuid)),
            labels in prop::collection::btree_map(text(), text(), 0..3),
            schema_version in prop::option::of(text()),
            content_type in prop::option::of(text()),
            extensions in prop::collection::btree_map(text(), any::<i64>().prop_map(serde_json::Value::from), 0..3),
            traceparent in prop::option::of(text()),
        ) -> EventMeta {
            EventMeta { occurred_at, ordering_key, destination_id, labels, schema_version, content_type, extensions, traceparent }
        }
    }

    prop_compose! {
        fn messages()(
            (delivery, tenant, destination, event) in (id_bytes(), id_bytes(), id_bytes(), id_bytes()),
            destination_version in any::<u32>(),
            attempt in 1_u32..,
            leased_until in prop::option::of(any::<i64>()),
            event_type in text(),
            uid in prop::option::of(text()),
            source in prop::option::of(text()),
            meta in metas(),
            data in prop::collection::vec(any::<u8>(), 0..200),
            by_reference in any::<bool>(),
            lane in prop::option::of(any::<[u8; 16]>()),
            once in any::<bool>(),
            born_at in prop::option::of(any::<i64>()),
        ) -> Message {
            let tenant_id = TenantId::from_uuid(tenant);
            let data = if by_reference { Vec::new() } else { data };
            Message {
                delivery_id: DeliveryId::from_uuid(delivery),
                tenant_id,
                destination_id: DestinationId::from_uuid(destination),
                destination_version,
                attempt,
                origin: leased_until.map_or(Origin::Fresh, |us| Origin::Feed { leased_until: Timestamp::from_micros(us) }),
                event: Arc::new(Event { id: EventId::from_uuid(event), tenant_id, event_type, uid, source, meta, data: data.into() }),
                payload: if by_reference { Payload::ByReference } else { Payload::Inline },
                lane: lane.map(LaneId::from_bytes),
                guarantee: if once { Guarantee::AtMostOnce } else { Guarantee::AtLeastOnce },
                born_at: born_at.map(Timestamp::from_micros),
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(message in messages()) {
            let encoded = encode(&message).unwrap();
            prop_assert_eq!(decode(Some(encoded.headers[0].1.as_bytes()), &encoded.value.into()), Ok(message));
        }

        #[test]
        fn no_bytes_make_it_panic(
            version in prop::option::of(prop_oneof![Just(b"1".to_vec()), prop::collection::vec(any::<u8>(), 0..4)]),
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let _either = decode(version.as_deref(), &bytes.clone().into());
            let _either = delivery_id(Some(&bytes));
        }

        #[test]
        fn no_damage_makes_it_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let mut bytes = golden();
            let place = at.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(cut.index(bytes.len() + 1));
            let _either = decode(Some(b"1"), &bytes.into());
        }
    }
}
