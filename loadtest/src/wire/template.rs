//! What a system wants to be told: method, path, headers and body of a request with placeholders. Signalpost's is built in;
//! any other that takes events over HTTP/1.1 is given on the command line.
//!
//! `{id}` is the number of the event, `{type}` its type, `{data}` its payload (a JSON object); anything else in braces
//! stands for itself.

use super::{
    FIRST_NUMBER, Prepared,
    prepared::{DIGITS, Slot},
};
use crate::payload;

/// A request, with placeholders.
#[derive(Debug, Clone)]
pub struct Template {
    /// `host:port`.
    pub host: String,
    /// From the first slash on.
    pub path: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// One event.
    pub event: String,
    /// What stands before, between and after events in a body of several.
    pub around: [String; 3],
}

/// One kind of event of a load.
#[derive(Debug, Clone)]
pub struct Variant {
    /// Its type.
    pub event_type: String,
    /// How many bytes its `data` has, about.
    pub bytes: usize,
    /// What its payload is made from.
    pub seed: u64,
}

impl Template {
    /// Signalpost: events one by one, or in batches.
    pub fn signalpost(host: &str, key: &str, batch: bool) -> Self {
        Self {
            host: host.to_owned(),
            path: if batch { "/v1/events/batch" } else { "/v1/events" }.to_owned(),
            headers: vec![("authorization".to_owned(), format!("Bearer {key}"))],
            event: r#"{"type":"{type}","data":{data}}"#.to_owned(),
            around: if batch { [r#"{"events":["#, ",", "]}"] } else { ["", "", ""] }.map(str::to_owned),
        }
    }

    /// The receiver itself, as a producer sees Signalpost: what the load could do at most.
    pub fn direct(host: &str, path: u32) -> Self {
        Self { path: format!("/{path}"), headers: Vec::new(), ..Self::signalpost(host, "", false) }
    }

    /// A request for these events.
    pub fn prepare(&self, events: &[Variant]) -> Prepared {
        let mut body = Text::default();
        body.bytes.extend_from_slice(self.around[0].as_bytes());
        for (nth, event) in (0..).zip(events) {
            if nth > 0 {
                body.bytes.extend_from_slice(self.around[1].as_bytes());
            }
            body.put(&self.event, nth, event);
        }
        body.bytes.extend_from_slice(self.around[2].as_bytes());

        let mut head = Text::default();
        if let Some(first) = events.first() {
            head.put(&format!("POST {} HTTP/1.1\r\nhost: {}\r\n", self.path, self.host), 0, first);
            for (name, value) in &self.headers {
                head.put(&format!("{name}: {value}\r\n"), 0, first);
            }
        }
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            head.bytes.extend_from_slice(b"content-type: application/json\r\n");
        }
        head.bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.bytes.len()).as_bytes());
        let Text { mut bytes, mut slots } = head;
        slots.extend(body.slots.iter().map(|slot| Slot { at: slot.at + bytes.len(), ..*slot }));
        bytes.append(&mut body.bytes);
        Prepared { bytes, slots }
    }
}

#[derive(Debug, Default)]
struct Text {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
}

impl Text {
    /// Appends a template.
    fn put(&mut self, template: &str, nth: u64, event: &Variant) {
        let mut rest = template;
        while let Some(brace) = rest.find('{') {
            self.bytes.extend_from_slice(&rest.as_bytes()[..brace]);
            rest = &rest[brace..];
            if let Some(after) = rest.strip_prefix("{id}") {
                self.number(nth);
                rest = after;
            } else if let Some(after) = rest.strip_prefix("{type}") {
                self.bytes.extend_from_slice(event.event_type.as_bytes());
                rest = after;
            } else if let Some(after) = rest.strip_prefix("{data}") {
                let data = payload::data(FIRST_NUMBER + event.seed, event.bytes);
                if let Some(at) = payload::number_at(data.as_bytes()) {
                    self.slots.push(Slot { at: self.bytes.len() + at, nth });
                }
                self.bytes.extend_from_slice(data.as_bytes());
                rest = after;
            } else {
                self.bytes.push(b'{');
                rest = &rest[1..];
            }
        }
        self.bytes.extend_from_slice(rest.as_bytes());
    }

    fn number(&mut self, nth: u64) {
        self.slots.push(Slot { at: self.bytes.len(), nth });
        self.bytes.extend_from_slice(&[b'0'; DIGITS]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::Value;

    use super::{Template, Variant};
    use crate::{payload, wire::FIRST_NUMBER};

    fn variants(count: u64) -> Vec<Variant> {
        (0..count).map(|seed| Variant { event_type: format!("order.{seed}"), bytes: 500, seed }).collect()
    }

    fn written(template: &Template, count: u64, first: u64) -> (String, Value) {
        let mut text = Vec::new();
        template.prepare(&variants(count)).write(first, &mut text);
        let text = String::from_utf8(text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let length: usize = head.rsplit_once("content-length: ").unwrap().1.parse().unwrap();
        assert_eq!(length, body.len());
        (head.to_owned(), serde_json::from_str(body).unwrap())
    }

    #[test]
    fn one_event_and_a_batch() {
        let (head, body) = written(&Template::signalpost("h:1", "secret", false), 1, FIRST_NUMBER + 7);
        assert!(
            head.starts_with("POST /v1/events HTTP/1.1\r\nhost: h:1\r\nauthorization: Bearer secret\r\n"),
            "{head}"
        );
        assert_eq!(body["type"], "order.0");
        assert_eq!(body["data"]["loadtest_number"], FIRST_NUMBER + 7);

        let (_, body) = written(&Template::signalpost("h:1", "secret", true), 3, FIRST_NUMBER + 7);
        let numbers: Vec<u64> = body["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| payload::number_in(event.to_string().as_bytes()).unwrap() - FIRST_NUMBER)
            .collect();
        assert_eq!(numbers, [7, 8, 9]);
        assert_ne!(body["events"][0]["data"]["order"], body["events"][1]["data"]["order"], "no two are alike");
    }

    #[test]
    fn any_system() {
        let template = Template {
            host: "h".to_owned(),
            path: "/app/a/{type}".to_owned(),
            headers: vec![
                ("idempotency-key".to_owned(), "k-{id}".to_owned()),
                ("Content-Type".to_owned(), "application/x".to_owned()),
            ],
            event: r#"{"eventType":"{type}","eventId":"{id}","other":{"{x}":{}},"payload":{data}}"#.to_owned(),
            around: ["", "", ""].map(str::to_owned),
        };
        let (head, body) = written(&template, 1, FIRST_NUMBER + 3);
        assert!(head.starts_with("POST /app/a/order.0 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("idempotency-key: k-1000000003\r\nContent-Type: application/x\r\n"), "{head}");
        assert_eq!(head.matches("ontent-").count() + head.matches("ontent-T").count(), 3, "{head}");
        assert_eq!(body["eventId"], "1000000003");
        assert_eq!(body["other"]["{x}"], serde_json::json!({}));
        assert_eq!(body["payload"]["loadtest_number"], FIRST_NUMBER + 3);
    }
}
