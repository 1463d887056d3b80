//! `/health/live`, `/health/ready` and `/metrics`, the same in every service.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use signalpost_core::key::KeyHash;
use subtle::ConstantTimeEq as _;

use super::{Health, Status};
use crate::Metrics;

/// Who sees details and metrics.
#[derive(Clone)]
pub enum Access {
    /// Everybody who reaches the listener: it is loopback, or there for them alone.
    Open,
    /// Who shows one of the operator's keys, of which these are the hashes: comparing hashes in constant time tells nothing of a key,
    /// not even its length. With no key: nobody.
    Keys(Arc<[KeyHash]>),
}

impl Access {
    /// By where a listener listens.
    pub fn for_listener(address: SocketAddr, operator_keys: &[String]) -> Self {
        if address.ip().to_canonical().is_loopback() {
            return Self::Open;
        }
        Self::Keys(operator_keys.iter().map(|key| KeyHash::of(key.as_bytes())).collect())
    }

    fn allows(&self, headers: &HeaderMap) -> bool {
        let Self::Keys(keys) = self else {
            return true;
        };
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
        });
        let shown = bearer.or_else(|| headers.get("x-api-key").and_then(|value| value.to_str().ok()));
        let shown = shown.map(|shown| KeyHash::of(shown.as_bytes()));
        // Every key is compared, and each in constant time.
        shown.is_some_and(|shown| {
            keys.iter().fold(false, |found, key| found | bool::from(key.as_bytes().ct_eq(shown.as_bytes())))
        })
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open => f.write_str("Open"),
            Self::Keys(keys) => write!(f, "Keys({})", keys.len()),
        }
    }
}

/// What the routes need.
#[derive(Debug, Clone)]
pub struct Operations {
    /// The checks.
    pub health: Health,
    /// The recorder.
    pub metrics: Metrics,
    /// Who sees details.
    pub access: Access,
}

/// The three routes, to be merged into others that set safe headers.
pub fn router(operations: Operations) -> Router {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(operations)
}

/// The three routes on a listener of their own.
pub fn alone(operations: Operations) -> Router {
    router(operations).layer(map_response(async |mut response: Response| {
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }))
}

/// The process runs: an answer is the answer. Asks no dependency, so that an outage restarts nobody.
async fn live() -> Json<serde_json::Value> {
    Json(json!({ "status": Status::Ok }))
}

async fn ready(State(operations): State<Operations>, headers: HeaderMap) -> Response {
    let report = operations.health.report().await;
    let code = if report.status == Status::Unavailable { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    if operations.access.allows(&headers) {
        (code, Json(report)).into_response()
    } else {
        (code, Json(json!({ "status": report.status }))).into_response()
    }
}

async fn metrics(State(operations): State<Operations>, headers: HeaderMap) -> Response {
    if !operations.access.allows(&headers) {
        return unauthorized();
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], operations.metrics.render()).into_response()
}

fn unauthorized() -> Response {
    let problem = json!({
        "type": "/problems/unauthorized",
        "title": "Unauthorized",
        "status": 401,
        "code": "unauthorized",
        "detail": "On this listener the metrics need the operator's key.",
    });
    let headers = [(header::CONTENT_TYPE, "application/problem+json"), (header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, headers, problem.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::{body::to_bytes, http::Request};
    use tower::ServiceExt as _;

    use super::*;

    const KEY: &str = "an-operators-key-1";

    fn operations(access: Access) -> Operations {
        let health = Health::new("api")
            .required("store", || std::future::ready(Ok(())))
            .optional("bus", || std::future::ready(Err("away".to_owned())));
        Operations { health, metrics: Metrics::install().expect("no other recorder"), access }
    }

    async fn ask(operations: Operations, path: &str, authorization: Option<(&str, &str)>) -> (StatusCode, String) {
        let mut request = Request::get(path);
        if let Some((name, value)) = authorization {
            request = request.header(name, value);
        }
        let request = request.body(axum::body::Body::empty()).expect("a request");
        let response = router(operations).oneshot(request).await.expect("a response");
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn loopback_shows_everything() {
        let access = Access::for_listener("127.0.0.1:8080".parse().expect("an address"), &[]);
        let (status, body) = ask(operations(access.clone()), "/health/ready", None).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&body).expect("JSON"),
            json!({"status": "degraded", "service": "api", "dependencies": {
                "bus": {"ok": false, "required": false, "error": "away"},
                "store": {"ok": true, "required": true},
            }})
        );
        let (status, body) = ask(operations(access), "/metrics", None).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("# TYPE signalpost_events_received_total counter"), "{body}");
    }

    #[tokio::test]
    async fn elsewhere_details_need_the_operators_key() {
        let access = Access::for_listener("0.0.0.0:8080".parse().expect("an address"), &[KEY.to_owned()]);
        let bearer = format!("Bearer {KEY}");
        for (header, status) in [
            (None, StatusCode::UNAUTHORIZED),
            (Some(("authorization", "Bearer an-operators-key-2")), StatusCode::UNAUTHORIZED),
            (Some(("authorization", KEY)), StatusCode::UNAUTHORIZED),
            (Some(("authorization", bearer.as_str())), StatusCode::OK),
            (Some(("x-api-key", KEY)), StatusCode::OK),
        ] {
            assert_eq!(ask(operations(access.clone()), "/metrics", header).await.0, status, "{header:?}");
            let (ready, body) = ask(operations(access.clone()), "/health/ready", header).await;
            assert_eq!(ready, StatusCode::OK, "readiness itself is for everybody");
            assert_eq!(body.contains("dependencies"), status == StatusCode::OK, "{header:?}: {body}");
        }
        assert_eq!(ask(operations(access), "/health/live", None).await.0, StatusCode::OK);
    }

    #[test]
    fn a_key_is_shown_by_no_debug() {
        let access = Access::for_listener("0.0.0.0:8080".parse().expect("an address"), &[KEY.to_owned()]);
        assert_eq!(format!("{access:?}"), "Keys(1)");
        let Access::Keys(hashes) = access else { panic!("it is no loopback") };
        assert_eq!(*hashes, [KeyHash::of(KEY.as_bytes())]);
    }

    #[tokio::test]
    async fn without_a_key_nobody_sees_metrics() {
        let access = Access::for_listener("[::]:8080".parse().expect("an address"), &[]);
        let (status, _) = ask(operations(access), "/metrics", Some(("x-api-key", ""))).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn alone_they_set_safe_headers_themselves() {
        for (path, status) in [("/health/live", 200), ("/health/ready", 200), ("/metrics", 401), ("/nonsense", 404)] {
            let request = Request::get(path).body(axum::body::Body::empty()).expect("a request");
            let router = alone(operations(Access::Keys([].into())));
            let response = router.oneshot(request).await.expect("a response");
            assert_eq!(response.status().as_u16(), status, "{path}");
            assert_eq!(response.headers()["x-content-type-options"], "nosniff", "{path}");
            assert_eq!(response.headers()["cache-control"], "no-store", "{path}");
        }
    }

    #[tokio::test]
    async fn a_missing_requirement_is_503_for_everybody() {
        let mut operations = operations(Access::Keys([].into()));
        operations.health = operations.health.required("disk", || std::future::ready(Err("full".to_owned())));
        let (status, body) = ask(operations, "/health/ready", None).await;
        assert_eq!((status, body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"unavailable"}"#));
    }
}
