//! The API: accepts events, routes them, commits them in groups, publishes them; and lets people manage destinations
//! and look at what became of events. Sees only ports.
//!
//! [`edge`] surrounds every handler; [`events`] takes events in, [`router`] tells where they go, [`ingest`] commits and
//! publishes; [`manage`] is all the rest.

pub mod audit;
pub mod auth;
#[cfg(feature = "benching")]
pub mod benching;
pub mod edge;
pub mod events;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod health;
mod home;
pub mod html;
pub mod idempotency;
pub mod ingest;
pub mod json;
pub mod manage;
mod meters;
pub mod openapi;
pub mod page;
pub mod problem;
pub mod quota;
pub mod router;
mod serve;
mod settings;
mod state;

use std::sync::Arc;

use axum::{Router, middleware, routing::get};
pub use manage::{
    ManageSettings,
    destination::{BadDefaults, DestinationDefaults},
};
pub use serve::{ConnectionLimits, serve};
pub use settings::{IngestSettings, MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MAX_MANAGE_BYTES, OperationsSettings, Settings};
use signalpost_runtime::Shutdown;
use signalpost_telemetry::{Health, health::Operations};
pub use state::{AppState, Ports};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;

/// A running API.
pub struct Api {
    state: AppState,
    router: Router,
    health: Health,
}

impl Api {
    /// Wires the API and starts its background work, which ends with `shutdown`.
    pub fn start(ports: Ports, settings: Settings, shutdown: Shutdown) -> Self {
        let health = health::health(&ports);
        let operations = settings.operations.clone();
        let state = AppState::new(ports, settings);
        let follower = Arc::clone(&state.router);
        let stop = shutdown.clone();
        tokio::spawn(async move { follower.follow(stop).await });
        let at = state.clone();
        tokio::spawn(async move { at.last_use.run(&*at.ports.store, shutdown).await });
        let mut router = routes(&state);
        if let Some(operations) = operations {
            router = router.merge(signalpost_telemetry::health::router(Operations {
                health: health.clone(),
                metrics: operations.metrics,
                access: operations.access,
            }));
        }
        let router = surround(router, &state);
        Self { state, router, health }
    }

    /// Surrounds further routes as our own are (request ids, problems, safe headers, metrics), to be merged with
    /// [`Self::router`].
    pub fn surround(&self, routes: Router) -> Router {
        surround(routes, &self.state)
    }

    /// All routes. Cloning gives another handle of the same.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// The checks behind `/health/ready`, for whoever serves that elsewhere.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Waits until everything that was taken in is committed and published, and notes when keys were last used.
    pub async fn drained(&self) {
        self.state.ingest.drained().await;
        if let Err(error) = self.state.last_use.flush(&*self.state.ports.store).await {
            tracing::warn!(%error, "the last use of keys could not be noted");
        }
    }
}

/// The document that describes every route, for the committed copy.
pub fn openapi_document() -> utoipa::openapi::OpenApi {
    openapi::complete(described().into_openapi())
}

/// Every route that the document describes; those of operations come from elsewhere.
fn described() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::operations::OperationRoutes::openapi())
        .merge(events::routes())
        .merge(manage::routes())
}

fn surround(routes: Router, state: &AppState) -> Router {
    routes.layer(middleware::from_fn_with_state(state.clone(), edge::edge))
}

fn routes(state: &AppState) -> Router {
    let (router, document) = described().split_for_parts();
    router
        .merge(openapi::routes(openapi::complete(document)))
        .route("/", get(home::home))
        .route("/problems/{code}", get(problem::explain))
        .with_state(state.clone())
}
