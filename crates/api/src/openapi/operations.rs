//! `/health/*` and `/metrics`, as the document has them. They only describe: `signalpost_telemetry::health` serves these
//! routes, the same in every service.

#![allow(dead_code, reason = "descriptions are never made")]

use std::collections::BTreeMap;

use utoipa::{OpenApi, ToSchema};

use crate::problem::ProblemBody;

/// The routes of operations.
#[derive(OpenApi)]
#[openapi(paths(live, ready, metrics))]
pub struct OperationRoutes;

/// Whether the process lives
///
/// It asks no dependency.
#[utoipa::path(
    get, path = "/health/live", tag = "operations", operation_id = "live",
    responses((status = 200, description = "It does.", body = Liveness)),
)]
const fn live() {}

/// Whether the service can do its main duty
///
/// On a listener that is not loopback, only the operator's key is shown more than the status.
#[utoipa::path(
    get, path = "/health/ready", tag = "operations", operation_id = "ready",
    responses(
        (status = 200, description = "It can, perhaps in a lesser way (`degraded`).", body = HealthReport),
        (status = 503, description = "It cannot.", body = HealthReport),
    ),
    security((), ("bearer" = []), ("apiKey" = [])),
)]
const fn ready() {}

/// Shows metrics
///
/// On a listener that is not loopback, with the operator's key only.
#[utoipa::path(
    get, path = "/metrics", tag = "operations", operation_id = "metrics",
    responses(
        (status = 200, description = "In the text format of Prometheus.", body = String,
            content_type = "text/plain; version=0.0.4; charset=utf-8"),
        (status = 401, description = "The key is missing or not known.", body = ProblemBody,
            content_type = "application/problem+json"),
    ),
    security((), ("bearer" = []), ("apiKey" = [])),
)]
const fn metrics() {}

/// That it lives.
#[derive(Debug, ToSchema)]
struct Liveness {
    /// Always `ok`.
    status: HealthStatus,
}

/// How a service is.
#[derive(Debug, ToSchema)]
struct HealthReport {
    /// The worst that a dependency brings about.
    status: HealthStatus,
    /// Which service.
    #[schema(required = false)]
    service: String,
    /// By name.
    #[schema(required = false)]
    dependencies: BTreeMap<String, HealthDependency>,
}

/// `degraded`: an optional dependency is missing; `unavailable`: a required one is.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(missing_docs)]
enum HealthStatus {
    Ok,
    Degraded,
    Unavailable,
}

/// How a dependency is.
#[derive(Debug, ToSchema)]
struct HealthDependency {
    /// It answered.
    ok: bool,
    /// The service cannot do its main duty without it.
    required: bool,
    /// What is wrong.
    #[schema(required = false)]
    error: String,
}
