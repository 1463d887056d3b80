//! The management half of the API: destinations, and what became of events (deliveries, attempts, dead letters, replays).
//!
//! A handler finds what its path names, then judges its body, then calls one method of the store; [`views`] makes the
//! answer. Everything is asked for by tenant, so that another tenant's id is the same 404 as one that does not exist.

mod attempts;
mod audit_log;
mod dead_letters;
mod deliveries;
pub mod destination;
mod destination_actions;
mod destination_secret;
mod destinations;
mod event_reads;
pub mod fields;
mod filters;
mod keys;
mod named;
mod post;
mod replays;
pub mod tenant;
mod tenants;
pub mod views;

use destination::DestinationDefaults;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::AppState;

/// What an operator may set about it.
#[derive(Debug, Clone)]
pub struct ManageSettings {
    /// Up to how many deliveries a `dry_run` of a replay counts.
    pub dry_run_most: u64,
    /// What a destination has where its owner says nothing. `[destination_defaults]`.
    pub destination_defaults: DestinationDefaults,
}

impl Default for ManageSettings {
    fn default() -> Self {
        Self { dry_run_most: 1_000_000, destination_defaults: DestinationDefaults::default() }
    }
}

/// Its routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(event_reads::list))
        .routes(routes!(event_reads::get))
        .routes(routes!(event_reads::deliveries))
        .routes(routes!(event_reads::attempts))
        .routes(routes!(event_reads::replay))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::get))
        .routes(routes!(deliveries::attempts))
        .routes(routes!(deliveries::retry))
        .routes(routes!(deliveries::cancel))
        .routes(routes!(attempts::list))
        .routes(routes!(destinations::create, destinations::list))
        .routes(routes!(destinations::get, destinations::put, destinations::patch, destinations::delete))
        .routes(routes!(destination_actions::pause))
        .routes(routes!(destination_actions::resume))
        .routes(routes!(destination_actions::secret))
        .routes(routes!(destination_secret::rotate))
        .routes(routes!(destination_actions::test))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::get, dead_letters::discard))
        .routes(routes!(dead_letters::replay))
        .routes(routes!(replays::create, replays::list))
        .routes(routes!(replays::get))
        .routes(routes!(replays::cancel))
        .routes(routes!(tenants::create, tenants::list))
        .routes(routes!(tenants::get, tenants::patch, tenants::delete))
        .routes(routes!(keys::create, keys::list))
        .routes(routes!(keys::revoke))
        .routes(routes!(audit_log::list))
}
