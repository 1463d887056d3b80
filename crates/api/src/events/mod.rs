//! Taking events in: `POST /v1/events` and `POST /v1/events/batch`.
//!
//! A body is read by its form ([`native`], [`cloudevents`]) into a [`posted::Posted`], which is valid; [`accept`] gives it
//! an id, routes it and has it committed; [`answer`] is what the producer is told. `data` is never parsed into
//! values: its bytes go from the request to the store and to the destinations.

mod accept;
mod answer;
pub(crate) mod batch;
pub(crate) mod cloudevents;
pub(crate) mod native;
pub(crate) mod posted;
pub(crate) mod rules;
mod schema;
pub mod signed;
mod single;

use signalpost_telemetry::names;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{problem::Problem, state::AppState};

/// Its routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(single::post_event)).routes(routes!(batch::post_batch))
}

fn count_rejected(problem: &Problem) {
    metrics::counter!(names::EVENTS_REJECTED, "code" => problem.code.as_str()).increment(1);
}
