//! The doors of the benches: bodies of events, read as their handlers read them. The crate `signalpost-benches` measures
//! them.

use bytes::Bytes;

use crate::{
    events::{batch::Form, cloudevents, native, posted::Keep},
    json::Document,
};

/// Reads an event in our own JSON; whether it was taken.
pub fn event(body: Bytes) -> bool {
    Document::new(body).is_ok_and(|document| native::read(document.text(), Keep::PartOf(document.bytes())).is_ok())
}

/// Reads a CloudEvent in structured mode; whether it was taken.
pub fn cloud_event(body: Bytes) -> bool {
    Document::new(body)
        .is_ok_and(|document| cloudevents::read_structured(document.text(), Keep::PartOf(document.bytes())).is_ok())
}

/// Reads a batch in our own JSON; how many of its events were taken.
pub fn batch(body: &[u8]) -> usize {
    Form::Native.read(body, body.len()).map_or(0, |events| events.iter().filter(|event| event.is_ok()).count())
}
