//! The fields of a span as JSON, written once, when the span begins.
//!
//! What [`JsonFields`] writes, in the order of the fields and without a tree of values in between: every request has a span.

use std::fmt::{self, Debug, Write as _};

use serde_json::Value;
use tracing::{
    field::{Field, Visit},
    span::Record,
};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{
        FormatFields, FormattedFields,
        format::{JsonFields, Writer},
    },
};

/// Room for the fields of a request.
const USUAL_BYTES: usize = 160;

/// Formats fields for lines of JSON.
#[derive(Debug, Default)]
pub(super) struct SpanFields;

impl<'w> FormatFields<'w> for SpanFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut object = Object(String::with_capacity(USUAL_BYTES));
        object.0.push('{');
        fields.record(&mut object);
        object.0.push('}');
        writer.write_str(&object.0)
    }

    /// Seldom: a field that is added to a span that has begun.
    fn add_fields(&self, current: &'w mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        let mut known = FormattedFields::<JsonFields>::new(std::mem::take(&mut current.fields));
        let added = JsonFields::new().add_fields(&mut known, fields);
        current.fields = known.fields;
        added
    }
}

/// An object that is being written.
struct Object(String);

impl Object {
    fn name(&mut self, field: &Field) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        let name = field.name();
        self.0.push('"');
        Escaped(&mut self.0).push(name.strip_prefix("r#").unwrap_or(name));
        self.0.push_str("\":");
    }

    fn value(&mut self, field: &Field, value: &Value) {
        self.name(field);
        // Memory takes everything.
        let _always = write!(self.0, "{value}");
    }
}

impl Visit for Object {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.value(field, &value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, &value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field, &value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, &value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        self.0.push('"');
        Escaped(&mut self.0).push(value);
        self.0.push('"');
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.name(field);
        self.0.push('"');
        let _always = write!(Escaped(&mut self.0), "{value:?}");
        self.0.push('"');
    }
}

/// The inside of a string.
struct Escaped<'a>(&'a mut String);

impl Escaped<'_> {
    fn push(&mut self, text: &str) {
        if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
            self.0.push_str(text);
        } else {
            let quoted = Value::from(text).to_string();
            self.0.push_str(quoted.get(1..quoted.len() - 1).unwrap_or_default());
        }
    }
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt as _};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// One line within a span with fields of every kind, one of which comes later.
    fn logged(subscriber: impl tracing::Subscriber + Send + Sync, lines: &Lines) -> Value {
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!(
                "request",
                request.id = %"req_\"1\"\n",
                r#type = "a\\b",
                seen = ?Some("x\u{1}"),
                count = 7_u64,
                less = -3_i64,
                share = 0.5,
                is_new = true,
                later = tracing::field::Empty,
            );
            span.record("later", "ü");
            span.in_scope(|| tracing::info!(answer = 42, "a line"));
        });
        let mut line: Value = serde_json::from_slice(&lines.0.lock().expect("no panic")).expect("a line of JSON");
        line.as_object_mut().expect("an object").remove("timestamp");
        line
    }

    #[test]
    fn a_line_is_what_the_library_would_write() {
        let (ours, theirs) = (Lines::default(), Lines::default());
        let layer = || tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false);
        let own = tracing_subscriber::registry()
            .with(layer().fmt_fields(SpanFields).with_writer(ours.clone()).with_ansi(false));
        let library = tracing_subscriber::registry().with(layer().with_writer(theirs.clone()).with_ansi(false));
        let line = logged(own, &ours);
        assert_eq!(line, logged(library, &theirs));
        assert_eq!(line["spans"][0]["request.id"], "req_\"1\"\n");
        assert_eq!(line["spans"][0]["later"], "ü");
        assert_eq!(line["answer"], 42);
    }
}
