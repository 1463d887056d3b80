//! NDJSON: a line is an event. It goes on as it was written, byte for byte, but for a type that is filled in.

use std::io::BufRead;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Line, Sink};

/// What is looked at here; the API judges the rest.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow, default)]
    event_type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data_base64: Option<&'a RawValue>,
    #[serde(borrow, default)]
    destination_id: Option<&'a RawValue>,
}

/// Reads to the end, or until the sink has enough. Blank lines are skipped.
pub(super) fn read(mut input: impl BufRead, event_type: Option<&str>, name: &str, mut sink: Sink) {
    let mut bytes = Vec::new();
    let (mut number, mut position) = (0, 0);
    loop {
        bytes.clear();
        number += 1;
        match input.read_until(b'\n', &mut bytes) {
            Ok(0) => return,
            Ok(read) => position += read as u64,
            Err(error) => return sink.broken(number, position, name, &error),
        }
        let line = bytes.trim_ascii();
        // A byte order mark, as Windows tools write it.
        let line = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        if !line.is_empty() && !sink.put(Line { number, event: event(line, event_type), position }) {
            return;
        }
    }
}

/// The event of one line.
pub(super) fn event(line: &[u8], event_type: Option<&str>) -> Result<String, String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("not UTF-8: {error}"))?;
    if !text.starts_with('{') {
        return Err("not a JSON object".to_owned());
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| broken_json(&error))?;
    if envelope.data.is_none() && envelope.data_base64.is_none() {
        return Err("has no `data`".to_owned());
    }
    match (envelope.event_type, event_type, envelope.destination_id) {
        (Some(_), _, _) | (None, None, Some(_)) => Ok(text.to_owned()),
        (None, Some(event_type), _) => {
            let event_type = serde_json::Value::from(event_type);
            Ok(format!("{{\"type\":{event_type},{}", &text[1..]))
        }
        (None, None, None) => Err("has no `type` (or give --type)".to_owned()),
    }
}

/// Without the line of `serde_json`, which is always 1 here.
fn broken_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    format!("not JSON: {what} at column {}", error.column())
}
