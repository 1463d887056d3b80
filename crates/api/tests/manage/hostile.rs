//! JSON that nobody means well with, to every kind of route that takes JSON: one table, the same answers everywhere.

use http::Method;

use crate::app::{App, at};

const PLACE: &str = "\u{1}";

/// Bodies around a member of the envelope, and what they are answered with. [`PLACE`] stands for the start of an envelope that is
/// fine so far.
fn bodies() -> Vec<(&'static str, Vec<u8>, u16, &'static str)> {
    let nested = |levels: usize| format!("{PLACE}\"x\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    let text = |text: &str| text.as_bytes().to_vec();
    let member = |value: &str| text(&format!("{PLACE}\"x\":{value}}}"));
    let (not_json, invalid) = ("invalid_json", "validation_failed");
    vec![
        ("nested as deep as may be", text(&nested(127)), 422, invalid),
        ("nested too deep", text(&nested(128)), 400, not_json),
        ("nested without end", text(&nested(100_000)), 400, not_json),
        ("only brackets", "[".repeat(200_000).into_bytes(), 400, not_json),
        ("only braces", "{\"a\":".repeat(30_000).into_bytes(), 400, not_json),
        ("a duplicate key", text(&format!("{PLACE}\"x\":1,\"x\":2}}")), 422, invalid),
        ("a duplicate key, escaped", text(&format!("{PLACE}\"x\":1,\"\\u0078\":2}}")), 422, invalid),
        ("NUL", member("\"\\u0000\""), 422, invalid),
        ("NUL in a name", text(&format!("{PLACE}\"\\u0000\":1}}")), 422, invalid),
        ("a NUL byte", member("\"\0\""), 400, not_json),
        ("a NUL byte behind it", text(&format!("{PLACE}\"x\":1}}\0")), 400, not_json),
        ("a lone surrogate", member(r#""\ud800""#), 422, invalid),
        ("half a pair and a letter", member(r#""\ud800\u0061""#), 422, invalid),
        ("a lone surrogate in a name", text(&format!("{PLACE}\"\\udfff\":1}}")), 422, invalid),
        ("a number that is out of range", member("1e999"), 422, invalid),
        ("a number of many digits", member(&"9".repeat(100_000)), 422, invalid),
        ("an exponent of many digits", member(&format!("1e{}", "9".repeat(10_000))), 422, invalid),
        ("minus zero with a tail", member("-00"), 400, not_json),
        ("NaN", member("NaN"), 400, not_json),
        ("invalid UTF-8", [text(&format!("{PLACE}\"x\":\"")), vec![0xc0, 0x80], text("\"}")].concat(), 400, not_json),
        (
            "a surrogate in UTF-8",
            [text(&format!("{PLACE}\"x\":\"")), vec![0xed, 0xa0, 0x80], text("\"}")].concat(),
            400,
            not_json,
        ),
        ("UTF-16", "{\"x\":1}".encode_utf16().flat_map(u16::to_be_bytes).collect(), 400, not_json),
        ("a byte order mark", text(&format!("\u{feff}{PLACE}\"x\":1}}")), 400, not_json),
        ("trailing bytes", text(&format!("{PLACE}\"x\":1}}}}")), 400, not_json),
        ("two documents", text(&format!("{PLACE}\"x\":1}} {{}}")), 400, not_json),
        ("a comment", text(&format!("{PLACE}\"x\":1 /* */}}")), 400, not_json),
        ("a trailing comma", text(&format!("{PLACE}\"x\":1,}}")), 400, not_json),
        ("no object", text("[]"), 422, invalid),
        ("a text", text("\"x\""), 422, invalid),
        ("cut off", text("{\"x\":"), 400, not_json),
    ]
}

#[tokio::test]
async fn json_of_strangers_is_judged_the_same_everywhere() {
    let app = App::start();
    let destination = app.destination(at("http://127.0.0.1:9999/hook")).await;
    let place = format!("/v1/destinations/{destination}");
    let routes = [
        (Method::POST, "/v1/events", r#"{"type":"a","data":1,"#),
        (Method::POST, "/v1/destinations", r#"{"url":"http://127.0.0.1:9999/hook","#),
        (Method::PUT, "/v1/destinations/of-mine", r#"{"url":"http://127.0.0.1:9999/hook","#),
        (Method::PATCH, place.as_str(), r#"{"name":"n","#),
        (Method::POST, "/v1/replays", r#"{"since":"2026-01-01T00:00:00Z","#),
    ];
    for (method, uri, start) in routes {
        for (what, body, status, code) in bodies() {
            let at = body.iter().position(|byte| *byte == PLACE.as_bytes()[0]);
            let body = match at {
                Some(at) => [&body[..at], start.as_bytes(), &body[at + 1..]].concat(),
                None => body,
            };
            let headers = [("content-type", "application/json")];
            let reply = app.with(method.clone(), uri, &headers, body).await;
            assert_eq!(
                (reply.status.as_u16(), &reply.body["code"]),
                (status, &code.into()),
                "{what}: {method} {uri}: {}",
                reply.body
            );
        }
    }
}

#[tokio::test]
async fn data_is_kept_as_it_was_written_however_strange() {
    let app = App::start();
    for data in [
        r#""\u0000""#,
        r#""\ud800""#,
        r#"{"\udfff":1}"#,
        r#"{"a":1,"a":2}"#,
        "1e999",
        "-0.0",
        "123456789012345678901234567890.10",
        r#"{ "a" :  [ ] }"#,
    ] {
        let body = format!(r#"{{"type":"a","data":{data}}}"#);
        let headers = [("content-type", "application/json")];
        let answer = app.with(Method::POST, "/v1/events", &headers, body).await.expect(202);
        let shown = app.get(&format!("/v1/events/{}", answer["id"].as_str().unwrap())).await;
        let text = String::from_utf8(shown.bytes.to_vec()).unwrap();
        assert!(text.contains(&format!("\"data\":{data}")), "{data}: {text}");
    }
}
