//! The entries of the fuzz targets: bytes of strangers into what reads bodies and queries, and what must hold of all that
//! is taken. The crate `signalpost-fuzzing` runs them.

#![allow(clippy::expect_used, reason = "a broken promise ends the run: that is the finding")]

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use serde_json::value::RawValue;
use signalpost_core::{
    DeliveryId, DestinationSpec, Event, EventId, EventMeta, TenantId, Timestamp, destination::BodyFormat, event,
    secret::Secret,
};
use signalpost_sender::{EgressPolicy, body};

use crate::{
    events::{
        cloudevents, native,
        posted::{Keep, Posted},
    },
    json::{Document, is_json, is_shallow},
    manage::destination,
    page::{CursorKey, ListQuery},
};

/// The body of an event.
///
/// # Panics
/// What is taken cannot be kept, or not be sent.
pub fn event(data: &[u8]) {
    let Ok(document) = Document::new(Bytes::copy_from_slice(data)) else { return };
    let kept = native::read(document.text(), Keep::PartOf(document.bytes()));
    let copied = native::read(document.text(), Keep::Copied);
    match (kept, copied) {
        (Ok(kept), Ok(copied)) => {
            assert_eq!(kept, copied);
            check_posted(kept);
        }
        (kept, copied) => assert!(kept.is_err() && copied.is_err()),
    }
}

/// A CloudEvent: headers, a line each, up to an empty line, and the body, which is read in all three modes.
///
/// # Panics
/// As [`event`].
pub fn cloud_event(data: &[u8]) {
    let mut headers = HeaderMap::new();
    let mut rest = data;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        if line.is_empty() {
            break;
        }
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().and_then(|name| HeaderName::from_bytes(name).ok());
        let value = parts.next().and_then(|value| HeaderValue::from_bytes(value.trim_ascii()).ok());
        if let (Some(name), Some(value)) = (name, value)
            && headers.len() < 100
        {
            headers.append(name, value);
        }
    }
    let body = Bytes::copy_from_slice(rest);
    if let Ok(posted) = cloudevents::read_binary(&headers, body.clone()) {
        check_posted(posted);
    }
    let Ok(document) = Document::new(body) else { return };
    if let Ok(posted) = cloudevents::read_structured(document.text(), Keep::PartOf(document.bytes())) {
        check_posted(posted);
    }
    for item in cloudevents::read_batch(document.text()).unwrap_or_default() {
        if let Ok(posted) = cloudevents::read_structured(item.get(), Keep::Copied) {
            check_posted(posted);
        }
    }
}

/// It is kept as it is, and goes out as JSON where it is said to be JSON.
fn check_posted(posted: Posted) {
    assert_eq!(posted.content_hash(), posted.content_hash());
    let meta = serde_json::to_vec(&posted.meta).expect("meta is written");
    let again: EventMeta = serde_json::from_slice(&meta).expect("meta is read");
    assert_eq!(again, posted.meta, "meta as it was written");
    for text in [posted.uid.as_deref(), posted.source.as_deref(), Some(posted.event_type.as_str())] {
        assert!(!text.unwrap_or_default().contains('\0'), "PostgreSQL keeps no NUL");
    }
    let content_type = posted.meta.content_type.as_deref().unwrap_or(event::JSON);
    if is_json(content_type) {
        check_json(&posted.data, "data");
        assert!(is_shallow(&posted.data, crate::json::MAX_DEPTH - 1));
    }
    assert!(HeaderValue::from_str(content_type).is_ok(), "{content_type:?} is a header of what is sent");
    assert!(HeaderValue::from_str(&posted.event_type).is_ok());
    let event = Event {
        id: EventId::floor(Timestamp::from_millis(1_700_000_000_000)),
        tenant_id: TenantId::DEFAULT,
        event_type: posted.event_type,
        uid: posted.uid,
        source: posted.source,
        meta: posted.meta,
        data: posted.data,
    };
    for format in [BodyFormat::Standard, BodyFormat::Cloudevents] {
        check_json(&body::build(&event, format).bytes, "what is sent");
    }
    assert_eq!(body::build(&event, BodyFormat::Data).bytes, event.data);
}

fn check_json(text: &[u8], what: &str) {
    let read = serde_json::from_slice::<&RawValue>(text);
    assert!(read.is_ok(), "{what} is no JSON: {}", String::from_utf8_lossy(text));
}

/// The body of a destination.
///
/// # Panics
/// What is taken cannot be kept, or is not taken when it comes back as it is kept (as PATCH does).
pub fn destination(data: &[u8]) {
    let policy = EgressPolicy::public_only();
    let check = |text: &str| destination::normal_url(&policy, text);
    let Ok(document) = Document::new(Bytes::copy_from_slice(data)) else { return };
    let Ok(members) = document.object() else { return };
    let Ok(draft) = destination::read(&members, &check) else { return };
    let kept = serde_json::to_value(&draft.spec).expect("a spec is written");
    let again: DestinationSpec = serde_json::from_value(kept.clone()).expect("a spec is read");
    assert_eq!(again, draft.spec, "the spec as it was written");
    let serde_json::Value::Object(mut whole) = kept else { unreachable!("a spec is an object") };
    whole.remove("header_names");
    let headers = draft.headers.iter().map(|(name, value)| (name.clone(), Secret::reveal(value).into()));
    whole.insert("headers".to_owned(), serde_json::Value::Object(headers.collect()));
    let again = destination::read(&whole, &check).map_err(|problem| problem.errors).expect("it is taken again");
    assert_eq!((again.spec, again.headers), (draft.spec, draft.headers), "the same again");
}

/// The query of a list: the cursor and all else.
///
/// # Panics
/// A cursor that we made leads elsewhere.
pub fn cursor(data: &[u8]) {
    check_cursor::<EventId>(data);
    check_cursor::<(DeliveryId, u32)>(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    for query in [format!("/v1/events?{text}"), format!("/v1/events?cursor={text}")] {
        let Some(query) = read(&query) else { continue };
        let _any = query.page::<EventId>();
        let _any = query.page::<(DeliveryId, u32)>();
        let _any = query.time("since");
    }
}

fn read(uri: &str) -> Option<ListQuery> {
    let (parts, ()) = Request::get(uri).body(()).ok()?.into_parts();
    ListQuery::read(&parts, &["type", "since", "label."], true).ok()
}

fn check_cursor<K: CursorKey + PartialEq + std::fmt::Debug>(data: &[u8]) {
    let Some(key) = K::from_bytes(data) else { return };
    assert_eq!(key.to_bytes(), data);
    let first = read("/v1/events?limit=1").expect("a query");
    let list = first.list(vec![(), ()], |()| K::from_bytes(data).expect("a key"), |()| ());
    let cursor = list.next_cursor.expect("there is more");
    let next = read(&format!("/v1/events?limit=1&cursor={cursor}")).expect("a query");
    assert_eq!(next.page::<K>().expect("a cursor of ours").after, Some(key));
}
