//! The body of a request, in one of three shapes. `data` is copied in as it was posted, byte for byte, never parsed.

use std::{borrow::Cow, io::Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::Value;
use signalpost_core::{Event, Timestamp, destination::BodyFormat, event};

/// A body and its content type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Of the header.
    pub content_type: Cow<'static, str>,
    /// What is signed and sent.
    pub bytes: Bytes,
}

/// Builds the body of an event. The same on every attempt.
pub fn build(event: &Event, format: BodyFormat) -> Body {
    with_id(event, &event.id.to_string(), format)
}

/// The same for who has the text of the event's id already.
pub(crate) fn with_id(event: &Event, id: &str, format: BodyFormat) -> Body {
    match format {
        BodyFormat::Standard => Body { content_type: Cow::Borrowed(event::JSON), bytes: standard(event, id) },
        BodyFormat::Data => {
            let content_type =
                event.meta.content_type.clone().map_or(Cow::Borrowed(event::JSON), |content_type| content_type.into());
            Body { content_type, bytes: event.data.clone() }
        }
        BodyFormat::Cloudevents => {
            Body { content_type: Cow::Borrowed("application/cloudevents+json"), bytes: cloud_event(event, id) }
        }
    }
}

/// `{"id","type","timestamp","data"}` of Standard Webhooks, with what else the producer gave. What is not JSON comes as
/// `data_base64` with its `content_type`, as it was posted.
fn standard(event: &Event, id: &str) -> Bytes {
    let mut object = Object::of(event);
    object.text("id", id);
    object.text("type", &event.event_type);
    object.time("timestamp", event.meta.occurred_at.unwrap_or_else(|| event.created_at()));
    object.optional("uid", event.uid.as_deref());
    object.optional("source", event.source.as_deref());
    if !event.meta.labels.is_empty() {
        object.key("labels");
        let mut labels = Object::with_capacity(64);
        for (name, value) in &event.meta.labels {
            labels.text(name, value);
        }
        object.raw(&labels.close());
    }
    object.optional("schema_version", event.meta.schema_version.as_deref());
    object.optional("content_type", event.meta.content_type.as_deref());
    object.data(event);
    object.close().into()
}

/// Structured CloudEvents 1.0 JSON. `id` and `source` are the producer's where given, so that one that came as a
/// CloudEvent leaves as the same one.
fn cloud_event(event: &Event, id: &str) -> Bytes {
    let mut object = Object::of(event);
    object.text("specversion", "1.0");
    match &event.uid {
        Some(uid) => object.text("id", uid),
        None => object.text("id", id),
    }
    object.text("source", event.source.as_deref().unwrap_or("signalpost"));
    object.text("type", &event.event_type);
    object.time("time", event.meta.occurred_at.unwrap_or_else(|| event.created_at()));
    object.optional("partitionkey", event.meta.ordering_key.as_deref());
    for (name, value) in &event.meta.extensions {
        if !TAKEN.contains(&name.as_str()) {
            object.value(name, value);
        }
    }
    object.text("datacontenttype", event.meta.content_type.as_deref().unwrap_or(event::JSON));
    object.data(event);
    object.close().into()
}

/// Attributes that are written from the event itself; an extension never writes them twice.
const TAKEN: [&str; 9] =
    ["specversion", "id", "source", "type", "time", "partitionkey", "datacontenttype", "data", "data_base64"];

/// A JSON object that is written member by member.
struct Object(Vec<u8>);

impl Object {
    /// With room for the whole of a usual event, so that its data is copied once.
    fn of(event: &Event) -> Self {
        let data =
            if has_json(event) { event.data.len() } else { base64::encoded_len(event.data.len(), true).unwrap_or(0) };
        let texts = [&event.uid, &event.source].into_iter().flatten().map(String::len).sum::<usize>();
        Self::with_capacity(data + texts + event.event_type.len() + 256)
    }

    fn with_capacity(bytes: usize) -> Self {
        let mut text = Vec::with_capacity(bytes);
        text.push(b'{');
        Self(text)
    }

    fn key(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        write_text(&mut self.0, name);
        self.0.push(b':');
    }

    fn text(&mut self, name: &str, value: &str) {
        self.key(name);
        write_text(&mut self.0, value);
    }

    fn time(&mut self, name: &str, time: Timestamp) {
        self.key(name);
        // Memory takes everything.
        let _always = write!(self.0, "\"{time}\"");
    }

    fn optional(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    fn value(&mut self, name: &str, value: &Value) {
        self.key(name);
        self.0.extend_from_slice(value.to_string().as_bytes());
    }

    fn raw(&mut self, json: &[u8]) {
        self.0.extend_from_slice(json);
    }

    fn data(&mut self, event: &Event) {
        if has_json(event) {
            self.key("data");
            self.raw(&event.data);
        } else {
            self.key("data_base64");
            let encoded = STANDARD.encode(&event.data);
            write_text(&mut self.0, &encoded);
        }
    }

    fn close(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

fn has_json(event: &Event) -> bool {
    event.meta.content_type.as_deref().is_none_or(event::is_json)
}

fn write_text(to: &mut Vec<u8>, text: &str) {
    // Plain text, by far the most, is copied; the rest is escaped by the library.
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        to.push(b'"');
        to.extend_from_slice(text.as_bytes());
        to.push(b'"');
    } else {
        to.extend_from_slice(Value::from(text).to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use signalpost_core::{EventId, EventMeta, TenantId};

    use super::*;

    fn event(data: &'static [u8], meta: EventMeta) -> Event {
        Event {
            id: EventId::from_parts(Timestamp::from_millis(1_700_000_000_123), [7; 10]),
            tenant_id: TenantId::DEFAULT,
            event_type: "order.created".into(),
            uid: None,
            source: None,
            meta,
            data: Bytes::from_static(data),
        }
    }

    fn parse(body: &Body) -> Value {
        serde_json::from_slice(&body.bytes).unwrap()
    }

    #[test]
    fn standard_is_the_shape_of_standard_webhooks() {
        let event = event(br#"{"a":1}"#, EventMeta::default());
        let body = build(&event, BodyFormat::Standard);
        assert_eq!(body.content_type, "application/json");
        assert_eq!(
            std::str::from_utf8(&body.bytes).unwrap(),
            format!(
                r#"{{"id":"{}","type":"order.created","timestamp":"2023-11-14T22:13:20.123Z","data":{{"a":1}}}}"#,
                event.id
            )
        );
    }

    #[test]
    fn standard_carries_what_else_was_given() {
        let mut event = event(
            b"[]",
            EventMeta {
                occurred_at: Some(Timestamp::from_millis(1_600_000_000_000)),
                labels: [("region".to_owned(), "\"eu\"\n".to_owned())].into(),
                schema_version: Some("3".into()),
                ..EventMeta::default()
            },
        );
        event.uid = Some("o-1".into());
        event.source = Some("shop\\1".into());
        assert_eq!(
            parse(&build(&event, BodyFormat::Standard)),
            json!({"id": event.id.to_string(), "type": "order.created", "timestamp": "2020-09-13T12:26:40Z", "uid": "o-1",
                "source": "shop\\1", "labels": {"region": "\"eu\"\n"}, "schema_version": "3", "data": []})
        );
    }

    #[test]
    fn data_is_forwarded_byte_for_byte() {
        let strange: &[u8] = br#"{ "a":1.000000000000000000001, "a":2,  "s":"\ud800\u0000" }"#;
        let event = event(strange, EventMeta::default());
        assert_eq!(&build(&event, BodyFormat::Data).bytes[..], strange);
        let standard = build(&event, BodyFormat::Standard).bytes;
        let cloud = build(&event, BodyFormat::Cloudevents).bytes;
        for body in [standard, cloud] {
            assert!(body.windows(strange.len()).any(|window| window == strange));
        }
    }

    #[test]
    fn what_is_not_json_keeps_its_content_type() {
        let meta = EventMeta { content_type: Some("text/plain".into()), ..EventMeta::default() };
        let event = event(b"hello", meta);
        let data = build(&event, BodyFormat::Data);
        assert_eq!((data.content_type.as_ref(), &data.bytes[..]), ("text/plain", &b"hello"[..]));
        let standard = parse(&build(&event, BodyFormat::Standard));
        assert_eq!((&standard["content_type"], &standard["data_base64"]), (&json!("text/plain"), &json!("aGVsbG8=")));
        let cloud = parse(&build(&event, BodyFormat::Cloudevents));
        assert_eq!((&cloud["datacontenttype"], &cloud["data_base64"]), (&json!("text/plain"), &json!("aGVsbG8=")));
    }

    #[test]
    fn json_of_another_type_is_data_too() {
        let meta = EventMeta { content_type: Some("application/ld+json".into()), ..EventMeta::default() };
        let event = event(br#"{"@id":1}"#, meta);
        let standard = parse(&build(&event, BodyFormat::Standard));
        assert_eq!((&standard["content_type"], &standard["data"]), (&json!("application/ld+json"), &json!({"@id": 1})));
        let cloud = parse(&build(&event, BodyFormat::Cloudevents));
        assert_eq!((&cloud["datacontenttype"], &cloud["data"]), (&json!("application/ld+json"), &json!({"@id": 1})));
    }

    #[test]
    fn a_cloud_event_leaves_as_it_came() {
        let mut event = event(
            br#"{"a":1}"#,
            EventMeta {
                ordering_key: Some("k".into()),
                extensions: [("subject".to_owned(), json!("s")), ("id".to_owned(), json!("other"))].into(),
                ..EventMeta::default()
            },
        );
        event.uid = Some("A234-1234".into());
        event.source = Some("/mycontext".into());
        let body = build(&event, BodyFormat::Cloudevents);
        assert_eq!(body.content_type, "application/cloudevents+json");
        assert_eq!(
            parse(&body),
            json!({"specversion": "1.0", "id": "A234-1234", "source": "/mycontext", "type": "order.created",
                "time": "2023-11-14T22:13:20.123Z", "partitionkey": "k", "subject": "s",
                "datacontenttype": "application/json", "data": {"a": 1}})
        );
    }
}
