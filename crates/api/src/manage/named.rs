//! What a path, a filter or a body names: by our id, or, where it has one, by its owner's `uid`. A `uid` is never shaped like
//! an id, so a name means one thing.

use std::future::Future;

use signalpost_core::{DeliveryId, Destination, DestinationId, EventId, ReplayId, TenantId};
use signalpost_store::{
    manage::ReplayJob,
    read::{DeadLetter, DeliveryView},
};

use crate::{events::rules, problem::Problem, state::AppState};

/// Something that a path can name.
pub trait Named: Sized + Send {
    /// What people call it.
    const KIND: &'static str;

    /// Looks for it.
    fn look(
        state: &AppState,
        tenant: TenantId,
        name: &str,
    ) -> impl Future<Output = Result<Option<Self>, Problem>> + Send;

    /// The one with this name.
    ///
    /// # Errors
    /// 404; the store is away.
    fn find(state: &AppState, tenant: TenantId, name: &str) -> impl Future<Output = Result<Self, Problem>> + Send {
        async move { Self::look(state, tenant, name).await?.ok_or_else(|| Problem::not_found(Self::KIND)) }
    }
}

impl Named for DeliveryView {
    const KIND: &'static str = "delivery";

    async fn look(state: &AppState, tenant: TenantId, name: &str) -> Result<Option<Self>, Problem> {
        let Ok(id) = name.parse::<DeliveryId>() else { return Ok(None) };
        Ok(state.ports.store.delivery(tenant, id).await?)
    }
}

impl Named for DeadLetter {
    const KIND: &'static str = "dead letter";

    async fn look(state: &AppState, tenant: TenantId, name: &str) -> Result<Option<Self>, Problem> {
        let Ok(id) = name.parse::<DeliveryId>() else { return Ok(None) };
        Ok(state.ports.store.dead_letter(tenant, id).await?)
    }
}

impl Named for ReplayJob {
    const KIND: &'static str = "replay";

    async fn look(state: &AppState, tenant: TenantId, name: &str) -> Result<Option<Self>, Problem> {
        let Ok(id) = name.parse::<ReplayId>() else { return Ok(None) };
        Ok(state.ports.store.replay(tenant, id).await?)
    }
}

impl Named for Destination {
    const KIND: &'static str = "destination";

    async fn look(state: &AppState, tenant: TenantId, name: &str) -> Result<Option<Self>, Problem> {
        let store = &state.ports.store;
        Ok(match name.parse::<DestinationId>() {
            Ok(id) => store.destination(tenant, id).await?,
            Err(_) if rules::uid(name).is_err() => None,
            Err(_) => store.destination_by_uid(tenant, name).await?,
        })
    }
}

/// An event, by its id or by its producer's; the newest of those.
impl Named for EventId {
    const KIND: &'static str = "event";

    async fn look(state: &AppState, tenant: TenantId, name: &str) -> Result<Option<Self>, Problem> {
        let store = &state.ports.store;
        Ok(match name.parse::<EventId>() {
            Ok(id) => store.event(tenant, id).await?.map(|_| id),
            Err(_) if rules::uid(name).is_err() => None,
            Err(_) => store.event_by_uid(tenant, name).await?,
        })
    }
}
