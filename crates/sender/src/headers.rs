//! The headers of a request to a destination, and which ones its owner may set.

use std::{
    borrow::Cow,
    io::{self, Write as _},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_TYPE, HOST, InvalidHeaderValue, USER_AGENT},
};
use signalpost_core::{Entropy, secret::Secret};

use crate::{Outgoing, body::Body, plan::Plan, traceparent};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const EVENT_TYPE: HeaderName = HeaderName::from_static("signalpost-event-type");
const DELIVERY_ID: HeaderName = HeaderName::from_static("signalpost-delivery-id");
const ATTEMPT: HeaderName = HeaderName::from_static("signalpost-attempt");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const AGENT: HeaderValue = HeaderValue::from_static(concat!("Signalpost/", env!("CARGO_PKG_VERSION")));

/// Why a header of a destination is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderDenied {
    /// Not a header name of HTTP.
    #[error("is not a header name")]
    Name,
    /// Set by Signalpost or by the connection.
    #[error("is set by Signalpost")]
    Reserved,
    /// CR, LF, NUL or another control character in the value.
    #[error("holds a character that no header may hold")]
    Value,
    /// `{…}` that is none of the known placeholders. Which is not told: it is a part of a secret.
    #[error("holds an unknown placeholder")]
    Placeholder,
}

/// Names that a destination may not set.
const RESERVED: &[&str] = &[
    "connection",
    "host",
    "keep-alive",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// Beginnings of names that a destination may not set.
const RESERVED_PREFIXES: &[&str] = &["content-", "proxy-", "signalpost-", "webhook-"];

/// Judges one header that a destination wants to set.
///
/// # Errors
/// It may not be set, or its value is none.
pub fn check(name: &str, value: &str) -> Result<(), HeaderDenied> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeaderDenied::Name)?;
    let lower = parsed.as_str();
    if RESERVED.contains(&lower) || RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
        return Err(HeaderDenied::Reserved);
    }
    HeaderValue::from_str(value).map_err(|_| HeaderDenied::Value)?;
    match parts(value).find(|part| matches!(part, Part::Unknown(_))) {
        Some(Part::Unknown(_)) => Err(HeaderDenied::Placeholder),
        _ => Ok(()),
    }
}

/// A piece of a header's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    Text(&'a str),
    EventId,
    EventUid,
    EventType,
    DeliveryId,
    Attempt,
    Timestamp,
    Unknown(&'a str),
}

/// Cuts a value at its placeholders. A brace without its partner is text.
fn parts(mut value: &str) -> impl Iterator<Item = Part<'_>> {
    std::iter::from_fn(move || {
        if value.is_empty() {
            return None;
        }
        let closed = value.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        if let Some((name, rest)) = closed {
            value = rest;
            return Some(match name {
                "event.id" => Part::EventId,
                "event.uid" => Part::EventUid,
                "event.type" => Part::EventType,
                "delivery.id" => Part::DeliveryId,
                "attempt" => Part::Attempt,
                "timestamp" => Part::Timestamp,
                unknown => Part::Unknown(unknown),
            });
        }
        // The first character is text, whatever it is.
        let end =
            value.char_indices().skip(1).find(|(_, character)| *character == '{').map_or(value.len(), |(at, _)| at);
        let (text, rest) = value.split_at(end);
        value = rest;
        Some(Part::Text(text))
    })
}

/// A value with its placeholders filled in.
fn fill<'a>(value: &'a str, outgoing: &Outgoing<'_>) -> Cow<'a, str> {
    if !value.contains('{') {
        return Cow::Borrowed(value);
    }
    let mut filled = String::with_capacity(value.len() + 32);
    for part in parts(value) {
        match part {
            Part::Text(text) => filled.push_str(text),
            Part::EventId => filled.push_str(&outgoing.event.id.to_string()),
            Part::EventUid => filled.push_str(outgoing.event.uid.as_deref().unwrap_or_default()),
            Part::EventType => filled.push_str(&outgoing.event.event_type),
            Part::DeliveryId => filled.push_str(&outgoing.delivery_id.to_string()),
            Part::Attempt => filled.push_str(&outgoing.attempt.to_string()),
            Part::Timestamp => filled.push_str(&outgoing.at.as_secs().to_string()),
            // Refused when it was set; a destination of a later version may hold one.
            Part::Unknown(name) => {
                filled.push('{');
                filled.push_str(name);
                filled.push('}');
            }
        }
    }
    Cow::Owned(filled)
}

/// What of a value is no placeholder.
pub(crate) fn literals(value: &str) -> impl Iterator<Item = &str> {
    parts(value).filter_map(|part| match part {
        Part::Text(text) => Some(text),
        _ => None,
    })
}

/// The value of a header of a destination.
pub(crate) enum Template {
    /// The same in every request.
    Fixed(HeaderValue),
    /// With placeholders.
    Filled(Secret),
}

impl Template {
    /// None where no header may hold it, which is refused when it is set.
    pub(crate) fn new(value: Secret) -> Option<Self> {
        if value.reveal().contains('{') { Some(Self::Filled(value)) } else { secret(value.reveal()).map(Self::Fixed) }
    }

    fn value(&self, outgoing: &Outgoing<'_>) -> Option<HeaderValue> {
        match self {
            Self::Fixed(value) => Some(value.clone()),
            Self::Filled(text) => secret(&fill(text.reveal(), outgoing)),
        }
    }
}

/// A value that is not shown.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Writes one value.
type Writer<'a> = &'a dyn Fn(&mut Vec<u8>) -> io::Result<()>;

/// All headers of a request but `content-length`, which the connection adds. `id` is the text of the event's id.
pub(crate) fn build(outgoing: &Outgoing<'_>, plan: &Plan, id: String, body: &Body, entropy: &dyn Entropy) -> HeaderMap {
    let event = outgoing.event;
    let mut headers = HeaderMap::with_capacity(16 + plan.opened.headers.len());
    headers.insert(HOST, plan.authority.clone());
    for (name, template) in &plan.opened.headers {
        // What the owner may not set was refused when it was set; ours come after and win.
        if let Some(value) = template.value(outgoing) {
            headers.insert(name, value);
        }
    }
    if let Some((name, value)) = &plan.opened.auth {
        headers.insert(name, value.clone());
    }
    plan.opened.signers.sign(&mut headers, &id, outgoing.at, &body.bytes);
    headers.insert(USER_AGENT, AGENT);
    let content_type = match &body.content_type {
        Cow::Borrowed(text) => Ok(HeaderValue::from_static(text)),
        Cow::Owned(text) => HeaderValue::from_str(text),
    };
    insert(&mut headers, CONTENT_TYPE, content_type);
    insert(&mut headers, WEBHOOK_ID, HeaderValue::try_from(id));

    // One piece of memory for the rest.
    let mut text = Vec::with_capacity(128 + event.event_type.len());
    let mut ends = [0; 5];
    let writers: [Writer<'_>; 5] = [
        &|text| write!(text, "{}", outgoing.at.as_secs()),
        &|text| text.write_all(event.event_type.as_bytes()),
        &|text| write!(text, "{}", outgoing.delivery_id),
        &|text| write!(text, "{}", outgoing.attempt),
        &|text| match outgoing.traceparent {
            Some(context) => text.write_all(context.as_bytes()),
            None => text.write_all(&traceparent::for_attempt(event.meta.traceparent.as_deref(), event.id, entropy)),
        },
    ];
    for (end, write) in ends.iter_mut().zip(writers) {
        // Memory takes everything.
        let _always = write(&mut text);
        *end = text.len();
    }
    let text = Bytes::from(text);
    let mut start = 0;
    for (name, end) in [WEBHOOK_TIMESTAMP, EVENT_TYPE, DELIVERY_ID, ATTEMPT, TRACEPARENT].into_iter().zip(ends) {
        insert(&mut headers, name, HeaderValue::from_maybe_shared(text.slice(start..end)));
        start = end;
    }
    headers
}

/// Sets a header. A value that no header may hold (a control character in a producer's content type) leaves it out.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: Result<HeaderValue, InvalidHeaderValue>) {
    if let Ok(value) = value {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_an_owner_are_judged() {
        for (name, value, denied) in [
            ("authorization", "Bearer abc", None),
            ("X-Api-Key", "{event.id}:{attempt}", None),
            ("x-odd", "a { b } c", Some(HeaderDenied::Placeholder)),
            ("x-open", "a {event.id", None),
            ("x y", "a", Some(HeaderDenied::Name)),
            ("", "a", Some(HeaderDenied::Name)),
            ("Host", "a", Some(HeaderDenied::Reserved)),
            ("Content-Length", "1", Some(HeaderDenied::Reserved)),
            ("transfer-encoding", "chunked", Some(HeaderDenied::Reserved)),
            ("Proxy-Authorization", "a", Some(HeaderDenied::Reserved)),
            ("WEBHOOK-ID", "a", Some(HeaderDenied::Reserved)),
            ("signalpost-x", "a", Some(HeaderDenied::Reserved)),
            ("x-a", "a\r\nb: c", Some(HeaderDenied::Value)),
            ("x-a", "a\0", Some(HeaderDenied::Value)),
            ("x-a", "{secret}", Some(HeaderDenied::Placeholder)),
        ] {
            assert_eq!(check(name, value).err(), denied, "{name}: {value}");
        }
    }

    #[test]
    fn a_value_is_cut_at_its_placeholders() {
        let cut: Vec<_> = parts("{{attempt}-{timestamp}ü{x").collect();
        assert_eq!(
            cut,
            [Part::Unknown("{attempt"), Part::Text("-"), Part::Timestamp, Part::Text("ü"), Part::Text("{x")]
        );
    }
}
