//! CloudEvents 1.0 over HTTP: structured, binary and batched mode.
//!
//! `id`, `source`, `type`, `time` and `partitionkey` become `uid`, `source`, `type`, `occurred_at` and `ordering_key`. Every other
//! attribute (`subject` and `dataschema` among them) is kept as an extension, and goes out again where a destination
//! wants CloudEvents.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, value::RawValue};
use signalpost_core::EventMeta;

use super::{
    native::{self, base64},
    posted::{Keep, Posted, Reader, text_of},
    rules::{self, Wrong},
};
use crate::{
    ingest::free_bytes,
    json::{Members, is_json, json_data, media_type, not_json},
    problem::Problem,
};

/// Structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json";

/// Batched mode.
pub const BATCH: &str = "application/cloudevents-batch+json";

/// An event without data.
const NOTHING: &str = "null";

/// Whether a request is in binary mode.
pub fn is_binary(headers: &HeaderMap) -> bool {
    headers.contains_key("ce-specversion")
}

/// Reads an event in structured mode. The text must be valid UTF-8 and shallow enough already.
///
/// # Errors
/// 400, 422.
pub fn read_structured(text: &str, keep: Keep<'_>) -> Result<Posted, Problem> {
    let mut reader = Reader::new(Members::read(text)?);
    let data = reader.raw("data");
    let data_base64 = reader.value("data_base64");
    let mut attributes = attributes(&mut reader);
    let content_type = attributes.get("datacontenttype").and_then(Value::as_str).map(str::to_owned);
    // One that is no media type is told of below.
    let json = content_type.as_deref().is_none_or(|text| is_json(text) || rules::content_type(text).is_err());
    let data = match (data, data_base64) {
        (Some(_), Some(_)) => {
            reader.wrong("data_base64", "cannot be given together with `data`");
            Bytes::new()
        }
        (None, None) if json => keep_nothing(),
        (None, None) => Bytes::new(),
        (None, Some(data)) => {
            let content_type = content_type.unwrap_or_else(|| native::BYTES.to_owned());
            let bytes = base64(&mut reader, data, &content_type);
            attributes.insert("datacontenttype".to_owned(), Value::String(content_type));
            bytes
        }
        (Some(data), None) if json => keep.keep(data.get()),
        // What is not JSON stands in a string (CloudEvents JSON format 1.0, section 3.1).
        (Some(data), None) => text_of(data).map_or_else(
            |_| {
                reader.wrong("data", "must be a string for this `datacontenttype`");
                Bytes::new()
            },
            Bytes::from,
        ),
    };
    posted(reader, attributes, data)
}

/// Reads an event in binary mode: attributes in headers, `data` is the body.
///
/// # Errors
/// 400, 422.
pub fn read_binary(headers: &HeaderMap, body: Bytes) -> Result<Posted, Problem> {
    let mut reader = Reader::new(Members::default());
    let mut attributes = BTreeMap::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else {
            continue;
        };
        match header_text(value.as_bytes()).and_then(|text| check_attribute(name, Value::String(text))) {
            Ok(value) => {
                if attributes.insert(name.to_owned(), value).is_some() {
                    reader.wrong(name, "stands twice");
                }
            }
            Err(wrong) => reader.wrong(name, wrong),
        }
    }
    let json = media_type(headers).is_none_or(|media_type| is_json(&media_type));
    match headers.get(http::header::CONTENT_TYPE).map(|value| value.to_str()) {
        None => {}
        Some(Ok(content_type)) => {
            attributes.insert("datacontenttype".to_owned(), Value::String(content_type.to_owned()));
        }
        // Left out, it would make JSON of what is none.
        Some(Err(_)) => reader.wrong("datacontenttype", "must be visible ASCII (the header Content-Type)"),
    }
    let data = if !json {
        body
    } else if body.is_empty() {
        keep_nothing()
    } else {
        json_data(&body)?
    };
    posted(reader, attributes, data)
}

/// The events of a batch, each as it was written.
///
/// # Errors
/// 400; 422 where it is no list.
pub fn read_batch(text: &str) -> Result<Vec<&RawValue>, Problem> {
    let whole: &RawValue = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    serde_json::from_str(whole.get()).map_err(|_| Problem::invalid_at("", "must be a list of events"))
}

const fn keep_nothing() -> Bytes {
    Bytes::from_static(NOTHING.as_bytes())
}

/// What is left of the members are attributes.
fn attributes(reader: &mut Reader<'_>) -> BTreeMap<String, Value> {
    let mut attributes = BTreeMap::new();
    for (name, raw) in reader.rest() {
        let value = serde_json::from_str(raw.get()).map_err(|_| "cannot be read".to_owned());
        match value.and_then(|value| check_attribute(&name, value)) {
            // An attribute that is null is one that is absent (CloudEvents JSON format 1.0, section 2.2).
            Ok(Value::Null) => {}
            Ok(value) => {
                attributes.insert(name, value);
            }
            Err(wrong) => reader.wrong(&name, wrong),
        }
    }
    attributes
}

/// The type system of CloudEvents, as far as JSON shows it: boolean, integer, string.
fn check_attribute(name: &str, value: Value) -> Result<Value, Wrong> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        return Err("is not the name of a CloudEvents attribute (lower-case letters and digits)".to_owned());
    }
    match &value {
        Value::Null | Value::Bool(_) => Ok(value),
        Value::Number(number) if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => Ok(value),
        Value::String(text) => rules::no_nul(text).map(|()| value),
        _ => Err("must be a string, a boolean or a 32-bit integer".to_owned()),
    }
}

/// Makes an event of its attributes.
fn posted(mut reader: Reader<'_>, mut attributes: BTreeMap<String, Value>, data: Bytes) -> Result<Posted, Problem> {
    let mut text = |name: &str, required: bool, rule: fn(&str) -> Result<(), Wrong>| {
        let value = attributes.remove(name);
        let checked = match &value {
            None if required => Err("is required".to_owned()),
            None => Ok(()),
            Some(Value::String(text)) => rule(text),
            Some(_) => Err("must be a string".to_owned()),
        };
        match (checked, value) {
            (Ok(()), Some(Value::String(text))) => Some(text),
            (Ok(()), _) => None,
            (Err(wrong), _) => {
                // What has been reported as unreadable is not reported as missing.
                if !reader.is_wrong(name) {
                    reader.wrong(name, wrong);
                }
                None
            }
        }
    };
    let _version =
        text("specversion", true, |text| if text == "1.0" { Ok(()) } else { Err("must be `1.0`".to_owned()) });
    let event_type = text("type", true, rules::event_type).unwrap_or_default();
    let uid = text("id", true, rules::uid);
    let source = text("source", true, rules::source);
    let time = text("time", false, |text| rules::time(text).map(|_| ()));
    let ordering_key = text("partitionkey", false, rules::ordering_key);
    let content_type = text("datacontenttype", false, rules::content_type);
    let meta = EventMeta {
        occurred_at: time.and_then(|time| rules::time(&time).ok()),
        ordering_key,
        content_type: native::kept_type(content_type),
        extensions: attributes,
        ..EventMeta::default()
    };
    if free_bytes(&meta) > rules::MOST_FREE_BYTES {
        let most = rules::MOST_FREE_BYTES;
        reader.wrong_at(String::new(), format!("has extensions of more than {most} bytes in all"));
    }
    reader.finish(|| Posted { event_type, uid, source, meta, data })
}

/// The text of a header in binary mode: quotes are optional, and characters outside visible ASCII are percent-encoded
/// UTF-8 (CloudEvents HTTP binding 1.0.2, section 3.1.3.2).
fn header_text(value: &[u8]) -> Result<String, Wrong> {
    let inner = match value {
        [b'"', inner @ .., b'"'] => inner,
        other => other,
    };
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = tail.get(..2).and_then(hex_pair).filter(|_| byte == b'%');
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None if byte == b'\\' && inner.len() < value.len() && !tail.is_empty() => {
                bytes.push(tail[0]);
                rest = &tail[1..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

fn hex_pair(pair: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(pair).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_decoded_as_the_binding_says() {
        for (header, text) in [
            ("plain", "plain"),
            ("\"quoted\"", "quoted"),
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
            ("100%", "100%"),
            ("%zz", "%zz"),
            ("\"a\\\"b\"", "a\"b"),
        ] {
            assert_eq!(header_text(header.as_bytes()), Ok(text.to_owned()), "{header}");
        }
        assert!(header_text(b"%FF").is_err());
    }
}
