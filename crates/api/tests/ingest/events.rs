//! The rules of one event.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use signalpost_core::Timestamp;

use super::{App, Method, messages, post, post_with, stored};

#[tokio::test]
async fn an_event_is_accepted_kept_and_published() {
    let app = App::start();
    let destination = app.destination(json!({"event_types": ["order.*"]})).await;
    let body = r#"{"type":"order.created","data": {"n": 1.50, "n": 2} ,"uid":"o-1","source":"shop","occurred_at":"2024-01-02T03:04:05.678+01:00",
        "labels":{"region":"eu","":"x"},"schema_version":"2"}"#;
    assert_eq!(post(&app, body).await.problem(422, "validation_failed"), ["/labels/"]);
    let body = body.replace(r#","":"x""#, "");
    let answer = post(&app, &body).await.expect(202);
    assert_eq!(answer["type"], "order.created");
    assert_eq!(answer["deliveries"], 1);
    assert_eq!(answer["duplicate"], false);
    assert!(answer["id"].as_str().unwrap().starts_with("evt_"));

    let event = stored(&app, &answer).await;
    assert_eq!(event.data, r#"{"n": 1.50, "n": 2}"#, "byte for byte");
    assert_eq!(event.created_at().to_string(), answer["created_at"].as_str().unwrap());
    assert_eq!((event.uid.as_deref(), event.source.as_deref()), (Some("o-1"), Some("shop")));
    assert_eq!(event.meta.occurred_at, Some(Timestamp::parse("2024-01-02T02:04:05.678Z").unwrap()));
    assert_eq!(event.meta.labels["region"], "eu");
    assert_eq!(event.meta.schema_version.as_deref(), Some("2"));
    assert_eq!(event.meta.content_type, None);

    let messages = messages(&app, 1).await;
    assert_eq!(messages[0].destination_id.to_string(), destination);
    assert_eq!(messages[0].event, event);
    assert_eq!(messages[0].attempt, 1);
    assert_eq!(messages[0].delivery_id.created_at(), event.created_at(), "ids share the millisecond");
}

#[tokio::test]
async fn any_json_is_data_and_stays_as_it_was_written() {
    let app = App::start();
    let deepest = format!("{}1{}", "[".repeat(127), "]".repeat(127));
    for data in [
        "null",
        "true",
        "0",
        "-1.0E+400",
        "123456789012345678901234567890",
        r#""\u0000 \ud800 \/""#,
        "[ ]",
        "{ }",
        r#"{"a":1,"a":2}"#,
        "\"é\"",
        deepest.as_str(),
    ] {
        let answer = post(&app, &format!("{{\"type\":\"a\",\"data\":{data}}}")).await.expect(202);
        assert_eq!(stored(&app, &answer).await.data, data);
    }
}

#[tokio::test]
async fn data_may_be_bytes() {
    let app = App::start();
    let bytes = b"\x00\xff,csv\n";
    let body = json!({"type": "a", "data_base64": STANDARD.encode(bytes), "content_type": "text/csv; charset=latin1"});
    let event = stored(&app, &post(&app, &body.to_string()).await.expect(202)).await;
    assert_eq!(event.data, bytes.as_slice());
    assert_eq!(event.meta.content_type.as_deref(), Some("text/csv; charset=latin1"));
    for (body, pointers) in [
        (json!({"type": "a"}), vec!["/data"]),
        (json!({"type": "a", "data": 1, "data_base64": ""}), vec!["/data_base64"]),
        (json!({"type": "a", "data_base64": "%%%"}), vec!["/data_base64"]),
        (json!({"type": "a", "data_base64": 7}), vec!["/data_base64"]),
        (json!({"type": "a", "data": 1, "content_type": "text/csv"}), vec!["/content_type"]),
        (json!({"type": "a", "data_base64": "", "content_type": "nonsense"}), vec!["/content_type"]),
        // What goes out as JSON is JSON, and not nested deeper than all of it may be.
        (json!({"type": "a", "data_base64": "//8=", "content_type": "application/json"}), vec!["/data_base64"]),
        (json!({"type": "a", "data_base64": "eyI=", "content_type": "application/a+json"}), vec!["/data_base64"]),
        (
            json!({"type": "a", "data_base64": STANDARD.encode("[".repeat(128) + &"]".repeat(128)), "content_type": "text/json"}),
            vec!["/data_base64"],
        ),
    ] {
        assert_eq!(post(&app, &body.to_string()).await.problem(422, "validation_failed"), pointers, "{body}");
    }
    for (content_type, kept) in [
        ("application/vnd.order+json", Some("application/vnd.order+json")),
        ("application/json", None),
        ("Application/JSON; charset=utf-8", None),
    ] {
        for data in [json!({"data": [1]}), json!({"data_base64": STANDARD.encode(" [1]\n")})] {
            let mut body = json!({"type": "a", "content_type": content_type});
            body.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
            let event = stored(&app, &post(&app, &body.to_string()).await.expect(202)).await;
            assert_eq!((event.meta.content_type.as_deref(), &event.data[..]), (kept, b"[1]".as_slice()), "{body}");
        }
    }
}

#[tokio::test]
async fn every_field_has_its_rule() {
    let app = App::start();
    let long = "x".repeat(257);
    for (field, value) in [
        ("type", json!("")),
        ("type", json!("a..b")),
        ("type", json!(".a")),
        ("type", json!("a b")),
        ("type", json!("a.*")),
        ("type", json!(long)),
        ("type", json!(7)),
        ("type", json!("signalpost.ping")),
        ("uid", json!("")),
        ("uid", json!("a b")),
        ("uid", json!("a\u{0}")),
        ("uid", json!(long)),
        ("uid", json!(1)),
        ("uid", json!("evt_01h2e8kqvbfwea724h75qc655w")),
        ("uid", json!("dst_01h2e8kqvbfwea724h75qc655w")),
        ("source", json!("")),
        ("source", json!(long)),
        ("source", json!("a\u{0}")),
        ("source", json!([])),
        ("occurred_at", json!("yesterday")),
        ("occurred_at", json!("2024-01-02")),
        ("occurred_at", json!(1)),
        ("ordering_key", json!("")),
        ("ordering_key", json!(long)),
        ("ordering_key", json!(7)),
        ("schema_version", json!("x".repeat(65))),
        ("schema_version", json!("")),
        ("labels", json!([])),
        ("labels", json!("a")),
        ("nonsense", json!(null)),
        ("id", json!("x")),
        ("a/b~c", json!(1)),
    ] {
        let mut body = json!({"type": "a", "data": 1});
        body[field] = value;
        let pointer = format!("/{}", field.replace('~', "~0").replace('/', "~1"));
        let pointers = post(&app, &body.to_string()).await.problem(422, "validation_failed");
        assert_eq!(pointers, [pointer], "{body}");
    }
    let body = json!({"type": "a", "data": 1, "labels": {"n": 1, "o": {}, "s": "x", "z": "\u{0}"}});
    let mut pointers = post(&app, &body.to_string()).await.problem(422, "validation_failed");
    pointers.sort();
    assert_eq!(pointers, ["/labels/n", "/labels/o", "/labels/z"]);

    let body = json!({"type": "a", "data": 1, "labels": {"a": "x".repeat(64 * 1024)}});
    assert_eq!(post(&app, &body.to_string()).await.problem(422, "validation_failed"), ["/labels"]);

    // What is null is as if it were not there, but for `data`.
    let body = json!({"type": "a", "data": null, "uid": null, "labels": null, "occurred_at": null, "ordering_key": null,
               "data_base64": null});
    post(&app, &body.to_string()).await.expect(202);
    let longest = json!({"type": "x".repeat(256), "data": 1, "uid": "ü".repeat(256), "source": "s".repeat(256)});
    let event = stored(&app, &post(&app, &longest.to_string()).await.expect(202)).await;
    assert_eq!(event.source.as_deref(), Some("s".repeat(256).as_str()));
    post(&app, r#"{"type":"A-Z_0:9/x.b","data":1}"#).await.expect(202);
}

#[tokio::test]
async fn all_mistakes_are_told_at_once() {
    let app = App::start();
    let mut pointers = post(&app, r#"{"uid":"","source":"","extra":1}"#).await.problem(422, "validation_failed");
    pointers.sort();
    assert_eq!(pointers, ["/data", "/extra", "/source", "/type", "/uid"]);
}

#[tokio::test]
async fn json_is_strict_in_the_envelope() {
    let app = App::start();
    let deep = format!("{{\"type\":\"a\",\"data\":{}1{}}}", "[".repeat(128), "]".repeat(128));
    for body in [
        "",
        " ",
        "{",
        "nul",
        r#"{"type":"a","data":1"#,
        r#"{"type":"a","data":1}x"#,
        r#"{"type":"a","data":}"#,
        r#"{"type":"a","data":[1,]}"#,
        r#"{"type":"a","data":'x'}"#,
        r#"{"type":"a","data":01}"#,
        "{type:1}",
        &deep,
        r#"{"type":"a","data":NaN}"#,
        r#"{"type":"a","data":"\x"}"#,
        "{\"type\":\"a\",\"data\":\"\n\"}",
        "\u{feff}{}",
    ] {
        post(&app, body).await.problem(400, "invalid_json");
    }
    for body in ["[]", "1", "null", "\"x\"", r#"[{"type":"a","data":1}]"#] {
        assert_eq!(post(&app, body).await.problem(422, "validation_failed"), [""], "{body}");
    }
    let twice = r#"{"type":"a","data":1,"type":"b"}"#;
    assert_eq!(post(&app, twice).await.problem(422, "validation_failed"), ["/type"]);
    let twice = r#"{"type":"a","data":1,"labels":{"x":"1","x":"2"}}"#;
    assert_eq!(post(&app, twice).await.problem(422, "validation_failed"), ["/labels/x"]);
    let surrogate = r#"{"type":"a","data":1,"uid":"\ud800"}"#;
    assert_eq!(post(&app, surrogate).await.problem(422, "validation_failed"), ["/uid"]);
    let headers = [("content-type", "application/json")];
    let invalid = b"{\"type\":\"a\",\"data\":\"\xff\"}".to_vec();
    app.with(Method::POST, "/v1/events", &headers, invalid).await.problem(400, "invalid_json");
}

#[tokio::test]
async fn an_event_may_be_so_large_and_no_larger() {
    let app = App::start();
    let limit = 1024 * 1024;
    let of = |length: usize| format!("{{\"type\":\"a\",\"data\":\"{}\"}}", "x".repeat(length - 22));
    assert_eq!(of(limit).len(), limit);
    let answer = post(&app, &of(limit)).await.expect(202);
    assert_eq!(stored(&app, &answer).await.data.len(), limit - 20);
    post(&app, &of(limit + 1)).await.problem(413, "payload_too_large");
    // By its announced length, before anything is read.
    let headers = [("content-type", "application/json"), ("content-length", "2000000")];
    app.with(Method::POST, "/v1/events", &headers, "{}").await.problem(413, "payload_too_large");
}

#[tokio::test]
async fn a_large_payload_goes_by_reference() {
    let app = App::start();
    app.destination(json!({})).await;
    let data = format!("\"{}\"", "x".repeat(64 * 1024));
    let answer = post(&app, &format!("{{\"type\":\"a\",\"data\":{data}}}")).await.expect(202);
    assert_eq!(stored(&app, &answer).await.data, data);
    let messages = messages(&app, 1).await;
    assert_eq!(messages[0].payload, signalpost_bus::Payload::ByReference);
    assert!(messages[0].event.data.is_empty());
}

#[tokio::test]
async fn the_content_type_is_checked() {
    let app = App::start();
    let body = r#"{"type":"a","data":1}"#;
    for good in ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"] {
        app.with(Method::POST, "/v1/events", &[("content-type", good)], body).await.expect(202);
    }
    app.with(Method::POST, "/v1/events", &[], body).await.expect(202);
    for bad in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/xml",
        "application/x-ndjson",
        "application/cloudevents-batch+json",
    ] {
        let reply = app.with(Method::POST, "/v1/events", &[("content-type", bad)], body).await;
        reply.problem(415, "unsupported_media_type");
    }
}

#[tokio::test]
async fn the_trace_of_the_request_goes_with_the_event() {
    let app = App::start();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let body = r#"{"type":"a","data":1}"#;
    let answer = post_with(&app, &[("traceparent", trace)], body).await.expect(202);
    assert_eq!(stored(&app, &answer).await.meta.traceparent.as_deref(), Some(trace));
    let answer = post_with(&app, &[("traceparent", "nonsense")], body).await.expect(202);
    assert_eq!(stored(&app, &answer).await.meta.traceparent, None);
}
