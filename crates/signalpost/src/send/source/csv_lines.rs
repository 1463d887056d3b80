//! CSV: the columns of a line become `data`, an object of strings in the order of the columns.

use std::{
    io::Read,
    sync::atomic::{AtomicU64, Ordering},
};

use csv::{ByteRecord, ReaderBuilder};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::{Line, Sink, tap::Tap};

/// Of a record that has swallowed all that came after it.
const OPEN: &str = "a quote is opened and never closed: all that follows is within it";

/// Reads to the end, or until the sink has enough. `read` tells how far the input has been read.
pub(super) fn read(
    input: impl Read,
    event_type: Option<&str>,
    uid_column: Option<&str>,
    name: &str,
    read: &AtomicU64,
    mut sink: Sink,
) {
    let position = || read.load(Ordering::Relaxed);
    // Lines of another length are read, too, so that they can be told by their number.
    let mut reader = ReaderBuilder::new().flexible(true).from_reader(Tap::new(input));
    let columns = match reader.byte_headers().map(columns) {
        Ok(Ok(columns)) => columns,
        Ok(Err(error)) => return sink.broken(1, position(), name, &error),
        Err(error) => return sink.broken(1, position(), name, &error),
    };
    let end = reader.position().byte();
    if reader.get_mut().take_record(end).is_open {
        return sink.broken(1, position(), name, &OPEN);
    }
    let uid = match uid_column.map(|wanted| columns.iter().position(|column| column == wanted).ok_or(wanted)) {
        None => None,
        Some(Ok(index)) => Some(index),
        Some(Err(wanted)) => {
            let error = format!("there is no column `{wanted}` (there are: {})", columns.join(", "));
            return sink.broken(1, position(), name, &error);
        }
    };
    let mut record = ByteRecord::new();
    loop {
        match reader.read_byte_record(&mut record) {
            Ok(false) => return,
            Ok(true) => {
                let end = reader.position().byte();
                let raw = reader.get_mut().take_record(end);
                // The reader's own count is of where it begins to look for the record, which may be some line breaks before it.
                let number = record.position().map_or(0, csv::Position::line) + raw.breaks_before;
                let event = match raw.is_open {
                    true => Err(OPEN.to_owned()),
                    false => event(&record, &columns, event_type.unwrap_or_default(), uid),
                };
                if !sink.put(Line { number, event, position: position() }) {
                    return;
                }
            }
            Err(error) => return sink.broken(reader.position().line(), position(), name, &error),
        }
    }
}

fn columns(header: &ByteRecord) -> Result<Vec<String>, String> {
    let columns: Vec<_> = header.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
    for (index, column) in columns.iter().enumerate() {
        if column.is_empty() {
            return Err(format!("column {} has no name", index + 1));
        }
        if columns[..index].contains(column) {
            return Err(format!("two columns are named `{column}`"));
        }
    }
    Ok(columns)
}

fn event(record: &ByteRecord, columns: &[String], event_type: &str, uid: Option<usize>) -> Result<String, String> {
    if record.len() != columns.len() {
        return Err(format!("has {} fields, the first line has {}", record.len(), columns.len()));
    }
    let fields: Vec<&str> = record
        .iter()
        .zip(columns)
        .map(|(field, column)| std::str::from_utf8(field).map_err(|_| format!("field `{column}` is not UTF-8")))
        .collect::<Result<_, _>>()?;
    let uid = uid.map(|index| fields[index]);
    if uid == Some("") {
        return Err("the column of the uid is empty".to_owned());
    }
    let event = Event { event_type, uid, data: Data { columns, fields: &fields } };
    serde_json::to_string(&event).map_err(|error| error.to_string())
}

#[derive(serde::Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    data: Data<'a>,
}

/// An object with the columns in their order.
struct Data<'a> {
    columns: &'a [String],
    fields: &'a [&'a str],
}

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.columns.len()))?;
        for (column, field) in self.columns.iter().zip(self.fields) {
            map.serialize_entry(column, field)?;
        }
        map.end()
    }
}
