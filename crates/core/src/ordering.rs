//! Lanes: deliveries that must not overtake each other.
//!
//! A lane is one destination and one ordering key. The key is found in the event at acceptance, when it becomes a
//! [`LaneId`]; from then on only that counts. The store is the authority for the order within a lane.

use std::{cell::OnceCell, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{Event, event::is_json};

/// What a destination asks for. Flat in the API: `ordering`, `ordering_key_from`, `ordering_on_dead`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordering {
    /// Whether there is an order at all.
    #[serde(default, rename = "ordering")]
    pub mode: OrderingMode,
    /// Where the key stands in the event: a JSON Pointer (RFC 6901).
    #[serde(default = "default_key_from", rename = "ordering_key_from")]
    pub key_from: String,
    /// What a delivery that failed for good means for those behind it.
    #[serde(default, rename = "ordering_on_dead")]
    pub on_dead: OnDead,
}

impl Default for Ordering {
    fn default() -> Self {
        Self { mode: OrderingMode::None, key_from: default_key_from(), on_dead: OnDead::Continue }
    }
}

/// `/ordering_key`.
pub fn default_key_from() -> String {
    "/ordering_key".to_owned()
}

/// Whether deliveries of a destination are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderingMode {
    /// They are not.
    #[default]
    None,
    /// Those with the same key are.
    Key,
}

/// What a dead delivery means for its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDead {
    /// The lane goes on.
    #[default]
    Continue,
    /// The lane waits until the dead letter is replayed or discarded.
    Block,
}

/// The key of a lane, within its destination: the first 16 bytes of the SHA-256 of the key's text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId([u8; 16]);

impl LaneId {
    /// Of a key.
    pub fn of(key: &str) -> Self {
        let digest = Sha256::digest(key.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }

    /// From the bytes that a store or a message kept.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// What a store or a message keeps.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lane {:032x}", u128::from_be_bytes(self.0))
    }
}

/// Finds the keys of one event, for as many destinations as it goes to: `data` is parsed once at most.
#[derive(Debug)]
pub struct LaneKeys<'e> {
    event: &'e Event,
    data: OnceCell<Option<Value>>,
}

impl<'e> LaneKeys<'e> {
    /// Of this event.
    pub const fn new(event: &'e Event) -> Self {
        Self { event, data: OnceCell::new() }
    }

    /// The lane of its delivery to a destination. None: it is unordered, as the destination does not ask for order, or
    /// there is no key at that place: nothing, `null`, an object or a list.
    pub fn lane(&self, ordering: &Ordering) -> Option<LaneId> {
        if ordering.mode == OrderingMode::None {
            return None;
        }
        self.key(&ordering.key_from).filter(|key| !key.is_empty()).map(|key| LaneId::of(&key))
    }

    fn key(&self, pointer: &str) -> Option<String> {
        let (event, meta) = (self.event, &self.event.meta);
        let path = pointer.strip_prefix('/')?;
        let (member, rest) = path.split_once('/').map_or((path, None), |(member, rest)| (member, Some(rest)));
        match (member, rest) {
            ("ordering_key", None) => meta.ordering_key.clone(),
            ("type", None) => Some(event.event_type.clone()),
            ("uid", None) => event.uid.clone(),
            ("source", None) => event.source.clone(),
            ("schema_version", None) => meta.schema_version.clone(),
            ("labels", Some(label)) => meta.labels.get(&unescape(label)).cloned(),
            ("data", rest) => {
                let data = self.data.get_or_init(|| self.parse()).as_ref()?;
                text(rest.map_or(Some(data), |rest| data.pointer(&format!("/{rest}")))?)
            }
            _ => None,
        }
    }

    fn parse(&self) -> Option<Value> {
        let json = self.event.meta.content_type.as_deref().is_none_or(is_json);
        if json { serde_json::from_slice(&self.event.data).ok() } else { None }
    }
}

/// Whether this is a JSON Pointer to where a key may stand.
///
/// # Errors
/// What is wrong with it, for its owner.
pub fn check_pointer(pointer: &str) -> Result<(), String> {
    if pointer.len() > 1024 {
        return Err("must have at most 1024 characters".to_owned());
    }
    let Some(path) = pointer.strip_prefix('/') else {
        return Err("must be a JSON Pointer: it begins with `/`".to_owned());
    };
    let mut rest = path;
    while let Some((_, after)) = rest.split_once('~') {
        if !after.starts_with(['0', '1']) {
            return Err("must be a JSON Pointer: `~` is written `~0`, and `/` within a name `~1`".to_owned());
        }
        rest = after;
    }
    let (member, deeper) = path.split_once('/').map_or((path, false), |(member, _)| (member, true));
    match (member, deeper) {
        ("ordering_key" | "type" | "uid" | "source" | "schema_version", false) | ("labels", true) | ("data", _) => {
            Ok(())
        }
        _ => Err("must point to `/ordering_key`, `/type`, `/uid`, `/source`, `/schema_version`, or into `/labels` or \
                  `/data`"
            .to_owned()),
    }
}

fn unescape(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{EventId, EventMeta, TenantId, Timestamp};

    fn event(data: &'static str) -> Event {
        Event {
            id: EventId::from_parts(Timestamp::from_millis(1), [0; 10]),
            tenant_id: TenantId::DEFAULT,
            event_type: "order.created".into(),
            uid: Some("u1".into()),
            source: None,
            meta: EventMeta {
                ordering_key: Some("customer 7".into()),
                labels: [("a/b".to_owned(), "x".to_owned())].into(),
                ..EventMeta::default()
            },
            data: Bytes::from_static(data.as_bytes()),
        }
    }

    fn by(pointer: &str) -> Ordering {
        Ordering { mode: OrderingMode::Key, key_from: pointer.into(), on_dead: OnDead::Continue }
    }

    #[test]
    fn a_key_is_found_where_the_pointer_says() {
        let event = event(r#"{"id": 5, "a": {"b~c": true}, "list": ["x"], "none": null, "text": ""}"#);
        let keys = LaneKeys::new(&event);
        for (pointer, key) in [
            ("/ordering_key", Some("customer 7")),
            ("/type", Some("order.created")),
            ("/uid", Some("u1")),
            ("/source", None),
            ("/labels/a~1b", Some("x")),
            ("/labels/c", None),
            ("/data/id", Some("5")),
            ("/data/a/b~0c", Some("true")),
            ("/data/list/0", Some("x")),
            ("/data/list", None),
            ("/data/none", None),
            ("/data/text", None),
            ("/data/nothing", None),
            ("/data", None),
        ] {
            assert_eq!(check_pointer(pointer), Ok(()), "{pointer}");
            assert_eq!(keys.lane(&by(pointer)), key.map(LaneId::of), "{pointer}");
        }
        assert_eq!(keys.lane(&Ordering::default()), None);
    }

    #[test]
    fn what_is_no_json_has_no_key_in_it() {
        let mut event = event("7");
        assert_eq!(LaneKeys::new(&event).lane(&by("/data")), Some(LaneId::of("7")));
        event.meta.content_type = Some("text/plain".into());
        assert_eq!(LaneKeys::new(&event).lane(&by("/data")), None);
    }

    #[test]
    fn pointers_are_judged() {
        for bad in ["", "ordering_key", "/", "/labels", "/data/~", "/data/~2", "/id", "/uid/x"] {
            assert!(check_pointer(bad).is_err(), "{bad}");
        }
    }
}
