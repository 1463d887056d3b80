//! An event in our own JSON.

use std::{collections::BTreeMap, str::FromStr as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::value::RawValue;
use signalpost_core::{DestinationId, EventMeta, event};

use super::{
    posted::{Keep, Posted, Reader, text_of},
    rules,
};
use crate::{
    json::{Members, child, is_json, json_data},
    problem::{Code, Problem},
};

/// The content type of `data_base64` where the producer names none.
pub const BYTES: &str = "application/octet-stream";

/// Reads one event. The text must be valid UTF-8 and shallow enough already.
///
/// # Errors
/// 400, 422; 404 where `destination_id` is no id at all.
pub fn read(text: &str, keep: Keep<'_>) -> Result<Posted, Problem> {
    let mut reader = Reader::new(Members::read(text)?);
    let event_type = reader.text("type", rules::event_type);
    let type_given = event_type.is_some() || reader.is_wrong("type");
    let destination = reader.parsed("destination_id", |text| Ok(DestinationId::from_str(text)));
    let uid = reader.text("uid", rules::uid);
    let source = reader.text("source", rules::source);
    let occurred_at = reader.parsed("occurred_at", rules::time);
    let ordering_key = reader.text("ordering_key", rules::ordering_key);
    let schema_version = reader.text("schema_version", rules::schema_version);
    let labels = labels(&mut reader);
    let (data, content_type) = data(&mut reader, keep);
    if !type_given && destination.is_none() {
        reader.wrong("type", "is required, unless `destination_id` is given");
    }
    let (event_type, destination_id) = reader.finish(|| (event_type, destination))?;
    let destination_id = match destination_id {
        None => None,
        Some(Ok(id)) => Some(id),
        // The same answer as for an id that does not exist.
        Some(Err(_)) => return Err(no_destination_id()),
    };
    let meta = EventMeta {
        occurred_at,
        ordering_key,
        destination_id,
        labels,
        schema_version,
        content_type,
        ..EventMeta::default()
    };
    let event_type = event_type.unwrap_or_else(|| event::DEFAULT_TYPE.to_owned());
    Ok(Posted { event_type, uid, source, meta, data })
}

/// 404: what an event names as its destination is no id. A `uid` would have to be looked up for every event.
fn no_destination_id() -> Problem {
    Problem::new(
        Code::NotFound,
        "There is no such destination: an event names it by its id (`dst_…`), not by its `uid`.",
    )
}

/// 404: the destination that an event names.
pub fn unknown_destination() -> Problem {
    Problem::new(Code::NotFound, "There is no such destination.")
}

fn labels(reader: &mut Reader<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let Some(value) = reader.value("labels") else {
        return labels;
    };
    let members = match Members::read(value.get()) {
        Ok(members) => members,
        Err(problem) => {
            for error in problem.errors {
                reader.wrong_at(format!("/labels{}", error.pointer), error.detail);
            }
            return labels;
        }
    };
    for (name, value) in members.rest() {
        let checked = rules::no_nul(&name)
            .and_then(|()| if name.is_empty() { Err("must have a name".to_owned()) } else { Ok(()) })
            .and_then(|()| text_of(value))
            .and_then(|text| rules::no_nul(&text).map(|()| text));
        match checked {
            Ok(text) => {
                labels.insert(name.into_owned(), text);
            }
            Err(wrong) => reader.wrong_at(child("/labels", &name), wrong),
        }
    }
    if labels.iter().map(|(name, text)| name.len() + text.len()).sum::<usize>() > rules::MOST_FREE_BYTES {
        reader.wrong("labels", format!("must not be larger than {} bytes in all", rules::MOST_FREE_BYTES));
    }
    labels
}

/// `data`, or `data_base64` with `content_type`; and the content type where it is not plain JSON.
fn data(reader: &mut Reader<'_>, keep: Keep<'_>) -> (Bytes, Option<String>) {
    let content_type = reader.text("content_type", rules::content_type);
    let data = reader.raw("data");
    match (data, reader.value("data_base64")) {
        (None, None) => {
            reader.wrong("data", "is required (or `data_base64`)");
            (Bytes::new(), None)
        }
        (Some(_), Some(_)) => {
            reader.wrong("data_base64", "cannot be given together with `data`");
            (Bytes::new(), None)
        }
        (Some(data), None) => {
            if content_type.as_deref().is_some_and(|content_type| !is_json(content_type)) {
                reader.wrong("content_type", "must be JSON for `data`; what is not JSON goes into `data_base64`");
            }
            (keep.keep(data.get()), kept_type(content_type))
        }
        (None, Some(data)) => {
            let content_type = content_type.unwrap_or_else(|| BYTES.to_owned());
            (base64(reader, data, &content_type), kept_type(Some(content_type)))
        }
    }
}

/// The content type as an event keeps it: none for JSON.
pub fn kept_type(content_type: Option<String>) -> Option<String> {
    content_type.filter(|text| event::media_type(text) != event::JSON)
}

/// Decodes `data_base64`. What is said to be JSON must be: it goes out as JSON.
pub fn base64(reader: &mut Reader<'_>, value: &RawValue, content_type: &str) -> Bytes {
    let decoded = text_of(value)
        .and_then(|text| STANDARD.decode(text).map_err(|_| "must be base64".to_owned()))
        .map(Bytes::from)
        .and_then(|bytes| match is_json(content_type) {
            true => json_data(&bytes).map_err(|_| "must be JSON (in base64) by its content type".to_owned()),
            false => Ok(bytes),
        });
    match decoded {
        Ok(bytes) => bytes,
        Err(wrong) => {
            reader.wrong("data_base64", wrong);
            Bytes::new()
        }
    }
}
