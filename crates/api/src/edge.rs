//! What surrounds every handler: the request's id, its span, its metrics, safe headers, and one form of error.
//!
//! The id of a request comes from the client (`X-Request-Id`, where it is harmless) or is made here; it stands in the
//! answer, in problems and in the log. Answers that axum makes by itself (404, 405, rejections) and panics become problems
//! here, so that no handler has to think of them.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    sync::{Arc, LazyLock},
};

use axum::{
    body::{self, Body},
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};
use signalpost_core::Entropy;
use signalpost_telemetry::{TraceContext, trace};
use tracing::Instrument as _;

use crate::{
    problem::{self, Code, Problem},
    state::AppState,
};

/// Carries the id of a request, in and out.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest address of a request, path and query together.
const MOST_URI: usize = 8192;

/// No problem is larger.
const MOST_PROBLEM: usize = 1024 * 1024;

/// The id of a request.
#[derive(Debug, Clone)]
pub struct RequestId(pub Arc<str>);

/// The middleware.
pub async fn edge(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let started = state.ports.clock.elapsed();
    let id = RequestId(request_id(request.headers(), &*state.ports.entropy));
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("other", MatchedPath::as_str);
    let span = tracing::info_span!(
        "request",
        request.id = %id.0,
        http.request.method = %request.method(),
        http.route = route,
    );
    if let Some(parent) = trace_parent(request.headers()) {
        trace::link(&span, parent);
    }
    request.extensions_mut().insert(id.clone());

    let length = request.uri().path_and_query().map_or(0, |address| address.as_str().len());
    let handled = async {
        if length > MOST_URI {
            let detail = format!("The address has {length} bytes; at most {MOST_URI} are taken.");
            return Problem::new(Code::UriTooLong, detail).into_response();
        }
        next.run(request).await
    };
    let handled = AssertUnwindSafe(handled).catch_unwind().instrument(span.clone()).await;
    let response = match handled {
        Ok(response) => with_problem(response, &id.0).await,
        Err(panic) => span.in_scope(|| Problem::internal(&message(&*panic))).respond(Some(&id.0)),
    };

    trace::status(&span, response.status().as_u16());
    let took = state.ports.clock.elapsed().saturating_sub(started);
    state.meters.measure(route, response.status(), took);
    with_headers(response, &id)
}

/// The trace context that goes on with what a request brings: of the request's own span where spans are exported, else
/// as the client sent it.
pub fn traceparent(headers: &HeaderMap) -> Option<String> {
    trace::current(&tracing::Span::current()).or_else(|| trace_parent(headers)).map(|context| context.to_string())
}

fn trace_parent(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::parse(headers.get("traceparent")?.to_str().ok()?)
}

fn request_id(headers: &HeaderMap, entropy: &dyn Entropy) -> Arc<str> {
    let given = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    let harmless = |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    given.filter(harmless).map_or_else(
        || {
            let mut random = [0; 16];
            entropy.fill(&mut random);
            format!("req_{:032x}", u128::from_be_bytes(random)).into()
        },
        Into::into,
    )
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a handler panicked: {}", text.unwrap_or("no message"))
}

/// Gives a problem the request's id; makes one of an error that has no body of its own.
async fn with_problem(mut response: Response, request_id: &str) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if is_bare(response.headers()) => from_status(status),
        None if is_problem(response.headers()) => return with_id(response, request_id).await,
        None => return response,
    };
    let mut answer = problem.respond(Some(request_id));
    // `Allow` and whatever else the handler set; but for what describes the body that is gone.
    for (name, value) in response.headers() {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH && !answer.headers().contains_key(name) {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer
}

/// A problem of others, or one that was kept and is given again.
async fn with_id(response: Response, request_id: &str) -> Response {
    let (mut parts, body) = response.into_parts();
    let whole = body::to_bytes(Body::new(body), MOST_PROBLEM).await.unwrap_or_default();
    let Ok(mut problem) = serde_json::from_slice::<Map<String, Value>>(&whole) else {
        return Response::from_parts(parts, Body::from(whole));
    };
    problem.insert("request_id".to_owned(), request_id.into());
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(Value::from(problem).to_string()))
}

fn is_problem(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes() == problem::MEDIA_TYPE.as_bytes())
}

/// Whether a body is none, or plain text: axum's own words.
fn is_bare(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_none_or(|value| value.as_bytes().starts_with(b"text/plain"))
}

fn from_status(status: StatusCode) -> Problem {
    match status {
        StatusCode::NOT_FOUND => Problem::new(Code::NotFound, "There is nothing at this address."),
        StatusCode::METHOD_NOT_ALLOWED => {
            Problem::new(Code::MethodNotAllowed, "This address does not know the method; see the header Allow.")
        }
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::PayloadTooLarge, "The body is too large."),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Problem::new(Code::UnsupportedMediaType, "The Content-Type is not one that this address takes.")
        }
        status if status.is_client_error() => Problem::new(Code::BadRequest, "The request cannot be read."),
        StatusCode::SERVICE_UNAVAILABLE => Problem::unavailable("The service cannot do this now."),
        status => Problem::internal(&status),
    }
}

/// Headers that a browser needs to be told; a handler that serves a page sets its own.
static SAFE: LazyLock<HeaderMap> = LazyLock::new(|| {
    let safe = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    ];
    safe.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
});

fn with_headers(mut response: Response, id: &RequestId) -> Response {
    let headers = response.headers_mut();
    // A copy of those, into which the answer's own ones are put: that is cheaper than the reverse.
    let own = std::mem::replace(headers, SAFE.clone());
    headers.extend(own);
    if let Ok(id) = HeaderValue::from_str(&id.0) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answers_own_headers_win_and_keep_all_their_values() {
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
        for cookie in ["a=1", "b=2"] {
            headers.append(header::SET_COOKIE, HeaderValue::from_static(cookie));
        }
        let response = with_headers(response, &RequestId("req_1".into()));
        let all = |name| response.headers().get_all(name).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>();
        assert_eq!(all(header::CACHE_CONTROL), ["max-age=60"]);
        assert_eq!(all(header::SET_COOKIE), ["a=1", "b=2"]);
        assert_eq!(all(header::X_FRAME_OPTIONS), ["DENY"]);
        assert_eq!(all(REQUEST_ID), ["req_1"]);
        assert_eq!(response.headers().len(), SAFE.len() + 3);
    }
}
