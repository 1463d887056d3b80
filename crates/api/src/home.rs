//! `GET /`: where to go from here. A page for browsers, JSON for all others.

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;

use crate::html;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Links the documentation.
pub async fn home(headers: HeaderMap) -> Response {
    let mut response = if html::is_wanted(&headers) {
        let main = format!(
            "<p>Accepts events and delivers each one, signed, to every webhook destination that wants it.</p>\n\
             <p class=\"dim\">Version {VERSION}. Send a key with each request: <code>Authorization: Bearer …</code></p>\n\
             <nav><a href=\"/docs\">API</a> <a href=\"/openapi.json\">OpenAPI document</a> \
             <a href=\"/health/ready\">Health</a></nav>\n"
        );
        html::page("Signalpost", &main)
    } else {
        let links = json!({
            "name": "Signalpost",
            "version": VERSION,
            "docs": "/docs",
            "openapi": "/openapi.json",
            "health": "/health/ready",
        });
        Json(links).into_response()
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
}
