//! The control paths of a receiver that runs as a process of its own: totals, requests, faults.

use http::{Method, Response};
use serde_json::json;

use crate::{
    Received,
    answer::{self, Body},
    server::Server,
};

/// Paths that begin so are not webhooks.
pub(crate) const PREFIX: &str = "/_receiver/";

/// Answers a request to a control path.
pub(crate) fn answer(server: &Server, method: &Method, path: &str, body: &[u8]) -> Response<Body> {
    match (method.as_str(), path.strip_prefix(PREFIX).unwrap_or_default()) {
        ("GET", "stats") => answer::json(200, &json!(server.log.stats())),
        ("GET", "requests") => {
            let requests: Vec<_> = server.log.received().iter().map(|received| show(received)).collect();
            answer::json(200, &json!({ "data": requests }))
        }
        ("DELETE", "requests") => {
            server.log.clear();
            answer::plain(204, "")
        }
        ("GET", "faults") => answer::json(200, &json!(server.faults())),
        ("PUT", "faults") => match serde_json::from_slice(body) {
            Ok(faults) => {
                server.set_faults(faults);
                answer::json(200, &json!(server.faults()))
            }
            Err(error) => answer::plain(422, format!("{error}\n")),
        },
        (_, "stats" | "requests" | "faults") => answer::plain(405, ""),
        _ => answer::plain(404, "stats, requests or faults\n"),
    }
}

/// A request as JSON. Bodies that are no text lose what is not UTF-8.
fn show(received: &Received) -> serde_json::Value {
    let headers: serde_json::Map<_, _> = received
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    json!({
        "at": received.at,
        "method": received.method.as_str(),
        "path": received.path,
        "headers": headers,
        "body": String::from_utf8_lossy(&received.body),
        "verdict": received.verdict,
        "status": received.status,
    })
}
