//! PATCH: RFC 7396 over the document of a destination. Absent is unchanged, `null` is the default; `headers` and
//! `metadata` merge by key, other objects and lists are replaced whole.

use serde_json::{Map, Value};
use signalpost_core::{Destination, DestinationSecrets};

/// What its owner sets of a destination, as the owner would write it. Without the secret and `auth`, which stay where they are absent.
pub fn document(destination: &Destination, secrets: &DestinationSecrets) -> Map<String, Value> {
    // A spec is plain data with string keys: it always becomes an object.
    let mut document = match serde_json::to_value(&destination.spec) {
        Ok(Value::Object(document)) => document,
        _ => Map::new(),
    };
    document.remove("header_names");
    let headers = secrets.headers.iter().map(|(name, value)| (name.clone(), Value::from(value.reveal())));
    document.insert("headers".to_owned(), Value::Object(headers.collect()));
    if let Some(uid) = &destination.uid {
        document.insert("uid".to_owned(), Value::from(uid.as_str()));
    }
    document
}

/// Applies a patch to a document.
pub fn merge(document: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match (name.as_str(), value) {
            ("headers", Value::Object(changes)) => merge_by_key(document, name, changes, str::eq_ignore_ascii_case),
            ("metadata", Value::Object(changes)) => merge_by_key(document, name, changes, |a, b| a == b),
            // `null` stays in: it reads as the default where the field is known, and is refused where it is not.
            _ => {
                document.insert(name.clone(), value.clone());
            }
        }
    }
}

fn merge_by_key(
    document: &mut Map<String, Value>,
    name: &str,
    changes: &Map<String, Value>,
    same: impl Fn(&str, &str) -> bool,
) {
    let mut members = match document.remove(name) {
        Some(Value::Object(members)) => members,
        _ => Map::new(),
    };
    members.retain(|key, _| !changes.keys().any(|changed| same(key, changed)));
    members
        .extend(changes.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), value.clone())));
    document.insert(name.to_owned(), Value::Object(members));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_headers_and_metadata_merge_by_key() {
        let mut document = json!({
            "url": "https://a.example/", "headers": {"X-A": "1", "X-B": "2"}, "metadata": {"a": "1", "b": "2"},
            "retry": {"strategy": "schedule", "delays_ms": [10], "jitter": 0.5}, "event_types": ["a", "b"],
            "timeout_ms": 2000,
        });
        let patch = json!({
            "headers": {"x-a": "3", "X-B": null, "X-C": "4"}, "metadata": {"A": "3", "b": null},
            "retry": {"strategy": "exponential"}, "event_types": ["c"], "timeout_ms": null, "nonsense": null,
        });
        merge(document.as_object_mut().unwrap(), patch.as_object().unwrap());
        assert_eq!(
            document,
            json!({
                "url": "https://a.example/", "headers": {"x-a": "3", "X-C": "4"}, "metadata": {"a": "1", "A": "3"},
                "retry": {"strategy": "exponential"}, "event_types": ["c"], "timeout_ms": null, "nonsense": null,
            })
        );
    }
}
