//! CloudEvents 1.0 in both modes.

use serde_json::{Value, json};
use signalpost_core::Timestamp;

use super::{App, Method, Reply, stored};

async fn structured(app: &App, body: &str) -> Reply {
    let headers = [("content-type", "application/cloudevents+json; charset=utf-8")];
    app.with(Method::POST, "/v1/events", &headers, body.to_owned()).await
}

async fn binary(app: &App, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Reply {
    let mut all =
        vec![("ce-specversion", "1.0"), ("ce-id", "i-1"), ("ce-source", "/shop"), ("ce-type", "order.created")];
    for header in headers {
        all.retain(|(name, _)| *name != header.0);
        all.push(*header);
    }
    all.retain(|(_, value)| *value != "absent");
    app.with(Method::POST, "/v1/events", &all, body.into()).await
}

#[tokio::test]
async fn structured_mode_keeps_every_attribute() {
    let app = App::start();
    let body = r#"{"specversion":"1.0","id":"i-1","source":"/shop","type":"order.created","time":"2024-01-02T03:04:05Z",
        "subject":"o/1","dataschema":"https://example.com/s","partitionkey":"p","myext":"x","flag":true,"count":7,"none":null,
        "datacontenttype":"application/json","data": {"n": 1.0} }"#;
    let answer = structured(&app, body).await.expect(202);
    assert_eq!(answer["type"], "order.created");
    let event = stored(&app, &answer).await;
    assert_eq!((event.uid.as_deref(), event.source.as_deref()), (Some("i-1"), Some("/shop")));
    assert_eq!(event.data, r#"{"n": 1.0}"#);
    assert_eq!(event.meta.occurred_at, Some(Timestamp::parse("2024-01-02T03:04:05Z").unwrap()));
    assert_eq!(event.meta.ordering_key.as_deref(), Some("p"));
    assert_eq!(event.meta.content_type, None);
    let extensions = serde_json::to_value(&event.meta.extensions).unwrap();
    assert_eq!(
        extensions,
        json!({"subject": "o/1", "dataschema": "https://example.com/s", "myext": "x", "flag": true, "count": 7})
    );
    assert_eq!(structured(&app, body).await.expect(202)["duplicate"], true);
}

#[tokio::test]
async fn structured_mode_has_data_in_three_ways() {
    let app = App::start();
    let with = |id: &str, more: Value| {
        let mut event = json!({"specversion": "1.0", "id": id, "source": "s", "type": "a"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event.to_string()
    };
    for (id, more, data, content_type) in [
        ("1", json!({}), "null", None),
        (
            "2",
            json!({"data_base64": "AAH/", "datacontenttype": "application/x-protobuf"}),
            "\0\u{1}?",
            Some("application/x-protobuf"),
        ),
        ("3", json!({"data": "<x/>", "datacontenttype": "application/xml"}), "<x/>", Some("application/xml")),
        ("4", json!({"data": "text"}), "\"text\"", None),
        ("7", json!({"datacontenttype": "text/plain"}), "", Some("text/plain")),
        ("8", json!({"data_base64": "WzFd"}), "[1]", Some("application/octet-stream")),
        ("9", json!({"data_base64": "WzFd", "datacontenttype": "application/json; charset=utf-8"}), "[1]", None),
    ] {
        let event = stored(&app, &structured(&app, &with(id, more)).await.expect(202)).await;
        assert_eq!(event.meta.content_type.as_deref(), content_type);
        if id == "2" {
            assert_eq!(event.data, b"\x00\x01\xff".as_slice());
        } else {
            assert_eq!(event.data, data);
        }
    }
    let wrong = with("5", json!({"data": {}, "datacontenttype": "text/plain"}));
    assert_eq!(structured(&app, &wrong).await.problem(422, "validation_failed"), ["/data"]);
    let wrong = with("5", json!({"data_base64": "//8=", "datacontenttype": "application/json"}));
    assert_eq!(structured(&app, &wrong).await.problem(422, "validation_failed"), ["/data_base64"]);
    let both = with("6", json!({"data": 1, "data_base64": ""}));
    assert_eq!(structured(&app, &both).await.problem(422, "validation_failed"), ["/data_base64"]);
}

#[tokio::test]
async fn structured_mode_has_rules() {
    let app = App::start();
    let mut missing = structured(&app, "{}").await.problem(422, "validation_failed");
    missing.sort();
    assert_eq!(missing, ["/id", "/source", "/specversion", "/type"]);
    for (field, value) in [
        ("specversion", json!("0.3")),
        ("specversion", json!(1)),
        ("id", json!("")),
        ("id", json!(7)),
        ("time", json!("noon")),
        ("type", json!("a b")),
        ("type", json!("signalpost.x")),
        ("Upper", json!("x")),
        ("my_ext", json!("x")),
        ("ext", json!({})),
        ("ext", json!([1])),
        ("ext", json!(1.5)),
        ("ext", json!("a\u{0}")),
        ("source", json!("")),
        ("partitionkey", json!("")),
        ("partitionkey", json!("k".repeat(257))),
        ("datacontenttype", json!("x")),
    ] {
        let mut event = json!({"specversion": "1.0", "id": "i", "source": "s", "type": "a", "data": 1});
        event[field] = value;
        let pointers = structured(&app, &event.to_string()).await.problem(422, "validation_failed");
        assert_eq!(pointers, [format!("/{field}")], "{event}");
    }
    let event = json!({"specversion": "1.0", "id": "i", "source": "s", "type": "a", "ext": "x".repeat(64 * 1024)});
    assert_eq!(structured(&app, &event.to_string()).await.problem(422, "validation_failed"), [""]);
    structured(&app, "{").await.problem(400, "invalid_json");
    structured(&app, "[]").await.problem(422, "validation_failed");
}

#[tokio::test]
async fn binary_mode_takes_the_body_as_data() {
    let app = App::start();
    let headers = [
        ("content-type", "application/json"),
        ("ce-time", "2024-01-02T03:04:05Z"),
        ("ce-subject", "Euro%20%E2%82%AC"),
        ("ce-partitionkey", "p"),
    ];
    let event = stored(&app, &binary(&app, &headers, " {\"n\": 1} ").await.expect(202)).await;
    assert_eq!(event.event_type, "order.created");
    assert_eq!((event.uid.as_deref(), event.source.as_deref()), (Some("i-1"), Some("/shop")));
    assert_eq!(event.data, "{\"n\": 1}");
    assert_eq!(event.meta.extensions["subject"], "Euro €");
    assert_eq!(event.meta.ordering_key.as_deref(), Some("p"));
    assert_eq!(event.meta.occurred_at, Some(Timestamp::parse("2024-01-02T03:04:05Z").unwrap()));

    let headers = [("content-type", "text/plain"), ("ce-id", "i-2")];
    let event = stored(&app, &binary(&app, &headers, b"\xff not json".to_vec()).await.expect(202)).await;
    assert_eq!(event.data, b"\xff not json".as_slice());
    assert_eq!(event.meta.content_type.as_deref(), Some("text/plain"));

    let event = stored(&app, &binary(&app, &[("ce-id", "i-3")], "").await.expect(202)).await;
    assert_eq!(event.data, "null");
}

#[tokio::test]
async fn binary_mode_has_rules() {
    let app = App::start();
    for (header, value, pointer) in [
        ("ce-id", "absent", "/id"),
        ("ce-type", "absent", "/type"),
        ("ce-source", "absent", "/source"),
        ("ce-specversion", "0.3", "/specversion"),
        ("ce-time", "noon", "/time"),
        ("ce-my-ext", "x", "/my-ext"),
        ("ce-id", "%FF", "/id"),
    ] {
        let pointers = binary(&app, &[(header, value)], "1").await.problem(422, "validation_failed");
        assert_eq!(pointers, [pointer], "{header}: {value}");
    }
    let json = [("content-type", "application/json")];
    binary(&app, &json, "{").await.problem(400, "invalid_json");
    binary(&app, &json, b"\"\xff\"".to_vec()).await.problem(400, "invalid_json");
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    binary(&app, &json, deep(127)).await.expect(202);
    binary(&app, &json, deep(128)).await.problem(400, "invalid_json");
}

#[tokio::test]
async fn headers_are_part_of_what_a_key_compares() {
    let app = App::start();
    let key = ("idempotency-key", "k");
    let first = binary(&app, &[key], "1").await.expect(202);
    assert_eq!(binary(&app, &[key], "1").await.expect(202)["id"], first["id"]);
    binary(&app, &[key, ("ce-id", "i-9")], "1").await.problem(422, "idempotency_mismatch");
}
